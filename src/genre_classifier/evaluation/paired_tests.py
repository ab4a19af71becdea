"""Paired tests: do two models differ on the same rows or folds by more than chance?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, stdtr, stdtrit

LEVEL = 0.95


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test (1947) of two models on the same rows.

    Parameters
    ----------
    only_first, only_second : int
        Number of rows that only this model classified right.
    p_value : float
        Two-sided: the probability of a split of these rows that is at least as uneven, if both are equally good.
    """

    only_first: int
    only_second: int
    p_value: float


def run_mcnemar_test(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> McNemar:
    """Return McNemar's test of two models, from whether each classified each row right.

    Parameters
    ----------
    first, second : np.ndarray [shape=(row,), dtype=bool]
    """
    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    p_value = min(1.0, 2 * float(bdtr(min(one, other), one + other, 0.5))) if one + other else 1.0
    return McNemar(one, other, p_value)


@dataclass(frozen=True)
class CorrectedT:
    """A t-test over resamplings whose training rows overlap.

    Parameters
    ----------
    mean : float
    half_width : float
        Half the width of the 95 % interval of the mean.
    p_value : float
        Two-sided.
    """

    mean: float
    half_width: float
    p_value: float


def run_corrected_t_test(values: Sequence[float], overlap: float) -> CorrectedT:
    """Return mean, 95 % interval and p-value of differences over folds (Nadeau and Bengio, 2003).

    Parameters
    ----------
    values : sequence of float
        One per fold; two or more.
    overlap : float
        Ratio of test to training rows; 0 gives Student's test for independent values.
    """
    mean = fmean(values)
    error = stdev(values) * math.sqrt(1 / len(values) + overlap)
    freedom = len(values) - 1
    half_width = float(stdtrit(freedom, 0.5 + LEVEL / 2)) * error
    if error == 0:
        return CorrectedT(mean, 0.0, 1.0 if mean == 0 else 0.0)
    return CorrectedT(mean, half_width, 2 * float(stdtr(freedom, -abs(mean) / error)))
