"""One temperature that makes a network's confidence mean what it says (Guo et al., 2017)."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from genre_classifier.bundle import Calibration
from genre_classifier.errors import ExportError
from genre_classifier.evaluation.metrics import GenreMetrics
from genre_classifier.exporting.candidate import Candidate, Rows
from genre_classifier.inference import fold_temperature

LOWEST, HIGHEST = 0.01, 100.0


def fit_temperature(logits: Tensor, genres: Tensor) -> float:
    """Return the temperature that gives the smallest negative log likelihood.

    In 1 / temperature the likelihood is convex, and its slope is the mean logit under the network's probabilities
    less the mean logit of the true genre: the temperature is where the two are equal.

    Parameters
    ----------
    logits : Tensor [shape=(row, genre), dtype=float64]
    genres : Tensor [shape=(row,)]

    Raises
    ------
    ExportError
        The rows do not determine a temperature: all are classified right, or the network is no better than chance.
    """
    logits = logits.double() - logits.double().max(dim=1, keepdim=True).values
    true = logits.gather(1, genres[:, None]).mean()

    def slope(temperature: float) -> float:
        return float((torch.softmax(logits / temperature, dim=1) * logits).sum(dim=1).mean() - true)

    low, high = math.log(LOWEST), math.log(HIGHEST)
    if not slope(LOWEST) > 0 > slope(HIGHEST):
        reason = (
            "the network is no better than chance on them"
            if slope(HIGHEST) >= 0
            else "all are classified right"
        )
        raise ExportError(
            f"temperature_scaling=true: the {len(genres)} validation rows do not determine a temperature between "
            f"{LOWEST:g} and {HIGHEST:g}, since {reason}; export without it"
        )
    for _ in range(60):  # halvings of an interval of 9: below the spacing of float64
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) > 0 else (low, middle)
    return math.exp((low + high) / 2)


def calibrated(candidate: Candidate, rows: Rows | None, why_not: str) -> tuple[Candidate, Calibration]:
    """Return a candidate with a temperature in its last layer, fitted on the validation rows only.

    Raises
    ------
    ExportError
        There are no validation rows, they do not determine a temperature, or the network has no last linear layer.
    """
    if rows is None or not len(rows.split.val):
        reason = why_not if rows is None else "the run has none"
        raise ExportError(f"temperature_scaling=true needs the run's validation rows: {reason}")
    features, genres = rows.side("val")
    before = candidate.logits(features)
    temperature = fit_temperature(before, genres)
    try:
        after = replace(candidate, network=fold_temperature(candidate.network, temperature).eval())
    except ValueError as error:
        raise ExportError(f"temperature_scaling=true: {error}; export without it") from error
    return after, Calibration(
        temperature=temperature,
        ece_before=_ece(before, genres),
        ece_after=_ece(after.logits(features), genres),
        n_rows=len(genres),
    )


def _ece(logits: Tensor, genres: Tensor) -> float:
    return GenreMetrics(logits.shape[1], all_processes=False)(logits, genres).values["ece"]
