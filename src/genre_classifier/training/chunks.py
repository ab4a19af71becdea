"""Several mini-batches in one training_step: what Lightning does around each optimizer step, without its overhead."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from genre_classifier.data.batches import Chunk
from genre_classifier.training.backprop import NetworkPass, autograd_pass, explicit_pass
from genre_classifier.training.fused_step import step_function
from genre_classifier.training.objective import Targets, loss_gradient

if TYPE_CHECKING:
    from genre_classifier.training.lit_module import GenreLitModule

# Lightning calls these for every mini-batch or optimizer step; here they would not be called.
LEFT_OUT_HOOKS = (
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)


@dataclass(frozen=True)
class StepSettings:
    """What Lightning refuses to do in manual optimization, so that the chunks do it.

    Parameters
    ----------
    batches_an_epoch : int
        Mini-batches, limits considered.
    accumulate_grad_batches : int
    gradient_clip_val : float, optional
    gradient_clip_algorithm : str
        ``norm`` or ``value``.
    """

    batches_an_epoch: int
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: str = "norm"

    @property
    def steps_an_epoch(self) -> int:
        """Optimizer steps; the last one may accumulate fewer mini-batches."""
        return -(-self.batches_an_epoch // self.accumulate_grad_batches)


class AfterStep:
    """Part of a callback that acts after every optimizer step: in a chunk this is called in place of
    ``on_train_batch_end``."""

    def on_optimizer_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called after every optimizer step of a chunk."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What a chunk's mini-batches gave, in their order.

    Parameters
    ----------
    logits : Tensor [shape=(row, genre)]
    genres : Tensor [shape=(row,)]
        The true genres, or after mixup those with the larger share.
    targets : Targets
    """

    logits: Tensor
    genres: Tensor
    targets: Targets


def unsupported_hook(callbacks: list[pl.Callback]) -> str | None:
    """Return the first hook of the callbacks that a chunk would leave out, as ``Class.hook``, if there is one."""
    for callback in callbacks:
        for hook in LEFT_OUT_HOOKS:
            if is_overridden(hook, callback, parent=pl.Callback):
                return f"{type(callback).__name__}.{hook}"
    return None


class ChunkedOptimization:
    """Forward, backward, clipping, optimizer and scheduler steps over a chunk's mini-batches.

    Parameters
    ----------
    module : GenreLitModule
        Its trainer has made the optimizer.
    settings : StepSettings
    """

    def __init__(self, module: GenreLitModule, settings: StepSettings) -> None:
        trainer = module.trainer
        self.module = module
        self.settings = settings
        self.optimizer = trainer.optimizers[0]
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.optimizer_step = step_function(self.optimizer)
        self.network_pass = _network_pass(module)
        # global_step is what is counted here; LightningOptimizer.step counts too, but costs as much as the step itself.
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
        self.accumulated = 0

    def start_epoch(self) -> None:
        """Forget what an epoch that was cut short had accumulated."""
        self.accumulated = 0

    def run(self, chunk: Chunk) -> Trained:
        """Train on a chunk's mini-batches, one after the other."""
        network_pass = self.network_pass
        targets = self.module.targets_of(chunk.genres, chunk.batch_size)
        last = chunk.n_batches - 1 if self.module.trainer.is_last_batch else None
        without_autocast = _without_autocast(self.module.device.type)
        parts = [part.split(chunk.batch_size) for part in (chunk.features, chunk.genres, *targets)]
        kept = []
        for number, (features, genres, *target) in enumerate(zip(*parts, strict=True)):
            features, genres, batch_targets = self.module.mixed(features, genres, Targets(*target))
            logits, backward = network_pass(features)
            with without_autocast():
                self._backward(backward, loss_gradient(logits, batch_targets), is_last=number == last)
            kept.append((logits, genres, *batch_targets))
        if last is not None:
            for scheduler in self.schedulers["epoch"]:
                self.module.lr_scheduler_step(scheduler, None)
        logits, genres, *target = (torch.cat(tensors) for tensors in zip(*kept, strict=True))
        return Trained(logits, genres, Targets(*target))

    def _backward(self, backward: Callable[[Tensor], None], gradient: Tensor, *, is_last: bool) -> None:
        if self.accumulated == 0:
            for parameter in self.parameters:
                parameter.grad = None
        if self.settings.accumulate_grad_batches > 1:
            gradient.mul_(1.0 / self.settings.accumulate_grad_batches)
        backward(gradient)
        self.accumulated += 1
        if is_last or self.accumulated == self.settings.accumulate_grad_batches:
            self._step()

    def _step(self) -> None:
        self.accumulated = 0
        if self.settings.gradient_clip_val is not None:
            self.module.clip_gradients(
                self.optimizer, self.settings.gradient_clip_val, self.settings.gradient_clip_algorithm
            )
        self.progress.increment_ready()
        self.optimizer_step()
        self.progress.increment_completed()
        for scheduler in self.schedulers["step"]:
            self.module.lr_scheduler_step(scheduler, None)
        for listener in self.listeners:
            listener()


def _network_pass(module: GenreLitModule) -> NetworkPass:
    whole_precision = module.trainer.precision in {"32-true", "64-true"}
    if whole_precision and not torch.is_anomaly_enabled():
        explicit = explicit_pass(module.network)
        if explicit is not None:
            return explicit
    return autograd_pass(module)


def _without_autocast(device_type: str) -> Callable[[], AbstractContextManager[object]]:
    """Return what shields backward and optimizer from the autocast that Lightning puts around a training step."""
    if torch.is_autocast_enabled(device_type):
        return partial(torch.autocast, device_type, enabled=False)
    return nullcontext


def same_steps_in_both_modes(checkpoint: dict[str, Any]) -> None:
    """Give a checkpoint's two counts of optimizer steps, that of chunks and that of plain batches, one value.

    Lightning keeps them apart, so a run that goes on in the other mode would count from 0.
    """
    loops = checkpoint["loops"]["fit_loop"]
    plain = loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]
    chunked = loops["epoch_loop.manual_optimization.optim_step_progress"]["total"]
    for name in plain:
        plain[name] = chunked[name] = max(plain[name], chunked[name])
