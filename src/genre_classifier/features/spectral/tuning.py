"""Estimate a signal's deviation from A440 as librosa does, from the peaks of a power spectrogram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genre_classifier.features.sets import N_FFT
from genre_classifier.features.spectral.filters import A0, N_CHROMA

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

LOWEST, HIGHEST = 150.0, 4000.0  # Hz
THRESHOLD = np.float32(0.1)  # share of the largest power in the frame
N_CLASSES = 100  # classes per semitone: the estimate is a whole number of cents


@dataclass(frozen=True, eq=False)
class Peaks:
    """Peaks of some frames' power spectra, each with its two neighbours.

    Parameters
    ----------
    frames, bins : np.ndarray [shape=(peak,), dtype=int64]
    below, power, above : np.ndarray [shape=(peak,), dtype=float32]
        Power in the bin below the peak, in the peak's bin and in the bin above.
    """

    frames: Int64
    bins: Int64
    below: Float32
    power: Float32
    above: Float32

    @property
    def curvature(self) -> Float32:
        """Second difference at each peak; 0 or below."""
        return self.above + self.below - 2 * self.power


def find_pitch_bins(sample_rate: int) -> slice:
    """Return the bins in which ``librosa.piptrack`` looks for peaks by default."""
    first = int(np.ceil(LOWEST * N_FFT / sample_rate))
    end = int(np.ceil(min(HIGHEST, sample_rate / 2) * N_FFT / sample_rate))
    return slice(first, end)


def find_peaks(power: Float32, largest: Float32, searched: slice) -> Peaks:
    """Find the local maxima above a tenth of their frame's largest power.

    Parameters
    ----------
    power : np.ndarray [shape=(frame, bin), dtype=float32]
    largest : np.ndarray [shape=(frame, 1), dtype=float32]
        Each frame's largest power.
    searched : slice
        The bins to search, from :func:`find_pitch_bins`.
    """
    here = power[:, searched]
    # librosa sets bins below the threshold to 0 before comparing neighbours. The peaks are the same.
    found = here > THRESHOLD * largest
    found &= here > power[:, searched.start - 1 : searched.stop - 1]
    found &= here >= power[:, searched.start + 1 : searched.stop + 1]
    frames, bins = np.divmod(np.flatnonzero(found), max(here.shape[1], 1))
    bins += searched.start
    return Peaks(frames, bins, power[frames, bins - 1], power[frames, bins], power[frames, bins + 1])


def estimate_tuning(blocks: list[Peaks], sample_rate: int) -> float:
    """Return the result of ``librosa.estimate_tuning``, in fractions of a semitone within [-0.5, 0.5).

    Parameters
    ----------
    blocks : list of Peaks
        Peaks of all frames, block by block.
    sample_rate : int
        In Hz.
    """
    below, power, above = (
        np.concatenate([getattr(block, name) for block in blocks]) for name in ("below", "power", "above")
    )
    if not power.size:
        return 0.0
    bins = np.concatenate([block.bins for block in blocks])
    # float32 step by step as in librosa, so a pitch on the edge of a class falls on the same side.
    curvature = above + below - 2 * power
    slope = (above - below) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.where(np.abs(slope) >= np.abs(curvature), np.float32(0), -slope / curvature)
    magnitude = power + np.float32(0.5) * slope * shift
    pitch = ((bins + shift) * float(sample_rate) / N_FFT).astype(np.float32)  # Hz
    clear = pitch[magnitude >= np.median(magnitude)]
    deviation = np.mod(N_CHROMA * np.log2(clear / A0), 1.0)
    deviation[deviation >= 0.5] -= 1.0
    edges = np.linspace(-0.5, 0.5, N_CLASSES + 1)
    counts, _ = np.histogram(deviation, edges)
    return float(edges[np.argmax(counts)])
