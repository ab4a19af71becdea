"""Callbacks after each epoch: history, checkpoints, averaged weights, progress."""

from __future__ import annotations

import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ProgressBar, WeightAveraging
from lightning.pytorch.utilities import rank_zero_only
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from genre_classifier.config.schema import TrainConfig, is_higher_better
from genre_classifier.data.batches import Chunk, Chunks
from genre_classifier.errors import ConfigError
from genre_classifier.files.atomic import replacing
from genre_classifier.runs.folder import (
    RunFolder,
    writing,
)
from genre_classifier.terminal import say
from genre_classifier.training.chunks import AfterStep

log = logging.getLogger(__name__)


def read_metric(trainer: pl.Trainer, monitor: str) -> float:
    """Return the epoch's value of a metric.

    Raises
    ------
    ConfigError
        No such metric is logged.
    """
    if monitor not in trainer.callback_metrics:
        names = ", ".join(sorted(name for name in trainer.callback_metrics if "by_genre" not in name))
        raise ConfigError(f"the metric {monitor!r} is not logged; there are {names}")
    return float(trainer.callback_metrics[monitor])


class History(Checkpoint):
    """Writes history.csv, one row per epoch, and keeps it in the checkpoint, so that a resumed run has all rows.

    A Checkpoint, because Lightning runs those after the module's own end of the epoch.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.rows: list[dict[str, float]] = []
        self.by_genre: dict[int, dict[str, float]] = {}  # by epoch; for the loggers of a resumed run
        self._epoch_started = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch_started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        seconds = time.perf_counter() - self._epoch_started
        said = self.add(trainer.current_epoch, trainer.global_step, metrics, seconds)
        if trainer.is_global_zero:
            self.folder.write_history(self.rows)
        log.info("epoch %d of %s: %s", trainer.current_epoch, trainer.max_epochs, said)

    def add(self, epoch: int, step: int, metrics: Mapping[str, float], seconds: float) -> str:
        """Add an epoch's row, and return its line for the log."""
        by_genre = {name: value for name, value in metrics.items() if _is_by_genre(name)}
        overall = metrics.keys() - by_genre.keys()
        order = sorted(overall, key=lambda name: (name.partition("/")[0] != "train", "/" not in name, name))
        row: dict[str, float] = {"epoch": epoch, "step": step}
        row |= {name: metrics[name] for name in order}
        row["seconds"] = round(seconds, 4)
        self.rows.append(row)
        self.by_genre[epoch] = by_genre
        shown = [name for name in ("train/loss", "val/loss", "val/f1") if name in metrics]
        return ", ".join(f"{name} {metrics[name]:.4f}" for name in shown)

    def state_dict(self) -> dict[str, Any]:
        return self.build_state(len(self.rows))

    def build_state(self, n_rows: int) -> dict[str, Any]:
        """Return the state at the end of an epoch: the first rows."""
        # One tensor, since a checkpoint of many small objects takes long to write.
        rows = [row | self.by_genre.get(int(row["epoch"]), {}) for row in self.rows[:n_rows]]
        names = list(dict.fromkeys(name for row in rows for name in row))
        table = [[row.get(name, math.nan) for name in names] for row in rows]
        return {"names": names, "table": torch.tensor(table, dtype=torch.float64)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if "rows" in state_dict:  # the form up to version 0.1
            rows = list(state_dict["rows"])
        else:
            whole = {"epoch", "step"}
            rows = [
                {
                    name: int(value) if name in whole else value
                    for name, value in zip(state_dict["names"], values, strict=True)
                    if not math.isnan(value)
                }
                for values in state_dict["table"].tolist()
            ]
        self.rows = [{name: row[name] for name in row if not _is_by_genre(name)} for row in rows]
        self.by_genre = {
            int(row["epoch"]): {name: row[name] for name in row if _is_by_genre(name)} for row in rows
        }


def _is_by_genre(name: str) -> bool:
    return "by_genre" in name


class RunCheckpoint(Checkpoint):
    """Writes last.ckpt after every epoch and best.ckpt after the best one, each in one step.

    Parameters
    ----------
    folder : RunFolder
    monitor : str or None
        A logged metric. Its name says whether higher is better. With None, each epoch counts as the best so far.
    extras : mapping of str to Any, optional
        Entries that every checkpoint gets beside Lightning's.
    """

    def __init__(
        self, folder: RunFolder, monitor: str | None, extras: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = folder
        self.monitor = monitor
        self.extras = dict(extras or {})
        self.best_score: float | None = None
        self.best_epoch: int | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            with writing(self.folder.checkpoints):
                self.folder.checkpoints.mkdir(parents=True, exist_ok=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        score = None if self.monitor is None else read_metric(trainer, self.monitor)
        improved = self.note_if_best(trainer.current_epoch, score)
        if not trainer.is_global_zero:
            trainer.save_checkpoint(
                self.folder.last_checkpoint, weights_only=False
            )  # every process must take part; only the first one writes
            return
        last = self.folder.last_checkpoint
        with writing(last), replacing(last) as temporary:
            trainer.save_checkpoint(temporary, weights_only=False)
        # last.ckpt comes first. A run that is killed between the two files finds its best epoch there.
        if improved:
            with writing(self.folder.best_checkpoint), replacing(self.folder.best_checkpoint) as best:
                _link_or_copy(last, best)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint |= self.extras

    def state_dict(self) -> dict[str, Any]:
        # For readers of the file. A resumed run computes both from the history (see replay).
        return {"best_score": self.best_score, "best_epoch": self.best_epoch}

    def replay(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Replay the history of the run that this one continues."""
        for row in rows:
            self.note_if_best(
                int(row["epoch"]), None if self.monitor is None else _read_value(row, self.monitor)
            )

    def note_if_best(self, epoch: int, score: float | None) -> bool:
        """Return whether an epoch is the best one so far, and take note of it."""
        if not self.is_better(score):
            return False
        self.best_score, self.best_epoch = score, epoch
        return True

    def is_better(self, score: float | None) -> bool:
        """Return whether a score is better than the best one so far."""
        if self.monitor is None or score is None or self.best_score is None:
            return True
        return score > self.best_score if is_higher_better(self.monitor) else score < self.best_score


def _link_or_copy(source: Path, target: Path) -> None:
    # No checkpoint is ever written in place, so two names may share one file.
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


class ResumableEarlyStopping(EarlyStopping):
    """Lightning's early stopping. A resumed run computes its state from the history.

    The present patience, margin and metric therefore apply from the first epoch on.
    """

    stopped = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.stopped:
            trainer.should_stop = True

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing, because `replay` has set the state."""

    def replay(self, rows: Sequence[Mapping[str, float]]) -> int | None:
        """Replay the history of the run that this one continues.

        Returns
        -------
        int or None
            The first epoch, from 0, at which it asks to stop.
        """
        first = None
        for row in rows:
            if self.observe(int(row["epoch"]), _read_value(row, self.monitor)) and first is None:
                first = int(row["epoch"])
        return first

    def observe(self, epoch: int, value: float) -> bool:
        """Record an epoch's value, and return whether to stop."""
        stop, reason = self._evaluate_stopping_criteria(torch.tensor(value))
        if stop:
            self.stopped, self.stopped_epoch = True, epoch
            self.stopping_reason_message = reason
        return stop


def build_early_stopping(settings: TrainConfig) -> ResumableEarlyStopping:
    """Return the callback that callbacks.early_stopping asks for."""
    chosen = settings.callbacks.early_stopping
    assert chosen is not None
    return ResumableEarlyStopping(
        monitor=chosen.monitor,
        mode="max" if is_higher_better(chosen.monitor) else "min",
        patience=chosen.patience,
        min_delta=chosen.min_delta,
        check_on_train_epoch_end=True,
    )


def _read_value(row: Mapping[str, float], monitor: str) -> float:
    if monitor not in row:
        names = ", ".join(name for name in row if "/" in name)
        raise ConfigError(f"the metric {monitor!r} was not logged in the resumed run; there are {names}")
    return row[monitor]


class EMA(AfterStep, WeightAveraging):
    """Lightning's weight averaging with an exponential moving average after every optimizer step.

    Validation, checkpoints and the finished run use the averaged weights.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))

    def on_optimizer_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.on_train_batch_end(trainer, pl_module, None, None, 0)


class EpochProgress(ProgressBar):
    """Shows one bar for the whole run in a terminal. Elsewhere it prints a line every few seconds."""

    SECONDS_BETWEEN_LINES = 5.0

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None
        self._enabled = True
        self._last_line = time.monotonic()

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    @rank_zero_only
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loader = trainer.train_dataloader
        batches = loader.n_batches if isinstance(loader, Chunks) else int(trainer.num_training_batches)
        self._bar = tqdm(
            total=batches * (trainer.max_epochs or 1),
            initial=batches * trainer.current_epoch,
            disable=not (self._enabled and sys.stderr.isatty()),
            unit="batch",
            desc="training",
            leave=False,
            dynamic_ncols=True,
        )

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._bar.update(batch.n_batches if isinstance(batch, Chunk) else 1)

    @rank_zero_only
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        shown = "val/f1" if "val/f1" in trainer.callback_metrics else "train/f1"
        score = trainer.callback_metrics.get(shown, torch.tensor(float("nan")))
        text = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}, {shown} {float(score):.3f}"
        self._bar.set_description_str(text, refresh=False)
        now = time.monotonic()
        if self._enabled and self._bar.disable and now - self._last_line > self.SECONDS_BETWEEN_LINES:
            self._last_line = now
            say(text, error=True)

    @rank_zero_only
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._bar.close()

    @rank_zero_only
    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.close()
