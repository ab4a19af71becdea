"""The metrics, each defined once: single runs, stacks, intervals, tables, charts and reports all read this list.

A metric is a function of counts over rows. The counts are NumPy arrays (resamples of the bootstrap) or torch tensors
(members of a stack) with one more axis in front. A definition therefore uses only operators, ``sum`` and ``clip``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

CALIBRATION_BINS = 15
Array = Any
"""A NumPy array or a torch tensor."""


def count_columns(n_genres: int) -> int:
    """Return the number of columns of `Counts.sums`."""
    return n_genres**2 + CALIBRATION_BINS + 2


@dataclass(frozen=True, eq=False)
class Counts:
    """Sums over the rows of a split.

    Parameters
    ----------
    sums : array [shape=(member, column)]
        Columns: rows by true and predicted genre, row by row; (1 if right else 0) - confidence by bin of confidence;
        losses; rows whose genre is among the three most probable ones.
    n_genres : int
    """

    sums: Array
    n_genres: int

    @cached_property
    def confusion(self) -> Array:
        """Rows by true and predicted genre, (member, genre, genre)."""
        return self.sums[:, : self.n_genres**2].reshape(-1, self.n_genres, self.n_genres)

    @cached_property
    def support(self) -> Array:
        """Rows of each genre, (member, genre)."""
        return self.confusion.sum(axis=2)

    @cached_property
    def predicted(self) -> Array:
        """Rows predicted as each genre, (member, genre)."""
        return self.confusion.sum(axis=1)

    @cached_property
    def right(self) -> Array:
        """Rows predicted as their true genre, (member, genre)."""
        return self.confusion.diagonal(0, 1, 2)

    @cached_property
    def rows(self) -> Array:
        """All rows, (member,)."""
        return self.support.sum(axis=1)

    @property
    def gaps(self) -> Array:
        """Number of right answers minus the sum of confidences, (member, bin)."""
        return self.sums[:, self.n_genres**2 : -2]

    @property
    def loss(self) -> Array:
        """Sum of the rows' losses, (member,)."""
        return self.sums[:, -2]

    @property
    def among_three(self) -> Array:
        """Rows whose genre is among the three most probable ones, (member,)."""
        return self.sums[:, -1]

    @cached_property
    def f1_per_genre(self) -> Array:
        """F1 per genre, (member, genre); 0 for a genre without true or predicted rows."""
        return 2.0 * self.right / (self.support + self.predicted).clip(1)


@dataclass(frozen=True)
class Metric:
    """One number that measures the quality of predictions.

    Parameters
    ----------
    name : str
        Its name in metrics.json, history.csv, TensorBoard and ``optimized_metric=val/NAME``.
    heading : str
        Its name in tables for people.
    of : callable
        Takes `Counts`, returns an array [shape=(member,)].
    higher_is_better : bool
    """

    name: str
    heading: str
    of: Callable[[Counts], Array]
    higher_is_better: bool = True


def _compute_f1_macro(counts: Counts) -> Array:
    present = (counts.support + counts.predicted) > 0  # a genre without true or predicted rows does not count
    return (counts.f1_per_genre * present).sum(axis=1) / present.sum(axis=1)


METRICS = (
    Metric("loss", "loss", lambda counts: counts.loss / counts.rows, higher_is_better=False),
    Metric("accuracy", "accuracy", lambda counts: counts.right.sum(axis=1) / counts.rows),
    Metric(
        "f1",
        "F1 weighted",
        lambda counts: (counts.f1_per_genre * counts.support).sum(axis=1) / counts.rows,
    ),
    Metric("f1_macro", "F1 macro", _compute_f1_macro),
    Metric("top3", "top-3", lambda counts: counts.among_three / counts.rows),
    # Expected calibration error over 15 bins of equal width (Naeini et al., 2015).
    Metric("ece", "ECE", lambda counts: abs(counts.gaps).sum(axis=1) / counts.rows, higher_is_better=False),
)


def compute_metrics(counts: Counts) -> dict[str, Array]:
    """Return every metric by name, each of shape (member,)."""
    return {metric.name: metric.of(counts) for metric in METRICS}
