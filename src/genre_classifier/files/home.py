"""Paths that begin with ``~``."""

from __future__ import annotations

from pathlib import Path


def expanded(path: str | Path) -> Path:
    """Return a path with the home of its user in place of ``~``; unchanged where that user or home is not known.

    Examples
    --------
    >>> expanded("~nobody-of-this-name/a.csv").as_posix()
    '~nobody-of-this-name/a.csv'
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:  # as in a container whose user has no home; the file is then told to be missing
        return Path(path)
