"""Choose the folders of caches, ours and the libraries': the user's, or a temporary one if those are read-only."""

from __future__ import annotations

import logging
import os
import stat
import sys
import tempfile
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

OURS = "genre-classifier"
# By which variables libraries take a folder for their caches, and what they use below the home without one.
_FOLDERS = {
    "XDG_CACHE_HOME": (".cache",),  # pooch, of librosa, and others
    "NUMBA_CACHE_DIR": (".cache",),
    "MPLCONFIGDIR": (".cache", ".config"),
}
_BASES = {".cache": "XDG_CACHE_HOME", ".config": "XDG_CONFIG_HOME"}


def cache_folder() -> Path | None:
    """Return this package's cache folder, which can be written; it need not exist.

    It lies in ``XDG_CACHE_HOME`` or ``~/.cache``. Where neither can be written, as in a container whose user has no
    home, a folder for temporary files that only this user can write takes its place. None if there is none either.
    """
    home = _find_home(".cache")
    if home is not None and _is_writable(home / OURS):
        return home / OURS
    temporary = _find_temporary()
    return None if temporary is None else temporary / OURS


def prepare_caches() -> None:
    """Let libraries (numba and pooch of librosa, matplotlib) write caches where the user's folders cannot be written.

    Call it before they are imported. It sets ``XDG_CACHE_HOME``, ``NUMBA_CACHE_DIR`` and ``MPLCONFIGDIR``, which
    processes that are started later inherit, and only those whose folder could not be written otherwise.
    """
    lacking = [variable for variable, names in _FOLDERS.items() if not _has_folder(variable, names)]
    temporary = _find_temporary() if lacking else None
    if temporary is not None:
        os.environ.update(dict.fromkeys(lacking, str(temporary)))
        if "numba" in sys.modules:
            sys.modules["numba"].config.reload_config()


def _has_folder(variable: str, names: tuple[str, ...]) -> bool:
    chosen = os.environ.get(variable)
    homes = [Path(chosen)] if chosen else [_find_home(name) for name in names]
    return all(home is not None and _is_writable(home) for home in homes)


def _find_home(name: str) -> Path | None:
    chosen = os.environ.get(_BASES[name])
    if chosen:
        return Path(chosen)
    try:
        return Path.home() / name
    except RuntimeError:  # neither HOME nor an entry among the system's users
        return None


def _is_writable(folder: Path) -> bool:
    """Return whether a folder can be written or made. Nothing is made."""
    for place in (folder, *folder.absolute().parents):
        if os.access(place, os.F_OK):
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
        if place.is_symlink():  # to nowhere
            return False
    return False


@cache
def _find_temporary() -> Path | None:
    """Return a folder for temporary files that nobody else can write: numba runs what it finds in its cache."""
    user = os.getuid() if hasattr(os, "getuid") else ""
    for base in _list_temporary_bases():
        folder = base / f"genre-classifier-{user}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if not _is_ours(folder):
                folder = Path(tempfile.mkdtemp(prefix="genre-classifier-", dir=base))
        except OSError:
            continue
        log.warning("the user's cache folder cannot be written: caches are kept in %s", folder)
        return folder
    return None


def _list_temporary_bases() -> list[Path]:
    bases = [Path("/dev/shm")] if sys.platform == "linux" else []
    try:
        return [Path(tempfile.gettempdir()), *bases]
    except FileNotFoundError:  # no folder that can be written
        return bases


def _is_ours(folder: Path) -> bool:
    status = folder.lstat()
    if not hasattr(os, "getuid"):
        return stat.S_ISDIR(status.st_mode)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022
