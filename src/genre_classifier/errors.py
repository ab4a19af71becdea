"""The exceptions a user can meet.

Every message says what was found, where (file, row, column or key), and what to do about it.
"""


class GenreClassifierError(Exception):
    """Root of every error this package raises on purpose; entry points print it without a traceback."""


class ConfigError(GenreClassifierError, ValueError):
    """The composed configuration has a wrong key, type or range, or two settings contradict each other."""


class DataError(GenreClassifierError, ValueError):
    """A feature table, or a file that belongs to it, cannot be used as it is."""


class SplitError(DataError):
    """The rows cannot be divided into training, validation and test rows as asked."""


class RunFolderError(GenreClassifierError):
    """A run's folder cannot be written, or does not hold what is needed from it."""


class CheckpointError(RunFolderError):
    """A checkpoint is missing, damaged, of another format, or does not fit the network or the data."""


class BundleError(GenreClassifierError):
    """A production bundle is missing, damaged, untrustworthy or contradicts itself."""


class DivergedError(GenreClassifierError):
    """Training reached a loss that is not a finite number."""


class MissingExtraError(GenreClassifierError, ImportError):
    """A feature needs an optional dependency that is not installed."""
