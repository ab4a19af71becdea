"""Expand paths that begin with ``~``."""

from __future__ import annotations

from pathlib import Path


def expand_home(path: str | Path) -> Path:
    """Return a path with the user's home in place of ``~``, or unchanged if the user or home is not known.

    Examples
    --------
    >>> expand_home("~nobody-of-this-name/a.csv").as_posix()
    '~nobody-of-this-name/a.csv'
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:  # as in a container whose user has no home; the caller then reports a missing file
        return Path(path)
