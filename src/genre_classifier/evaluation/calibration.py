"""Calibration: reliability per confidence bin, and a temperature that corrects the confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from genre_classifier.config.metrics import CALIBRATION_BINS
from genre_classifier.errors import CalibrationError

LOWEST, HIGHEST = 0.01, 100.0

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


def fit_temperature(logits: Tensor, genres: Tensor) -> float:
    """Return the temperature that gives the smallest negative log likelihood (Guo et al., 2017).

    The negative log likelihood is convex in 1 / temperature. Its slope is the mean logit under the network's
    probabilities minus the mean logit of the true genre. At the fitted temperature the two are equal.

    Parameters
    ----------
    logits : Tensor [shape=(row, genre), dtype=float64]
    genres : Tensor [shape=(row,)]

    Raises
    ------
    CalibrationError
        The rows do not determine a temperature: all are classified right, or the network is no better than chance.
    """
    logits = logits.double() - logits.double().max(dim=1, keepdim=True).values
    true = logits.gather(1, genres[:, None]).mean()

    def compute_slope(temperature: float) -> float:
        return float((torch.softmax(logits / temperature, dim=1) * logits).sum(dim=1).mean() - true)

    low, high = math.log(LOWEST), math.log(HIGHEST)
    if not compute_slope(LOWEST) > 0 > compute_slope(HIGHEST):
        reason = (
            "the network is no better than chance on them"
            if compute_slope(HIGHEST) >= 0
            else "all are classified right"
        )
        raise CalibrationError(
            f"the {len(genres)} validation rows do not determine a temperature between "
            f"{LOWEST:g} and {HIGHEST:g}, since {reason}"
        )
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if compute_slope(math.exp(middle)) > 0 else (low, middle)
    return math.exp((low + high) / 2)


def measure_temperature_effect(
    val_logits: Tensor, val_genres: Tensor, test_logits: Tensor, test_genres: Tensor
) -> dict[str, Any]:
    """Fit a temperature on the validation rows, and measure its effect on the test rows.

    Parameters
    ----------
    val_logits, test_logits : Tensor [shape=(row, genre)]
    val_genres, test_genres : Tensor [shape=(row,)]

    Returns
    -------
    dict
        ``temperature``, ``fitted_on``, ``rows``, and ``test`` with ``loss`` and ``ece`` before and after. If the
        validation rows determine no temperature, it is None and ``reason`` says why.
    """
    fitted: dict[str, Any] = {"temperature": None, "fitted_on": "val", "rows": len(val_genres)}
    try:
        temperature = fit_temperature(val_logits, val_genres)
    except CalibrationError as error:
        return fitted | {"reason": str(error)}
    before, after = (
        {
            "loss": float(functional.cross_entropy(logits, test_genres)),
            "ece": compute_expected_calibration_error(
                compute_reliability(torch.softmax(logits, dim=1).numpy(), test_genres.numpy())
            ),
        }
        for logits in (test_logits.double(), test_logits.double() / temperature)
    )
    return fitted | {"temperature": temperature, "test": {"before": before, "after": after}}
