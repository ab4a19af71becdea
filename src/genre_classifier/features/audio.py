"""Decoding: from an audio file to clips of mono samples at 22,050 Hz.

soundfile reads WAV, FLAC, OGG (Vorbis and Opus), MP3 and AU, soxr resamples; both are imported on first use. A file is
read clip by clip, so that an hour of it takes no more memory than its longest clip.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre_classifier.errors import AudioError, DataError, MissingExtraError
from genre_classifier.features.sets import CLIP_SECONDS, SAMPLE_RATE

Float32 = npt.NDArray[np.float32]

# What a file with each suffix is allowed to be, in libsndfile's words.
FORMATS = {
    ".wav": {"WAV", "WAVEX", "RF64", "W64"},
    ".mp3": {"MP3"},
    ".flac": {"FLAC"},
    ".ogg": {"OGG"},
    ".oga": {"OGG"},
    ".opus": {"OGG"},
    ".au": {"AU"},
    ".snd": {"AU"},
}
SUFFIXES = tuple(FORMATS)
SHORTEST_SECONDS = 1.0
SHORTEST_STEP = 0.05  # seconds
SILENCE = 1e-4  # largest sample, where full scale is 1: three steps of 16 bits
BLOCK_SAMPLES = 1 << 22  # read at a time, all channels together
RATES = (1_000, 768_000)  # Hz, of what can be music
LOST_SECONDS = 0.25  # an encoder's padding at the end of a file is no damage


@dataclass(frozen=True)
class Excerpt:
    """Which part of a recording is measured.

    Parameters
    ----------
    offset : float
        Where it starts, in seconds.
    duration : float or None
        How long it is at most, in seconds; None is to the end, for windows.
    window : float or None
        Length in seconds of the clips that it is cut into; None makes one clip of it. What is left over at the end is a
        clip if it is at least half as long.
    step : float or None
        Seconds from one window's start to the next one's, for windows that overlap; None is a window's length.
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
        """Length of a clip at most, in seconds."""
        return float(min(self.window or math.inf, self.duration or math.inf))

    def spans(self, seconds: float) -> Iterator[tuple[float, float]]:
        """Yield start and length in seconds of the clips of a recording that long; the last may be shorter."""
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
    """Samples of a part of a recording.

    Parameters
    ----------
    start, seconds : float
        Where it starts and how long it is.
    samples : np.ndarray [shape=(n,), dtype=float32]
        Mono at 22,050 Hz, full scale is 1.
    """

    start: float
    seconds: float
    samples: Float32

    @property
    def is_silent(self) -> bool:
        """Whether there is nothing to hear."""
        return max(float(self.samples.max()), -float(self.samples.min())) < SILENCE


class Recording:
    """An open audio file.

    Parameters
    ----------
    path : Path
        For messages.
    file : soundfile.SoundFile
    """

    def __init__(self, path: Path, file: Any) -> None:
        self.path = path
        self._file = file
        self.rate = int(file.samplerate)
        self.seconds = file.frames / file.samplerate
        self._first, self._kept = 0, np.empty(0, np.float32)  # the frames read last, which windows may share

    @property
    def artist(self) -> str | None:
        """What the file's tags say, if anything."""
        return (self._file.copy_metadata().get("artist") or "").strip() or None

    def clips(self, excerpt: Excerpt) -> Iterator[Clip]:
        """Yield the clips of an excerpt, one decoded after the other.

        Raises
        ------
        AudioError
            The excerpt is shorter than a second, or the file ends or breaks before it should.
        """
        available = max(0.0, self.seconds - excerpt.offset)
        if available < SHORTEST_SECONDS:
            after = f" after offset={excerpt.offset:g}" if excerpt.offset else ""
            raise AudioError(
                f"{self.path} has {available:.3g} s{after}; expected at least {SHORTEST_SECONDS:g}",
                kind="too short",
            )
        for start, length in excerpt.spans(self.seconds):
            mono = self._frames(int(start * self.rate), int(length * self.rate))
            yield Clip(start, len(mono) / self.rate, resampled(mono, self.rate))

    def _frames(self, first: int, n_frames: int) -> Float32:
        """Return mono frames, decoding those that the last window did not have."""
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
        block = max(1, BLOCK_SAMPLES // self._file.channels)
        filled = 0
        with _decoding(self.path):
            self._file.seek(first)
            while filled < n_frames:
                frames = self._file.read(min(block, n_frames - filled), dtype="float32", always_2d=True)
                if not len(frames):
                    break
                mono[filled : filled + len(frames)] = frames.mean(axis=1)
                filled += len(frames)
        if n_frames - filled > LOST_SECONDS * self.rate:
            raise AudioError(
                f"{self.path} ends after {(first + filled) / self.rate:.1f} s of {self.seconds:.1f}: "
                "it is truncated or damaged",
                kind="unreadable",
            )
        return mono[:filled]


@contextmanager
def open_audio(path: Path) -> Iterator[Recording]:
    """Open an audio file.

    Raises
    ------
    AudioError
        It cannot be read, is not what its suffix says, or has a sample rate that no music has.
    MissingExtraError
        soundfile or soxr is not installed.
    """
    require_audio()
    import soundfile

    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise AudioError(f"{path} {what}; expected an audio file", kind="unreadable")
    if path.stat().st_size == 0:
        raise AudioError(f"{path} is empty", kind="unreadable")
    with _decoding(path):
        # As bytes, since a name need not be text.
        file = soundfile.SoundFile(path if os.name == "nt" else os.fsencode(path))
    with file:
        _check_kind(path, file)
        yield Recording(path, file)


def require_audio() -> None:
    """Raise MissingExtraError unless audio files can be decoded."""
    missing = [name for name in ("soundfile", "soxr") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"audio files cannot be read: {' and '.join(missing)} not installed; "
            "run: pip install 'genre-classifier[audio]'"
        )


def resampled(mono: Float32, rate: int) -> Float32:
    """Return samples at 22,050 Hz, as ``librosa.load`` makes them."""
    if rate == SAMPLE_RATE:
        return mono
    import soxr

    n = math.ceil(len(mono) * SAMPLE_RATE / rate)
    changed: Float32 = soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ")[:n]
    return np.pad(changed, (0, n - len(changed)))


def _check_kind(path: Path, file: Any) -> None:
    if file.format == "RAW":  # so libsndfile takes anything whose suffix is .au or .snd
        raise AudioError(
            f"{path} cannot be decoded (Format not recognised); expected WAV, FLAC, OGG, MP3 or AU",
            kind="unreadable",
        )
    allowed = FORMATS.get(path.suffix.lower())
    if allowed is not None and file.format not in allowed:
        raise AudioError(
            f"{path} is {file.format}, not what {path.suffix} says; rename it", kind="mislabelled"
        )
    if not RATES[0] <= file.samplerate <= RATES[1]:
        raise AudioError(
            f"{path} has a sample rate of {file.samplerate} Hz; expected {RATES[0]} to {RATES[1]}",
            kind="unreadable",
        )
    # libsndfile reads what there is of a WAV or AU file that was cut off, and notes in passing what there should be.
    cut = re.search(r"[Dd]ata(?: [Ss]ize)?\s*:\s*(\d+) \(should be (\d+)\)", file.extra_info)
    if cut is not None and int(cut[2]) < int(cut[1]) < 0xFFFFFF00:
        raise AudioError(
            f"{path} has {int(cut[2]):,} bytes of samples, its header says {int(cut[1]):,}: it is truncated",
            kind="unreadable",
        )


_stderr_lock = threading.Lock()


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turn what libsndfile raises into an AudioError, and keep its decoders' own messages off the terminal."""
    import soundfile

    with _stderr_lock, _silenced_stderr():
        try:
            yield
        except (soundfile.SoundFileError, RuntimeError, OSError) as error:
            reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
            if "does not exist or is not a regular file" in reason:
                reason = "Format not recognised"  # so says the MP3 decoder of what is no MP3
            raise AudioError(
                f"{path} cannot be decoded ({reason}); expected WAV, FLAC, OGG, MP3 or AU", kind="unreadable"
            ) from error


@contextmanager
def _silenced_stderr() -> Iterator[None]:
    try:
        saved = os.dup(2)
    except OSError:  # a process without one
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
