"""The parts of a report that follow from judged rows: headline, confusion, genres, calibration, mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genre_classifier.evaluation.calibration import ReliabilityBin, expected_calibration_error
from genre_classifier.evaluation.drawing import DARK, share_colour
from genre_classifier.reporting.contents import RunContents
from genre_classifier.reporting.figures import reliability_figure
from genre_classifier.reporting.svg import Figure
from genre_classifier.runs.predictions import (
    GenreScores,
    Int64,
    Predictions,
    scores_per_genre,
)

MISTAKES = 15
# From this many genres on, the confusion matrix is set in small type.
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
        The smallest and largest of the values whose mean it is, where there are several.
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
        Of the true genre's rows; None where it has none.
    colour : str
        Behind the count, as CSS.
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
        Which rows it counts, in words.
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


def confusion_of(counts: Int64, genre_names: Sequence[str], side: str) -> Confusion | None:
    """Return the matrix of counts (true genre, predicted genre); None where it counts no rows."""
    if not counts.sum():
        return None
    support = counts.sum(axis=1)
    cells = tuple(
        tuple(_cell(int(count), int(total)) for count in line)
        for line, total in zip(counts, support, strict=True)
    )
    return Confusion(side, tuple(genre_names), cells, tuple(scores_per_genre(counts, genre_names)))


def _cell(count: int, support: int) -> Cell:
    share = count / support if support else None
    return Cell(count, share, share_colour(share or 0), (share or 0) > DARK)


def confusion_of_run(contents: RunContents) -> Confusion | None:
    """Return the confusion of a run's test rows, else of its validation rows."""
    if contents.predictions is not None and len(contents.predictions):
        return confusion_of(contents.predictions.confusion(), contents.predictions.genre_names, "test rows")
    recorded = contents.metrics.get("confusion") or {}
    names = contents.metrics.get("genre_names") or contents.data.get("genres") or []
    for side, words in (("test", "test rows"), ("val", "validation rows")):
        counts = np.array(recorded.get(side, []), dtype=np.int64)
        if counts.shape == (len(names), len(names)) and len(names):
            return confusion_of(counts, names, words)
    return None


def intervals_of_run(contents: RunContents) -> Mapping[str, Any]:
    """Return the test rows' intervals as metrics.json has them, else computed from predictions.csv."""
    recorded = contents.metrics.get("intervals")
    if recorded is not None:
        return recorded.get("test") or {}
    if contents.predictions is None or not len(contents.predictions):
        return {}
    return contents.predictions.intervals(contents.group_name) or {}


def ends(intervals: Mapping[str, Any], name: str) -> tuple[float | None, float | None]:
    """Return the ends of a metric's interval; None twice if it has no interval."""
    low, high = intervals.get(name) or (None, None)
    return low, high


def calibration_of_run(contents: RunContents, intervals: Mapping[str, Any], key: str) -> Calibration | None:
    """Return the calibration of a run's test rows; None if the run has no test predictions."""
    recorded = (contents.metrics.get("reliability") or {}).get("test")
    if recorded:
        bins = [ReliabilityBin(*line) for line in recorded]
    elif contents.predictions is not None and len(contents.predictions):
        bins = contents.predictions.reliability()
    else:
        return None
    return calibration_of(bins, intervals, temperature_in_words(contents), key)


def calibration_of(
    bins: list[ReliabilityBin], intervals: Mapping[str, Any], temperature: str, key: str
) -> Calibration:
    """Return the calibration that the bins of a reliability diagram show."""
    low, high = ends(intervals, "ece")
    return Calibration(
        reliability_figure(bins, f"{key}reliability"),
        expected_calibration_error(bins),
        low,
        high,
        temperature,
    )


def temperature_in_words(contents: RunContents) -> str:
    """Return the effect of temperature scaling on the test rows, in words."""
    found = contents.metrics.get("temperature")
    if found is None:
        return (
            "What temperature scaling would do is not recorded: it needs validation rows, and runs of earlier "
            "versions do not say."
        )
    if found.get("temperature") is None:
        return f"No temperature can be fitted: {found.get('reason', 'no reason is recorded')}."
    before, after = found["test"]["before"], found["test"]["after"]
    temperature = found["temperature"]
    tells = "too sure of itself" if temperature > 1 else "less sure of itself than it could be"
    return (
        f"Dividing the logits by one temperature of {temperature:.2f}, fitted on the {found['rows']} validation rows "
        f"(the network is {tells} there), moves the ECE of the test rows from {before['ece']:.3f} to "
        f"{after['ece']:.3f} and their loss from {before['loss']:.3f} to {after['loss']:.3f}; no answer changes."
    )


def mistakes_of(predictions: Predictions | None) -> tuple[Mistake, ...]:
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
        for row in predictions.most_confident_mistakes(MISTAKES)
    )
