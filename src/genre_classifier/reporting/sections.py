"""Build the parts of a report that need predictions: headline, confusion, genres, calibration, mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genre_classifier.evaluation.drawing import DARK, get_share_colour
from genre_classifier.evaluation.reliability import ReliabilityBin, compute_expected_calibration_error
from genre_classifier.reporting.contents import RunContents
from genre_classifier.reporting.figures import draw_reliability
from genre_classifier.reporting.svg import Figure
from genre_classifier.runs.predictions import (
    GenreScores,
    Int64,
    Predictions,
    compute_scores_per_genre,
)

MISTAKES = 15
# With more genres, the confusion matrix is set in small type.
MANY_GENRES = 12


@dataclass(frozen=True)
class Number:
    """A metric in the headline.

    Parameters
    ----------
    name : str
    value : float
    low, high : float or None
        Its 95 % interval, or None.
    least, most : float or None
        The smallest and largest value, if the metric is a mean of several.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix.

    Parameters
    ----------
    count : int
    share : float or None
        Share of the true genre's rows; None if it has none.
    colour : str
        The background, as CSS.
    dark : bool
        Whether the letters must be light.
    """

    count: int
    share: float | None
    colour: str
    dark: bool


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix.

    Parameters
    ----------
    side : str
        The counted rows, in words.
    genre_names : tuple of str
    cells : tuple of tuple of Cell
        By true genre, then by predicted genre.
    scores : tuple of GenreScores
    """

    side: str
    genre_names: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]
    scores: tuple[GenreScores, ...]

    @property
    def is_wide(self) -> bool:
        """Whether it needs small type."""
        return len(self.genre_names) > MANY_GENRES

    @property
    def rows(self) -> int:
        """Rows counted."""
        return sum(score.support for score in self.scores)

    @property
    def commonest(self) -> float:
        """The accuracy of always predicting the most frequent genre."""
        return max(score.support for score in self.scores) / self.rows


@dataclass(frozen=True)
class Calibration:
    """The calibration of the confidence.

    Parameters
    ----------
    figure : Figure
    ece : float
    low, high : float or None
    temperature : str
        The effect of temperature scaling, in a sentence.
    """

    figure: Figure
    ece: float
    low: float | None
    high: float | None
    temperature: str


@dataclass(frozen=True)
class Mistake:
    """A wrong answer.

    Parameters
    ----------
    id, group : str
    true, predicted : str
        Genres.
    confidence : float
        The probability of the predicted genre.
    truth : float
        The probability of the true one.
    """

    id: str
    group: str
    true: str
    predicted: str
    confidence: float
    truth: float


def build_confusion(counts: Int64, genre_names: Sequence[str], side: str) -> Confusion | None:
    """Return the confusion matrix of counts (true genre, predicted genre); None if all counts are 0."""
    if not counts.sum():
        return None
    support = counts.sum(axis=1)
    cells = tuple(
        tuple(_build_cell(int(count), int(total)) for count in line)
        for line, total in zip(counts, support, strict=True)
    )
    return Confusion(side, tuple(genre_names), cells, tuple(compute_scores_per_genre(counts, genre_names)))


def _build_cell(count: int, support: int) -> Cell:
    share = count / support if support else None
    return Cell(count, share, get_share_colour(share or 0), (share or 0) > DARK)


def read_confusion(contents: RunContents) -> Confusion | None:
    """Return the confusion of a run's test rows, else of its validation rows."""
    if contents.predictions is not None and len(contents.predictions):
        return build_confusion(
            contents.predictions.count_confusion(), contents.predictions.genre_names, "test rows"
        )
    recorded = contents.metrics.get("confusion") or {}
    names = contents.metrics.get("genre_names") or contents.data.get("genres") or []
    for side, words in (("test", "test rows"), ("val", "validation rows")):
        counts = np.array(recorded.get(side, []), dtype=np.int64)
        if counts.shape == (len(names), len(names)) and len(names):
            return build_confusion(counts, names, words)
    return None


def read_intervals(contents: RunContents) -> Mapping[str, Any]:
    """Return the test rows' intervals from metrics.json, else compute them from predictions.csv."""
    recorded = contents.metrics.get("intervals")
    if recorded is not None:
        return recorded.get("test") or {}
    if contents.predictions is None or not len(contents.predictions):
        return {}
    return contents.predictions.compute_intervals(contents.group_name) or {}


def read_ends(intervals: Mapping[str, Any], name: str) -> tuple[float | None, float | None]:
    """Return the ends of a metric's interval; None twice if it has no interval."""
    low, high = intervals.get(name) or (None, None)
    return low, high


def read_calibration(contents: RunContents, intervals: Mapping[str, Any], key: str) -> Calibration | None:
    """Return the calibration of a run's test rows; None if the run has no test predictions."""
    recorded = (contents.metrics.get("reliability") or {}).get("test")
    if recorded:
        bins = [ReliabilityBin(*line) for line in recorded]
    elif contents.predictions is not None and len(contents.predictions):
        bins = contents.predictions.bin_reliability()
    else:
        return None
    return build_calibration(bins, intervals, describe_temperature(contents), key)


def build_calibration(
    bins: list[ReliabilityBin], intervals: Mapping[str, Any], temperature: str, key: str
) -> Calibration:
    """Return the calibration that the bins of a reliability diagram show."""
    low, high = read_ends(intervals, "ece")
    return Calibration(
        draw_reliability(bins, f"{key}reliability"),
        compute_expected_calibration_error(bins),
        low,
        high,
        temperature,
    )


def describe_temperature(contents: RunContents) -> str:
    """Return the effect of temperature scaling on the test rows, in words."""
    found = contents.metrics.get("temperature")
    if found is None:
        return (
            "The effect of temperature scaling is not recorded: it needs validation rows, and earlier versions did "
            "not record it."
        )
    if found.get("temperature") is None:
        return f"No temperature can be fitted: {found.get('reason', 'no reason is recorded')}."
    before, after = found["test"]["before"], found["test"]["after"]
    temperature = found["temperature"]
    confident = "too confident" if temperature > 1 else "not confident enough"
    return (
        f"A temperature of {temperature:.2f}, fitted on the {found['rows']} validation rows (the network is "
        f"{confident} there), changes the ECE of the test rows from {before['ece']:.3f} to {after['ece']:.3f} and "
        f"their loss from {before['loss']:.3f} to {after['loss']:.3f}. No answer changes."
    )


def list_mistakes(predictions: Predictions | None) -> tuple[Mistake, ...]:
    """Return the most confident mistakes."""
    if predictions is None:
        return ()
    names, p = predictions.genre_names, predictions.probabilities
    return tuple(
        Mistake(
            id=predictions.ids[row],
            group=predictions.groups[row],
            true=names[predictions.true[row]],
            predicted=names[predictions.predicted[row]],
            confidence=float(p[row, predictions.predicted[row]]),
            truth=float(p[row, predictions.true[row]]),
        )
        for row in predictions.find_confident_mistakes(MISTAKES)
    )
