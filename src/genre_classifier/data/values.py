"""A table's values: which rows are finite, what is far from the rest of its column, what is the genre itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

BLOCK_VALUES = 1 << 20
SAMPLED_ROWS = 1024
FEWEST_ROWS = 10
# In distances from the median: nine of ten values lie within 1, a far one lies beyond 20 and ten times as far as
# the last of the rest. Long tails (deviations, kurtosis) reach far, but without such a gap.
FAR = 20
GAP = 10
LARGEST_SHARE = 0.1
FEWEST_ROWS_PER_GENRE = 5  # of fewer, a column with few values has one per genre by chance


def divide_rows(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Yield slices over rows of about a million values each, so that results by block need little memory."""
    size = max(1, BLOCK_VALUES // max(1, n_columns))
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))


def find_finite_rows(features: Float32) -> npt.NDArray[np.bool_]:
    """Return for each row whether it has neither NaN nor infinity, shape (row,)."""
    finite = np.empty(len(features), dtype=np.bool_)
    for block in divide_rows(*features.shape):
        finite[block] = np.isfinite(features[block]).all(axis=1)
    return finite


@dataclass(frozen=True)
class FarValues:
    """One column's values far outside the rest.

    Parameters
    ----------
    column : int
    rows : np.ndarray [shape=(n,), dtype=int64]
    low, high : float
        The range of all other values.
    """

    column: int
    rows: Int64
    low: float
    high: float


def find_far_values(features: Float32) -> Iterator[FarValues]:
    """Yield the columns with a slipped decimal point, a code such as -999 or another unit; never of fewer than 10 rows.

    The whole table is looked at in blocks of rows, a column only where something in it is far.

    Parameters
    ----------
    features : np.ndarray [shape=(row, feature), dtype=float32]
        Without NaN.
    """
    rows, columns = features.shape
    if rows < FEWEST_ROWS:
        return
    sampled = features[np.linspace(0, rows - 1, min(rows, SAMPLED_ROWS)).astype(np.int64)].astype(np.float64)
    middle = np.median(sampled, axis=0)
    usual = np.quantile(np.abs(sampled - middle), 0.9, axis=0, method="lower")
    low, high = middle - FAR * usual, middle + FAR * usual
    suspicious = np.zeros(columns, dtype=np.bool_)
    for block in divide_rows(rows, columns):
        values = features[block]
        suspicious |= (values.min(axis=0) < low) | (values.max(axis=0) > high)
    for column in np.flatnonzero(suspicious).tolist():
        values = features[:, column].astype(np.float64)
        far = _find_beyond_gap(
            np.abs(values - middle[column]), float(usual[column]), abs(float(middle[column]))
        )
        if 0 < len(far) <= max(1, LARGEST_SHARE * rows):
            rest = np.delete(values, far)
            yield FarValues(column, far, float(rest.min()), float(rest.max()))


def find_genre_codes(features: Float32, genres: Int64) -> list[int]:
    """Return the columns with one value per genre, not the same for all: codes of the genre, no measurements.

    A table in which a genre has fewer than 5 rows has none.

    Parameters
    ----------
    features : np.ndarray [shape=(row, feature), dtype=float32]
        Without NaN.
    genres : np.ndarray [shape=(row,), dtype=int64]
    """
    _, first, genre_of, counts = np.unique(genres, return_index=True, return_inverse=True, return_counts=True)
    if len(first) < 2 or counts.min() < FEWEST_ROWS_PER_GENRE:
        return []
    values = features[first]  # (genre, feature)
    columns = np.flatnonzero((values != values[0]).any(axis=0))
    for genre, value in enumerate(values):  # a few rows tell that a measurement is none
        rows = np.flatnonzero(genre_of == genre)[:FEWEST_ROWS_PER_GENRE]
        columns = columns[(features[np.ix_(rows, columns)] == value[columns]).all(axis=0)]
    return [int(column) for column in columns if (features[:, column] == values[genre_of, column]).all()]


def _find_beyond_gap(distances: npt.NDArray[np.float64], usual: float, size: float) -> Int64:
    """Return the rows whose distance from the median is beyond a gap, nearest of all gaps."""
    if not usual:  # nearly all values are one: the others are measured by each other, or by that one
        others = distances[distances > 0]
        usual = float(np.median(others)) if len(others) >= FEWEST_ROWS else 100 * max(size, 1.0)
    far = distances > FAR * usual
    ordered = np.sort(distances[far])
    before = np.concatenate([[max(usual, distances[~far].max(initial=0.0))], ordered])[:-1]
    gaps = np.flatnonzero(ordered >= GAP * before)
    if not len(gaps):
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(distances >= ordered[gaps[0]]).astype(np.int64)
