"""Columns that number the rows. They tell where a row stood, which is its genre where the rows are in order.

A column is left out of the features where its name says that it is a saved index, and only named in a warning where
its values look like one.
"""

from __future__ import annotations

import math
import re

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

# pandas: 'Unnamed: 0' of a CSV file, '__index_level_0__' of Parquet; dask's; '...1' of R's readr.
_SAVED_INDEX = re.compile(
    r"unnamed: ?\d+.*|__index_level_\d+__|__null_dask_index__|\.\.\.\d+|", re.IGNORECASE
)
# A feature may also have these names. Such a column is an index if all values are whole numbers.
_PERHAPS_INDEX = re.compile(
    r"(index|level_\d+|row|rownames|row[ ._-]?(id|index|idx|n|name|names|nr|no|num|number))(\.\d+)?"
    r"|id|idx|#|_c0",
    re.IGNORECASE,
)
FEWEST_ROWS = 10
# Whole numbers of few rows are often all different by chance, such as rounded tempos.
FEWEST_DIFFERENT = 20
CHANCE = 1e-6


def is_saved_index(name: str) -> bool:
    """Return whether a column of this name is a data frame's saved index."""
    return _SAVED_INDEX.fullmatch(name) is not None


class Order:
    """Looks at a column, a block of rows at a time, for what tells a row's place. Keeps no column that cannot.

    Parameters
    ----------
    name : str
    whole_below : float
        Whole numbers from here on may be whole because they were rounded.

    Attributes
    ----------
    is_empty : bool
        Whether every cell so far is missing.
    """

    def __init__(self, name: str, whole_below: float) -> None:
        self.name = name
        self.whole_below = whole_below
        self.is_empty = True
        self._perhaps_index = _PERHAPS_INDEX.fullmatch(name) is not None
        self._whole = self._different = self._rises = self._falls = True
        self._blocks: list[Float64] = []

    def add(self, values: Float64) -> None:
        """Take the next rows, shape (row,); NaN is a missing cell."""
        if not (self._different or self._rises or self._falls or (self._perhaps_index and self._whole)):
            return
        values = values[~np.isnan(values)]
        if not len(values):
            return
        self.is_empty = False
        if self._whole:
            self._whole = bool(
                (np.abs(values) < self.whole_below).all() and (np.floor(values) == values).all()
            )
        self._different = self._whole and self._different and len(np.unique(values)) == len(values)
        if self._rises or self._falls:
            joined = values if not self._blocks else np.concatenate([self._blocks[-1][-1:], values])
            self._rises = self._rises and bool((joined[1:] >= joined[:-1]).all())
            self._falls = self._falls and bool((joined[1:] <= joined[:-1]).all())
        if self._different or self._rises or self._falls:
            self._blocks.append(values)
        else:
            self._blocks.clear()

    @property
    def is_index(self) -> bool:
        """Whether the name and values are those of a saved index."""
        return is_saved_index(self.name) or (not self.is_empty and self._whole and self._perhaps_index)

    def finding(self) -> str | None:
        """Describe how the column resembles row numbers; None if it does not, or if chance may explain it."""
        if not self._blocks:
            return None
        values = np.concatenate(self._blocks)
        if len(values) < FEWEST_ROWS:
            return None
        distinct, counts = np.unique(values, return_counts=True)
        low, high = distinct[0], distinct[-1]
        if self._different and len(distinct) == len(values):
            if high - low == len(values) - 1 and low in (0, 1):
                return f"has each number from {low:.0f} to {high:.0f} once"
            if len(values) >= FEWEST_DIFFERENT:
                return "has a different whole number in each row"
        if len(distinct) == 1 or not (self._rises or self._falls):
            return None
        # Of all orders of these values, the share that only rises or only falls.
        arrangements = math.lgamma(len(values) + 1) - sum(math.lgamma(count + 1) for count in counts.tolist())
        if math.log(2) - arrangements > math.log(CHANCE):
            return None
        return f"only {'rises' if self._rises else 'falls'} from row to row"
