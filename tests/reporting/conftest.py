"""Folders to report on, trained once: a run, a random one, a failed one, a cross-validation, a sweep."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from genre_classifier.config.settings import flatten_settings
from genre_classifier.errors import DivergedError
from genre_classifier.reporting.report import write_report
from genre_classifier.runs.folder import RunFolder
from genre_classifier.runs.sweep_folder import SweepFolder
from genre_classifier.training.fit import train
from tests.conftest import composed


@dataclass(frozen=True)
class Folders:
    """Finished and other folders, not to be changed: `copied` gives one that may be."""

    run: Path
    random: Path
    failed: Path
    folds: Path
    sweep: Path


def train_into(folder: Path, overrides: list[str]) -> None:
    """Train, and leave the overrides where Hydra would."""
    asked = [text for text in overrides if not text.startswith("run_dir")]
    path = RunFolder(folder).overrides_yaml
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"- {json.dumps(text)}\n" for text in asked))
    train(composed(*overrides, f"run_dir={folder}"))


def _sweep(folder: Path, base: list[str], trials: list[list[str]]) -> Path:
    for number, overrides in enumerate(trials):
        try:
            train_into(folder / str(number), [*base, *overrides])
        except DivergedError:
            continue
    record: dict[str, Any] = {
        "started": "2026-11-23T20:00:00+00:00",
        "overrides": ["data=table", "seed=1,2"],
        "optimized_metric": "val/f1",
        "expected": len(trials),
        "settings": flatten_settings(composed(*base, "run_dir=run_dir")),
    }
    SweepFolder(folder).write_sweep(record)
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, music_overrides: list[str]) -> Folders:
    """Trained once; a log as Hydra would write it lies in the failed one."""
    outputs = tmp_path_factory.mktemp("reported") / "outputs"
    diverging = ["optimizer=sgd", "optimizer.lr=1e6", "loss.label_smoothing=0"]
    run, random, failed = (outputs / "runs" / "day" / name for name in ("run", "random", "failed"))
    train_into(run, [*music_overrides, "trainer.max_epochs=12", "scheduler=cosine"])
    train_into(random, [*music_overrides, "data/split=stratified"])
    with pytest.raises(DivergedError):
        train_into(failed, [*music_overrides, *diverging])
    (failed / "train.log").write_text("".join(f"line {number}\n" for number in range(100)))
    folded = [*music_overrides, "data.split.folds=3", "trainer.max_epochs=4"]
    folds = _sweep(
        outputs / "sweeps" / "day" / "folds", folded, [[f"data.split.fold={fold}"] for fold in range(3)]
    )
    trials = [
        ["seed=1"],
        ["seed=2"],
        ["model.dropout=0.5", "seed=1"],
        ["model.dropout=0.5", "seed=2"],
        diverging,
    ]
    sweep = _sweep(outputs / "sweeps" / "day" / "sweep", music_overrides, trials)
    return Folders(run, random, failed, folds, sweep)


@pytest.fixture(scope="session")
def pages(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of every kind of folder; of the random run without the grouped number, which it would train."""
    target = tmp_path_factory.mktemp("pages")
    kinds = [field.name for field in fields(Folders)]
    return {
        kind: write_report(
            getattr(folders, kind), target / f"{kind}.html", with_rows=kind in {"run", "folds"}
        )[0]
        for kind in kinds
    }


@pytest.fixture
def copied(tmp_path: Path) -> Callable[..., Path]:
    """A function that copies a folder, without the named files, and returns the copy."""

    def copy(folder: Path, *without: str, name: str = "copy") -> Path:
        target = tmp_path / name
        shutil.copytree(folder, target)
        for path in without:
            if (target / path).is_dir():
                shutil.rmtree(target / path)
            else:
                (target / path).unlink()
        return target

    return copy
