from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from genre_classifier.errors import ConfigError
from genre_classifier.runs.folder import RunFolder
from genre_classifier.training.callbacks import EpochProgress, History, RunCheckpoint, read_metric


def trainer(**metrics: float) -> Any:
    values = {name.replace("__", "/"): torch.tensor(value) for name, value in metrics.items()}
    return SimpleNamespace(
        callback_metrics=values,
        num_training_batches=4,
        max_epochs=3,
        current_epoch=0,
        is_global_zero=True,
        train_dataloader=None,
    )


def test_a_metric_that_is_not_logged_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match="the metric 'val/f1' is not logged; there are train/f1, val/loss"):
        read_metric(trainer(train__f1=0.5, val__loss=1.0), "val/f1")


@pytest.mark.parametrize(
    ("monitor", "scores", "best"), [("val/f1", [0.1, 0.3, 0.3, 0.2], 1), ("val/loss", [3, 1, 1, 2], 1)]
)
def test_the_first_of_equal_epochs_stays_the_best(monitor: str, scores: list[float], best: int) -> None:
    callback = RunCheckpoint(RunFolder(cast(Any, None)), monitor)
    for epoch, score in enumerate(scores):
        if callback.is_better(score):
            callback.best_score, callback.best_epoch = score, epoch
    assert callback.best_epoch == best


def test_the_bar_is_silent_outside_a_terminal_and_counts_every_batch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bar = EpochProgress()
    run = trainer(val__f1=0.5)
    bar.on_train_start(run, cast(Any, None))
    for _ in range(4):
        bar.on_train_batch_end(run, cast(Any, None), None, None, 0)
    bar.on_train_epoch_end(run, cast(Any, None))
    bar.on_train_end(run, cast(Any, None))
    assert capsys.readouterr().err == ""


def test_a_long_run_outside_a_terminal_says_where_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EpochProgress, "SECONDS_BETWEEN_LINES", -1.0)
    bar = EpochProgress()
    bar.on_train_start(trainer(), cast(Any, None))
    bar.on_train_epoch_end(trainer(val__f1=0.5), cast(Any, None))
    assert capsys.readouterr().err == "epoch 1/3, val/f1 0.500\n"


def test_the_history_of_a_checkpoint_is_restored_exactly_also_from_the_older_form() -> None:
    rows: list[dict[str, float]] = [
        {"epoch": 0, "step": 27, "train/loss": 1.25, "seconds": 0.1},
        {"epoch": 1, "step": 54, "train/loss": 1 / 3, "val/f1": 0.1 + 0.2, "seconds": 0.2},
    ]
    written = History(RunFolder(cast(Any, None)))
    written.rows = rows
    for state in (written.state_dict(), {"rows": rows}):
        read = History(RunFolder(cast(Any, None)))
        read.load_state_dict(state)
        assert read.rows == rows
        assert all(type(row[name]) is int for row in read.rows for name in ("epoch", "step"))
