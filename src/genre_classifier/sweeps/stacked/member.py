"""A stack member: its state between epochs, saved in the same files as a single run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from genre_classifier.data.batches import RowOrder
from genre_classifier.errors import CheckpointError
from genre_classifier.files.atomic import replacing
from genre_classifier.runs.folder import read_checkpoint, writing
from genre_classifier.training.callbacks import EMA, History, RunCheckpoint, build_early_stopping
from genre_classifier.training.chunks import StepSettings
from genre_classifier.training.lit_module import check_training_state, copy_to_cpu, refuse_divergence
from genre_classifier.training.run import Run


class Member:
    """A run that is trained in a stack.

    Parameters
    ----------
    run : Run
        Prepared.

    Attributes
    ----------
    epoch : int
        The number of the present epoch, from 0.
    steps : int
        Optimizer steps so far.
    done : bool
        Whether its training has ended.
    average : Tensor [shape=(parameter,)] or None
        Its averaged weights; None without callbacks.ema.
    rows_key : str
        Key of its rows among the stack's sets of rows.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        settings = run.settings
        self.features, self.genres = run.datamodule.side("train")
        self.batch_size = settings.data.batch_size
        self.order = RowOrder(len(self.genres), shuffle=True, seed=settings.seed)
        self.steps_an_epoch = -(-len(self.genres) // self.batch_size)
        self.epoch = self.steps = 0
        self.done = False
        self.history = History(run.folder)
        self.keeper = (
            RunCheckpoint(run.folder, settings.callbacks.checkpoint.monitor)
            if settings.callbacks.checkpoint is not None
            else None
        )
        self.stopping = (
            build_early_stopping(settings) if settings.callbacks.early_stopping is not None else None
        )
        self.ema = None if settings.callbacks.ema is None else settings.callbacks.ema.decay
        self.average: Tensor | None = None
        self.n_averaged = 0
        self.rows_key = ""
        self._should_stop = False
        self._best: dict[str, Any] | None = None
        self._best_is_written = False
        self._unlogged: list[tuple[dict[str, float], int]] = []
        self._lines: list[str] = []

    def attach(self, trainer: pl.Trainer) -> None:
        """Make optimizer and scheduler as a single run's trainer would, and load the run's checkpoint if it resumes.

        Parameters
        ----------
        trainer : Trainer
            Of the stack.
        """
        module = self.run.module
        module.trainer = trainer
        steps = StepSettings(
            batches_an_epoch=self.steps_an_epoch,
            batch_size=self.batch_size,
            gradient_clip_val=self.run.settings.trainer.gradient_clip_val,
            gradient_clip_algorithm=self.run.settings.trainer.gradient_clip_algorithm.value,
        )
        module.train_in_chunks(steps)
        made = module.configure_optimizers()
        self.optimizer: torch.optim.Optimizer = made["optimizer"]
        self.learner = module.build_learner(self.optimizer, steps)
        scheduler = made.get("lr_scheduler", {})
        self.scheduler: LRScheduler | ReduceLROnPlateau | None = scheduler.get("scheduler")
        self.interval: str = scheduler.get("interval", "epoch")
        if self.run.resumed is not None:
            self._restore(self.run.resumed.path)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The optimizer's current settings."""
        return self.optimizer.param_groups[0]

    @property
    def max_epochs(self) -> int:
        """The largest number of epochs."""
        return self.run.settings.trainer.max_epochs

    def finish_step(self) -> None:
        """Count an optimizer step, and step a scheduler whose interval is a step."""
        self.steps += 1
        if self.interval == "step" and self.scheduler is not None:
            self._move_scheduler()

    def finish_batches(self) -> None:
        """Step a scheduler whose interval is an epoch."""
        if self.interval == "epoch" and self.scheduler is not None:
            self._move_scheduler()

    def _move_scheduler(self) -> None:
        if isinstance(self.scheduler, LRScheduler) and not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()

    def record_epoch(
        self, values: Mapping[str, float], by_genre: Mapping[str, float], seconds: float
    ) -> None:
        """Record an epoch: history, early stopping, best and last checkpoint.

        Parameters
        ----------
        values : mapping of str to float
            Metrics such as ``val/f1``.
        by_genre : mapping of str to float
            Validation F1 by genre, for the charts.
        seconds : float

        Raises
        ------
        DivergedError
            A loss is not finite.
        """
        for split in ("val", "train"):
            if (loss := values.get(f"{split}/loss")) is not None:
                refuse_divergence(loss, split, self.epoch, self.run.settings.optimizer.lr)
        metrics = {**values, "learning_rate": float(self.hyperparameters["lr"])}
        self._unlogged.append(({**metrics, **by_genre, "epoch": self.epoch}, self.steps - 1))
        # Lightning gives metrics to callbacks in single precision.
        metrics = {name: float(np.float32(value)) for name, value in metrics.items()}
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(metrics[self.run.module.hparams["scheduler"]["monitor"]])
        if self.stopping is not None:
            self._check_early_stopping(metrics[self.stopping.monitor])
        said = self.history.add(self.epoch, self.steps, {**metrics, **by_genre}, seconds)
        self._say(f"epoch {self.epoch} of {self.max_epochs}: {said}")
        self._keep(metrics)
        self.epoch += 1
        enough = self.epoch >= (self.run.settings.trainer.min_epochs or 1)
        self.done = self.epoch >= self.max_epochs or (self._should_stop and enough)

    def _check_early_stopping(self, value: float) -> None:
        assert self.stopping is not None
        self._should_stop = self.stopping.observe(self.epoch, value) or self._should_stop

    def _keep(self, metrics: Mapping[str, float]) -> None:
        keeper = self.keeper
        if keeper is None:
            return
        score = None if keeper.monitor is None else metrics[keeper.monitor]
        if keeper.note_if_best(self.epoch, score):
            self._best = self._copy_state(self.epoch)
            self._best_is_written = False

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose weights are evaluated: the best one, or without checkpoints the last one."""
        if self.keeper is not None:
            return self.keeper.best_epoch
        return int(self.history.rows[-1]["epoch"]) if self.history.rows else None

    def _copy_state(self, epoch: int) -> dict[str, Any]:
        """Return what changes from epoch to epoch in a checkpoint, with copies on the CPU."""
        current = self.run.module.state_dict()
        content: dict[str, Any] = {
            "epoch": epoch,
            "global_step": self.steps,
            "state_dict": self._replace_by_averages(current),
            "callbacks": self._collect_callback_states(),
            "optimizer_states": [self.optimizer.state_dict()],
            "lr_schedulers": [] if self.scheduler is None else [self.scheduler.state_dict()],
        }
        if self.average is not None:
            content["current_model_state"] = current
            content["averaging_state"] = {"n_averaged": torch.tensor(self.n_averaged)}
        copied: dict[str, Any] = copy_to_cpu(content)
        return copied

    def _build_checkpoint(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the checkpoint that Lightning would write at the end of the epoch of a `_copy_state`."""
        epochs = state["epoch"] + 1
        n_rows = next(
            place for place, row in enumerate(self.history.rows, start=1) if row["epoch"] == state["epoch"]
        )
        history = {self.history.state_key: self.history.build_state(n_rows)}
        return {
            **state,
            "pytorch-lightning_version": pl.__version__,
            "loops": _build_loops_state(
                epochs, state["global_step"], has_validation=len(self.run.datamodule.side("val")[1]) > 0
            ),
            "callbacks": state["callbacks"] | history,
            "hparams_name": "kwargs",
            "hyper_parameters": dict(self.run.module.hparams),
            **self.run.checkpoint_extras,
        }

    def _replace_by_averages(self, current: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.average is None:
            return current
        names = [f"network.{name}" for name, _ in self.run.module.network.named_parameters()]
        averaged, start = dict(current), 0
        for name in names:
            end = start + current[name].numel()
            averaged[name] = self.average[start:end].view(current[name].shape)
            start = end
        return averaged

    def _collect_callback_states(self) -> dict[str, Any]:
        states: dict[str, Any] = {}
        if self.stopping is not None:
            states[self.stopping.state_key] = self.stopping.state_dict()
        if self.ema is not None:
            states[EMA.__qualname__] = {"latest_update_step": self.steps}
        if self.keeper is not None:
            states[self.keeper.state_key] = self.keeper.state_dict()
        return states

    def _restore(self, path: Path) -> None:
        content = read_checkpoint(path)
        module = self.run.module
        try:
            check_training_state(content, module)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}; the trial cannot go on from it") from error
        weights = content.get("current_model_state", content["state_dict"])
        module.load_state_dict(weights)
        self.optimizer.load_state_dict(content["optimizer_states"][0])
        if self.scheduler is not None and content["lr_schedulers"]:
            self.scheduler.load_state_dict(content["lr_schedulers"][0])
        self.history.load_state_dict(content["callbacks"][self.history.state_key])
        for callback in (self.stopping, self.keeper):
            if callback is not None:
                callback.replay(self.history.rows)
        if self.ema is not None and "averaging_state" in content:
            self.n_averaged = int(content["averaging_state"]["n_averaged"])
            names = [f"network.{name}" for name, _ in module.network.named_parameters()]
            self.average = torch.cat([content["state_dict"][name].flatten() for name in names])
        self.epoch, self.steps = int(content["epoch"]) + 1, int(content["global_step"])
        if self.stopping is not None:
            self._should_stop = self.stopping.stopped
        enough = self.epoch >= (self.run.settings.trainer.min_epochs or 1)
        self.done = self.epoch >= self.max_epochs or (self._should_stop and enough)
        self._say(f"goes on from epoch {self.epoch}")

    def write(self) -> None:
        """Write the run's folder up to the last finished epoch."""
        folder = self.run.folder
        if self.history.rows:
            folder.write_history(self.history.rows)
        if self.run.logger is not None:
            for values, step in self._unlogged:
                self.run.logger.log_metrics(values, step)
            self.run.logger.save()
        self._unlogged.clear()
        self.write_log()
        if self.keeper is not None and self.history.rows:
            self._write_checkpoints()

    def write_log(self) -> None:
        """Append the new messages to train.log."""
        path = self.run.folder.log
        with writing(path), path.open("a", encoding="utf-8") as stream:
            stream.writelines(self._lines)
        self._lines.clear()

    def _write_checkpoints(self) -> None:
        folder = self.run.folder
        with writing(folder.checkpoints):
            folder.checkpoints.mkdir(parents=True, exist_ok=True)
        last_epoch = self.epoch - 1
        if self._best is not None and not self._best_is_written:
            _save(self._build_checkpoint(self._best), folder.best_checkpoint)
            self._best_is_written = True
        if self._best is not None and self._best["epoch"] == last_epoch:
            with writing(folder.last_checkpoint), replacing(folder.last_checkpoint) as temporary:
                shutil.copyfile(folder.best_checkpoint, temporary)
            return
        _save(self._build_checkpoint(self._copy_state(last_epoch)), folder.last_checkpoint)

    def take_best_weights(self) -> bool:
        """Load the weights of the best epoch into the run's module. Return False if they are only on disk."""
        if self.keeper is None:
            weights = copy_to_cpu(self._replace_by_averages(self.run.module.state_dict()))
        elif self._best is not None:
            weights = self._best["state_dict"]
        else:
            return False
        self.run.module.load_state_dict(weights)
        return True

    def _say(self, text: str) -> None:
        now = datetime.now()
        stamp = f"{now:%Y-%m-%d %H:%M:%S},{now.microsecond // 1000:03d}"
        self._lines.append(f"{stamp} INFO {__name__}: {text}\n")


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    with writing(path), replacing(path) as temporary:
        torch.save(checkpoint, temporary)


def _build_loops_state(epochs: int, steps: int, *, has_validation: bool) -> dict[str, Any]:
    """Return the state of Lightning's loops at the end of an epoch of one training step."""

    def batches(total: int, current: int, last: bool) -> dict[str, Any]:
        names = ("ready", "completed", "started", "processed")
        return {
            "total": dict.fromkeys(names, total),
            "current": dict.fromkeys(names, current),
            "is_last_batch": last,
        }

    def twice(names: tuple[str, ...], value: int) -> dict[str, Any]:
        return {part: dict.fromkeys(names, value) for part in ("total", "current")}

    once = ("ready", "completed")
    evaluated = int(has_validation)
    epoch = {"ready": epochs, "completed": epochs - 1, "started": epochs, "processed": epochs}
    unused: dict[str, Any] = {"state_dict": {}, "batch_progress": batches(0, 0, last=False)}
    prediction = {
        "state_dict": {},
        "batch_progress": twice(("ready", "completed", "started", "processed"), 0),
    }
    return {
        "fit_loop": {
            "state_dict": {},
            "epoch_loop.state_dict": {"_batches_that_stepped": epochs},
            "epoch_loop.batch_progress": batches(epochs, 1, last=True),
            "epoch_loop.scheduler_progress": twice(once, 0),
            "epoch_loop.automatic_optimization.state_dict": {},
            "epoch_loop.automatic_optimization.optim_progress": {
                "optimizer": {"step": twice(once, 0), "zero_grad": twice((*once, "started"), 0)}
            },
            "epoch_loop.manual_optimization.state_dict": {},
            "epoch_loop.manual_optimization.optim_step_progress": twice(once, steps),
            "epoch_loop.val_loop.state_dict": {},
            "epoch_loop.val_loop.batch_progress": batches(evaluated, evaluated, last=has_validation),
            "epoch_progress": {"total": epoch, "current": dict(epoch)},
        },
        "validate_loop": unused,
        "test_loop": {"state_dict": {}, "batch_progress": batches(0, 0, last=False)},
        "predict_loop": prediction,
    }
