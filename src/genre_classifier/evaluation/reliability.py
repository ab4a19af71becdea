"""Reliability: how often a model is right, by its confidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genre_classifier.config.metrics import CALIBRATION_BINS

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ReliabilityBin:
    """The rows with a confidence in [low, high). The last bin includes its end.

    Parameters
    ----------
    low, high : float
    rows : int
    confidence, accuracy : float or None
        Means over these rows; None if there are no rows.
    """

    low: float
    high: float
    rows: int
    confidence: float | None
    accuracy: float | None


def find_bins(confidence: Float64) -> Int64:
    """Return the bin, from 0, of each confidence: 15 of equal width (Naeini et al., 2015)."""
    ends = np.linspace(0, 1, CALIBRATION_BINS + 1)
    found = np.searchsorted(ends, confidence, side="right") - 1
    return np.clip(found, 0, CALIBRATION_BINS - 1).astype(np.int64)


def compute_reliability(probabilities: Float64, genres: Int64) -> list[ReliabilityBin]:
    """Return the bins of a reliability diagram.

    Parameters
    ----------
    probabilities : np.ndarray [shape=(row, genre)]
    genres : np.ndarray [shape=(row,)]
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == genres
    bins = find_bins(confidence)
    ends = np.linspace(0, 1, CALIBRATION_BINS + 1)
    found = []
    for number in range(CALIBRATION_BINS):
        mine = bins == number
        rows = int(mine.sum())
        means = (float(confidence[mine].mean()), float(right[mine].mean())) if rows else (None, None)
        found.append(ReliabilityBin(float(ends[number]), float(ends[number + 1]), rows, *means))
    return found


def compute_expected_calibration_error(bins: list[ReliabilityBin]) -> float:
    """Return the mean distance between confidence and accuracy over rows (Naeini et al., 2015)."""
    rows = sum(one.rows for one in bins)
    distances = (
        one.rows * abs(one.confidence - one.accuracy)
        for one in bins
        if one.confidence is not None and one.accuracy is not None
    )
    return sum(distances) / rows
