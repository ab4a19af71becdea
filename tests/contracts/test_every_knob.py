"""Every leaf of the configuration, changed alone, changes something that can be seen, or is exempt with its reason."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from tests.conftest import composed

EXEMPT = {
    "run_dir": "where the run goes; every test here sets it",
    "ckpt_path": "tested in tests/training/test_fit.py (resume)",
    "data.source": "chosen with the group",
    "data.path": "the table itself",
    "data.nan": "tested in tests/data/test_sources.py",
    "data.label": "tested in tests/data/test_sources.py",
    "data.id": "tested in tests/data/test_sources.py",
    "data.split.column": "tested in tests/data/test_splits.py",
    "data.split.files.train": "tested in tests/data/test_splits.py",
    "data.split.files.val": "tested in tests/data/test_splits.py",
    "data.split.files.test": "tested in tests/data/test_splits.py",
    "model._target_": "another class; tested in test_another_network_can_be_chosen",
    "optimizer._target_": "chosen with the group",
    "scheduler._target_": "chosen with the group",
    "scheduler.interval": "belongs to the scheduler's kind; tested below for cosine",
    "trainer.accelerator": "needs another device",
    "trainer.devices": "tested in tests/e2e (two processes)",
    "trainer.num_nodes": "needs a second machine",
    "trainer.strategy": "tested in tests/e2e (two processes)",
    "trainer.batches_per_training_step": "changes nothing but the time; tested in tests/training/test_chunks.py",
    "trainer.max_time": "depends on the clock",
    "trainer.deterministic": "nothing on the CPU is otherwise",
    "trainer.enable_progress_bar": "the bar is for a terminal; tested in tests/training/test_callbacks.py",
    "trainer.profiler": "tested below by its report",
    "trainer.detect_anomaly": "tested below by its effect on autograd",
    "loss.class_weights": "the tables here are balanced; tested in tests/training/test_lit_module.py",
    "sweep.resume": "of a multirun; tested in tests/e2e/test_sweep_command.py",
    "sweep.max_trials": "of a multirun; tested in tests/e2e/test_sweep_command.py",
    "threads": "tested below by torch's own count",
}


@dataclass(frozen=True)
class Knob:
    key: str
    value: str
    base: tuple[str, ...] = ()
    with_it: tuple[str, ...] = ()  # what must change along, since the three shares add up to 1, say


KNOBS = [
    Knob("seed", "7"),
    Knob("optimized_metric", "val/loss", ("trainer.max_epochs=10", "optimizer.lr=0.05")),
    Knob("data.batch_size", "8"),
    Knob("data.group", "null"),
    Knob("data.features", "[f0,f1]"),
    Knob("data.split.method", "stratified"),
    Knob("data.split.train", "0.6", with_it=("data.split.val=0.2", "data.split.test=0.2")),
    Knob("data.split.val", "0.2", with_it=("data.split.train=0.65",)),
    Knob("data.split.test", "0.2", with_it=("data.split.train=0.65",)),
    Knob("data.split.seed", "1"),
    Knob("data.split.folds", "3", with_it=("data.split.fold=0",)),
    Knob("data.split.fold", "1", ("data.split.folds=3", "data.split.fold=0")),
    Knob("model.hidden_dims", "[16,8]"),
    Knob("model.dropout", "0.0"),
    Knob("loss.label_smoothing", "0.4"),
    Knob("loss.mixup", "0.4"),
    Knob("optimizer.lr", "0.01"),
    Knob("optimizer.weight_decay", "0.5"),
    Knob("optimizer.betas", "[0.5,0.9]"),
    Knob("optimizer.eps", "0.1"),
    Knob("optimizer.momentum", "0.5", ("optimizer=sgd",)),
    Knob("optimizer.nesterov", "false", ("optimizer=sgd",)),
    Knob("scheduler.T_max", "2", ("scheduler=cosine",)),
    Knob("scheduler.eta_min", "0.0009", ("scheduler=cosine",)),
    Knob("scheduler.epochs", "9", ("scheduler=one_cycle",)),
    Knob("scheduler.max_lr", "0.05", ("scheduler=one_cycle",)),
    Knob("scheduler.pct_start", "0.6", ("scheduler=one_cycle",)),
    Knob("scheduler.div_factor", "2", ("scheduler=one_cycle",)),
    Knob("scheduler.final_div_factor", "2", ("scheduler=one_cycle",)),
    Knob("scheduler.cycle_momentum", "true", ("scheduler=one_cycle",)),
    Knob(
        "scheduler.monitor", "train/loss", ("scheduler=plateau", "scheduler.patience=0", "optimizer.lr=0.01")
    ),
    Knob("scheduler.factor", "0.1", ("scheduler=plateau", "scheduler.patience=0", "scheduler.threshold=0.9")),
    Knob("scheduler.patience", "1", ("scheduler=plateau", "scheduler.patience=0", "scheduler.threshold=0.9")),
    Knob(
        "scheduler.threshold",
        "0.9",
        ("scheduler=plateau", "scheduler.patience=0", "scheduler.monitor=train/loss"),
    ),
    Knob(
        "scheduler.min_lr", "0.0009", ("scheduler=plateau", "scheduler.patience=0", "scheduler.threshold=0.9")
    ),
    Knob("trainer.precision", "64-true"),
    Knob("trainer.max_epochs", "2"),
    Knob(
        "trainer.min_epochs",
        "6",
        ("trainer.max_epochs=8", "callbacks.early_stopping.patience=1", "optimizer.lr=1e-9"),
    ),
    Knob("trainer.gradient_clip_val", "0.01"),
    Knob("trainer.gradient_clip_algorithm", "value", ("trainer.gradient_clip_val=0.01",)),
    Knob("trainer.accumulate_grad_batches", "2"),
    Knob("trainer.limit_train_batches", "1"),
    Knob("trainer.overfit_batches", "1"),
    Knob(
        "callbacks.early_stopping.monitor",
        "train/loss",
        ("trainer.max_epochs=8", "callbacks.early_stopping.patience=1"),
    ),
    Knob("callbacks.early_stopping.patience", "1", ("trainer.max_epochs=8", "optimizer.lr=1e-9")),
    Knob(
        "callbacks.early_stopping.min_delta",
        "0.9",
        ("trainer.max_epochs=8", "callbacks.early_stopping.patience=2", "optimizer.lr=0.01"),
    ),
    Knob("callbacks.checkpoint.monitor", "val/ece", ("trainer.max_epochs=6", "optimizer.lr=0.02")),
    Knob("callbacks.ema.decay", "0.5", ("callbacks=ema",)),
]


Outcome = tuple[Any, ...]


def outcome(result: Any) -> Outcome:
    """What can be seen of a run: its weights, metrics, epochs and best epoch."""
    state = torch.load(result.folder.last_checkpoint, weights_only=True)
    tensors = tuple(tuple(value.double().flatten().tolist()) for value in state["state_dict"].values())
    return tensors, str(result.metrics), result.best_epoch, result.folder.history_csv.read_text().count("\n")


@pytest.fixture(scope="module")
def outcome_of(
    tmp_path_factory: pytest.TempPathFactory, music_overrides: list[str]
) -> Callable[..., Outcome]:
    """A function that trains with the given overrides and returns the outcome; each set of overrides trains once."""

    @cache
    def go(*overrides: str) -> Outcome:
        from genre_classifier.training.fit import train

        folder = tmp_path_factory.mktemp("knob")
        result = train(composed(*music_overrides, "trainer.max_epochs=4", f"run_dir={folder}", *overrides))
        return outcome(result)

    return go


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: f"{knob.key}={knob.value}")
def test_every_knob_does_something(knob: Knob, outcome_of: Callable[..., Outcome]) -> None:
    assert outcome_of(*knob.base) != outcome_of(*knob.base, *knob.with_it, f"{knob.key}={knob.value}")


def leaves(node: Any, path: str = "") -> Iterator[str]:
    if OmegaConf.is_dict(node):
        for name in node:
            child = node._get_node(name)
            yield from leaves(
                child if OmegaConf.is_dict(child) and not child._is_none() else None, f"{path}{name}."
            )
    else:
        yield path.rstrip(".")


def test_every_leaf_is_tried_or_exempt() -> None:
    choices = [
        ["optimizer=adam", "scheduler=cosine", "callbacks=ema", "data=table"],
        ["optimizer=adamw", "scheduler=one_cycle"],
        ["optimizer=sgd", "scheduler=plateau"],
    ]
    found = {leaf for choice in choices for leaf in leaves(composed(*choice))}
    parts = {leaf.rpartition(".")[0] for leaf in found}  # a part that is null in another choice
    found = {leaf for leaf in found if not leaf.startswith("logger") and leaf not in parts}
    tried = {knob.key for knob in KNOBS}
    assert found - tried - set(EXEMPT) == set()
    assert set(EXEMPT) & tried == set()
    assert (tried | set(EXEMPT)) - found == set()


def test_another_network_can_be_chosen(tmp_path: Path, music_overrides: list[str]) -> None:
    from genre_classifier.training.fit import train
    from genre_classifier.training.lit_module import GenreLitModule

    target = "model._target_=tests.contracts.linear_network.LinearNetwork"
    result = train(composed(*music_overrides, f"run_dir={tmp_path}", target))
    assert result is not None
    assert result.best_checkpoint is not None
    assert type(GenreLitModule.load(result.best_checkpoint).network).__name__ == "LinearNetwork"


def test_the_cosine_scheduler_moves_by_step_when_asked(tmp_path: Path, music_overrides: list[str]) -> None:
    from genre_classifier.training.fit import train

    rates = []
    for interval in ("epoch", "step"):
        overrides = ["scheduler=cosine", f"scheduler.interval={interval}", f"run_dir={tmp_path / interval}"]
        result = train(composed(*music_overrides, *overrides))
        assert result is not None
        rates.append([line.split(",") for line in result.folder.history_csv.read_text().splitlines()])
    assert rates[0] != rates[1]


def test_threads_profiler_and_anomaly_detection_reach_torch_and_lightning(
    tmp_path: Path,
    music_overrides: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from genre_classifier.training.fit import train
    from genre_classifier.training.lit_module import GenreLitModule

    seen = []
    original = GenreLitModule.training_step

    def watching(self: GenreLitModule, batch: Any, batch_idx: int) -> Any:
        seen.append((torch.get_num_threads(), torch.is_anomaly_enabled()))
        return original(self, batch, batch_idx)

    monkeypatch.setattr(GenreLitModule, "training_step", watching)
    settings = ["threads=2", "trainer.detect_anomaly=true", "trainer.profiler=simple"]
    with caplog.at_level("INFO"):
        train(composed(*music_overrides, f"run_dir={tmp_path}", *settings))
    assert set(seen) == {(2, True)}
    assert "run_training_epoch" in caplog.text
