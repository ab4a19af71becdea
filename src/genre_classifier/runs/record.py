"""Write run.json during a run."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genre_classifier import __version__
from genre_classifier.commands import format_argument
from genre_classifier.config.settings import get_start_folder
from genre_classifier.data.splits import Split
from genre_classifier.data.table import FeatureTable
from genre_classifier.errors import RunFolderError
from genre_classifier.runs.folder import RunFolder, hold, let_go, shorten_path, writing

log = logging.getLogger(__name__)


class Record:
    """The content of run.json. It is written at every change.

    Parameters
    ----------
    folder : RunFolder
    settings : mapping of str to Any
        The run's settings, by flat names; ``seed``, ``optimized_metric`` and ``ckpt_path`` among them.
    enabled : bool
        False in processes of a distributed run other than the first. Only the first writes.
    """

    def __init__(self, folder: RunFolder, settings: Mapping[str, Any], *, enabled: bool = True) -> None:
        self.folder = folder
        self.enabled = enabled
        self.started = time.monotonic()
        self.content: dict[str, Any] = {
            "status": "running",
            "reason": None,
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "seed": settings["seed"],
            "optimized_metric": settings["optimized_metric"],
            "working_folder": str(get_start_folder()),
            "resumed_from": settings.get("ckpt_path"),
            "settings": dict(settings),
            "versions": collect_versions(),
        }

    def measure_seconds(self) -> float:
        """Return the seconds since the run began."""
        return time.monotonic() - self.started

    def describe(self, table: FeatureTable, split: Split) -> None:
        """Record the data and the split."""
        sides = {name: len(rows) for name, rows in split.sides().items()}
        self.content["data"] = table.description() | {"rows_by_split": sides}
        self.content["split_protocol"] = split.protocol.as_dict()
        self._write()

    def note_resumed(self, checkpoint: Path, changed: Mapping[str, tuple[Any, Any]]) -> None:
        """Record the checkpoint that the run continues, and the settings that changed."""
        self.content["resumed_from"] = str(checkpoint)
        self.content["changed_on_resuming"] = {key: list(values) for key, values in changed.items()}
        self._write()

    def finish(self, objective: float, seconds: float, epochs: int | None, best_epoch: int | None) -> None:
        """Record that the run is finished."""
        self.content |= {
            "status": "finished",
            "reason": None,
            "seconds": round(seconds, 3),
            "epochs": epochs,
            "best_epoch": best_epoch,
            "objective": objective,
        }
        self._write()
        self._end()

    def build_interruption(self, epoch: int) -> KeyboardInterrupt:
        """Return the exception for Ctrl-C. Its message says how to go on."""
        last = self.folder.last_checkpoint
        if not last.exists():
            return KeyboardInterrupt(f"interrupted in epoch {epoch}, before there was a checkpoint")
        return KeyboardInterrupt(
            f"interrupted in epoch {epoch}; the last finished epoch is kept. To go on, give the same command and "
            f"{format_argument('ckpt_path', shorten_path(last))}"
        )

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Record a failure within the block."""
        self.begin()
        try:
            yield
        except BaseException as error:
            self.fail(error)
            raise

    def begin(self) -> None:
        """Make and lock the folder, and write the first entries."""
        if self.enabled:
            with writing(self.folder.path):
                self.folder.path.mkdir(parents=True, exist_ok=True)
            try:
                hold(self.folder.path, to_train=True)
            except RunFolderError:
                self.enabled = False  # the files there belong to another run
                raise
        self._write()

    def fail(self, error: BaseException) -> None:
        """Record that the run failed, and why."""
        self.fail_because(describe_reason(error))

    def fail_because(self, reason: str) -> None:
        """Record the reason why the run failed. The first reason is kept."""
        if self.content["status"] == "failed":
            return
        self.content |= {"status": "failed", "reason": reason, "seconds": round(self.measure_seconds(), 3)}
        try:
            self._write()
        except Exception:
            log.exception("run.json could not be written either")
        self._end()

    def _end(self) -> None:
        if self.enabled:
            let_go(self.folder.path)

    def _write(self) -> None:
        if self.enabled:
            self.folder.write_run(self.content)


def describe_reason(error: BaseException) -> str:
    """Return the reason for a run's failure from its exception."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    name = type(error).__name__
    if name == "SIGTERMException":  # Lightning's
        return "stopped by SIGTERM"
    if isinstance(error, MemoryError) and not str(error):
        return f"{name}: out of memory"
    return f"{name}: {error}" if str(error) else f"{name} without a message"


def collect_versions() -> dict[str, str]:
    """Return the versions of the libraries that results depend on."""
    return {
        "genre_classifier": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": version("lightning"),
        "scikit-learn": version("scikit-learn"),
        "numpy": np.__version__,
    }
