"""Read a run's folder for its report. The run may be unfinished, or of an earlier version."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genre_classifier.config.settings import flatten
from genre_classifier.errors import RunFolderError
from genre_classifier.files.csv_files import read_csv
from genre_classifier.files.documents import opened
from genre_classifier.runs.folder import RunFolder
from genre_classifier.runs.predictions import Predictions, read_predictions

LOG_LINES = 30
LOG_BYTES = 64 * 2**10  # at the log's end, which contain these lines


@dataclass(frozen=True, eq=False)
class RunContents:
    """The content of a run's folder.

    Parameters
    ----------
    folder : RunFolder
    run : mapping
        run.json.
    metrics : mapping
        metrics.json; empty unless the run is finished.
    predictions : Predictions or None
        Of the test rows.
    history : mapping of str to list of tuple of float
        Pairs of epoch and value by column, without empty cells.
    settings : mapping of str to Any
        The run's settings, by flat names.
    overrides : tuple of str
        The overrides of its command line.
    log_tail : str
        The last lines of train.log.
    """

    folder: RunFolder
    run: Mapping[str, Any]
    metrics: Mapping[str, Any]
    predictions: Predictions | None
    history: Mapping[str, list[tuple[float, float]]]
    settings: Mapping[str, Any]
    overrides: tuple[str, ...]
    log_tail: str

    @property
    def status(self) -> str:
        """``finished``, ``failed`` or ``running``. A killed run still has ``running``."""
        return str(self.run.get("status", "unknown"))

    @property
    def data(self) -> Mapping[str, Any]:
        """The description of the rows; empty if the run failed before it read them."""
        return self.run.get("data") or {}

    @property
    def protocol(self) -> Mapping[str, Any]:
        """The split protocol; empty if it is not recorded."""
        return self.metrics.get("split_protocol") or self.run.get("split_protocol") or {}

    @property
    def group_name(self) -> str:
        """The name of a group, such as ``artist``, in the singular."""
        return str(self.data.get("group_name") or "group")

    @property
    def synthetic(self) -> bool:
        """Whether the data is synthetic."""
        return bool(self.metrics.get("synthetic_data", self.data.get("synthetic", False)))

    @property
    def has_checkpoint(self) -> bool:
        """Whether the run's network can be rebuilt."""
        return self.folder.best_checkpoint.is_file()


def read_contents(folder: RunFolder) -> RunContents:
    """Read a run's folder.

    Raises
    ------
    RunFolderError
        run.json is missing, damaged or of another version, or a file of a finished run is damaged.
    """
    run = folder.read_run()
    finished = run.get("status") == "finished"
    return RunContents(
        folder=folder,
        run=run,
        metrics=folder.read_metrics() if finished else {},
        predictions=read_predictions(folder) if finished else None,
        history=_read_history(folder),
        settings=run.get("settings") or _read_saved_settings(folder),
        overrides=_read_overrides(folder),
        log_tail=_read_log_tail(folder),
    )


def _read_history(folder: RunFolder) -> dict[str, list[tuple[float, float]]]:
    """Return history.csv's columns."""
    path = folder.history_csv
    if not path.is_file():
        return {}
    found: dict[str, list[tuple[float, float]]] = {}
    try:
        header, *lines = read_csv(path)
        for line in lines:
            row = dict(zip(header, line, strict=False))
            for name, cell in row.items():
                if name and cell and name != "epoch" and row.get("epoch"):
                    found.setdefault(name, []).append((float(row["epoch"]), float(cell)))
    except (OSError, ValueError, csv.Error) as error:
        raise RunFolderError(
            f"{path}: cannot be read ({error}); expected one row of numbers an epoch"
        ) from error
    return found


def _read_saved_settings(folder: RunFolder) -> Mapping[str, Any]:
    try:
        return flatten(folder.read_settings())
    except RunFolderError:
        return {}


def _read_overrides(folder: RunFolder) -> tuple[str, ...]:
    try:
        return folder.read_overrides()
    except RunFolderError:  # the settings contain the same values
        return ()


def _read_log_tail(folder: RunFolder) -> str:
    try:
        with opened(folder.log) as file:
            file.seek(max(0, file.seek(0, io.SEEK_END) - LOG_BYTES))
            lines = file.read(LOG_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-LOG_LINES:])
