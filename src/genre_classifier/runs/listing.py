"""Read folders one after the other. A folder that cannot be read is left out, with the reason."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from genre_classifier.errors import GenreClassifierError
from genre_classifier.runs.folder import RunFolder, shorten_path

T = TypeVar("T")
SHOWN = 20
RUN_FILE = "run.json"


@dataclass(frozen=True)
class Unreadable:
    """A folder that was left out.

    Parameters
    ----------
    folder : Path
    reason : str
        The file and its fault.
    """

    folder: Path
    reason: str


class Readable(list[T]):
    """The results of the readable folders, in order.

    Attributes
    ----------
    unreadable : list of Unreadable
        The folders that cannot be read.
    """

    def __init__(self, items: Iterable[T] = (), unreadable: Iterable[Unreadable] = ()) -> None:
        super().__init__(items)
        self.unreadable = list(unreadable)


def read_each(folders: Iterable[RunFolder], read: Callable[[RunFolder], T]) -> Readable[T]:
    """Read every folder, and note those for which `read` raises an error of this package."""
    found: Readable[T] = Readable()
    for folder in folders:
        try:
            found.append(read(folder))
        except GenreClassifierError as error:
            found.unreadable.append(describe_unreadable(folder, error))
    return found


def describe_unreadable(folder: RunFolder, error: GenreClassifierError) -> Unreadable:
    """Return the note about a folder whose reading raised an error."""
    reason = str(error).splitlines()[0]
    for start in (f"{folder.path}{os.sep}", f"{folder.path}: "):
        reason = reason.removeprefix(start)
    return Unreadable(folder.path, reason)


def format_unreadable(left_out: Iterable[Unreadable]) -> Iterator[str]:
    """Yield lines that name the folders that were left out."""
    notes = list(left_out)
    if not notes:
        return
    yield f"{len(notes)} {'folder is' if len(notes) == 1 else 'folders are'} unreadable and left out:"
    for note in notes[:SHOWN]:
        yield f"  {shorten_path(note.folder)}: {note.reason}"
    if len(notes) > SHOWN:
        yield f"  and {len(notes) - SHOWN} more"


def find_run_folders(
    start: Path, *, depth: int | None = None, skip: frozenset[str] = frozenset()
) -> list[Path]:
    """Return the folders at and below `start` that have a run.json, sorted. A broken link counts as a run.json.

    Parameters
    ----------
    start : Path
        If it is itself a run's folder, it is the only result.
    depth : int, optional
        The number of levels to go down. The default is all.
    skip : frozenset of str
        Names of folders that are not entered.
    """
    if os.path.lexists(start / RUN_FILE):
        return [start]
    found = []
    for name, below, files in os.walk(start):
        folder = Path(name)
        if RUN_FILE in files or RUN_FILE in below:
            found.append(folder)
        deep = depth is not None and len(folder.relative_to(start).parts) >= depth
        below[:] = [] if deep else sorted(set(below) - skip - {RUN_FILE})
    return sorted(found)
