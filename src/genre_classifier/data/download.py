"""Download a published archive, check its checksum and unpack it. An interrupted download is resumed."""

from __future__ import annotations

import hashlib
import http.client
import logging
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from genre_classifier.errors import DataError
from genre_classifier.files.atomic import replacing

log = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60.0  # without a byte


@dataclass(frozen=True)
class Archive:
    """A published zip file.

    Parameters
    ----------
    url : str
        Where it is published.
    sha1 : str
        The checksum that its publishers state.
    megabytes : int
        Its size, for people.
    members : tuple of str
        The files in it that are wanted, by their last name.
    """

    url: str
    sha1: str
    megabytes: int
    members: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the file."""
        return PurePosixPath(self.url).name


def fetch(archive: Archive, folder: Path, *, url: str | None = None, progress: bool = True) -> list[Path]:
    """Download an archive and unpack the wanted files. An interrupted download is resumed.

    Parameters
    ----------
    archive : Archive
    folder : Path
        Made where it does not exist.
    url : str or None
        A mirror; the checksum stays the same.
    progress : bool
        Whether to show a progress bar, where there is a terminal.

    Returns
    -------
    list of Path
        The unpacked files.

    Raises
    ------
    DataError
        Nobody answers, the connection breaks, or what came is not what was published.
    """
    wanted = [folder / member for member in archive.members]
    if all(path.is_file() for path in wanted):
        return wanted
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{archive.name}.part"
    _download(url or archive.url, part, progress)
    found = _compute_sha1(part)
    if found != archive.sha1:
        part.unlink()
        raise DataError(
            f"{url or archive.url}: SHA-1 of what came is {found}, published is {archive.sha1}; it was removed, so "
            "try again"
        )
    _unpack(part, archive.members, folder)
    part.unlink()
    return wanted


def _download(url: str, part: Path, progress: bool) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            if have and response.status != http.HTTPStatus.PARTIAL_CONTENT:
                have = 0  # the server does not resume
            _save(response, part, have, progress)
    except urllib.error.HTTPError as error:
        if have and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the whole file is already here
        raise DataError(f"{url}: the server answered {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        kept = (
            f"; {part.stat().st_size:,} bytes are kept, and the same command goes on" if part.exists() else ""
        )
        raise DataError(f"{url}: the download broke off ({reason}){kept}") from error


def _save(response: http.client.HTTPResponse, part: Path, have: int, progress: bool) -> None:
    from tqdm import tqdm

    left = response.headers.get("Content-Length")
    total = have + int(left) if left is not None else None
    bar = tqdm(
        desc=part.name.removesuffix(".part"),
        total=total,
        initial=have,
        unit="B",
        unit_scale=True,
        disable=None if progress else True,
    )
    with bar, part.open("ab" if have else "wb") as stream:
        while block := response.read(BLOCK_BYTES):
            stream.write(block)
            bar.update(len(block))
        if total is not None and stream.tell() < total:
            raise ConnectionError(f"{stream.tell():,} of {total:,} bytes came")


def _compute_sha1(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha1").hexdigest()


def _unpack(path: Path, members: Sequence[str], folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            inside = {PurePosixPath(name).name: name for name in archive.namelist()}
            for member in members:
                if member not in inside:
                    raise DataError(
                        f"{path}: there is no {member} in the archive; it has {', '.join(inside)}"
                    )
                # The name in the archive does not decide where the file is written.
                with (
                    archive.open(inside[member]) as source,
                    replacing(folder / member) as temporary,
                    temporary.open("wb") as target,
                ):
                    shutil.copyfileobj(source, target, BLOCK_BYTES)
                log.info("%s unpacked", folder / member)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is not a zip file: {error}") from error
