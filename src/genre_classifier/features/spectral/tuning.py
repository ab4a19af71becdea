"""How far a signal is tuned from A440: librosa's estimate, from the peaks of a power spectrogram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genre_classifier.features.sets import N_FFT
from genre_classifier.features.spectral.filters import A0, N_CHROMA

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

LOWEST, HIGHEST = 150.0, 4000.0  # Hz
THRESHOLD = np.float32(0.1)  # of the largest power in the frame
N_CLASSES = 100  # of a semitone: the estimate is a whole number of cents


@dataclass(frozen=True, eq=False)
class Peaks:
    """Peaks of some frames' power spectra, each with its two neighbours.

    Parameters
    ----------
    frames, bins : np.ndarray [shape=(peak,), dtype=int64]
    below, power, above : np.ndarray [shape=(peak,), dtype=float32]
        Power in the bin below, in the peak's own and in the one above.
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


def pitch_range(sample_rate: int) -> slice:
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
        The bins in question, from :func:`pitch_range`.
    """
    here = power[:, searched]
    # Bins under the threshold count as 0 when librosa compares neighbours, which comes to the same for these.
    found = here > THRESHOLD * largest
    found &= here > power[:, searched.start - 1 : searched.stop - 1]
    found &= here >= power[:, searched.start + 1 : searched.stop + 1]
    frames, bins = np.divmod(np.flatnonzero(found), max(here.shape[1], 1))
    bins += searched.start
    return Peaks(frames, bins, power[frames, bins - 1], power[frames, bins], power[frames, bins + 1])


def estimate_tuning(parts: list[Peaks], sample_rate: int) -> float:
    """Return what ``librosa.estimate_tuning`` says, in fractions of a semitone within [-0.5, 0.5).

    Parameters
    ----------
    parts : list of Peaks
        Of all frames.
    sample_rate : int
        In Hz.
    """
    below, power, above = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("below", "power", "above")
    )
    if not power.size:
        return 0.0
    bins = np.concatenate([part.bins for part in parts])
    # float32 step by step as librosa computes it: a pitch on the edge of a class must fall on the same side.
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
