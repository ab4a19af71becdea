"""A cache of measured files. Its key is the file's content and the way of measuring.

The cache is one SQLite database. A committed batch survives any end of the process, and several extractions may use
the database at the same time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre_classifier.errors import DataError
from genre_classifier.features.decoding.audio import Excerpt
from genre_classifier.features.sets import FeatureSetReference
from genre_classifier.machine.cache_folders import find_cache_folder

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
WAIT_SECONDS = 60.0  # to wait for another process that writes

_TABLES = """
CREATE TABLE measured (
    content TEXT, recipe TEXT, seconds REAL, artist TEXT, starts BLOB, features BLOB,
    PRIMARY KEY (content, recipe)
) WITHOUT ROWID;
CREATE TABLE files (path TEXT PRIMARY KEY, size INTEGER, modified INTEGER, content TEXT) WITHOUT ROWID;
CREATE INDEX files_by_size ON files (size);
"""
# A separate table, so that versions without checksums can read and write the others.
_CHECKSUMS = """
CREATE TABLE IF NOT EXISTS checksums (
    content TEXT, recipe TEXT, checksum INTEGER, PRIMARY KEY (content, recipe)
) WITHOUT ROWID
"""
_KNOWN = {
    " ".join(statement.replace("IF NOT EXISTS ", "").split())
    for statement in (*_TABLES.split(";"), _CHECKSUMS)
}
_PASSING = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}  # errors of the disk, not of the database


@dataclass(frozen=True, eq=False)
class Measured:
    """The result of one file.

    Parameters
    ----------
    seconds : float
        Length of the recording.
    artist : str or None
        The artist in its tags.
    starts : np.ndarray [shape=(clip,), dtype=float64]
        Start of each clip, in seconds.
    features : np.ndarray [shape=(clip, feature), dtype=float32]
    notes : tuple of str
        Oddities of the file that did not prevent measuring. They are not cached.
    """

    seconds: float
    artist: str | None
    starts: npt.NDArray[np.float64]
    features: npt.NDArray[np.float32]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stamp:
    """The state of a file. If the state has not changed, its content has not changed either."""

    path: str
    size: int
    modified: int

    @classmethod
    def read(cls, path: Path) -> Stamp:
        """Return the stamp of a file. Raises OSError if there is no such file."""
        status = path.stat()
        return cls(_make_key(path), status.st_size, status.st_mtime_ns)


def find_default_cache() -> Path | None:
    """Return the default path of the database, or None if no folder can be written."""
    folder = find_cache_folder()
    return None if folder is None else folder / "features.sqlite"


def describe_recipe(made_with: FeatureSetReference, excerpt: Excerpt) -> str:
    """Return as text everything besides the content that a file's features depend on."""
    part = {"offset": excerpt.offset, "duration": excerpt.duration, "window": excerpt.window}
    return json.dumps({**made_with.as_dict(), "excerpt": part}, sort_keys=True)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class FeatureCache:
    """Measured files in a database.

    If the database fails while files are measured, as on a full disk, it is given up with a warning. Measuring goes on,
    and the results are not cached.

    Parameters
    ----------
    path : Path or None
        The database. It is made, with its folder, if it does not exist. None caches nothing.
    recipe : str
        From :func:`describe_recipe`.
    n_features : int
        Number of features per clip.

    Raises
    ------
    DataError
        The file is not such a database, or has a later format.
    """

    def __init__(self, path: Path | None, recipe: str, n_features: int) -> None:
        self.path = path
        self.recipe = recipe
        self.n_features = n_features
        self.damaged: list[str] = []  # reasons why entries are not used
        self._database: sqlite3.Connection | None = None
        if path is None:
            log.warning("no folder for caches can be written: what is measured is not kept")
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=WAIT_SECONDS)
            self._prepare(self._database)
        except (sqlite3.Error, OSError) as error:
            if _get_primary_code(error) in _PASSING:
                self._give_up(error)
                return
            raise DataError(
                f"{path} cannot be used to keep features ({error}); remove it, or name another file (--cache, "
                "data.cache)"
            ) from error

    def __enter__(self) -> FeatureCache:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._database is not None:
            self._database.close()

    @staticmethod
    def _prepare(database: sqlite3.Connection) -> None:
        with database:
            database.execute("BEGIN IMMEDIATE")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _TABLES.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
            elif version != FORMAT_VERSION:
                raise sqlite3.DatabaseError(f"format {version}, this version reads {FORMAT_VERSION}")
            database.execute(_CHECKSUMS)
            _refuse_programs(database)

    def _give_up(self, error: BaseException) -> None:
        log.warning(
            "%s cannot be used any more (%s): what is measured from now on is not kept", self.path, error
        )
        if self._database is not None:
            self._database.close()
        self._database = None

    def find(self, path: Path, stamp: Stamp) -> Measured | None:
        """Return the cached result of a file. The file is read only if a cached file of another name has the same size.

        A damaged entry is skipped, and named in ``damaged``.
        """
        if self._database is None:
            return None
        try:
            return self._find(self._database, path, stamp)
        except sqlite3.Error as error:
            self._give_up(error)
            return None

    def _find(self, database: sqlite3.Connection, path: Path, stamp: Stamp) -> Measured | None:
        row = database.execute(
            "SELECT content FROM files WHERE path = ? AND size = ? AND modified = ?",
            (stamp.path, stamp.size, stamp.modified),
        ).fetchone()
        if row is not None:
            return self._read_entry(database, path, row[0])
        alike = "SELECT 1 FROM files WHERE size = ? LIMIT 1"
        if database.execute(alike, (stamp.size,)).fetchone() is None:
            return None
        content = hash_file(path)
        found = self._read_entry(database, path, content)
        if found is not None:
            with database:
                self._remember(database, stamp, content)
        return found

    def add(self, batch: Iterable[tuple[Stamp, str, Measured]]) -> None:
        """Store a batch of results, each with the SHA-256 of its file. An interruption stores none of them."""
        if self._database is None:
            return
        try:
            with self._database:
                for stamp, content, measured in batch:
                    self._insert(self._database, content, measured)
                    self._remember(self._database, stamp, content)
        except sqlite3.Error as error:
            self._give_up(error)

    def _insert(self, database: sqlite3.Connection, content: str, measured: Measured) -> None:
        entry = (
            measured.seconds,
            measured.artist,
            measured.starts.astype("<f8").tobytes(),
            measured.features.astype("<f4").tobytes(),
        )
        key = (content, self.recipe)
        database.execute("INSERT OR REPLACE INTO measured VALUES (?, ?, ?, ?, ?, ?)", (*key, *entry))
        database.execute(
            "INSERT OR REPLACE INTO checksums VALUES (?, ?, ?)", (*key, _compute_checksum(entry))
        )

    @staticmethod
    def _remember(database: sqlite3.Connection, stamp: Stamp, content: str) -> None:
        database.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
            (stamp.path, stamp.size, stamp.modified, content),
        )

    def _read_entry(self, database: sqlite3.Connection, path: Path, content: str) -> Measured | None:
        row = database.execute(
            "SELECT seconds, CAST(artist AS BLOB), starts, features, checksum FROM measured "
            "LEFT JOIN checksums USING (content, recipe) WHERE content = ? AND recipe = ?",
            (content, self.recipe),
        ).fetchone()
        if row is None:
            return None
        try:
            return self._check_entry(*row)
        except (ValueError, TypeError) as error:  # a text that is not UTF-8 is a ValueError
            self.damaged.append(f"{path}: {error}")
            return None

    def _check_entry(
        self, seconds: object, artist: bytes | None, starts: object, features: object, checksum: object
    ) -> Measured:
        """Return a stored entry. Raise ValueError if it is damaged."""
        if not isinstance(seconds, float) or not 0.0 < seconds < float("inf"):
            raise ValueError(f"it is {seconds!r} seconds long")
        if not isinstance(starts, bytes) or not isinstance(features, bytes):
            raise ValueError(f"starts and features are {type(starts).__name__} and {type(features).__name__}")
        name = None if artist is None else artist.decode()
        n_clips = len(starts) // 8
        if n_clips == 0 or len(starts) != 8 * n_clips or len(features) != 4 * n_clips * self.n_features:
            raise ValueError(
                f"{len(starts)} bytes of starts and {len(features)} of features are no clips of "
                f"{self.n_features} features"
            )
        measured = Measured(
            seconds,
            name,
            np.frombuffer(starts, dtype="<f8"),
            np.frombuffer(features, dtype="<f4").reshape(n_clips, self.n_features),
        )
        if not (np.isfinite(measured.starts).all() and np.isfinite(measured.features).all()):
            raise ValueError("a value is not finite")
        # Entries of versions without checksums have none.
        if checksum is not None and checksum != _compute_checksum((seconds, name, starts, features)):
            raise ValueError("its checksum is another")
        return measured


def _refuse_programs(database: sqlite3.Connection) -> None:
    """Raise DatabaseError if a database holds more than this cache's tables: a view or trigger is a program."""
    for kind, name, made_by in database.execute("SELECT type, name, sql FROM sqlite_master"):
        if made_by is not None and " ".join(str(made_by).split()) not in _KNOWN:
            raise sqlite3.DatabaseError(f"it holds a {kind} {str(name)!r:.60} that no cache has")


def _compute_checksum(entry: tuple[float, str | None, bytes, bytes]) -> int:
    seconds, artist, starts, features = entry
    return zlib.crc32(features, zlib.crc32(starts, zlib.crc32(repr((float(seconds), artist)).encode())))


def _get_primary_code(error: BaseException) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _make_key(path: Path) -> str:
    """Return an absolute path as text for SQLite, also if its name is not valid UTF-8."""
    return os.fsencode(path.absolute()).decode("utf-8", "backslashreplace")
