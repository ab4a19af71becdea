"""Find audio files, with genre and group from their folders: FOLDER/GENRE/[GROUP/]FILE."""

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
    get_suffix,
    is_companion,
    is_readable,
    is_system_folder,
    suggest_conversion,
)
from genre_classifier.features.measure import Failure
from genre_classifier.features.names import normalise, refuse_alike_genres
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
    id : str
        Its path below the folder it was found in, or the id in the list.
    genre : str or None
        Name of the folder below the root, or the genre in the list.
    group : str or None
        Its files stay on one side of a split. Name of the folder below the genre, or the group in the list.
    problem : Failure or None
        The reason if it is already known that the file cannot be measured: an unsupported suffix, an unreadable folder,
        a genre's folder without a file.
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
        Sorted by path. Files that look like music but cannot be measured are included, with their problem.
    n_others : Counter of str
        Number of other files (covers, playlists and the like) by suffix. Hidden files count as ``hidden``.
    """

    files: list[AudioFile] = field(default_factory=list)
    n_others: Counter[str] = field(default_factory=Counter)

    def describe_others(self) -> str:
        """Return a text with the number of other files, and their suffixes."""
        n = self.n_others.total()
        what = "file that is" if n == 1 else "files that are"
        return f"{n} {what} not music passed over ({_format_counts(self.n_others)})"


def find_audio(root: Path) -> list[AudioFile]:
    """Return the audio files below a folder. :func:`scan` also counts the other files."""
    collection = scan(root)
    if collection.n_others:
        log.info("%s: %s", root, collection.describe_others())
    return collection.files


def scan(root: Path) -> Collection:
    """Return the audio files below a folder, and the number of other files.

    Links are followed, and each folder is read once. Hidden files and folders are skipped.

    Raises
    ------
    DataError
        There is no such folder, no audio file in it, or two genres that differ only in case, spaces or Unicode form.
    """
    if not root.is_dir():
        what = "is a file; name it with --files list.csv" if root.is_file() else "there is no such folder"
        raise DataError(f"{root}: {what}; expected a folder with audio in FOLDER/GENRE/FILE")
    collection = _Walk(root).collect()
    files = collection.files
    if all(file.problem is not None for file in files):
        problems = [(file, file.problem) for file in files if file.problem is not None]
        why = (
            f"; {describe_failures(problems)}; {select_one_per_kind(problems)[0].reason}" if problems else ""
        )
        raise DataError(
            f"{root}: no audio file in it; expected FOLDER/GENRE/FILE with {', '.join(SUFFIXES[:6])} or another format "
            f"that libsndfile reads{why}"
        )
    refuse_alike_genres({file.genre for file in files if file.genre is not None}, root)
    _refuse_same_id(root, files)
    loose = sum(file.genre is None and file.problem is None for file in files)
    if 0 < loose < len(files):
        log.warning("%s: %d files lie beside the genres' folders and have no genre", root, loose)
    return collection


def describe_failures(failures: Sequence[tuple[AudioFile, Failure]]) -> str:
    """Return a text with the number of files without features, by suffix, genre and kind."""
    counts = Counter(
        f"{get_suffix(file.path.name) or 'without suffix'} in {file.genre or file.path.parent} ({failure.kind})"
        for file, failure in failures
    )
    shown = ", ".join(f"{n} {what}" for what, n in counts.most_common(SHOWN_COUNTS))
    more = f", and {len(counts) - SHOWN_COUNTS} more such" if len(counts) > SHOWN_COUNTS else ""
    n = len(failures)
    return f"{n} file{'s' if n != 1 else ''} left out: {shown}{more}"


def select_one_per_kind(failures: Sequence[tuple[AudioFile, Failure]]) -> list[Failure]:
    """Return the first failure of each kind."""
    first = {failure.kind: failure for _, failure in reversed(failures)}
    return [first[kind] for kind in sorted(first)]


def read_list(path: Path) -> list[AudioFile]:
    """Return the files that a CSV file lists.

    Parameters
    ----------
    path : Path
        Has a column ``path`` (relative to the list's folder) and may have ``id``, ``genre`` and ``group``.

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
            files = [_read_row(path, row, number) for number, row in enumerate(reader, start=2)]
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
    """A walk through the folders below a root."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._found: list[AudioFile] = []
        self._others: dict[str | None, Counter[str]] = defaultdict(Counter)  # by genre
        self._genres: dict[str, Path] = {}  # their folders
        self._visited: dict[tuple[int, int], Path] = {}

    def collect(self) -> Collection:
        """Read all folders. A genre's folder without music is a file with a problem."""
        waiting = [self._root]
        while waiting:
            waiting.extend(
                reversed(self._folders_below(waiting.pop()))
            )  # sorted, so the same link always comes first
        in_genre = {file.genre for file in self._found}
        for genre, folder in self._genres.items():
            if genre in in_genre:
                continue
            others = self._others[genre]
            holds = f"no music, {_format_counts(others)}" if others else "no file"
            problem = Failure("empty", f"{folder} holds {holds}")
            self._found.append(AudioFile(folder, genre, genre, problem=problem))
        n_others: Counter[str] = sum(self._others.values(), Counter())
        return Collection(sorted(self._found, key=lambda file: file.path), n_others)

    def _folders_below(self, folder: Path) -> list[Path]:
        """Add a folder's files. Return the folders in it that must be read."""
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
            self._genres = {_decode_name(genre.name): genre for genre in below}
        return below

    def _see_again(self, folder: Path, first: Path) -> None:
        """Report a folder that was already read under another path, unless its files keep their genre."""
        genre, other = self._get_genre(folder, True), self._get_genre(first, True)
        if genre == other or (first in folder.parents and folder.parent != self._root):
            return
        reason = f"{folder} is the same folder as {first}, whose files are taken"
        self._add(folder, Failure("empty", reason), is_folder=True)

    def _take(self, path: Path) -> None:
        name = path.name
        if name.startswith("."):
            self._others[self._get_genre(path)]["hidden"] += 1
        elif is_companion(name):
            self._others[self._get_genre(path)][get_suffix(name) or name] += 1
        elif path.is_symlink() and not os.path.exists(path):  # noqa: PTH110 - raises no PermissionError
            reason = f"{path} is a link to {path.readlink()}, which does not exist or cannot be reached"
            self._add(path, Failure("unreadable", reason), is_folder=not is_readable(name))
        elif is_readable(name):
            self._add(path)
        else:
            what = get_suffix(name) or "a file without suffix"
            self._add(path, Failure("unsupported", f"{path}: {what} is not read; {suggest_conversion(path)}"))

    def _get_genre(self, path: Path, is_folder: bool = False) -> str | None:
        names = path.relative_to(self._root).parts
        return _decode_name(names[0]) if len(names) > (0 if is_folder else 1) else None

    def _add(self, path: Path, problem: Failure | None = None, is_folder: bool = False) -> None:
        names = path.relative_to(self._root).parts
        self._found.append(
            AudioFile(
                path=path,
                id=_decode_name("/".join(names)),
                genre=self._get_genre(path, is_folder),
                group=_decode_name(names[1]) if len(names) > 2 else None,
                problem=problem,
            )
        )


def _refuse_same_id(root: Path, files: Sequence[AudioFile]) -> None:
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
    except OSError:  # a link to itself, or into an unreadable folder
        return False


def _format_counts(counts: Counter[str]) -> str:
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{n} {what}" for what, n in ordered)


def _decode_name(name: str) -> str:
    """Return a file name as normalised text. Bytes that are not UTF-8 are escaped."""
    return normalise(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def _read_row(path: Path, row: dict[str, str | None], number: int) -> AudioFile:
    values = {
        key: restore_cell((value or "").strip()) or None for key, value in row.items() if isinstance(key, str)
    }
    name = values["path"]
    if name is None:
        raise DataError(f"{path}, row {number}: the path is empty; fill it in or remove the row")
    return AudioFile(
        path=path.parent / expand_home(name),
        id=normalise(values.get("id") or Path(name).as_posix()),
        genre=_normalise_optional(values.get("genre")),
        group=_normalise_optional(values.get("group")),
    )


def _normalise_optional(name: str | None) -> str | None:
    return None if name is None else normalise(name)
