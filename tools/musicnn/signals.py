"""The signals of musicnn's golden file, 16 kHz mono: formulas with seeds, and the demo's clips.

The tests and :mod:`tools.musicnn.golden` make them by these same functions. Nothing but NumPy is imported here; a
clip needs soundfile and soxr.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

RATE = 16_000
HOP = 256
CLIPS = Path(__file__).parents[2] / "src" / "genre_classifier" / "demo" / "clips"
DEMO = "demo/"  # begins the name of a clip


def _time(seconds: float) -> np.ndarray:
    return np.arange(round(seconds * RATE)) / RATE


def _sine(hertz: float, seconds: float) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * _time(seconds))


def _noise(n: int, seed: int) -> np.ndarray:
    """Return n samples of uniform white noise of RMS 1."""
    return np.sqrt(3) * (2 * np.random.Generator(np.random.PCG64(seed)).random(n) - 1)


def _clicks(seconds: float, every: float, first: float) -> np.ndarray:
    y = np.zeros(round(seconds * RATE))
    y[round(first * RATE) :: round(every * RATE)] = 1
    return y


def _chord(n: int) -> np.ndarray:
    """Return n samples of A major with eight overtones a note, fading, over a little noise."""
    time = np.arange(n) / RATE
    tones = sum(
        np.sin(2 * np.pi * root * overtone * time) / overtone
        for root in (220.0, 277.18, 329.63)
        for overtone in range(1, 9)
    )
    return 0.15 * tones * np.exp(-1.5 * time) + 0.003 * _noise(n, seed=3)


def _sweep(seconds: float, low: float = 20.0, high: float = 8000.0) -> np.ndarray:
    """Return a sine whose pitch rises from low to high Hz, each octave in the same time."""
    octaves = np.log(high / low)
    return 0.5 * np.sin(2 * np.pi * low * seconds / octaves * np.expm1(octaves * _time(seconds) / seconds))


FORMULAS: dict[str, Callable[[], np.ndarray]] = {
    "silence": lambda: np.zeros(4 * RATE),
    "offset of 0.5": lambda: np.full(4 * RATE, 0.5),
    "one click": lambda: _clicks(4.0, every=4.0, first=1.0),
    "clicks every 0.5 s": lambda: _clicks(8.0, every=0.5, first=0.25),
    "white noise at -20 dB": lambda: 0.1 * _noise(10 * RATE, seed=0),
    "tone of 440 Hz at full scale": lambda: _sine(440.0, 5.0),
    "very quiet tone": lambda: 1e-4 * _sine(440.0, 5.0),
    "chord of 0.5 s": lambda: _chord(RATE // 2),
    "chord of 0.5 s, six times": lambda: np.tile(_chord(RATE // 2), 6),
    "100 samples": lambda: 0.1 * _noise(100, seed=1),
    "one sample": lambda: np.ones(1),
    "186 frames": lambda: _chord(186 * HOP - 1),
    "187 frames": lambda: _chord(186 * HOP),
    "188 frames": lambda: _chord(187 * HOP),
    "7.3 s of noise": lambda: 0.3 * _noise(round(7.3 * RATE), seed=2),
    "sweep of 30 s": lambda: _sweep(30.0),
}


def signal_names() -> tuple[str, ...]:
    """Return the names of all signals, formulas first."""
    return (*FORMULAS, *(DEMO + path.stem for path in sorted(CLIPS.glob("*.ogg"))))


def make_signal(name: str) -> np.ndarray:
    """Return a signal by name, float32, shape (sample,), at 16 kHz. A clip is resampled by soxr, quality HQ."""
    if not name.startswith(DEMO):
        return FORMULAS[name]().astype(np.float32)
    import soundfile
    import soxr

    samples, rate = soundfile.read(CLIPS / f"{name.removeprefix(DEMO)}.ogg", dtype="float32")
    return soxr.resample(samples, rate, RATE, quality="HQ")
