"""What was measured before, by the content of the file and by how it was measured.

One SQLite database holds it: a batch that was committed survives whatever kills the process, and several extractions
may use it at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre_classifier.errors import DataError
from genre_classifier.features.audio import Excerpt
from genre_classifier.features.sets import FeatureSetReference

FORMAT_VERSION = 1
WAIT_SECONDS = 60.0  # for another process that writes

_TABLES = """
CREATE TABLE measured (
    content TEXT, recipe TEXT, seconds REAL, artist TEXT, starts BLOB, features BLOB,
    PRIMARY KEY (content, recipe)
) WITHOUT ROWID;
CREATE TABLE files (path TEXT PRIMARY KEY, size INTEGER, modified INTEGER, content TEXT) WITHOUT ROWID;
CREATE INDEX files_by_size ON files (size);
"""


@dataclass(frozen=True, eq=False)
class Measured:
    """What one file gave.

    Parameters
    ----------
    seconds : float
        Length of the recording.
    artist : str or None
        What its tags say.
    starts : np.ndarray [shape=(clip,), dtype=float64]
        Where each clip starts, in seconds.
    features : np.ndarray [shape=(clip, feature), dtype=float32]
    """

    seconds: float
    artist: str | None
    starts: npt.NDArray[np.float64]
    features: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Stamp:
    """A file as it was found: if none of this changed, its content did not."""

    path: str
    size: int
    modified: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Return the stamp of a file; OSError where there is none."""
        status = path.stat()
        return cls(_key(path), status.st_size, status.st_mtime_ns)


def default_cache() -> Path:
    """Return where features are kept when nothing else is said."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "genre-classifier" / "features.sqlite"


def recipe_of(made_with: FeatureSetReference, excerpt: Excerpt) -> str:
    """Return everything that the features of a file depend on besides its content, as text."""
    part = {"offset": excerpt.offset, "duration": excerpt.duration, "window": excerpt.window}
    return json.dumps({**made_with.as_dict(), "excerpt": part}, sort_keys=True)


def content_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class FeatureCache:
    """Measured files in a database.

    Parameters
    ----------
    path : Path
        Made where it does not exist, with its folder.
    recipe : str
        From :func:`recipe_of`.

    Raises
    ------
    DataError
        It is no such database, or of a later version.
    """

    def __init__(self, path: Path, recipe: str) -> None:
        self.path = path
        self.recipe = recipe
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=WAIT_SECONDS)
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise DataError(
                f"{path} cannot be used to keep features ({error}); remove it, or name another file (--cache, "
                "data.cache)"
            ) from error

    def __enter__(self) -> FeatureCache:
        return self

    def __exit__(self, *exception: object) -> None:
        self._database.close()

    def _prepare(self) -> None:
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _TABLES.split(";"):
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
            elif version != FORMAT_VERSION:
                raise sqlite3.DatabaseError(f"format {version}, this version reads {FORMAT_VERSION}")

    def find(self, path: Path, stamp: Stamp) -> Measured | None:
        """Return what a file gave before; reads the file only where another name held as many bytes."""
        row = self._database.execute(
            "SELECT content FROM files WHERE path = ? AND size = ? AND modified = ?",
            (stamp.path, stamp.size, stamp.modified),
        ).fetchone()
        if row is not None:
            return self._measured(row[0])
        alike = "SELECT 1 FROM files WHERE size = ? LIMIT 1"
        if self._database.execute(alike, (stamp.size,)).fetchone() is None:
            return None
        content = content_of(path)
        found = self._measured(content)
        if found is not None:
            with self._database:
                self._remember(stamp, content)
        return found

    def add(self, batch: Iterable[tuple[Stamp, str, Measured]]) -> None:
        """Keep a batch of files, each with its content's SHA-256; all of it or, if interrupted, none."""
        with self._database:
            for stamp, content, measured in batch:
                self._database.execute(
                    "INSERT OR REPLACE INTO measured VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        content,
                        self.recipe,
                        measured.seconds,
                        measured.artist,
                        measured.starts.astype("<f8").tobytes(),
                        measured.features.astype("<f4").tobytes(),
                    ),
                )
                self._remember(stamp, content)

    def _remember(self, stamp: Stamp, content: str) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
            (stamp.path, stamp.size, stamp.modified, content),
        )

    def _measured(self, content: str) -> Measured | None:
        row = self._database.execute(
            "SELECT seconds, artist, starts, features FROM measured WHERE content = ? AND recipe = ?",
            (content, self.recipe),
        ).fetchone()
        if row is None:
            return None
        starts = np.frombuffer(row[2], dtype="<f8")
        features = np.frombuffer(row[3], dtype="<f4").reshape(len(starts), -1)
        return Measured(row[0], row[1], starts, features)


def _key(path: Path) -> str:
    """Return an absolute path as text that SQLite takes, whatever the bytes of its name."""
    return os.fsencode(path.absolute()).decode("utf-8", "backslashreplace")
