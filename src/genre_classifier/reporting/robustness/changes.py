"""What happens to a recording on its way to a listener: loudness, sample rate, compression, filters, noise, a cut.

Each change takes mono samples at a file's own sample rate and returns mono samples.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from genre_classifier.errors import AudioError
from genre_classifier.features.decoding.audio import BLOCK_SAMPLES, resample

Float32 = npt.NDArray[np.float32]

LOW_RATE = 16_000  # Hz
MP3_KBITS = 64  # per second
MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)  # Hz
LOW_PASS_HZ, LOW_PASS_ORDER = 4_000, 8
NOISE_DB = 20.0
SHIFT_SECONDS, SHORTEST_SHIFTED = 5, 6


@dataclass(frozen=True, eq=False)
class Sound:
    """A recording in memory.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,), dtype=float32]
        Mono, full scale is 1.
    rate : int
        Their sample rate in Hz.
    is_clipped : bool
        Whether a change has cut off peaks at full scale.
    """

    samples: Float32
    rate: int
    is_clipped: bool = False


def amplify(sound: Sound, seed: int, *, decibels: float) -> Sound:
    """Make a sound louder or quieter; beyond full scale it is cut off, as a recorder does."""
    louder = sound.samples * np.float32(10 ** (decibels / 20))
    clipped = np.clip(louder, -1.0, 1.0)
    return replace(sound, samples=clipped, is_clipped=decibels > 0 and bool((clipped != louder).any()))


def lower_rate(sound: Sound, seed: int) -> Sound:
    """Resample to 16 kHz, by soxr."""
    return Sound(resample(sound.samples, sound.rate, LOW_RATE), LOW_RATE)


def compress(sound: Sound, seed: int) -> Sound:
    """Encode as MP3 and decode again."""
    import soundfile

    samples, rate = soundfile.read(io.BytesIO(encode_mp3(sound)), dtype="float32")
    return Sound(samples, rate)


def encode_mp3(sound: Sound) -> bytes:
    """Return a sound as an MP3 file of a constant 64 kbit/s, made by LAME in libsndfile.

    A sample rate that MP3 does not have becomes 44,100 Hz. At this bit rate LAME lowers the level by 0.45 dB.
    """
    import soundfile

    rate = sound.rate if sound.rate in MP3_RATES else 44_100
    content = io.BytesIO()
    with soundfile.SoundFile(
        content,
        "w",
        rate,
        channels=1,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT",
        compression_level=_choose_compression_level(rate),
    ) as file:
        file.write(resample(sound.samples, sound.rate, rate))
    return content.getvalue()


def _choose_compression_level(rate: int) -> float:
    """Return what libsndfile calls 64 kbit/s: 0 is the highest bit rate at a sample rate, 1 the lowest."""
    lowest, highest = (32, 320) if rate >= 32_000 else (8, 160) if rate >= 16_000 else (8, 64)
    return (highest - MP3_KBITS) / (highest - lowest)


def find_mp3_obstacle() -> str | None:
    """Return why MP3 files cannot be written here, or None."""
    import inspect

    import soundfile

    if "MP3" not in soundfile.available_formats():
        return f"libsndfile {soundfile.__libsndfile_version__} has no MP3 encoder; 1.1 and newer have one"
    if "bitrate_mode" not in inspect.signature(soundfile.SoundFile).parameters:
        return f"soundfile {soundfile.__version__} cannot set a bit rate; 0.13 and newer can"
    return None


def remove_treble(sound: Sound, seed: int) -> Sound:
    """Take away what is above 4 kHz: a Butterworth filter of order 8, causal as in a device."""
    from scipy.signal import butter, sosfilt

    if sound.rate <= 2 * LOW_PASS_HZ:
        return sound
    sections = butter(LOW_PASS_ORDER, LOW_PASS_HZ, fs=sound.rate, output="sos")
    state = np.zeros((len(sections), 2))
    filtered = np.empty_like(sound.samples)
    for start in range(0, len(filtered), BLOCK_SAMPLES):  # the filter computes in float64
        block = slice(start, start + BLOCK_SAMPLES)
        filtered[block], state = sosfilt(sections, sound.samples[block], zi=state)
    return replace(sound, samples=filtered)


def add_noise(sound: Sound, seed: int) -> Sound:
    """Add white Gaussian noise whose power is 20 dB below the whole recording's."""
    noise = np.random.default_rng(seed).standard_normal(len(sound.samples), dtype=np.float32)
    ratio = _measure_power(sound.samples) / _measure_power(noise) / 10 ** (NOISE_DB / 10)
    noise *= np.float32(np.sqrt(ratio))
    noise += sound.samples
    return replace(sound, samples=noise)


def _measure_power(samples: Float32) -> float:
    return float(np.einsum("n,n->", samples, samples, dtype=np.float64)) / len(samples)


def cut_start(sound: Sound, seed: int) -> Sound:
    """Take away the first 5 s. Raises AudioError if the recording is shorter than 6 s."""
    if len(sound.samples) < SHORTEST_SHIFTED * sound.rate:
        raise AudioError(f"shorter than {SHORTEST_SHIFTED} s", kind="too short")
    return replace(sound, samples=sound.samples[SHIFT_SECONDS * sound.rate :])


@dataclass(frozen=True)
class Change:
    """A change of a recording.

    Parameters
    ----------
    name : str
    apply : callable
        Takes a Sound and a seed, and returns a Sound.
    find_obstacle : callable, optional
        Returns why this machine cannot do it, or None.
    """

    name: str
    apply: Callable[[Sound, int], Sound]
    find_obstacle: Callable[[], str | None] | None = None


CHANGES = {
    change.name: change
    for change in (
        *(
            Change(f"gain {decibels:+d} dB", partial(amplify, decibels=decibels))
            for decibels in (-20, -10, 6)
        ),
        Change("16 kHz sampling", lower_rate),
        Change("MP3 64 kbit/s", compress, find_mp3_obstacle),
        Change("low-pass 4 kHz", remove_treble),
        Change("white noise 20 dB", add_noise),
        Change("first 5 s cut", cut_start),
    )
}
