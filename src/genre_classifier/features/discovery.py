"""Which audio files there are, and what their folders say of them: ROOT/GENRE/[GROUP/]FILE."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from genre_classifier.csv_files import original
from genre_classifier.errors import DataError
from genre_classifier.features.audio import SUFFIXES
from genre_classifier.features.names import normalised, refuse_alike_genres

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AudioFile:
    """A file to be measured.

    Parameters
    ----------
    path : Path
        Where it is.
    id : str
        What names it: its path below the folder it was found in, or what the list says.
    genre : str or None
        The folder below the root, or what the list says.
    group : str or None
        What must stay on one side of a split: the folder below the genre, or what the list says.
    """

    path: Path
    id: str
    genre: str | None = None
    group: str | None = None


def find_audio(root: Path) -> list[AudioFile]:
    """Return the audio files below a folder, in the order of their paths.

    Links are followed, each folder is looked into once; hidden files and folders are passed over.

    Raises
    ------
    DataError
        There is no such folder, no audio file in it, or two genres that differ only in case, spaces or Unicode form.
    """
    if not root.is_dir():
        what = "is a file; name it with --files list.csv" if root.is_file() else "there is no such folder"
        raise DataError(f"{root}: {what}; expected a folder with audio in ROOT/GENRE/FILE")
    files = [_placed(root, path) for path in sorted(_walk(root))]
    if not files:
        raise DataError(f"{root}: no audio file in it; expected ROOT/GENRE/FILE with {', '.join(SUFFIXES)}")
    refuse_alike_genres({file.genre for file in files if file.genre is not None}, root)
    _refuse_one_id(root, files)
    loose = sum(file.genre is None for file in files)
    if 0 < loose < len(files):
        log.warning("%s: %d files lie beside the genres' folders and have no genre", root, loose)
    return files


def read_list(path: Path) -> list[AudioFile]:
    """Return the files that a CSV file lists.

    Parameters
    ----------
    path : Path
        Has a column ``path`` (relative ones from the list's own folder) and may have ``id``, ``genre`` and ``group``.

    Raises
    ------
    DataError
        The list cannot be read, has no such column, an empty path or the same id twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            if "path" not in (reader.fieldnames or ()):
                found = ", ".join(reader.fieldnames or ()) or "no header"
                raise DataError(f"{path}: there is no column 'path'; it has {found}")
            files = [_listed(path, row, number) for number, row in enumerate(reader, start=2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path} cannot be read as a list of files: {reason}") from error
    if not files:
        raise DataError(f"{path} has a header but lists no file")
    seen: dict[str, int] = {}
    for number, file in enumerate(files, start=2):
        if file.id in seen:
            raise DataError(f"{path}, row {number}: id {file.id!r} is that of row {seen[file.id]} as well")
        seen[file.id] = number
    refuse_alike_genres({file.genre for file in files if file.genre is not None}, path)
    return files


def _walk(root: Path) -> Iterator[Path]:
    visited: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in visited:  # by way of a link
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))  # which link comes first
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:  # noqa: PTH122
                yield Path(folder) / name


def _refuse_one_id(root: Path, files: list[AudioFile]) -> None:
    seen: dict[str, Path] = {}
    for file in files:
        if (other := seen.setdefault(file.id, file.path)) is not file.path:
            raise DataError(
                f"{root}: {str(other)!a} and {str(file.path)!a} are {file.id!r} both; they differ in Unicode form "
                "or spaces only; rename one"
            )


def _placed(root: Path, path: Path) -> AudioFile:
    parts = path.relative_to(root).parts
    return AudioFile(
        path=path,
        id=_text("/".join(parts)),
        genre=_text(parts[0]) if len(parts) > 1 else None,
        group=_text(parts[1]) if len(parts) > 2 else None,
    )


def _text(name: str) -> str:
    """Return a file name as text that every format can hold, whatever its bytes are, in one Unicode form."""
    return normalised(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def _listed(path: Path, row: dict[str, str | None], number: int) -> AudioFile:
    values = {
        key: original((value or "").strip()) or None for key, value in row.items() if isinstance(key, str)
    }
    name = values["path"]
    if name is None:
        raise DataError(f"{path}, row {number}: the path is empty; fill it in or remove the row")
    return AudioFile(
        path=path.parent / Path(name).expanduser(),
        id=normalised(values.get("id") or Path(name).as_posix()),
        genre=_named(values.get("genre")),
        group=_named(values.get("group")),
    )


def _named(name: str | None) -> str | None:
    return None if name is None else normalised(name)
