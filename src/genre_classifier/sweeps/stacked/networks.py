"""Ask the engine which networks it trains. A separate process runs the networks' code, which may do anything."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genre_classifier.class_names import import_class
from genre_classifier.config.schema import TrainConfig
from genre_classifier.errors import TrialFailedError
from genre_classifier.files.atomic import write_text
from genre_classifier.files.documents import read_json
from genre_classifier.machine.child_process import die_with_parent
from genre_classifier.sweeps.processes import run_in_process


@dataclass(frozen=True)
class _Question:
    """The arguments of the process.

    Parameters
    ----------
    models : tuple of dict
        ``_target_`` and arguments of each network.
    answers : Path
        The JSON file for the reasons, in the order of the models.
    """

    models: tuple[dict[str, Any], ...]
    answers: Path


class NetworkQuestions:
    """The reasons why the engine refuses trials' networks. Each network is checked once."""

    def __init__(self) -> None:
        self._reasons: dict[str, str | None] = {}

    def find_refusals(self, trials: Sequence[TrainConfig]) -> list[str | None]:
        """Return for each trial the reason why the engine refuses its network; None if it takes the network."""
        models = [dict(vars(settings.model)) for settings in trials]
        new: dict[str, dict[str, dict[str, Any]]] = {}
        for model in models:
            if _make_key(model) not in self._reasons:
                new.setdefault(model["_target_"], {})[_make_key(model)] = model
        for target, asked in new.items():
            self._reasons |= dict(zip(asked, _ask(target, list(asked.values())), strict=True))
        return [self._reasons[_make_key(model)] for model in models]


def _make_key(model: Mapping[str, Any]) -> str:
    return json.dumps(model, sort_keys=True, default=list)


def _ask(target: str, models: Sequence[dict[str, Any]]) -> list[str | None]:
    with tempfile.TemporaryDirectory() as folder:
        answers = Path(folder) / "reasons.json"
        ended = run_in_process(_answer, _Question(tuple(models), answers), f"network-{target}")
        if not answers.exists():
            return [f"recording the forward pass of {target} failed: {ended}"] * len(models)
        reasons: list[str | None] = read_json(answers, TrialFailedError)
        return reasons


def _answer(question: _Question) -> None:
    die_with_parent()
    from genre_classifier.training.engine.layers import find_refusal
    from genre_classifier.training.lit_module import build_network

    reasons: list[str | None] = []
    for model in question.models:
        try:
            import_class(model["_target_"])
            # The table is not read yet, so the numbers of features and genres are examples. The stack asks again.
            reasons.append(find_refusal(build_network({**model, "input_dim": 20, "num_classes": 8})))
        except Exception as error:
            reasons.append(f"the network cannot be built ({type(error).__name__}: {error})")
    write_text(question.answers, json.dumps(reasons))
