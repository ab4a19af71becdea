"""Compute filter banks over the bins of a spectrum, with librosa's definitions but without librosa.

Each is a matrix, computed once per sample rate (and tuning) and kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from genre_classifier.features.sets import N_FFT

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

N_BINS = N_FFT // 2 + 1
N_MELS = 128
N_CHROMA = 12
A0 = 440.0 / 16  # Hz, start of octave 0

# Numbers of bands per matrix product. Wide bands come in small blocks, so a product has few zeros.
_MEL_BLOCKS = (0, 48, 72, 88, 100, 110, 119, 128)


@dataclass(frozen=True, eq=False)
class MelBlock:
    """Neighbouring mel bands and the bins that they cover.

    Parameters
    ----------
    bands, bins : slice
    weights : np.ndarray [shape=(bin, band), dtype=float32]
    """

    bands: slice
    bins: slice
    weights: Float32


def compute_bin_frequencies(sample_rate: float, n_fft: int = N_FFT) -> Float64:
    """Return the frequency of each bin in Hz, shape (bin,)."""
    frequencies: Float64 = np.arange(n_fft // 2 + 1, dtype=np.float64) * (sample_rate / n_fft)
    return frequencies


@lru_cache(maxsize=4)
def compute_mel_filters(sample_rate: int, n_fft: int = N_FFT, n_mels: int = N_MELS) -> Float32:
    """Return ``librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels)``: triangles of equal area on Slaney's
    scale.

    Returns
    -------
    np.ndarray [shape=(band, bin), dtype=float32]
    """
    edges = _convert_mel_to_hz(np.linspace(0.0, _convert_hz_to_mel(sample_rate / 2), n_mels + 2))
    widths = np.diff(edges)
    ramps = np.subtract.outer(edges, compute_bin_frequencies(sample_rate, n_fft))
    rising = -ramps[:-2] / widths[:-1, None]
    falling = ramps[2:] / widths[1:, None]
    filters = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    filters *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return _freeze(filters)


def _convert_hz_to_mel(frequency: float) -> float:
    """Return mels on Slaney's scale: linear up to 1 kHz, then 27 steps per factor of 6.4."""
    if frequency < 1000.0:
        return 3.0 * frequency / 200.0
    return 15.0 + 27.0 * float(np.log(frequency / 1000.0)) / float(np.log(6.4))


def _convert_mel_to_hz(mels: Float64) -> Float64:
    return np.where(
        mels < 15.0, 200.0 * mels / 3.0, 1000.0 * np.exp(np.log(6.4) / 27.0 * (np.maximum(mels, 15.0) - 15.0))
    )


@lru_cache(maxsize=4)
def compute_mel_blocks(sample_rate: int) -> tuple[MelBlock, ...]:
    """Return the mel filters in blocks without most of their zeros."""
    filters = compute_mel_filters(sample_rate)
    blocks = []
    for first, end in pairwise(_MEL_BLOCKS):
        reached = np.flatnonzero(filters[first:end].any(axis=0))
        bins = slice(int(reached[0]), int(reached[-1]) + 1) if reached.size else slice(0, 1)
        weights = np.ascontiguousarray(filters[first:end, bins].T)
        blocks.append(MelBlock(slice(first, end), bins, _freeze(weights)))
    return tuple(blocks)


@lru_cache(maxsize=128)
def compute_chroma_filters(sample_rate: int, tuning: float) -> Float32:
    """Return the transpose of ``librosa.filters.chroma(sr=sample_rate, n_fft=2048, tuning=tuning)``.

    Parameters
    ----------
    sample_rate : int
        In Hz.
    tuning : float
        Deviation from A440 in fractions of a semitone.

    Returns
    -------
    np.ndarray [shape=(bin, pitch class), dtype=float32]
    """
    # One more bin, because a bin's width is the distance to the next bin.
    frequencies = np.arange(1, N_BINS + 1) * (sample_rate / N_FFT)
    pitches = N_CHROMA * np.log2(frequencies / (A0 * 2.0 ** (tuning / N_CHROMA)))
    pitches = np.concatenate(([pitches[0] - 1.5 * N_CHROMA], pitches))  # (bin + 1,); 0 Hz has no pitch
    widths = np.maximum(np.diff(pitches), 1.0)
    pitches = pitches[:-1]
    distance = np.subtract.outer(pitches, np.arange(N_CHROMA)) + 10.5 * N_CHROMA
    distance = np.remainder(distance, N_CHROMA) - N_CHROMA / 2
    filters = np.exp(-0.5 * (2.0 * distance / widths[:, None]) ** 2)
    filters /= np.sqrt((filters**2).sum(axis=1, keepdims=True))
    filters *= np.exp(-0.5 * ((pitches / N_CHROMA - 5.0) / 2.0) ** 2)[:, None]  # most weight around 880 Hz
    return _freeze(np.roll(filters, -3, axis=1).astype(np.float32))  # from C, not from A


@lru_cache(maxsize=4)
def compute_cosine_transform(n_coefficients: int) -> Float64:
    """Return the orthonormal DCT-II of 128 mel bands, shape (coefficient, band)."""
    bands = np.arange(N_MELS)
    transform = np.sqrt(2.0 / N_MELS) * np.cos(
        np.pi / N_MELS * np.outer(np.arange(n_coefficients), bands + 0.5)
    )
    transform[0] /= np.sqrt(2.0)
    transform.flags.writeable = False
    return transform


def _freeze(matrix: Float32) -> Float32:
    matrix.flags.writeable = False
    return matrix
