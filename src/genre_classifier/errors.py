"""The exceptions that a user can meet.

Every message says what was found, where (file, row, column or key), and what to do about it.
"""

from __future__ import annotations

from typing import Any


class GenreClassifierError(Exception):
    """Root of all errors that this package raises on purpose. Entry points print them without a traceback."""


class ConfigError(GenreClassifierError, ValueError):
    """The composed configuration has a wrong key, type or range, or two settings contradict each other."""


class DataError(GenreClassifierError, ValueError):
    """A feature table, or a file that belongs to it, cannot be used as it is."""


class AudioError(DataError):
    """An audio file cannot be measured.

    Parameters
    ----------
    message : str
        Names the file, what was found, and what was expected.
    kind : str
        ``unreadable``, ``silent``, ``too short``, ``mislabelled``, ``out of phase``, ``unsupported`` or ``empty``.
    """

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:  # pickles the error in a worker process
        return (_audio_error, (str(self), self.kind))


def _audio_error(message: str, kind: str) -> AudioError:
    return AudioError(message, kind=kind)


class MissingWeightsError(GenreClassifierError):
    """The weights of a pretrained network are missing, or are not the published ones."""


class SplitError(DataError):
    """The rows cannot be divided into training, validation and test rows as asked."""


class RunFolderError(GenreClassifierError):
    """A run's folder cannot be written, or lacks a file or entry."""


class CheckpointError(RunFolderError):
    """A checkpoint is missing, damaged, of another format, or does not fit the network or the data."""


class BundleError(GenreClassifierError):
    """A production bundle is missing, damaged or unsafe, or contradicts itself."""


class CalibrationError(GenreClassifierError, ValueError):
    """The rows do not determine a temperature."""


class ExportError(GenreClassifierError):
    """There is nothing to export, or a check failed. Nothing was published."""


class FeatureError(GenreClassifierError, ValueError):
    """Features given for a prediction cannot be used.

    Parameters
    ----------
    message : str
        Names what was found and what was expected.
    row : int or None
        Row of a batch, counted from 0; None if one row was given or all rows are meant.
    feature : int, str or None
        Position or name of the feature at fault; None if the row as a whole is meant.
    """

    def __init__(self, message: str, *, row: int | None = None, feature: int | str | None = None) -> None:
        super().__init__(message)
        self.row = row
        self.feature = feature


class TopKError(GenreClassifierError, ValueError):
    """The number of genres asked for is below 1, or above the number of genres."""


class DivergedError(GenreClassifierError):
    """Training reached a loss that is not a finite number."""


class TrialFailedError(GenreClassifierError):
    """A trial of a sweep failed or was killed. Its run.json has the reason, and the other trials go on."""


class ServiceError(GenreClassifierError):
    """The service cannot start: its address or port is taken, unknown or out of range."""


class MissingExtraError(GenreClassifierError, ImportError):
    """A feature needs an optional dependency that is not installed."""
