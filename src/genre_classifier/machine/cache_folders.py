"""Choose the cache folders of this package and of libraries: the user's, or temporary ones if those are read-only."""

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
# The variables that set libraries' cache folders, and the folders below the home that libraries use by default.
_FOLDERS = {
    "XDG_CACHE_HOME": (".cache",),  # pooch, of librosa, and others
    "NUMBA_CACHE_DIR": (".cache",),
    "MPLCONFIGDIR": (".cache", ".config"),
}
_BASES = {".cache": "XDG_CACHE_HOME", ".config": "XDG_CONFIG_HOME"}


def find_cache_folder() -> Path | None:
    """Return this package's cache folder. It can be written, but need not exist.

    It lies in ``XDG_CACHE_HOME`` or ``~/.cache``. If neither can be written, as in a container whose user has no home,
    it lies in a temporary folder that only this user can write. Returns None if there is none.
    """
    home = _find_home(".cache")
    if home is not None and _is_writable(home / OURS):
        return home / OURS
    temporary = _find_temporary()
    return None if temporary is None else temporary / OURS


def prepare_caches() -> None:
    """Give libraries (librosa's numba and pooch, matplotlib) other cache folders if the user's cannot be written.

    Call it before they are imported. It sets those of ``XDG_CACHE_HOME``, ``NUMBA_CACHE_DIR`` and ``MPLCONFIGDIR``
    whose folder cannot be written otherwise. Processes that are started later inherit them.
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
    except RuntimeError:  # no HOME, and the system does not list the user
        return None


def _is_writable(folder: Path) -> bool:
    """Return whether a folder can be written or made. Nothing is made."""
    for place in (folder, *folder.absolute().parents):
        if os.access(place, os.F_OK):
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
        if place.is_symlink():  # a link to nothing
            return False
    return False


@cache
def _find_temporary() -> Path | None:
    """Return a temporary folder that nobody else can write: numba runs the code in its cache."""
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
