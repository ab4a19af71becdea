"""Replace several files at once: versions stand side by side, and one rename switches a symbolic link.

For a set of files called NAME in a folder::

    NAME.pt              -> NAME.versions/current/NAME.pt
    NAME_metadata.json   -> NAME.versions/current/NAME_metadata.json
    NAME.versions/
        current          -> 000007
        000006/          NAME.pt  NAME_metadata.json
        000007/          NAME.pt  NAME_metadata.json

A version is written under another name, synced file by file and as a folder, and only then given its number;
the switch is one rename of `current`. Killed at any moment, the names lead to the complete old set or to the
complete new one. A reader opens `current` once and reads every file through that one handle.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from genre_classifier.errors import BundleError

CURRENT: Final = "current"
KEPT_VERSIONS: Final = 3  # the current one and two to go back to
GRACE_SECONDS: Final = 3600.0  # a version replaced more recently may still be about to be opened
LOCK_SECONDS: Final = 60.0
MAX_FILE_BYTES: Final = 2**31

_VERSION: Final = re.compile(r"\d{6,}")
_WITHOUT_FOLDER_SYNC: Final = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}
_WITHOUT_LOCKS: Final = {errno.ENOLCK, errno.ENOTSUP, errno.EBADF, errno.ENOSYS}


def versions_folder(folder: Path, name: str) -> Path:
    """Return the folder of versions of the set `name`."""
    return folder / f"{name}.versions"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create `folder` if needed and lock it against other writers. Readers need no lock.

    Raises
    ------
    BundleError
        The folder cannot be made, or another writer did not finish within a minute.
    """
    _make_folder(folder)
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise BundleError(f"{folder}: cannot be opened for writing a bundle ({error.strerror})") from error
    try:
        _acquire(handle, folder)
        yield
    finally:
        os.close(handle)  # gives the lock back


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
        Where the documented names stand.
    name : str
        Name of the set.
    files : mapping of str to bytes
        Content of each file of the new version.
    known_names : Sequence[str]
        Every file name that may belong to the set. Plain files that stand under one of them are taken over
        as a version of their own; a link whose file the new version lacks is removed.
    check : callable
        Called with what was written, read back from disk, before anything is switched; its exception stops
        the publication.

    Returns
    -------
    Path
        Folder of the new version.

    Raises
    ------
    BundleError
        Something could not be written; what was there before still stands, and nothing temporary is left.
    """
    store = versions_folder(folder, name)
    made: list[Path] = []
    try:
        _make_store(store, made)
        _remove_leftovers(folder, store, known_names)
        foreign = _foreign_names(folder, store, known_names)
        number = _last_number(store) + 1
        # Plain files that stand here become the version before this one.
        version = _write_version(store, number + bool(foreign), files, made)
        check(_read_folder(version, list(files)))
        if foreign:
            _take_over(folder, store, number, foreign, known_names)
        _link_names(folder, store, files, made)
        _switch(store, version, made)
    except OSError as error:
        _discard(store, made)
        if _target(store / CURRENT) in {path.name for path in made}:
            raise BundleError(
                f"{folder / name}: the new bundle is in place, but the disk did not confirm that: "
                f"{error.strerror or error}; check the disk and export again"
            ) from error
        at = f" ({error.filename})" if error.filename else ""
        raise BundleError(
            f"{folder / name}: the bundle could not be written, the earlier one was left as it was: "
            f"{error.strerror or error}{at}"
        ) from error
    except BaseException:
        _discard(store, made)
        raise
    _tidy(folder, store, version, files, known_names)
    return version


def read_files(folder: Path, name: str, limits: Mapping[str, int], needed: Sequence[str]) -> dict[str, bytes]:
    """Return the content of the set's existing files, all from one version.

    `limits` has every name that may belong to the set, with the most bytes that such a file has.

    Plain files are read one by one from the folder; where the `needed` names lead through `current`, it is
    opened once, and read anew should that version be removed meanwhile.
    """
    store = versions_folder(folder, name)
    for _ in range(100):
        if not all(_is_our_link(folder / file_name, store) for file_name in needed):
            return _read_folder(folder, limits)
        try:
            handle = os.open(store / CURRENT, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise BundleError(f"{store / CURRENT}: cannot be opened ({error.strerror})") from error
        try:
            files = _read_folder(store / CURRENT, limits, handle)
            if len(files) == len(limits):
                return files
            # A file may be missing because this very version is being removed.
            if os.path.samestat(os.fstat(handle), (store / CURRENT).stat()):
                return files
        except FileNotFoundError:
            continue
        finally:
            os.close(handle)
    raise BundleError(f"{store}: replaced faster than it can be read; try again when the exports are done")


def fingerprint(folder: Path, known_names: Sequence[str]) -> tuple:
    """Return a value that changes when one of the set's files does; cheap enough to ask for every second."""
    found: list[tuple[int, int, int, int] | None] = []
    for file_name in known_names:
        try:
            status = (folder / file_name).stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _acquire(handle: int, folder: Path) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise BundleError(f"{folder}: another export has been writing here for a minute") from None
            time.sleep(0.02)
        except OSError as error:
            if (
                error.errno in _WITHOUT_LOCKS
            ):  # some network filesystems; the switch itself is still one rename
                return
            raise BundleError(f"{folder}: cannot be locked ({error.strerror})") from error


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    try:
        _make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
        _sync_folder(folder.parent)
    except OSError as error:
        raise BundleError(f"{folder}: cannot be created ({error.strerror})") from error


def _make_store(store: Path, made: list[Path]) -> None:
    try:
        store.mkdir()
    except FileExistsError:
        if store.is_symlink() or not store.is_dir():
            raise BundleError(
                f"{store}: expected the folder of versions, found something else; move it"
            ) from None
        return
    made.append(store)
    _sync_folder(store.parent)


def _write_version(store: Path, number: int, files: Mapping[str, bytes], made: list[Path]) -> Path:
    version = store / f"{number:06d}"
    partial = version.with_suffix(".partial")
    partial.mkdir()
    made.append(partial)
    for file_name, content in files.items():
        _write_file(partial / file_name, content)
    _sync_folder(partial)
    made.append(version)
    partial.rename(version)
    _sync_folder(store)
    return version


def _last_number(store: Path) -> int:
    return max((int(entry.name) for entry in _versions(store)), default=0)


def _versions(store: Path) -> list[Path]:
    """Return the folders of complete versions, oldest first."""
    found = [entry for entry in store.iterdir() if _VERSION.fullmatch(entry.name)]
    return sorted(found, key=lambda entry: int(entry.name))


def _write_file(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _WITHOUT_FOLDER_SYNC:
            raise
    finally:
        os.close(handle)


def _foreign_names(folder: Path, store: Path, known_names: Sequence[str]) -> list[str]:
    """Return the names under which something stands that is not a link into the store."""
    present = [file_name for file_name in known_names if os.path.lexists(folder / file_name)]
    return [file_name for file_name in present if not _is_our_link(folder / file_name, store)]


def _take_over(
    folder: Path, store: Path, number: int, foreign: Sequence[str], known_names: Sequence[str]
) -> None:
    """Turn plain files that stand under the set's names into a version, and the names into links to it.

    At each step every name shows the content it showed before.
    """
    made: list[Path] = []
    try:
        adopted = _write_version(store, number, _read_folder(folder, known_names), made)
        _switch(store, adopted, made)
    except BaseException:
        _discard(store, made)
        raise
    for file_name in foreign:
        _replace_by_link(folder / file_name, _link_target(store, file_name))
    _sync_folder(folder)


def _link_names(folder: Path, store: Path, files: Mapping[str, bytes], made: list[Path]) -> None:
    """Make the links that do not exist yet. Until the switch they lead nowhere, as if they did not exist."""
    for file_name in files:
        path = folder / file_name
        if not os.path.lexists(path):
            made.append(path)
            _symlink(_link_target(store, file_name), path)
    _sync_folder(folder)


def _switch(store: Path, version: Path, made: list[Path]) -> None:
    before = _target(store / CURRENT)
    fresh = store / f"{CURRENT}.new"
    made.append(fresh)
    _symlink(version.name, fresh)
    fresh.replace(store / CURRENT)
    try:
        _sync_folder(store)
    except OSError:
        _switch_back(store, before)
        raise


def _switch_back(store: Path, before: str | None) -> None:
    """Switch back to the earlier version if the disk could not make the switch permanent."""
    fresh = store / f"{CURRENT}.new"
    with contextlib.suppress(OSError):
        if before is None:
            (store / CURRENT).unlink()
        else:
            fresh.symlink_to(before)
            fresh.replace(store / CURRENT)


def _replace_by_link(path: Path, target: str) -> None:
    fresh = path.with_name(f"{path.name}.new-link")
    _symlink(target, fresh)
    try:
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def _symlink(target: str, path: Path) -> None:
    try:
        path.symlink_to(target)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP):
            raise BundleError(
                f"{path.parent}: this filesystem has no symbolic links, which a bundle that changes in one "
                "step needs; export to another folder and copy the files"
            ) from error
        raise


def _link_target(store: Path, file_name: str) -> str:
    return f"{store.name}/{CURRENT}/{file_name}"


def _is_our_link(path: Path, store: Path) -> bool:
    return _target(path) == _link_target(store, path.name)


def _target(path: Path) -> str | None:
    try:
        return str(path.readlink())
    except OSError:
        return None


def _read_folder(
    folder: Path, file_names: Sequence[str] | Mapping[str, int], handle: int | None = None
) -> dict[str, bytes]:
    """Return the content of the files that exist, through an open `handle` on the folder where given."""
    limits = file_names if isinstance(file_names, Mapping) else dict.fromkeys(file_names, MAX_FILE_BYTES)
    files = {}
    for file_name, limit in limits.items():
        content = _read_file(folder / file_name, file_name if handle is not None else None, handle, limit)
        if content is not None:
            files[file_name] = content
    return files


def _read_file(path: Path, relative: str | None, folder_handle: int | None, limit: int) -> bytes | None:
    try:
        # Without O_NONBLOCK a named pipe in a file's place would wait for ever.
        handle = os.open(relative or path, os.O_RDONLY | os.O_NONBLOCK, dir_fd=folder_handle)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path}: expected a file, found something else")
        if status.st_size > limit:
            raise BundleError(f"{path}: {status.st_size:,} bytes, more than any such file ({limit:,})")
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(limit)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
    finally:
        os.close(handle)


def _remove_leftovers(folder: Path, store: Path, known_names: Sequence[str]) -> None:
    """Remove the files that a killed writer left. The lock ensures that no other writer is at work.

    A version that was complete is kept even where it was never switched to.
    """
    leftovers = [folder / f"{file_name}.new-link" for file_name in known_names]
    for other in folder.glob("*.versions"):
        if other.is_symlink() or not other.is_dir():  # what a link leads to is not ours to tidy
            continue
        if other != store and not os.path.lexists(other / CURRENT):  # a set that was never published
            names = folder.glob(f"{glob.escape(other.stem)}*")
            leftovers += [other, *(path for path in names if _is_our_link(path, other))]
        leftovers += [*other.glob("[0-9]*.partial"), other / f"{CURRENT}.new"]
    _remove([path for path in leftovers if os.path.lexists(path)])


def _discard(store: Path, made: Sequence[Path]) -> None:
    """Undo a publication that failed before the switch."""
    if _target(store / CURRENT) not in {path.name for path in made}:
        _remove(made)


def _remove(paths: Sequence[Path]) -> None:
    """Remove files, links and folders in reverse order, as far as the disk allows.

    A failure is not reported: what led here is.
    """
    for path in reversed(paths):
        with contextlib.suppress(OSError):
            if path.is_symlink() or not path.is_dir():
                path.unlink()
            elif path.suffix == ".versions":
                path.rmdir()  # only where nothing else is in it
            else:
                shutil.rmtree(path)


def _tidy(
    folder: Path, store: Path, version: Path, files: Mapping[str, bytes], known_names: Sequence[str]
) -> None:
    """Remove links that lead nowhere, and versions that no reader can open any more."""
    with contextlib.suppress(OSError):
        for file_name in known_names:
            if file_name not in files and _is_our_link(folder / file_name, store):
                (folder / file_name).unlink()
        versions = _versions(store)
        now = time.time()
        for old, successor in pairwise(versions):
            replaced = successor.stat().st_mtime
            if (
                old.is_symlink()
                or old in versions[-KEPT_VERSIONS:]
                or old == version
                or now - replaced < GRACE_SECONDS
            ):
                continue
            shutil.rmtree(old)
