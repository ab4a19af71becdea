"""Headers without the length of the sound, as pipes, streams and interrupted recorders write them.

libsndfile reads most such files. For the others the size is put in while the file is read; the file stays as it is.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

UNKNOWN_BYTES = 0x7F000000  # above are placeholders: 0x7ffff000, 0x80000000, 0xffffffff and the like
UNKNOWN_FRAMES = (1 << 36) - 1  # as FLAC can count, 18 days of music
HEAD_BYTES = 1 << 16
NO_LENGTH = "its header does not say how long it is"

# What libsndfile notes in passing where a file holds less than its header says.
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
        Of the field, in bytes from the file's start.
    width : int
        Its bytes.
    order : str
        Their order, ``little`` or ``big``.
    start : int
        Where the field's count begins.
    value : int
        What it says.
    """

    position: int
    width: int
    order: Any
    start: int
    value: int

    @property
    def is_unknown(self) -> bool:
        """Whether the value is none: 0, or too large for any file of this kind."""
        return self.value <= 8 or self.value >= UNKNOWN_BYTES

    def holding(self, file_size: int) -> bytes:
        """Return the field as it would be for all bytes to the end of a file; as many as it can say."""
        size = min(file_size - self.start, (1 << 8 * self.width) - 1)
        return size.to_bytes(self.width, self.order)


def find_size_field(head: bytes) -> SizeField | None:
    """Return the field of a WAV, RF64, AIFF, AU or CAF file that begins with these bytes; None if it has none."""
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        large = _chunk(head, 12, b"ds64", 4, "little") if head[:4] == b"RF64" else None
        data = _chunk(head, 12, b"data", 4, "little")
        if large is None or data is None:
            return data
        position = large.start + 8  # after the size of the whole
        value = int.from_bytes(head[position : position + 8], "little")
        return SizeField(position, 8, "little", data.start, value)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _chunk(head, 12, b"SSND", 4, "big")
    if head[:4] == b".snd" and len(head) >= 24:
        start = int.from_bytes(head[4:8], "big")
        return SizeField(8, 4, "big", start, int.from_bytes(head[8:12], "big"))
    if head[:4] == b"caff":
        return _chunk(head, 8, b"data", 8, "big")
    return None


def _chunk(head: bytes, position: int, wanted: bytes, width: int, order: Any) -> SizeField | None:
    """Go from chunk to chunk, each a name of four letters and a size."""
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
    """Whether a further chunk stands where sound should, as in a recording that was never begun."""
    sizes = (int.from_bytes(follows[4:], "little"), int.from_bytes(follows[4:], "big"))
    return follows[:4].isascii() and follows[:4].decode("latin-1").isprintable() and min(sizes) <= n_bytes - 8


class Overlaid(io.RawIOBase):
    """An open file, with other bytes in one place.

    Parameters
    ----------
    file : BinaryIO
    position : int
        Where the others stand.
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
        So many, or None where it says nothing.
    note : str
        For people.
    """

    frames: float | None
    note: str


def declared(file: Any) -> Declared | None:
    """Return what the header of an open ``soundfile.SoundFile`` says of its length, if the file holds another."""
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


def with_known_size(
    opened: BinaryIO, read: Callable[[BinaryIO], Any], refused: tuple[type[Exception], ...]
) -> Any | None:
    """Open again a file whose header says no size, as if it did; None if its header is of another kind."""
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
    overlaid = Overlaid(opened, field.position, field.holding(file_size))
    try:
        return read(overlaid)  # type: ignore[arg-type]
    except refused:
        return None
