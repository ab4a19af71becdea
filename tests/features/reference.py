"""What librosa's functions say when each is called by itself, and the signals that they are asked about."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from genre_classifier.features.sets import CORE20, SAMPLE_RATE

GOLDEN = Path(__file__).with_name("core20_golden.json")
CHROMA = np.array([name.startswith("chroma") for name in CORE20.features])
# These two are sums of squares or counts: their relative error is that of float32 whatever their size.
PROPORTIONAL = np.array([name in ("rms", "zero_crossing_rate") for name in CORE20.features])
# Their spectrum is as flat as rounding lets it be, and librosa looks for peaks in it: the tuning that it estimates,
# one of a hundred, is the processor's.
FLAT = ("one click", "a click at the start", "one sample")


def librosa_core20(y: np.ndarray, tuning: float | None = None) -> np.ndarray:
    """Return the core20 features (feature,) of a float32 signal, one call a feature.

    Parameters
    ----------
    tuning : float, optional
        In fractions of a semitone; estimated by librosa if not given.
    """
    import librosa

    frame = {"n_fft": 2048, "hop_length": 512}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a signal below one frame; no pitch to estimate the tuning from
        chroma = librosa.feature.chroma_stft(y=y, sr=SAMPLE_RATE, tuning=tuning, **frame)
        profile = chroma.mean(axis=1).astype(np.float64)
        share = profile / profile.sum() if profile.sum() > 0 else np.full(12, 1 / 12)
        share = share[share > 0]
        return np.array(
            [
                *librosa.feature.mfcc(y=y, sr=SAMPLE_RATE, n_mfcc=13, **frame).mean(axis=1),
                librosa.feature.spectral_centroid(y=y, sr=SAMPLE_RATE, **frame).mean(),
                librosa.feature.spectral_rolloff(y=y, sr=SAMPLE_RATE, **frame).mean(),
                librosa.feature.zero_crossing_rate(y, frame_length=2048, hop_length=512).mean(),
                librosa.feature.rms(y=y, frame_length=2048, hop_length=512).mean(),
                chroma.mean(),
                chroma.std(),
                -np.sum(share * np.log(share)),
            ]
        )


def librosa_gtzan57(y: np.ndarray) -> np.ndarray:
    """Return the gtzan57 features (feature,) of a float32 signal, one call a series."""
    import librosa

    rate = {"y": y, "sr": SAMPLE_RATE}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        series = [
            librosa.feature.chroma_stft(**rate),
            librosa.feature.rms(y=y),
            librosa.feature.spectral_centroid(**rate),
            librosa.feature.spectral_bandwidth(**rate),
            librosa.feature.spectral_rolloff(**rate),
            librosa.feature.zero_crossing_rate(y),
            *harmonic_and_percussive(y),
        ]
        tempo = librosa.feature.tempo(**rate)[0]
        mfcc = librosa.feature.mfcc(**rate, n_mfcc=20)

    def mean_and_var(series: Sequence[np.ndarray]) -> list[float]:
        exact = [values.astype(np.float64) for values in series]
        return [number for values in exact for number in (values.mean(), values.var())]

    return np.array([*mean_and_var(series), tempo, *mean_and_var(mfcc)])


def librosa_fma518(y: np.ndarray) -> np.ndarray:
    """Return the fma518 features (feature,) of a float32 signal, one call a series, with SciPy's statistics."""
    import librosa
    from scipy import stats

    rate = {"y": y, "sr": SAMPLE_RATE}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cens = librosa.feature.chroma_cens(**rate, tuning=None, bins_per_octave=12)
        series = {
            "chroma_cens": cens,
            "chroma_cqt": librosa.feature.chroma_cqt(**rate, tuning=None, bins_per_octave=12),
            "chroma_stft": librosa.feature.chroma_stft(**rate),
            "mfcc": librosa.feature.mfcc(**rate, n_mfcc=20),
            "rmse": librosa.feature.rms(S=np.abs(librosa.stft(y))),
            "spectral_bandwidth": librosa.feature.spectral_bandwidth(**rate),
            "spectral_centroid": librosa.feature.spectral_centroid(**rate),
            "spectral_contrast": librosa.feature.spectral_contrast(**rate, n_bands=6),
            "spectral_rolloff": librosa.feature.spectral_rolloff(**rate),
            "tonnetz": librosa.feature.tonnetz(chroma=cens),
            "zcr": librosa.feature.zero_crossing_rate(y),
        }
        statistics = {
            "kurtosis": lambda x: np.nan_to_num(stats.kurtosis(x, axis=1), nan=-3.0),
            "max": lambda x: x.max(axis=1),
            "mean": lambda x: x.mean(axis=1),
            "median": lambda x: np.median(x, axis=1),
            "min": lambda x: x.min(axis=1),
            "skew": lambda x: np.nan_to_num(stats.skew(x, axis=1)),
            "std": lambda x: x.std(axis=1),
        }
        return np.concatenate(
            [of(series[name].astype(np.float64)) for name in sorted(series) for of in statistics.values()]
        )


@cache
def golden() -> dict[str, np.ndarray]:
    """Return librosa's core20 features (feature,) of each signal, as the golden file has them."""
    return {name: np.array(values) for name, values in json.loads(GOLDEN.read_text())["values"].items()}


@cache
def core20_scales() -> np.ndarray:
    """Return how large each feature is on ordinary signals, shape (feature,); 0 for those that are proportional.

    A coefficient near 0 is a sum that cancels, so what rounding does to it is a part of this and not of its value.
    """
    scales = np.max([np.abs(golden()[name]) for name in MUSICAL], axis=0)
    return np.where(PROPORTIONAL, 0.0, scales)


def core20_error(
    found: np.ndarray, expected: np.ndarray, scales: np.ndarray | float | None = None
) -> np.ndarray:
    """Return the difference of each feature (feature,) relative to its scale, or to the value where that is larger."""
    scales = core20_scales() if scales is None else scales
    difference = np.abs(found.astype(np.float64) - expected)
    return difference / np.maximum(np.maximum(np.abs(expected), scales), 1e-30)


def chroma_error_at_best_tuning(found: np.ndarray, y: np.ndarray) -> float:
    """Return the largest error of the chroma features at that of librosa's hundred tunings which fits best."""
    tunings = np.arange(-50, 50) / 100
    return min(float(core20_error(found, librosa_core20(y, tuning))[CHROMA].max()) for tuning in tunings)


def _time(seconds: float) -> np.ndarray:
    return np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def _sine(frequency: float, seconds: float = 3.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * _time(seconds))


def _noise(n: int, seed: int = 0) -> np.ndarray:
    # Integer arithmetic, so that a golden file sees the same signal on every machine.
    state = np.arange(1 + seed, n + 1 + seed, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (state >> np.uint64(40)).astype(np.float64) / 2**23 - 1.0


def _clicks(n: int) -> np.ndarray:
    y = np.zeros(3 * SAMPLE_RATE)
    y[(np.arange(n) * 7919 + 4001) % y.size] = _noise(n, seed=n)
    return y


def _chords() -> np.ndarray:
    time = _time(6.0)
    y = 0.01 * _noise(time.size)
    for beat, root in enumerate((220.0, 196.4, 174.0, 262.3, 220.0, 147.1)):
        since = np.clip(time - beat, 0.0, None)
        for ratio in (1.0, 1.26, 1.5):
            for overtone in range(1, 9):
                tone = np.sin(2 * np.pi * root * ratio * overtone * since) / overtone
                y += 0.06 * tone * np.exp(-2.5 * since) * (since > 0)
    return y


MUSICAL: dict[str, Callable[[], np.ndarray]] = {
    "chords over noise": _chords,
    "chirp and noise": lambda: (
        0.2 * np.sin(2 * np.pi * (300 + 200 * _time(4.0)) * _time(4.0)) + 0.05 * _noise(4 * SAMPLE_RATE)
    ),
    "noise": lambda: 0.3 * _noise(5 * SAMPLE_RATE),
    "quiet noise after silence": lambda: np.concatenate([np.zeros(SAMPLE_RATE), 1e-3 * _noise(SAMPLE_RATE)]),
}
DEGENERATE: dict[str, Callable[[], np.ndarray]] = {
    "silence": lambda: np.zeros(SAMPLE_RATE),
    "offset": lambda: np.full(3 * SAMPLE_RATE, 0.5),
    "negative offset": lambda: np.full(SAMPLE_RATE, -0.25),
    "offset too small to square": lambda: np.full(SAMPLE_RATE, 1e-20),
    "noise too small to cross zero": lambda: 1e-12 * _noise(SAMPLE_RATE),
    "one click": lambda: _clicks(1),
    "fifty clicks": lambda: _clicks(50),
    "a click at the start": lambda: np.eye(1, SAMPLE_RATE)[0],
    "click train": lambda: (np.arange(3 * SAMPLE_RATE) % 441 == 0).astype(float),
    "tone of 440 Hz": lambda: _sine(440.0),
    "tone of 50 Hz": lambda: _sine(50.0),
    "tone of 5 kHz": lambda: _sine(5000.0),
    "very quiet tone": lambda: 1e-4 * _sine(997.0),
    "fading tone": lambda: _sine(440.0, 20.0) * np.exp(-4.0 * _time(20.0)),
    "Nyquist": lambda: np.where(np.arange(SAMPLE_RATE) % 2, 0.5, -0.5),
    "square wave": lambda: np.sign(_sine(110.0)),
    "step": lambda: (np.arange(SAMPLE_RATE) > 5000) * 0.5,
    "absurdly loud": lambda: 1e4 * _noise(SAMPLE_RATE),
    "one zero": lambda: np.zeros(1),
    "one sample": lambda: np.ones(1),
    "three samples": lambda: np.array([0.0, 1.0, -1.0]),
    "100 samples": lambda: 0.1 * _noise(100),
    "600 samples": lambda: 0.1 * _noise(600),
    "one sample below a frame": lambda: 0.1 * _noise(2047),
    "one frame": lambda: 0.1 * _noise(2048),
}


def signal(name: str) -> np.ndarray:
    """Return a signal by name, as float32."""
    return {**MUSICAL, **DEGENERATE}[name]().astype(np.float32)


def harmonic_and_percussive(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``librosa.effects.hpss(y)``; for a short signal its definition written out.

    There SciPy's median filter reads beyond the frames, and librosa's istft beyond its buffer: the outcome changes from
    one call to the next.
    """
    import librosa

    spectrum = librosa.stft(y)
    n_frames = spectrum.shape[1]
    if n_frames >= 31:
        return librosa.effects.hpss(y)
    magnitude = np.abs(spectrum)

    def medians(axis: int) -> np.ndarray:
        padding = [(0, 0), (0, 0)]
        padding[axis] = (15, 15)
        padded = np.pad(magnitude, padding, mode="symmetric")
        return np.median(np.lib.stride_tricks.sliding_window_view(padded, 31, axis=axis), axis=-1)

    harmonic, percussive = medians(1).astype(np.float64), medians(0).astype(np.float64)
    energy = harmonic**2 + percussive**2
    share = np.where(energy > 0, harmonic**2 / np.where(energy > 0, energy, 1), 0.5)
    room = max(len(y), 4096)
    parts = (
        librosa.istft(spectrum * mask, dtype=y.dtype, length=room)[: len(y)] for mask in (share, 1 - share)
    )
    one, other = parts
    return one, other
