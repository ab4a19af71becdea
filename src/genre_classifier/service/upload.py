"""An uploaded file: taken out of a form piece by piece, and kept on disk until it has been measured."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import TracebackType
from typing import BinaryIO, Final
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from genre_classifier.service.endpoints import MAX_AUDIO_BYTES

ENVELOPE_BYTES: Final = 64 * 2**10  # of a form beside its file: boundaries, headers, other fields
MAX_PARTS: Final = 32
MAX_PART_HEADERS: Final = 16
PART_HEADER_BYTES: Final = 4096
CONTENT_TYPE_BYTES: Final = 1024
# The parser would log a warning about each bad form, and a hostile client could fill the disk. The answer says it all.
_SILENT: Final = logging.Logger(f"{__name__}.parser", logging.CRITICAL)

# RFC 5987, as urllib3 1.x and .NET's HttpClient send it, and RFC 2231's numbered sections of it.
_EXTENDED: Final = re.compile(
    r"""filename\*(?:(?P<section>[0-9]{1,3})(?P<coded>\*?))?\s*=\s*(?:"(?P<quoted>[^"]*)"|(?P<plain>[^;\s]*))""",
    re.IGNORECASE,
)


class RefusedAudioError(Exception):
    """A request that cannot be answered.

    Parameters
    ----------
    status : int
        Of the answer.
    message : str
        The reason, for the caller.
    location : tuple of str
        What in the request is at fault.
    """

    def __init__(self, status: int, message: str, location: tuple[str, ...] = ("body", "file")) -> None:
        super().__init__(message)
        self.status = status
        self.location = location


class Upload:
    """The file of a form, ``multipart/form-data`` with a field ``file``; deleted at the end of a with block.

    Parameters
    ----------
    content_type : str
        Of the request.
    suffixes : sequence of str
        What a file's name may end with.

    Raises
    ------
    RefusedAudioError
        By this or by ``write`` and ``finish``: it is no such form, has no such field, its file is empty or too
        large, or its suffix is another.
    """

    def __init__(self, content_type: str, suffixes: tuple[str, ...]) -> None:
        if len(content_type) > CONTENT_TYPE_BYTES:
            raise RefusedAudioError(400, f"a content-type of more than {CONTENT_TYPE_BYTES:,} bytes")
        kind, parameters = parse_options_header(content_type.encode("latin-1", "replace"))
        boundary = parameters.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise RefusedAudioError(400, "expected multipart/form-data with the field 'file'")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_begin": self._begin_header,
                    "on_header_field": self._take_header_name,
                    "on_header_value": self._take_header_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._begin_content,
                    "on_part_data": self._take_content,
                    "on_part_end": self._end_part,
                },
                max_header_count=MAX_PART_HEADERS,
                max_header_size=PART_HEADER_BYTES,
            )
        except FormParserError as error:
            raise RefusedAudioError(400, f"the form cannot be read: {error}") from error
        self._parser.logger = _SILENT
        self.name = ""  # without folders
        self.path = Path()  # exists while the with block lasts
        self._suffixes = suffixes
        self._folder = tempfile.TemporaryDirectory(
            prefix="genre-classifier-audio-", ignore_cleanup_errors=True
        )
        self._file: BinaryIO | None = None
        self._n_parts = 0
        self._received = 0  # bytes of the form
        self._size = 0  # bytes of the file
        self._is_complete = False
        self._header = bytearray(), bytearray()
        self._disposition = b""

    def __enter__(self) -> Upload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        self._folder.cleanup()

    def write(self, piece: bytes) -> None:
        """Take the next piece of the form."""
        self._received += len(piece)
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise RefusedAudioError(400, f"the form cannot be read: {error}") from error
        except OSError as error:
            raise RefusedAudioError(503, f"the file could not be stored: {error.strerror}") from error
        if self._received - self._size > ENVELOPE_BYTES:
            hint = "" if self._file else "; the form must have it in the field 'file'"
            raise RefusedAudioError(413, f"more than {ENVELOPE_BYTES:,} bytes beside the file{hint}")

    def finish(self) -> None:
        """Take the end of the form; from now on the file can be read at `path`."""
        if not self.name:
            raise RefusedAudioError(400, "the form has no file in the field 'file'")
        if not self._is_complete:
            raise RefusedAudioError(400, "the form is cut off: its last boundary is missing")
        if not self._size:
            raise RefusedAudioError(422, "the file is empty")
        assert self._file is not None
        self._file.flush()

    def _begin_part(self) -> None:
        self._n_parts += 1
        if self._n_parts > MAX_PARTS:
            raise RefusedAudioError(400, f"the form has more than {MAX_PARTS} fields")
        self._disposition = b""

    def _begin_header(self) -> None:
        self._header = bytearray(), bytearray()

    def _take_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _take_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _end_header(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = bytes(self._header[1])

    def _begin_content(self) -> None:
        name, filename = form_field(self._disposition)
        if name != "file" or filename is None or self.name:
            return
        self.name = PureWindowsPath(filename).name or "file"  # takes both kinds of slashes for folders
        suffix = PurePosixPath(self.name).suffix.lower()
        if suffix not in self._suffixes:
            found, known = suffix or "no suffix", ", ".join(self._suffixes)
            raise RefusedAudioError(422, f"{self.name!r}: {found} is none of {known}")
        self.path = Path(self._folder.name) / f"audio{suffix}"
        self._file = _open_for_this_process(self.path)

    def _take_content(self, data: bytes, start: int, end: int) -> None:
        if self._file is None or self._is_complete:
            return
        self._size += end - start
        if self._size > MAX_AUDIO_BYTES:
            raise RefusedAudioError(413, f"more than {MAX_AUDIO_BYTES:,} bytes")
        self._file.write(memoryview(data)[start:end])

    def _end_part(self) -> None:
        self._is_complete = self._file is not None


def _open_for_this_process(path: Path) -> BinaryIO:
    """Open a file to write, which others read at a path; where the system can, it ends with this process.

    On Linux the file has no name, and the path is a link to this process's descriptor: whatever ends the process, the
    song does not stay on the disk.
    """
    if sys.platform == "linux":
        file = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115
        path.symlink_to(f"/proc/{os.getpid()}/fd/{file.fileno()}")
        if os.access(path, os.R_OK):
            return file
        file.close()
        path.unlink()
    return path.open("wb")


def form_field(disposition: bytes) -> tuple[str | None, str | None]:
    """Return name and file name of a part of a form, None where its Content-Disposition has none.

    A file name may be written as ``filename="a.mp3"``, ``filename*=utf-8''a.mp3``, or both, of which the second is
    taken (RFC 6266).
    """
    _, parameters = parse_options_header(disposition)
    name, filename = (_decoded(parameters.get(key)) for key in (b"name", b"filename"))
    extended = _extended_filename(disposition.decode("utf-8", "replace"))
    return name, filename if extended is None else extended


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _extended_filename(disposition: str) -> str | None:
    # What stands in quotes is no parameter, except the value of the one that is looked for.
    sections: dict[int, bytes] = {}
    charset = "utf-8"
    for parameter in _split(disposition):
        found = _EXTENDED.fullmatch(parameter.strip())
        if found is None:
            continue
        value = found["plain"] if found["quoted"] is None else found["quoted"]
        section = int(found["section"] or 0)
        if section == 0 and (found["section"] is None or found["coded"]) and value.count("'") >= 2:
            charset, _, value = value.split("'", 2)
        sections[section] = unquote_to_bytes(value) if found["coded"] != "" else value.encode()
    if not sections:
        return None
    joined = b"".join(sections[number] for number in sorted(sections))
    return joined.decode("latin-1" if charset.lower() == "iso-8859-1" else "utf-8", "replace")


def _split(disposition: str) -> list[str]:
    """Return the parts of a header's value between semicolons that do not stand in quotes."""
    return re.findall(r'(?:[^;"]|"(?:[^"\\]|\\.)*"?)+', disposition)
