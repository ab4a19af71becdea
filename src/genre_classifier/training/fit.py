"""``train(cfg) -> Result``: the one function behind train.py, every launcher and every test."""

from __future__ import annotations

import logging
import re
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from omegaconf import DictConfig

from genre_classifier.config.schema import TrainConfig
from genre_classifier.data.datamodule import GenreDataModule
from genre_classifier.errors import ConfigError
from genre_classifier.training.callbacks import (
    EMA,
    EpochProgress,
    History,
    RunCheckpoint,
    build_early_stopping,
)
from genre_classifier.training.chunks import StepSettings, find_unsupported_hook
from genre_classifier.training.engine.layers import find_refusal
from genre_classifier.training.engine.settings import find_refused_setting
from genre_classifier.training.lit_module import GenreLitModule
from genre_classifier.training.run import Result, Run, to_dict

log = logging.getLogger(__name__)

# The logger by which Lightning reports the end of a process that it started for another device.
LAUNCHER_LOG = "lightning.fabric.strategies.launchers.subprocess_script"


def train(cfg: DictConfig) -> Result | None:
    """Train one configuration and write its run folder.

    Parameters
    ----------
    cfg : DictConfig
        Composed, as train.py gets it.

    Returns
    -------
    Result or None
        None in a distributed run's processes other than the first.

    Raises
    ------
    ConfigError, DataError, SplitError, CheckpointError, RunFolderError, DivergedError
        The message says what to do. run.json then has the status ``failed`` and the reason.
    """
    run = Run(cfg)
    settings = run.settings
    leave_messages_to_root()
    with run.record.kept(), threads(settings.threads), warnings.catch_warnings():
        # Lightning 2.6 with torch 2.13 causes this warning. A user cannot act on it.
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
        # A resumed run may have other callbacks than the earlier one, for example early stopping.
        warnings.filterwarnings(
            "ignore", message=".*callbacks used to create the checkpoint need to be provided"
        )
        pl.seed_everything(settings.seed, workers=True, verbose=False)
        run.prepare()
        if run.resumed is not None and run.resumed.is_complete(settings):
            return run.conclude_earlier() if run.is_first_process else None
        trainer, history, checkpoint = _build_trainer(run)
        with _recording_other_processes(run):
            _fit(trainer, run)
        if not trainer.is_global_zero:
            return None
        return run.conclude(history.rows, _find_best_epoch(history, checkpoint))


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch use this number of CPU threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def leave_messages_to_root() -> None:
    """Remove Lightning's log handler if the run has set up logging, so that the run decides what is printed."""
    if logging.root.hasHandlers():
        logging.getLogger("lightning").handlers.clear()


def _build_trainer(run: Run) -> tuple[pl.Trainer, History, RunCheckpoint | None]:
    settings, folder, module, datamodule = run.settings, run.folder, run.module, run.datamodule
    chosen = settings.callbacks
    earlier = [] if run.resumed is None else run.resumed.history.rows
    history = History(folder)
    callbacks: list[Callback] = [history]
    if chosen.early_stopping is not None:
        stopping = build_early_stopping(settings)
        stopping.replay(earlier)
        callbacks.append(stopping)
    if chosen.ema is not None:
        callbacks.append(EMA(chosen.ema.decay))
    if settings.trainer.enable_progress_bar:
        callbacks.append(EpochProgress())
    checkpoint = None
    if chosen.checkpoint is not None:
        checkpoint = RunCheckpoint(folder, chosen.checkpoint.monitor, run.checkpoint_extras)
        checkpoint.replay(earlier)
        callbacks.append(checkpoint)
    arguments = to_dict(settings.trainer)
    if settings.trainer.gradient_clip_val is None:
        arguments["gradient_clip_algorithm"] = None
    arguments["log_every_n_steps"] = _count_batches_an_epoch(settings, datamodule)
    arguments |= _set_up_engine(settings, callbacks, module, datamodule)
    del arguments["batches_per_training_step"]
    try:
        trainer = pl.Trainer(
            **arguments,
            logger=run.logger or False,
            callbacks=callbacks,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=None if len(datamodule.data_split.val) else 0,
            use_distributed_sampler=False,
            default_root_dir=folder.path,
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise ConfigError(f"trainer: {error}") from error
    return trainer, history, checkpoint


def _set_up_engine(
    settings: TrainConfig, callbacks: list[Callback], module: GenreLitModule, datamodule: GenreDataModule
) -> dict[str, Any]:
    """Let the engine train if it can, and return the Trainer's arguments for it. Otherwise log why autograd trains."""
    reason = _find_reason_for_autograd(settings, callbacks, module)
    if reason is not None:
        rank_zero_only(log.info)("autograd trains the network, one mini-batch at a time: %s", reason)
        return {}
    chosen = settings.trainer
    module.train_in_chunks(
        StepSettings(
            batches_an_epoch=_count_batches_an_epoch(settings, datamodule),
            batch_size=settings.data.batch_size,
            gradient_clip_val=chosen.gradient_clip_val,
            gradient_clip_algorithm=chosen.gradient_clip_algorithm.value,
        )
    )
    datamodule.batches_per_chunk = chosen.batches_per_training_step
    return {"gradient_clip_val": None, "gradient_clip_algorithm": None, "log_every_n_steps": 1}


def _find_reason_for_autograd(
    settings: TrainConfig, callbacks: list[Callback], module: GenreLitModule
) -> str | None:
    """Return why the engine cannot train a run; None if it can."""
    if (setting := find_refused_setting(settings)) is not None:
        return f"the engine has no {setting}"
    if (hook := find_unsupported_hook(callbacks)) is not None:
        return f"{hook} must be called for each of them"
    if (reason := find_refusal(module.network)) is not None:
        return f"in {type(module.network).__name__}, {reason}"
    return None


def _count_batches_an_epoch(settings: TrainConfig, datamodule: GenreDataModule) -> int:
    rows = len(datamodule.side("train")[1])
    batches = -(-rows // (settings.data.batch_size * settings.trainer.devices * settings.trainer.num_nodes))
    limits = (settings.trainer.limit_train_batches, settings.trainer.overfit_batches or None)
    return max(1, min([batches, *(limit for limit in limits if limit is not None)]))


@contextmanager
def _recording_other_processes(run: Run) -> Iterator[None]:
    """Record the end of another device's process. Lightning then kills this process at once."""

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if found := re.search(r"terminated with code (-?\d+)", record.getMessage()):
                run.record.fail_because(
                    f"the process of another device ended with exit code {found[1]}; its output says why. "
                    "Lightning then stopped this one"
                )

    logger, watch = logging.getLogger(LAUNCHER_LOG), Watch()
    level = logger.level
    logger.addHandler(watch)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(watch)
        logger.setLevel(level)


def _fit(trainer: pl.Trainer, run: Run) -> None:
    ckpt_path = None if run.resumed is None else run.resumed.path
    try:
        trainer.fit(run.module, datamodule=run.datamodule, ckpt_path=ckpt_path, weights_only=True)
    except SIGTERMException as stopped:  # a SystemExit without a code, which looks like success
        run.record.fail(stopped)
        log.warning("%s", run.record.build_interruption(trainer.current_epoch))
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit:
        # Lightning turns Ctrl-C into an exit after it has closed down.
        if not trainer.interrupted:
            raise
        raise run.record.build_interruption(trainer.current_epoch) from None


def _find_best_epoch(history: History, checkpoint: RunCheckpoint | None) -> int | None:
    if checkpoint is not None:
        return checkpoint.best_epoch
    # Without checkpoints the weights at hand are the last epoch's.
    return int(history.rows[-1]["epoch"]) if history.rows else None
