"""Read files whose header lacks the length of the sound, as pipes, streams and interrupted recorders write them.

libsndfile reads most such files. For the others, the size is inserted while the file is read. The file does not change.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

UNKNOWN_BYTES = 0x7F000000  # larger values are placeholders: 0x7ffff000, 0x80000000, 0xffffffff and the like
UNKNOWN_FRAMES = (1 << 36) - 1  # FLAC's largest count, 18 days of music
HEAD_BYTES = 1 << 16
NO_LENGTH = "its header does not say how long it is"

# libsndfile's log messages about a file that holds less than its header says.
_SHORTER = re.compile(
    r"^ *(data|Data Size|SSND|riff)\s*:\s*(-?\d+|0x[0-9A-Fa-f]+) \(should be (\d+)\)", re.MULTILINE
)
_FOLLOWED = re.compile(r"Unknown chunk marker \(\w+\) at position \d+\. Exiting parser")
_NOT_CLOSED = re.compile(r"wasn't closed properly|Should not be 0|Data Size\s*: -1$|SSND : 0 ", re.MULTILINE)


@dataclass(frozen=True)
class SizeField:
    """The place in a header of the number of sound bytes.

    Parameters
    ----------
    position : int
        Start of the field, in bytes from the file's start.
    width : int
        Number of its bytes.
    order : str
        Order of its bytes, ``little`` or ``big``.
    start : int
        Position of the first byte that the field counts.
    value : int
        Value of the field.
    """

    position: int
    width: int
    order: Any
    start: int
    value: int

    @property
    def is_unknown(self) -> bool:
        """Whether the value is a placeholder: 0, or too large for any file of this kind."""
        return self.value <= 8 or self.value >= UNKNOWN_BYTES

    def build_value(self, file_size: int) -> bytes:
        """Return the field's bytes for a sound up to the end of the file, or the largest count that fits."""
        size = min(file_size - self.start, (1 << 8 * self.width) - 1)
        return size.to_bytes(self.width, self.order)


def find_size_field(head: bytes) -> SizeField | None:
    """Return the size field of a WAV, RF64, AIFF, AU or CAF file that begins with these bytes, or None."""
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        large = _find_chunk(head, 12, b"ds64", 4, "little") if head[:4] == b"RF64" else None
        data = _find_chunk(head, 12, b"data", 4, "little")
        if large is None or data is None:
            return data
        position = large.start + 8  # after the size of the whole file
        value = int.from_bytes(head[position : position + 8], "little")
        return SizeField(position, 8, "little", data.start, value)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _find_chunk(head, 12, b"SSND", 4, "big")
    if head[:4] == b".snd" and len(head) >= 24:
        start = int.from_bytes(head[4:8], "big")
        return SizeField(8, 4, "big", start, int.from_bytes(head[8:12], "big"))
    if head[:4] == b"caff":
        return _find_chunk(head, 8, b"data", 8, "big")
    return None


def _find_chunk(head: bytes, position: int, wanted: bytes, width: int, order: Any) -> SizeField | None:
    """Return the size field of the wanted chunk. A chunk starts with a name of four letters and its size."""
    while position + 4 + width <= len(head):
        name = head[position : position + 4]
        start = position + 4 + width
        value = int.from_bytes(head[position + 4 : start], order)
        if name == wanted:
            return SizeField(position + 4, width, order, start, value)
        padding = value % 2 if width == 4 else 0
        position = start + value + padding
    return None


def _is_chunk(follows: bytes, n_bytes: int) -> bool:
    """Return whether another chunk is in the place of the sound, as in a recording that never started."""
    sizes = (int.from_bytes(follows[4:], "little"), int.from_bytes(follows[4:], "big"))
    return follows[:4].isascii() and follows[:4].decode("latin-1").isprintable() and min(sizes) <= n_bytes - 8


class Overlaid(io.RawIOBase):
    """An open file that reads some bytes from a replacement.

    Parameters
    ----------
    file : BinaryIO
    position : int
        Position of the replaced bytes.
    replacement : bytes
    """

    def __init__(self, file: BinaryIO, position: int, replacement: bytes) -> None:
        self._file = file
        self._position = position
        self._replacement = replacement

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        first = self._file.tell()
        content = self._file.read(len(buffer))
        last = first + len(content)
        begin, end = self._position, self._position + len(self._replacement)
        if first < end and begin < last:
            mixed = bytearray(content)
            covered = slice(max(begin, first) - first, min(end, last) - first)
            mixed[covered] = self._replacement[max(first - begin, 0) :][: covered.stop - covered.start]
            content = bytes(mixed)
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()


@dataclass(frozen=True)
class Declared:
    """The length in a header that is not the length of the file's sound.

    Parameters
    ----------
    frames : float or None
        Number of frames, or None if the header has none.
    note : str
        Explanation for users.
    """

    frames: float | None
    note: str


def read_declared_length(file: Any) -> Declared | None:
    """Return the length in the header of an open ``soundfile.SoundFile`` if it is not the length of the sound."""
    if file.frames >= UNKNOWN_FRAMES or isinstance(file.name, Overlaid):
        return Declared(None, NO_LENGTH)
    for label, says, holds in _SHORTER.findall(file.extra_info):
        if (label == "riff") != (file.format == "W64"):
            continue
        n_said, n_held = int(says, 0), int(holds)
        if n_said == 0 or not 0 <= n_said < UNKNOWN_BYTES:
            break
        note = f"its header says {n_said:,} bytes of samples, it has {n_held:,}"
        return Declared(file.frames * n_said / max(n_held, 1), note)
    if _SHORTER.search(file.extra_info) or _NOT_CLOSED.search(file.extra_info):
        return Declared(None, NO_LENGTH)
    if file.format in {"WAV", "WAVEX"} and _FOLLOWED.search(file.extra_info):
        return Declared(None, "what follows the samples that its header counts is not read")
    return None


def reopen_with_size(
    opened: BinaryIO, read: Callable[[BinaryIO], Any], refused: tuple[type[Exception], ...]
) -> Any | None:
    """Open a file again with a size in its header. None if the header has a size or is of another kind."""
    opened.seek(0)
    field = find_size_field(opened.read(HEAD_BYTES))
    if field is None or not field.is_unknown:
        return None
    file_size = opened.seek(0, io.SEEK_END)
    opened.seek(field.start)
    follows = opened.read(8)
    if len(follows) < 8 or _is_chunk(follows, file_size - field.start):
        return None
    opened.seek(0)
    overlaid = Overlaid(opened, field.position, field.build_value(file_size))
    try:
        return read(overlaid)  # type: ignore[arg-type]
    except refused:
        return None
