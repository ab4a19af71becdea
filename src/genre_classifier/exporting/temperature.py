"""Fit a temperature, and fold it into the network's last layer."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from genre_classifier.bundle.format import Calibration
from genre_classifier.bundle.inference import fold_temperature
from genre_classifier.errors import CalibrationError, ExportError
from genre_classifier.evaluation.calibration import fit_temperature
from genre_classifier.evaluation.metrics import score
from genre_classifier.exporting.candidate import Candidate
from genre_classifier.runs.rows import RunRows


def calibrate(candidate: Candidate, rows: RunRows | None, why_not: str) -> tuple[Candidate, Calibration]:
    """Fit a temperature on the validation rows only, and return the candidate with it in its last layer.

    Raises
    ------
    ExportError
        There are no validation rows, they do not determine a temperature, or the network has no last linear layer.
    """
    if rows is None or not len(rows.split.val):
        reason = why_not if rows is None else "the run has none"
        raise ExportError(f"temperature_scaling=true needs the run's validation rows: {reason}")
    features, genres = rows.side("val")
    before = candidate.compute_logits(features)
    try:
        temperature = fit_temperature(before, genres)
    except CalibrationError as error:
        raise ExportError(f"temperature_scaling=true: {error}; export without it") from error
    try:
        after = replace(candidate, network=fold_temperature(candidate.network, temperature).eval())
    except ValueError as error:
        raise ExportError(f"temperature_scaling=true: {error}; export without it") from error
    return after, Calibration(
        temperature=temperature,
        ece_before=_compute_ece(before, genres),
        ece_after=_compute_ece(after.compute_logits(features), genres),
        n_rows=len(genres),
    )


def _compute_ece(logits: Tensor, genres: Tensor) -> float:
    return score(logits, genres).values["ece"]
