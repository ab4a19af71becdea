"""Bootstrap intervals of a split's metrics. Whole groups are resampled if rows have groups.

Every metric is a function of sums over rows (counts by true and predicted genre, losses, calibration bins). A
resample is therefore one weighted sum of these; the rows are read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.special import ndtr, ndtri

from genre_classifier.config.metrics import CALIBRATION_BINS, Counts, compute_metrics, count_columns
from genre_classifier.evaluation.reliability import find_bins

LEVEL = 0.95
RESAMPLES = 2000
SEED = 0
# The acceleration shrinks with the root of the number of units. Above this number it is taken as 0.
MOST_JACKKNIFED = 2000
BLOCK_VALUES = 1 << 22

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Text = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Intervals:
    """Intervals of the metrics of one split.

    Parameters
    ----------
    values : dict of str to tuple of float
        By metric, the lower and upper end.
    units : int
        Number of groups, or rows, that were drawn with replacement.
    unit_name : str
        Such as ``artist``; ``row`` if there are no groups.
    """

    values: dict[str, tuple[float, float]]
    units: int
    unit_name: str

    def as_dict(self) -> dict[str, Any]:
        """Return the intervals and how they were made, as plain values."""
        return {
            **{name: list(ends) for name, ends in self.values.items()},
            "level": LEVEL,
            "method": "bootstrap, bias-corrected and accelerated",
            "resamples": RESAMPLES,
            "units": self.units,
            "unit": self.unit_name,
        }


def compute_intervals(
    logits: Float64, genres: Int64, groups: Text | None = None, group_name: str = "group"
) -> Intervals | None:
    """Return the 95 % interval of every metric.

    The ends are bias-corrected and accelerated percentiles (BCa; Efron, 1987) of 2,000 resamples. Whole groups are
    drawn, because the rows of an artist or track depend on each other.

    Parameters
    ----------
    logits : np.ndarray [shape=(row, genre)]
    genres : np.ndarray [shape=(row,), dtype=int64]
    groups : np.ndarray [shape=(row,), dtype=object], optional
    group_name : str
        What the groups are, in the singular.

    Returns
    -------
    Intervals or None
        None for fewer than two groups or rows: they have no spread.
    """
    units, n_units = _number_units(len(genres), groups)
    if n_units < 2:
        return None
    n_genres = logits.shape[1]
    sums = _sum_by_unit(logits, genres, units, n_units)
    total = np.asarray(sums.sum(axis=0))  # (1, column)
    point = {name: float(value[0]) for name, value in _compute_metrics(total, n_genres).items()}
    drawn = _join(_compute_metrics(block, n_genres) for block in _resample(sums, n_units))
    left_out = None
    if n_units <= MOST_JACKKNIFED:
        left_out = _join(_compute_metrics(block, n_genres) for block in _leave_out_each(sums))
    ends = {
        name: _compute_bca(point[name], drawn[name], None if left_out is None else left_out[name])
        for name in point
    }
    return Intervals(ends, n_units, "row" if groups is None else group_name)


def compute_difference_intervals(
    first: Sequence[Float64], second: Sequence[Float64], genres: Int64, groups: Text | None = None
) -> dict[str, tuple[float, float, float]]:
    """Return each metric's difference between two models on the same rows, with its 95 % interval.

    Both models are scored on the same resamples, so the difficulty that a row has for both cancels. The ends are BCa
    percentiles, as in `compute_intervals`.

    Parameters
    ----------
    first, second : sequence of np.ndarray [shape=(row, genre)]
        Logits or log probabilities, one array per replicate of the model. A metric is the mean over the replicates.
    genres : np.ndarray [shape=(row,), dtype=int64]
    groups : np.ndarray [shape=(row,), dtype=object], optional
        Whole groups are drawn.

    Returns
    -------
    dict of str to tuple of float
        By metric: first minus second, and the interval's ends.

    Raises
    ------
    ValueError
        There are fewer than two rows or groups.
    """
    units, n_units = _number_units(len(genres), groups)
    if n_units < 2:
        raise ValueError(f"{n_units} group or row: at least two are needed to tell their spread")
    n_genres = first[0].shape[1]
    models = [
        (sign / len(replicates), _sum_by_unit(logits, genres, units, n_units))
        for sign, replicates in ((1, first), (-1, second))
        for logits in replicates
    ]

    def compute_difference(of: Callable[[csr_matrix], Iterator[Float64]]) -> dict[str, Float64]:
        scores = [
            (weight, _join(_compute_metrics(block, n_genres) for block in of(sums)))
            for weight, sums in models
        ]
        # Without the rounding errors of the sum, two models that answer alike differ by 0.
        return {
            name: np.sum([weight * found[name] for weight, found in scores], axis=0).round(12)
            for name in scores[0][1]
        }

    point = compute_difference(lambda sums: iter([np.asarray(sums.sum(axis=0))]))
    drawn = compute_difference(lambda sums: _resample(sums, n_units))
    left_out = compute_difference(_leave_out_each) if n_units <= MOST_JACKKNIFED else None
    return {
        name: (
            float(point[name][0]),
            *_compute_bca(float(point[name][0]), drawn[name], None if left_out is None else left_out[name]),
        )
        for name in point
    }


def _number_units(n_rows: int, groups: Text | None) -> tuple[Int64, int]:
    """Return the unit of each row, and the number of units."""
    if groups is None:
        return np.arange(n_rows), n_rows
    names, units = np.unique(groups.astype(str), return_inverse=True)
    return units.astype(np.int64), len(names)


def _sum_by_unit(logits: Float64, genres: Int64, units: Int64, n_units: int) -> csr_matrix:
    """Return the sums that the metrics need, per unit: (unit, column), see `Counts`."""
    n_rows, n_genres = logits.shape
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    rows = np.arange(n_rows)
    losses = log_sum - shifted[rows, genres]
    predicted = shifted.argmax(axis=1)
    confidence = np.exp(-log_sum)
    true = shifted[rows, genres][:, None]
    # Of equally probable genres the first comes first, as in `compute_row_sums`.
    ahead = (shifted > true) | ((shifted == true) & (np.arange(n_genres) < genres[:, None]))
    found = ahead.sum(axis=1) < 3
    bins = find_bins(confidence)
    first_bin = n_genres**2
    columns = np.stack(
        [
            genres * n_genres + predicted,
            first_bin + bins,
            first_bin + CALIBRATION_BINS + np.zeros(n_rows, dtype=np.int64),
            first_bin + CALIBRATION_BINS + 1 + np.zeros(n_rows, dtype=np.int64),
        ],
        axis=1,
    )
    values = np.stack([np.ones(n_rows), (predicted == genres) - confidence, losses, found], axis=1)
    shape = (n_units, count_columns(n_genres))
    where = (np.repeat(units, columns.shape[1]), columns.ravel())
    return csr_matrix((values.ravel(), where), shape=shape)


def _compute_metrics(sums: Float64, n_genres: int) -> dict[str, Float64]:
    """Return the metrics, each (resample,), of sums (resample, column)."""
    return compute_metrics(Counts(sums, n_genres))


def _resample(sums: csr_matrix, n_units: int) -> Iterator[Float64]:
    """Yield blocks of RESAMPLES sums (resample, column) over units drawn with replacement."""
    rng = np.random.default_rng(SEED)
    size = max(1, BLOCK_VALUES // max(sums.shape))
    for start in range(0, RESAMPLES, size):
        number = min(size, RESAMPLES - start)
        draws = rng.integers(0, n_units, (number, n_units)) + np.arange(number)[:, None] * n_units
        times = np.bincount(draws.ravel(), minlength=number * n_units).reshape(number, n_units)
        yield np.asarray((sums.T @ times.T.astype(np.float64)).T)


def _leave_out_each(sums: csr_matrix) -> Iterator[Float64]:
    """Yield blocks of sums (unit, column). Each sum leaves out one unit."""
    total = np.asarray(sums.sum(axis=0))
    size = max(1, BLOCK_VALUES // sums.shape[1])
    for start in range(0, sums.shape[0], size):
        yield total - sums[start : start + size].toarray()


def _join(blocks: Iterator[dict[str, Float64]]) -> dict[str, Float64]:
    found = list(blocks)
    return {name: np.concatenate([block[name] for block in found]) for name in found[0]}


def _compute_bca(point: float, drawn: Float64, left_out: Float64 | None) -> tuple[float, float]:
    """Return the ends of a BCa interval.

    Parameters
    ----------
    point : float
        The metric itself.
    drawn : np.ndarray [shape=(resample,)]
    left_out : np.ndarray [shape=(unit,)], optional
        The metric without each unit in turn. None means an acceleration of 0.
    """
    below = float(((drawn < point).sum() + (drawn <= point).sum()) / (2 * len(drawn)))
    # A point outside all resamples would give an infinite correction.
    bias = float(ndtri(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn))))
    acceleration = 0.0
    if left_out is not None:
        spread = left_out.mean() - left_out
        scale = float((spread**2).sum() ** 1.5)
        acceleration = float((spread**3).sum()) / (6 * scale) if scale > 0 else 0.0
    tails = ndtri(np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    shares = ndtr(bias + (bias + tails) / (1 - acceleration * (bias + tails)))
    low, high = np.quantile(drawn, shares)
    return float(low), float(high)
