"""Train one stack, in whatever process or machine the backend chose for it."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig, read_write

from genre_classifier.config.schema import TrainConfig
from genre_classifier.errors import RunFolderError
from genre_classifier.runs.folder import RunFolder
from genre_classifier.runs.sweep_folder import SweepFolder
from genre_classifier.sweeps.processes import set_up_logging, take_a_device, write_everything_to

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StackStart:
    """The trials of a stack, as plain data that a process or machine elsewhere can be given.

    Parameters
    ----------
    name : str
    configs : tuple of DictConfig
    settings : tuple of TrainConfig
        The same configurations, checked.
    logging_settings : dict
        Hydra's logging settings for a job.
    sweep : Path
        The sweep's folder.
    log : Path
        The file for messages that concern no single member.
    working_folder : Path
        The folder of the command. Relative paths start there.
    is_single : bool
        True for one trial that a stack does not support. It is trained as a single run.
    """

    name: str
    configs: tuple[DictConfig, ...]
    settings: tuple[TrainConfig, ...]
    logging_settings: Any
    sweep: Path
    log: Path
    working_folder: Path
    is_single: bool = False

    @property
    def folders(self) -> list[RunFolder]:
        return [RunFolder(Path(settings.run_dir)) for settings in self.settings]

    @property
    def threads(self) -> int:
        """CPU threads."""
        return max(settings.threads for settings in self.settings)

    @property
    def needs_gpu(self) -> bool:
        return any(settings.trainer.accelerator.value == "gpu" for settings in self.settings)


class Backend(Protocol):
    """Where stacks are trained."""

    def count_stacks_at_once(self, settings: Sequence[TrainConfig]) -> int:
        """Return over how many stacks the trials should be divided at least."""

    def run(self, stacks: Sequence[StackStart], ended: Callable[[StackStart, str], None]) -> None:
        """Train the stacks. Call `ended` with each stack and how its process ended, as soon as it ends.

        A stack that fails does not stop the others. An interruption ends them all.
        """


def run_stack(start: StackStart) -> None:
    """Train the members that have not ended yet, each from its last checkpoint, if it has one.

    A second attempt at a stack whose first process was killed thus goes on from the members' checkpoints.
    """
    write_everything_to(start.log)
    set_up_logging(start.logging_settings, start.log)
    take_a_device(start.configs[0], start.sweep)
    with ExitStack() as locks:
        for folder in start.folders:
            locks.enter_context(SweepFolder(start.sweep).locked(folder.path.name))
        configs, settings = _select_unfinished(start)
        if not configs:
            return
        if start.is_single:
            _train_single(configs[0], settings[0])
            return
        from genre_classifier.sweeps.stacked.fit import train_stack
        from genre_classifier.training.fit import leave_messages_to_root, threads

        leave_messages_to_root()
        with threads(start.threads):
            train_stack(configs, settings)


def _select_unfinished(start: StackStart) -> tuple[list[DictConfig], list[TrainConfig]]:
    """Return the configurations of the members that have neither finished nor failed."""
    configs, checked = [], []
    for cfg, settings, folder in zip(start.configs, start.settings, start.folders, strict=True):
        if _has_ended(folder):
            continue
        if folder.last_checkpoint.is_file():
            settings = replace(settings, ckpt_path=str(folder.last_checkpoint))
        configs.append(cfg)
        checked.append(settings)
    return configs, checked


def _has_ended(folder: RunFolder) -> bool:
    try:
        return folder.read_run()["status"] in {"finished", "failed"}
    except RunFolderError:  # not begun, or damaged
        return False


def _train_single(cfg: DictConfig, settings: TrainConfig) -> None:
    from genre_classifier.training.fit import train

    cfg = cfg.copy()
    with read_write(cfg):
        cfg.ckpt_path = settings.ckpt_path
    train(cfg)


def run_stack_elsewhere(start: StackStart) -> str | None:
    """Train a stack in a worker of another scheduler. Return the reason of a failure; None if there is none."""
    try:
        _check_sight(start)
        os.chdir(start.working_folder)
        run_stack(start)
    except Exception as error:
        log.exception("the stack failed")
        return f"{type(error).__name__}: {error}"
    return None


def _check_sight(start: StackStart) -> None:
    needed = [start.working_folder, *(folder.config_yaml for folder in start.folders)]
    for path in needed:
        if not path.exists():
            raise RunFolderError(
                f"the worker on {socket.gethostname()} does not see {path}: every machine needs the sweep's folder "
                "and the folder of the command under the same path; put both on a shared file system"
            )
