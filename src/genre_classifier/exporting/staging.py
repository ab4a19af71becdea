"""A temporary folder for the bundle that an export tries before it publishes; a killed export's is removed later."""

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
INSIDE: Final = "bundle"  # all that such a folder holds
ATTEMPTS: Final = 100

log = logging.getLogger(__name__)


@contextlib.contextmanager
def staging_folder() -> Iterator[Path]:
    """Make a folder in the system's temporary one, and remove it at the end.

    As long as it is in use it is locked, and the system gives a lock back when a process is killed: so what the
    exports before this one left is told from what the exports beside it are using.

    Raises
    ------
    ExportError
        The folder cannot be made.
    """
    _remove_abandoned(Path(tempfile.gettempdir()))
    try:
        folder, handle = _claimed()
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


def _claimed() -> tuple[Path, int]:
    """Return a new folder and the handle that holds its lock."""
    for _ in range(ATTEMPTS):
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with contextlib.suppress(FileNotFoundError):  # an export beside this one took it for abandoned
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
                    log.debug("removed %s, which a killed export left", folder)
            finally:
                os.close(handle)
