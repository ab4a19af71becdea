"""Find audio files, with genre and group from their folders: ROOT/GENRE/[GROUP/]FILE."""

from __future__ import annotations

import csv
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from genre_classifier.errors import DataError
from genre_classifier.features.decoding.formats import (
    SUFFIXES,
    advice,
    is_companion,
    is_readable,
    is_system_folder,
    suffix_of,
)
from genre_classifier.features.measure import Failure
from genre_classifier.features.names import normalised, refuse_alike_genres
from genre_classifier.files.csv_files import restore_cell
from genre_classifier.files.home import expand_home

log = logging.getLogger(__name__)

SHOWN_COUNTS = 12


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
    problem : Failure or None
        Why it cannot be measured, where that is known before: a suffix that is not read, a folder that cannot be looked
        into, a genre's folder without a file.
    """

    path: Path
    id: str
    genre: str | None = None
    group: str | None = None
    problem: Failure | None = None


@dataclass(frozen=True)
class Collection:
    """The files below a folder.

    Parameters
    ----------
    files : list of AudioFile
        In the order of their paths; what looks like music and cannot be measured is among them, with its problem.
    n_others : Counter of str
        How many other files there are, by suffix: covers, playlists and the like, hidden files as ``hidden``.
    """

    files: list[AudioFile] = field(default_factory=list)
    n_others: Counter[str] = field(default_factory=Counter)

    def others(self) -> str:
        """Return the number of other files, and their suffixes."""
        n = self.n_others.total()
        what = "file that is" if n == 1 else "files that are"
        return f"{n} {what} not music passed over ({_counted(self.n_others)})"


def find_audio(root: Path) -> list[AudioFile]:
    """Return the audio files below a folder; see :func:`scan`, which counts the other files as well."""
    collection = scan(root)
    if collection.n_others:
        log.info("%s: %s", root, collection.others())
    return collection.files


def scan(root: Path) -> Collection:
    """Return what lies below a folder.

    Links are followed, each folder is looked into once; hidden files and folders are passed over.

    Raises
    ------
    DataError
        There is no such folder, no audio file in it, or two genres that differ only in case, spaces or Unicode form.
    """
    if not root.is_dir():
        what = "is a file; name it with --files list.csv" if root.is_file() else "there is no such folder"
        raise DataError(f"{root}: {what}; expected a folder with audio in ROOT/GENRE/FILE")
    collection = _Walk(root).collection()
    files = collection.files
    if all(file.problem is not None for file in files):
        problems = [(file, file.problem) for file in files if file.problem is not None]
        why = f"; {left_out(problems)}; {one_of_each_kind(problems)[0].reason}" if problems else ""
        raise DataError(
            f"{root}: no audio file in it; expected ROOT/GENRE/FILE with {', '.join(SUFFIXES[:6])} or another format "
            f"that libsndfile reads{why}"
        )
    refuse_alike_genres({file.genre for file in files if file.genre is not None}, root)
    _refuse_one_id(root, files)
    loose = sum(file.genre is None and file.problem is None for file in files)
    if 0 < loose < len(files):
        log.warning("%s: %d files lie beside the genres' folders and have no genre", root, loose)
    return collection


def left_out(failures: Sequence[tuple[AudioFile, Failure]]) -> str:
    """Return how many files gave no features, by suffix, genre and kind."""
    counts = Counter(
        f"{suffix_of(file.path.name) or 'without suffix'} in {file.genre or file.path.parent} ({failure.kind})"
        for file, failure in failures
    )
    shown = ", ".join(f"{n} {what}" for what, n in counts.most_common(SHOWN_COUNTS))
    more = f", and {len(counts) - SHOWN_COUNTS} more such" if len(counts) > SHOWN_COUNTS else ""
    n = len(failures)
    return f"{n} file{'s' if n != 1 else ''} left out: {shown}{more}"


def one_of_each_kind(failures: Sequence[tuple[AudioFile, Failure]]) -> list[Failure]:
    """Return the first failure of each kind."""
    first = {failure.kind: failure for _, failure in reversed(failures)}
    return [first[kind] for kind in sorted(first)]


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


class _Walk:
    """One walk through the folders below a root."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._found: list[AudioFile] = []
        self._others: dict[str | None, Counter[str]] = defaultdict(Counter)  # by genre
        self._genres: dict[str, Path] = {}  # their folders
        self._visited: dict[tuple[int, int], Path] = {}

    def collection(self) -> Collection:
        """Look into all folders; a genre's folder without music is a problem."""
        waiting = [self._root]
        while waiting:
            waiting.extend(reversed(self._folders_below(waiting.pop())))  # which link comes first
        in_genre = {file.genre for file in self._found}
        for genre, folder in self._genres.items():
            if genre in in_genre:
                continue
            others = self._others[genre]
            holds = f"no music, {_counted(others)}" if others else "no file"
            problem = Failure("empty", f"{folder} holds {holds}")
            self._found.append(AudioFile(folder, genre, genre, problem=problem))
        n_others: Counter[str] = sum(self._others.values(), Counter())
        return Collection(sorted(self._found, key=lambda file: file.path), n_others)

    def _folders_below(self, folder: Path) -> list[Path]:
        """Take a folder's files; return the folders in it that are to be looked into."""
        try:
            status = folder.stat()
            first = self._visited.setdefault((status.st_dev, status.st_ino), folder)
            if first != folder:
                self._see_again(folder, first)
                return []
            with os.scandir(folder) as entries:
                found = sorted((entry.name, _is_folder(entry)) for entry in entries)
        except OSError as error:
            reason = f"{folder} cannot be looked into: {error.strerror or error}"
            if folder == self._root:
                raise DataError(reason) from error
            self._add(folder, Failure("unreadable", reason), is_folder=True)
            return []
        for name, is_folder in found:
            if not is_folder:
                self._take(folder / name)
        below = [folder / name for name, is_folder in found if is_folder and not is_system_folder(name)]
        if folder == self._root:
            self._genres = {_text(genre.name): genre for genre in below}
        return below

    def _see_again(self, folder: Path, first: Path) -> None:
        """Tell of a folder that was looked into by another way, unless its files have their genre all the same."""
        genre, other = self._genre(folder, True), self._genre(first, True)
        if genre == other or (first in folder.parents and folder.parent != self._root):
            return
        reason = f"{folder} is the same folder as {first}, whose files are taken"
        self._add(folder, Failure("empty", reason), is_folder=True)

    def _take(self, path: Path) -> None:
        name = path.name
        if name.startswith("."):
            self._others[self._genre(path)]["hidden"] += 1
        elif is_companion(name):
            self._others[self._genre(path)][suffix_of(name) or name] += 1
        elif path.is_symlink() and not os.path.exists(path):  # noqa: PTH110 - raises no PermissionError
            reason = f"{path} is a link to {path.readlink()}, which does not exist or cannot be reached"
            self._add(path, Failure("unreadable", reason), is_folder=not is_readable(name))
        elif is_readable(name):
            self._add(path)
        else:
            what = suffix_of(name) or "a file without suffix"
            self._add(path, Failure("unsupported", f"{path}: {what} is not read; {advice(path)}"))

    def _genre(self, path: Path, is_folder: bool = False) -> str | None:
        parts = path.relative_to(self._root).parts
        return _text(parts[0]) if len(parts) > (0 if is_folder else 1) else None

    def _add(self, path: Path, problem: Failure | None = None, is_folder: bool = False) -> None:
        parts = path.relative_to(self._root).parts
        self._found.append(
            AudioFile(
                path=path,
                id=_text("/".join(parts)),
                genre=self._genre(path, is_folder),
                group=_text(parts[1]) if len(parts) > 2 else None,
                problem=problem,
            )
        )


def _refuse_one_id(root: Path, files: Sequence[AudioFile]) -> None:
    seen: dict[str, Path] = {}
    for file in files:
        if (other := seen.setdefault(file.id, file.path)) is not file.path:
            raise DataError(
                f"{root}: {str(other)!a} and {str(file.path)!a} are {file.id!r} both; they differ in Unicode form "
                "or spaces only; rename one"
            )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that cannot be looked into
        return False


def _counted(counts: Counter[str]) -> str:
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{n} {what}" for what, n in ordered)


def _text(name: str) -> str:
    """Return a file name as text that every format can hold, whatever its bytes are, in one Unicode form."""
    return normalised(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def _listed(path: Path, row: dict[str, str | None], number: int) -> AudioFile:
    values = {
        key: restore_cell((value or "").strip()) or None for key, value in row.items() if isinstance(key, str)
    }
    name = values["path"]
    if name is None:
        raise DataError(f"{path}, row {number}: the path is empty; fill it in or remove the row")
    return AudioFile(
        path=path.parent / expand_home(name),
        id=normalised(values.get("id") or Path(name).as_posix()),
        genre=_named(values.get("genre")),
        group=_named(values.get("group")),
    )


def _named(name: str | None) -> str | None:
    return None if name is None else normalised(name)
