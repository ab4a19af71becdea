"""Replace several files at once. Versions are kept side by side, and one rename switches a symbolic link.

For a set of files called NAME in a folder::

    NAME.pt              -> NAME.versions/current/NAME.pt
    NAME_metadata.json   -> NAME.versions/current/NAME_metadata.json
    NAME.versions/
        current          -> 000007
        000006/          NAME.pt  NAME_metadata.json
        000007/          NAME.pt  NAME_metadata.json

A version is written under a temporary name, synced file by file and as a folder, and only then gets its number.
The switch is one rename of `current`. If a writer is killed at any moment, the names lead to the complete old set or to
the complete new one. A reader opens `current` once and reads every file through that one handle.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from genre_classifier.errors import BundleError
from genre_classifier.files.atomic import lock_folder, make_folder, sync_folder, write_synced
from genre_classifier.files.documents import read_bytes

CURRENT: Final = "current"
KEPT_VERSIONS: Final = 3  # the current one and two to go back to
GRACE_SECONDS: Final = 3600.0  # a reader may still be about to open a version that was replaced more recently
LOCK_SECONDS: Final = 60.0
MAX_FILE_BYTES: Final = 2**31

_VERSION: Final = re.compile(r"\d{6,}")
_WITHOUT_LINKS: Final = {errno.EPERM, errno.ENOTSUP}


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create `folder` if needed and lock it against other writers. Readers need no lock.

    Raises
    ------
    BundleError
        The folder cannot be made, or another writer did not finish within a minute.
    """
    try:
        make_folder(folder)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise BundleError(f"{folder}: cannot be created ({error.strerror})") from error
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        # Some network filesystems have no locks. The switch is still one rename.
        with contextlib.suppress(OSError):
            while not lock_folder(handle):
                if time.monotonic() > deadline:
                    raise BundleError(f"{folder}: another export has been writing here for a minute")
                time.sleep(0.02)
        yield
    finally:
        os.close(handle)  # releases the lock


def publish(
    folder: Path,
    name: str,
    files: Mapping[str, bytes],
    known_names: Sequence[str],
    check: Callable[[Mapping[str, bytes]], None],
) -> Path:
    """Make `files` the current version of the set `name`. The caller holds :func:`locked`.

    Parameters
    ----------
    folder : Path
        Folder of the documented names.
    name : str
        Name of the set.
    files : mapping of str to bytes
        Content of each file of the new version.
    known_names : Sequence[str]
        Every file name that may belong to the set. Regular files of these names first become a separate version. A link
        is removed if the new version lacks its file.
    check : callable
        Called with the new files, read from disk, before the switch. Its exception stops the publication.

    Returns
    -------
    Path
        Folder of the new version.

    Raises
    ------
    BundleError
        A file could not be written. The names lead to the old version, and no temporary file is left. If only the
        disk's confirmation of the switch fails, they lead to the new version, and the message says so.
    """
    store = folder / f"{name}.versions"
    if os.path.lexists(store) and (store.is_symlink() or not store.is_dir()):
        raise BundleError(f"{store}: expected the folder of versions, found something else; move it")
    fresh: list[Path] = []
    try:
        _tidy(folder, store)
        store.mkdir(exist_ok=True)
        present = [known for known in known_names if os.path.lexists(folder / known)]
        loose = [known for known in present if not _is_ours(folder / known, store)]
        last = max((int(version.name) for version in _list_versions(store)), default=0)
        fresh += [store / f"{last + step:06d}" for step in ((1, 2) if loose else (1,))]
        written = _write(fresh[-1], files)
        check(_read(written, dict.fromkeys(files, MAX_FILE_BYTES)))
        if loose:
            earlier = _read(folder, dict.fromkeys(known_names, MAX_FILE_BYTES))
            _switch(folder, _write(fresh[0], earlier), loose)
        _switch(folder, written, files)
    except BaseException as error:
        outcome = "the bundle could not be written, the earlier one was left as it was"
        if fresh and _leads_to(store / CURRENT, fresh[-1].name):
            outcome = "the new bundle is in place, but the disk did not confirm it; export again"
        _remove(version for version in fresh if not _leads_to(store / CURRENT, version.name))
        _tidy(folder, store)
        if not isinstance(error, OSError):
            raise
        at = f" ({error.filename})" if error.filename else ""
        raise BundleError(f"{folder / name}: {outcome}: {error.strerror or error}{at}") from error
    _tidy(folder, store)
    return fresh[-1]


def read_files(folder: Path, name: str, limits: Mapping[str, int], needed: Sequence[str]) -> dict[str, bytes]:
    """Return the content of the set's existing files, all from one version.

    `limits` has the largest number of bytes for every name that may belong to the set.

    Regular files are read one by one from the folder. If the `needed` names are links through `current`, `current` is
    opened once. It is opened again if the version was replaced meanwhile, because replaced versions may be removed.
    """
    store = folder / f"{name}.versions"
    for _ in range(100):
        if not all(_is_ours(folder / wanted, store) for wanted in needed):
            return _read(folder, limits)
        try:
            handle = os.open(store / CURRENT, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise BundleError(f"{store / CURRENT}: cannot be opened ({error.strerror})") from error
        try:
            files = _read(store / CURRENT, limits, handle)
            with contextlib.suppress(FileNotFoundError):  # `current` is gone
                if len(files) == len(limits) or os.path.samestat(os.fstat(handle), (store / CURRENT).stat()):
                    return files
        finally:
            os.close(handle)
    raise BundleError(f"{store}: replaced faster than it can be read; try again when the exports are done")


def compute_fingerprint(folder: Path, known_names: Sequence[str]) -> tuple:
    """Return a value that changes when one of the set's files changes. It is cheap enough to compute every second."""
    found = []
    for file_name in known_names:
        with contextlib.suppress(OSError):
            status = (folder / file_name).stat()
            found.append((file_name, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _write(version: Path, files: Mapping[str, bytes]) -> Path:
    """Write a version's files into a folder with a temporary name, and return the folder."""
    partial = version.with_suffix(".partial")
    partial.mkdir()
    for file_name, content in files.items():
        write_synced(partial / file_name, content)
    sync_folder(partial)
    return partial


def _switch(folder: Path, written: Path, names: Iterable[str]) -> None:
    """Make a written version the current one, and replace names that are not links yet by links."""
    store, version = written.parent, written.with_suffix("")

    def link(chosen: Iterable[str]) -> None:
        for name in chosen:
            _link(folder / name, _build_target(store, name), store)

    # Until the switch, a new link leads nowhere, as if it did not exist.
    link(name for name in names if not os.path.lexists(folder / name))
    sync_folder(folder)
    written.rename(version)
    sync_folder(store)
    _link(store / CURRENT, version.name, store)
    sync_folder(store)
    # The version has the content of the remaining regular files, so their names keep their content.
    link(name for name in names if not _is_ours(folder / name, store))


def _link(path: Path, target: str, store: Path) -> None:
    """Replace the file or link at `path` by a link, in one step."""
    fresh = store / f"{path.name}.new"
    try:
        fresh.symlink_to(target)
    except OSError as error:
        if error.errno not in _WITHOUT_LINKS:
            raise
        raise BundleError(
            f"{store.parent}: this filesystem has no symbolic links, which a bundle that changes in one step needs; "
            "export to another folder and copy the files"
        ) from error
    fresh.replace(path)


def _tidy(folder: Path, store: Path) -> None:
    """Remove the leftovers of killed and failed writers, and versions in `store` that no reader can open any more.

    Leftovers of all sets are removed, because a set with a version in its name is never written again.
    """
    with contextlib.suppress(OSError):
        dangling = [path for path in folder.iterdir() if path.is_symlink() and not path.exists()]
        for other in folder.glob("*.versions"):
            if other.is_symlink() or not other.is_dir():  # a link's target belongs to someone else
                continue
            _remove([*other.glob("[0-9]*.partial"), *filter(Path.is_symlink, other.glob("*.new"))])
            _remove(path for path in dangling if _is_ours(path, other))
            with contextlib.suppress(OSError):
                other.rmdir()  # fails unless it is empty
        versions = _list_versions(store)
        for old, successor in pairwise(versions[: 1 - KEPT_VERSIONS]):
            is_current = _leads_to(store / CURRENT, old.name)
            if not is_current and time.time() - successor.stat().st_mtime > GRACE_SECONDS:
                _remove([old])


def _remove(paths: Iterable[Path]) -> None:
    """Remove files, links and folders as far as the disk allows. Failures are ignored: an earlier error is reported."""
    for path in paths:
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _list_versions(store: Path) -> list[Path]:
    """Return the folders of complete versions, oldest first."""
    found = [path for path in store.glob("*") if _VERSION.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name))


def _is_ours(path: Path, store: Path) -> bool:
    return _leads_to(path, _build_target(store, path.name))


def _build_target(store: Path, file_name: str) -> str:
    return f"{store.name}/{CURRENT}/{file_name}"  # relative: the folder can be moved


def _leads_to(path: Path, target: str) -> bool:
    try:
        return str(path.readlink()) == target
    except OSError:
        return False


def _read(folder: Path, limits: Mapping[str, int], handle: int | None = None) -> dict[str, bytes]:
    """Return the content of the files that exist, read through an open `handle` of the folder if given."""
    files = {}
    for file_name, limit in limits.items():
        with contextlib.suppress(FileNotFoundError):
            files[file_name] = read_bytes(folder / file_name, limit, BundleError, folder=handle)
    return files
