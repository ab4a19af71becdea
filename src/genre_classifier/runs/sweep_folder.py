"""The sweep folder on disk. Only this module knows its file names and format."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from genre_classifier.errors import RunFolderError
from genre_classifier.files.atomic import write_text
from genre_classifier.files.documents import read_versioned_json
from genre_classifier.runs.folder import RunFolder, writing
from genre_classifier.runs.listing import RUN_FILE
from genre_classifier.runs.record_shapes import check_sweep

FORMAT_VERSION = 1


@dataclass(frozen=True)
class SweepFolder:
    """The files of one sweep; each trial is a run folder below it.

    Parameters
    ----------
    path : Path
        Hydra's output directory of the multirun.
    """

    path: Path

    @property
    def sweep_json(self) -> Path:
        return self.path / "sweep.json"

    @property
    def study(self) -> Path:
        return self.path / "study.db"

    @property
    def leaderboard_csv(self) -> Path:
        return self.path / "leaderboard.csv"

    @property
    def trials_csv(self) -> Path:
        return self.path / "trials.csv"

    @property
    def figure(self) -> Path:
        return self.path / "sweep.png"

    @property
    def out_of_fold_csv(self) -> Path:
        return self.path / "out_of_fold.csv"

    @property
    def out_of_fold_figure(self) -> Path:
        return self.path / "out_of_fold.png"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def write_sweep(self, record: Mapping[str, Any]) -> None:
        """Write sweep.json."""
        text = json.dumps({"format_version": FORMAT_VERSION, **record}, indent=2, ensure_ascii=False)
        with writing(self.sweep_json):
            write_text(self.sweep_json, text + "\n")

    def read_sweep(self) -> dict[str, Any]:
        """Return sweep.json's content.

        Raises
        ------
        RunFolderError
            It is missing, damaged or of another version.
        """
        content = read_versioned_json(
            self.sweep_json, FORMAT_VERSION, kind="sweep", example="outputs/sweeps/DATE/TIME"
        )
        check_sweep(content, self.sweep_json)
        return content

    def trial(self, name: str) -> RunFolder:
        """Return the run folder of a trial."""
        return RunFolder(self.path / name)

    def trials(self) -> list[RunFolder]:
        """Return the trials that have begun, in the order of their numbers."""
        try:
            folders = [path for path in self.path.iterdir() if os.path.lexists(path / RUN_FILE)]
        except OSError:
            return []
        return [RunFolder(path) for path in sorted(folders, key=_make_sort_key)]

    def free_names(self) -> Iterator[str]:
        """Yield numbers that are not the name of a trial's folder. A folder of a trial that never began is free."""
        return (str(number) for number in itertools.count() if _is_free(self.path / str(number)))

    @contextmanager
    def locked(self, name: str = "sweep") -> Iterator[None]:
        """Hold a lock that one process at a time can have. The system frees it when the process ends.

        Parameters
        ----------
        name : str
            ``sweep`` for the whole sweep, or the name of a trial.

        Raises
        ------
        RunFolderError
            Another process has it.
        """
        folder = self.path / ".locks"
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            what = "sweep" if name == "sweep" else f"trial {name}"
            raise RunFolderError(
                f"{self.path}: another process is at work on this {what}; wait for it or stop it first"
            ) from None
        try:
            yield
        finally:
            lock.release()


def _is_free(path: Path) -> bool:
    """Return whether a folder does not exist or has only what a launcher writes before the trial begins."""
    return not path.exists() or (path.is_dir() and {own.name for own in path.iterdir()} <= {".hydra"})


def _make_sort_key(path: Path) -> tuple[bool, int, str]:
    is_number = path.name.isdecimal()  # unlike "²", which is a digit
    return (not is_number, int(path.name) if is_number else 0, path.name)
