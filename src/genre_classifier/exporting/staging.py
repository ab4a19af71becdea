"""A temporary folder for testing a bundle before it is published. The next export removes a killed export's folder."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from genre_classifier.errors import ExportError
from genre_classifier.files.atomic import lock_folder

PREFIX: Final = "genre-classifier-export-"
INSIDE: Final = "bundle"  # the only entry of such a folder
ATTEMPTS: Final = 100

log = logging.getLogger(__name__)


@contextlib.contextmanager
def staging_folder() -> Iterator[Path]:
    """Make a folder in the system's temporary folder, and remove it at the end.

    The folder is locked while it is in use. The system releases the lock of a killed process, so an unlocked folder
    is abandoned, and a locked one belongs to an export that is running.

    Raises
    ------
    ExportError
        The folder cannot be made.
    """
    _remove_abandoned(Path(tempfile.gettempdir()))
    try:
        folder, handle = _claim()
    except OSError as error:
        raise ExportError(
            f"{tempfile.gettempdir()}: a temporary folder to try the bundle in cannot be made "
            f"({error.strerror or error}); free some space, or name another place with TMPDIR=FOLDER"
        ) from error
    try:
        yield folder / INSIDE  # not the folder itself: writing a bundle locks its folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _claim() -> tuple[Path, int]:
    """Return a new folder and the handle that holds its lock."""
    for _ in range(ATTEMPTS):
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with contextlib.suppress(FileNotFoundError):  # another export took the folder for abandoned
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            if lock_folder(handle) and folder.exists():
                return folder, handle
            os.close(handle)
    raise OSError("removed again and again by something else")


def _remove_abandoned(place: Path) -> None:
    for folder in place.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                is_ours = os.fstat(handle).st_uid == os.getuid()
                holds = {path.name for path in folder.iterdir()}
                if is_ours and holds <= {INSIDE} and lock_folder(handle):
                    shutil.rmtree(folder)
                    log.debug("removed %s, left by a killed export", folder)
            finally:
                os.close(handle)
