"""Let the engine train a run inside Lightning. One training_step takes several mini-batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.nn import functional

from genre_classifier.data.batches import Chunk
from genre_classifier.training.engine.steps import Engine, Trained

if TYPE_CHECKING:
    from genre_classifier.training.lit_module import GenreLitModule

# Lightning calls these hooks for every mini-batch or optimizer step. The engine calls none of them.
LEFT_OUT_HOOKS = (
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)


@dataclass(frozen=True)
class StepSettings:
    """Settings that Lightning refuses in manual optimization. The engine applies them.

    Parameters
    ----------
    batches_an_epoch : int
        Mini-batches, limits considered.
    batch_size : int
    gradient_clip_val : float, optional
    gradient_clip_algorithm : str
        ``norm`` or ``value``.
    """

    batches_an_epoch: int
    batch_size: int
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: str = "norm"

    def limit(self, algorithm: str) -> float:
        """Return the limit of the gradient's norm or values."""
        clips = self.gradient_clip_val is not None and self.gradient_clip_algorithm == algorithm
        return self.gradient_clip_val if clips and self.gradient_clip_val is not None else float("inf")


class AfterStep:
    """Part of a callback that acts after every optimizer step: the engine calls this in place of
    ``on_train_batch_end``."""

    def on_optimizer_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called after every optimizer step of a chunk."""


def find_unsupported_hook(callbacks: list[pl.Callback]) -> str | None:
    """Return the first callback hook that the engine does not call, as ``Class.hook``; None if there is none."""
    for callback in callbacks:
        for hook in LEFT_OUT_HOOKS:
            if is_overridden(hook, callback, parent=pl.Callback):
                return f"{type(callback).__name__}.{hook}"
    return None


class ChunkedOptimization:
    """Runs the engine over a run's chunks, with the steps that Lightning takes around each optimizer step.

    Parameters
    ----------
    module : GenreLitModule
        Its trainer has made the optimizer.
    settings : StepSettings

    Raises
    ------
    RefusedError
        The engine does not know the network.
    """

    def __init__(self, module: GenreLitModule, settings: StepSettings) -> None:
        trainer = module.trainer
        self.module = module
        self.settings = settings
        self.engine = Engine(
            [module.build_learner(trainer.optimizers[0], settings)], settings.batch_size, module.device
        )
        # Lightning's global_step is this count. LightningOptimizer.step counts too, but takes as long as the step.
        self.progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        self.schedulers = {
            interval: [c.scheduler for c in trainer.lr_scheduler_configs if c.interval == interval]
            for interval in ("step", "epoch")
        }
        self.listeners: list[Callable[[], None]] = [
            partial(callback.on_optimizer_step_end, trainer, module)
            for callback in trainer.callbacks  # type: ignore[attr-defined]
            if isinstance(callback, AfterStep)
        ]

    def start_epoch(self) -> None:
        """Begin the random numbers of an epoch."""
        self.engine.start_epoch([self.module.current_epoch], [self.settings.batches_an_epoch])

    def run(self, chunk: Chunk) -> None:
        """Train on a chunk's mini-batches, one after the other."""
        rows, batch_size = len(chunk.genres), self.settings.batch_size
        missing = -rows % batch_size
        # The engine takes whole mini-batches. It learns nothing from the rows that fill one up.
        features = functional.pad(chunk.features, (0, 0, 0, missing))[None]  # (member, row, feature)
        genres = functional.pad(chunk.genres, (0, missing))[None]  # (member, row)
        valid = torch.arange(rows + missing, device=genres.device)[None] < rows
        self.engine.run(features.split(batch_size, dim=1), genres, valid, self._finish_step)
        if self.module.trainer.is_last_batch:
            self._step_schedulers(self.schedulers["epoch"])

    def finish_epoch(self) -> Trained:
        """Return the results of the epoch's steps."""
        return self.engine.finish_epoch()

    def _finish_step(self, members: list[int]) -> None:
        self.progress.increment_ready()
        self.progress.increment_completed()
        self._step_schedulers(self.schedulers["step"])
        for listener in self.listeners:
            listener()

    def _step_schedulers(self, schedulers: list[Any]) -> None:
        for scheduler in schedulers:
            self.module.lr_scheduler_step(scheduler, None)


def equalize_step_counts(checkpoint: dict[str, Any]) -> None:
    """Set a checkpoint's two counts of optimizer steps to the larger one: the counts of chunks and of plain batches.

    Lightning keeps them apart. A run that continued in the other mode would count from 0.
    """
    loops = checkpoint["loops"]["fit_loop"]
    by_batch = loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]
    by_chunk = loops["epoch_loop.manual_optimization.optim_step_progress"]["total"]
    for name in by_batch:
        by_batch[name] = by_chunk[name] = max(by_batch[name], by_chunk[name])
