"""Decode an audio file to clips of mono samples at a feature set's sample rate.

soundfile reads the formats of :mod:`genre_classifier.features.decoding.formats`, soxr resamples. Both are imported on
first use. A file is read clip by clip, up to the last clip of the excerpt. The memory depends on the longest clip, not
on the length of the file.
"""

from __future__ import annotations

import io
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre_classifier.commands import advise_to_install
from genre_classifier.errors import AudioError, DataError, MissingExtraError
from genre_classifier.features.decoding.formats import (
    FORMATS,
    SHOWN,
    SUFFIXES,
    get_suffix,
    suggest_conversion,
)
from genre_classifier.features.decoding.headers import UNKNOWN_FRAMES, read_declared_length, reopen_with_size
from genre_classifier.features.sets import CLIP_SECONDS, SAMPLE_RATE

__all__ = [
    "SUFFIXES",
    "Clip",
    "Excerpt",
    "Recording",
    "open_audio",
    "open_content",
    "require_audio",
    "resample",
]

Float32 = npt.NDArray[np.float32]

SHORTEST_SECONDS = 1.0
SHORTEST_STEP = 0.05  # seconds
SILENCE = 1e-4  # largest sample, where full scale is 1: three steps of 16 bits
BLOCK_SAMPLES = 1 << 22  # per read, all channels together
RATES = (1_000, 768_000)  # Hz, lowest and highest rate of music
LOST_SECONDS = 0.25  # a missing end of this length is an encoder's padding, not damage
CANCELLED = 1e-4  # share of the channels' power that is left in mono: 40 dB less


@dataclass(frozen=True)
class Excerpt:
    """The part of a recording that is measured.

    Parameters
    ----------
    offset : float
        Start, in seconds.
    duration : float or None
        Largest length, in seconds. None, for windows only, is to the end.
    window : float or None
        Length of the clips, in seconds. None makes one clip. The rest at the end is a clip if it has at least half the
        length.
    step : float or None
        Seconds between the starts of two windows, for windows that overlap. None is a window's length.
    """

    offset: float = 0.0
    duration: float | None = CLIP_SECONDS
    window: float | None = None
    step: float | None = None

    def __post_init__(self) -> None:
        for name, lowest in (
            ("offset", 0.0),
            ("duration", SHORTEST_SECONDS),
            ("window", SHORTEST_SECONDS),
            ("step", SHORTEST_STEP),
        ):
            value = getattr(self, name)
            if value is not None and not lowest <= value < math.inf:
                raise DataError(f"{name}={value:g}: expected at least {lowest:g} seconds")
        if self.duration is None and self.window is None:
            raise DataError("neither duration nor window says how long a clip is: give one of them")

    @property
    def clip_seconds(self) -> float:
        """The largest length of a clip, in seconds."""
        return float(min(self.window or math.inf, self.duration or math.inf))

    def list_spans(self, seconds: float) -> Iterator[tuple[float, float]]:
        """Yield start and length, in seconds, of the clips of a recording of this length. The last may be shorter."""
        end = min(seconds, self.offset + (self.duration or math.inf))
        length = self.window or end - self.offset
        step = self.step or length
        shortest = length if step < length else length / 2
        for number in count():
            start = self.offset + number * step
            rest = end - start
            if rest <= 0 or (number and rest < shortest):
                return
            yield start, min(length, rest)


@dataclass(frozen=True, eq=False)
class Clip:
    """The samples of a part of a recording.

    Parameters
    ----------
    start, seconds : float
        Start and length.
    samples : np.ndarray [shape=(n,), dtype=float32]
        Mono, full scale is 1.
    """

    start: float
    seconds: float
    samples: Float32

    @property
    def is_silent(self) -> bool:
        """Whether all samples are silent."""
        return max(float(self.samples.max()), -float(self.samples.min())) < SILENCE


class Recording:
    """An open audio file.

    Parameters
    ----------
    path : Path
        Name of the file, for messages.
    open_file : callable
        Opens the file and returns a ``soundfile.SoundFile``. It is called again after a decoder has failed.
    """

    def __init__(self, path: Path, open_file: Callable[[], Any]) -> None:
        self.path = path
        self.notes: list[str] = []
        self._open = open_file
        self._file = open_file()
        _check_kind(path, self._file)
        self.rate = int(self._file.samplerate)
        self._said = read_declared_length(self._file)
        if self._said is not None:
            self.notes.append(self._said.note)
        self._n_frames: int | None = self._file.frames if self._file.frames < UNKNOWN_FRAMES else None
        self._failure = ""
        self._power = self._mono_power = 0.0  # sums of squares of the decoded samples
        self._first, self._kept = (
            0,
            np.empty(0, np.float32),
        )  # the frames read last; overlapping windows share them

    @property
    def seconds(self) -> float:
        """Length of the recording, or of its decoded part if the header has no length."""
        return (self._n_frames or 0) / self.rate

    @property
    def artist(self) -> str | None:
        """The artist in the file's tags, or None."""
        return (self._file.copy_metadata().get("artist") or "").strip() or None

    @property
    def cancels(self) -> bool:
        """Whether the decoded channels cancel each other in mono."""
        return self._power > 0.0 and self._mono_power < CANCELLED * self._power

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read_clips(self, excerpt: Excerpt, sample_rate: int = SAMPLE_RATE) -> Iterator[Clip]:
        """Decode and yield the clips of an excerpt at a sample rate (Hz), one after the other.

        Raises
        ------
        AudioError
            The excerpt is shorter than a second, or the file is truncated or damaged.
        """
        end = excerpt.offset + (excerpt.duration or math.inf)
        if self._n_frames is None:
            self._n_frames = self._count(end)
        available = max(0.0, self.seconds - excerpt.offset)
        if available < SHORTEST_SECONDS:
            after = f" after offset={excerpt.offset:g}" if excerpt.offset else ""
            raise AudioError(
                f"{self.path} has {available:.3g} s{after}; expected at least {SHORTEST_SECONDS:g}",
                kind="too short",
            )
        self._refuse_truncated(end)
        for start, length in excerpt.list_spans(self.seconds):
            mono = self._get_frames(int(start * self.rate), int(length * self.rate))
            yield Clip(start, len(mono) / self.rate, resample(mono, self.rate, sample_rate))

    def _refuse_truncated(self, end: float) -> None:
        """Raise AudioError if the file holds less of the excerpt than its header says."""
        said = self._said
        if said is None or said.frames is None:
            return
        if min(said.frames / self.rate, end) - self.seconds > LOST_SECONDS:
            raise AudioError(
                f"{self.path} ends after {self.seconds:.1f} s of {said.frames / self.rate:.1f} ({said.note}): "
                "it is truncated",
                kind="unreadable",
            )

    def _get_frames(self, first: int, n_frames: int) -> Float32:
        """Return mono frames. Frames of the last window are not decoded again."""
        known = (
            self._kept[max(0, first - self._first) :][:n_frames] if first >= self._first else self._kept[:0]
        )
        if len(known) < n_frames:
            new = self._read(first + len(known), n_frames - len(known))
            known = np.concatenate([known, new]) if len(known) else new
        self._first, self._kept = first, known
        return known

    def _read(self, first: int, n_frames: int) -> Float32:
        """Decode frames and mix them to mono."""
        mono = np.empty(n_frames, dtype=np.float32)
        filled = 0
        for frames in self._decode_blocks(first, n_frames):
            mixed = mono[filled : filled + len(frames)]
            mixed[:] = frames.mean(axis=1)
            filled += len(frames)
            if frames.shape[1] > 1:
                with np.errstate(over="ignore", invalid="ignore"):
                    self._power += float(np.einsum("fc,fc->", frames, frames)) / frames.shape[1]
                    self._mono_power += float(np.einsum("f,f->", mixed, mixed))
        if n_frames - filled > LOST_SECONDS * self.rate:
            reason = f" ({self._failure})" if self._failure else ""
            raise AudioError(
                f"{self.path} ends after {(first + filled) / self.rate:.1f} s of {self.seconds:.1f}{reason}: "
                "it is truncated or damaged",
                kind="unreadable",
            )
        if self._failure and not self.notes:
            self.notes.append(f"its last samples cannot be decoded ({self._failure})")
        return mono[:filled]

    def _count(self, end: float) -> int:
        """Decode the file up to `end` seconds, and return the number of frames."""
        limit = UNKNOWN_FRAMES if end == math.inf else math.ceil(end * self.rate)
        n_frames = sum(len(frames) for frames in self._decode_blocks(0, limit))
        self._failure = ""  # some decoders end with an error if they do not know the length
        return n_frames

    def _decode_blocks(self, first: int, n_frames: int) -> Iterator[Float32]:
        """Yield at most `n_frames` frames, as far as they can be decoded, in blocks (frame, channel).

        A decoder that fails returns nothing of a block. The file is opened again, and the block is halved, until the
        last frame before the damage is found.
        """
        import soundfile

        block = max(1, BLOCK_SAMPLES // self._file.channels)
        place, end = first, first + n_frames
        at_place = False
        while place < end and block:
            wanted = min(block, end - place)
            with _stderr_lock, _silenced_stderr():
                try:
                    if not at_place:
                        self._file.seek(place)
                    frames = self._file.read(wanted, dtype="float32", always_2d=True)
                except (soundfile.SoundFileError, RuntimeError, OSError) as error:
                    self._failure = self._failure or _describe_reason(error)
                    self._file.close()
                    self._file = self._open()
                    block, at_place = wanted // 2, False
                    continue
            if not len(frames):
                return
            place, at_place = place + len(frames), True
            yield frames


@contextmanager
def open_audio(path: Path) -> Iterator[Recording]:
    """Open an audio file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    AudioError
        The file cannot be read, has the wrong suffix, or a sample rate that no music has.
    MissingExtraError
        soundfile or soxr is not installed.
    """
    require_audio()
    _refuse_no_file(path)
    try:
        unbuffered = path.open("rb", buffering=0)
    except OSError as error:
        raise AudioError(f"{path} cannot be read: {error.strerror or error}", kind="unreadable") from error
    with unbuffered:
        if unbuffered.seek(0, os.SEEK_END) == 0:
            raise AudioError(f"{path} is empty", kind="unreadable")
        recording = Recording(path, lambda: _open_sound(path, unbuffered))
        try:
            yield recording
        finally:
            recording.close()


@contextmanager
def open_content(content: bytes, name: str) -> Iterator[Recording]:
    """Open an audio file that is in memory.

    Parameters
    ----------
    content : bytes
        Of a file in a format of libsndfile.
    name : str
        What messages call it.
    """
    import soundfile

    recording = Recording(Path(name), lambda: soundfile.SoundFile(io.BytesIO(content)))
    try:
        yield recording
    finally:
        recording.close()


def _refuse_no_file(path: Path) -> None:
    if path.is_file():
        return
    if path.is_symlink() and not path.exists():
        what = f"is a link to {path.readlink()}, which does not exist"
    elif path.is_dir():
        what = "is a folder"
    else:
        what = "is no ordinary file" if path.exists() else "does not exist"
    raise AudioError(f"{path} {what}; expected an audio file", kind="unreadable")


def _open_sound(path: Path, unbuffered: Any) -> Any:
    """Return a ``soundfile.SoundFile``, also for a file without a length in its header."""
    import soundfile

    errors = (soundfile.SoundFileError, RuntimeError, OSError)
    with _stderr_lock, _silenced_stderr():
        try:
            # As bytes, because a name need not be valid text.
            file = soundfile.SoundFile(path if os.name == "nt" else os.fsencode(path))
            if file.frames:
                return file
            failure: BaseException | None = None
        except errors as error:
            failure = error
        guessed = reopen_with_size(unbuffered, soundfile.SoundFile, errors)
    if guessed is not None and guessed.frames:
        return guessed
    if failure is not None:
        raise _build_decoding_error(path, _describe_reason(failure)) from failure
    return file


def require_audio() -> None:
    """Raise MissingExtraError unless audio files can be decoded."""
    missing = [name for name in ("soundfile", "soxr") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"audio files cannot be read: {' and '.join(missing)} not installed; {advise_to_install('audio')}"
        )


def resample(mono: Float32, rate: int, sample_rate: int) -> Float32:
    """Return samples at another sample rate (Hz). The result is that of ``librosa.load``."""
    if rate == sample_rate:
        return mono
    import soxr

    n = math.ceil(len(mono) * sample_rate / rate)
    changed: Float32 = soxr.resample(mono, rate, sample_rate, quality="HQ")[:n]
    return np.pad(changed, (0, n - len(changed)))


def _check_kind(path: Path, file: Any) -> None:
    if file.format == "RAW":  # libsndfile reads any file with the suffix .au or .snd as RAW
        raise _build_decoding_error(path, "Format not recognised")
    allowed = FORMATS.get(get_suffix(path.name))
    if allowed is not None and file.format not in allowed:
        raise AudioError(
            f"{path} is {file.format}, not what {path.suffix} says; rename it", kind="mislabelled"
        )
    if not RATES[0] <= file.samplerate <= RATES[1]:
        raise AudioError(
            f"{path} has a sample rate of {file.samplerate} Hz; expected {RATES[0]} to {RATES[1]}",
            kind="unreadable",
        )


def _build_decoding_error(path: Path, reason: str) -> AudioError:
    if get_suffix(path.name) not in FORMATS:
        return AudioError(
            f"{path} cannot be decoded ({reason}): {path.suffix or 'a file without suffix'} is not read; "
            f"{suggest_conversion(path)}",
            kind="unsupported",
        )
    return AudioError(f"{path} cannot be decoded ({reason}); expected {SHOWN}", kind="unreadable")


def _describe_reason(error: BaseException) -> str:
    reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
    if "does not exist or is not a regular file" in reason:
        return "Format not recognised"  # the MP3 decoder's message for files of other formats
    return reason


_stderr_lock = threading.RLock()


@contextmanager
def _silenced_stderr() -> Iterator[None]:
    try:
        saved = os.dup(2)
    except OSError:  # a process without stderr
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
