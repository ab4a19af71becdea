"""Calibration: a temperature that corrects the confidence."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from genre_classifier.errors import CalibrationError
from genre_classifier.evaluation.reliability import compute_expected_calibration_error, compute_reliability

LOWEST, HIGHEST = 0.01, 100.0


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
    # (genre, row): torch is many times as fast as over a few genres in a row, and the search takes dozens of steps.
    logits = logits.double().T.contiguous()
    logits = logits - logits.max(dim=0, keepdim=True).values
    true = logits.gather(0, genres[None]).mean()

    def compute_slope(temperature: float) -> float:
        return float((torch.softmax(logits / temperature, dim=0) * logits).sum(dim=0).mean() - true)

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
