"""The interval of a metric's mean over seeds or folds. It stays within the metric's range."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.special import expit, logit

from genre_classifier.evaluation.paired_tests import run_corrected_t_test

# The t interval of fewer values is too wide to be useful: 12.7 standard errors either way for two values.
FEWEST = 4


def compute_interval_of_mean(
    metric: str, values: Sequence[float], overlap: float = 0.0
) -> tuple[float, float] | None:
    """Return the 95 % interval of a metric's mean over replicates; None for fewer than four.

    For a metric between 0 and 1 it is Student's interval of the mean's logit, as in R's
    ``survey::svyciprop(method="logit")`` and Stata's ``proportion``. By the delta method, the standard error is that of
    the mean divided by mean (1 - mean). The ends are transformed back. For a loss, which is positive, the logarithm
    replaces the logit. If training rows overlap, the mean's standard error is that of Nadeau and Bengio (2003).

    Parameters
    ----------
    metric : str
        Its name, such as ``f1`` or ``val/loss``.
    values : sequence of float
        One per seed or fold.
    overlap : float
        Ratio of test to training rows of the folds; 0 for independent values.

    Returns
    -------
    tuple of float, or None
        The lower and upper end.
    """
    if len(values) < FEWEST:
        return None
    test = run_corrected_t_test(values, overlap)
    mean, half_width = test.mean, test.half_width
    if half_width == 0:
        return mean, mean
    if metric.rpartition("/")[2] == "loss":
        if mean <= 0:
            return mean - half_width, mean + half_width
        factor = math.exp(half_width / mean)
        return mean / factor, mean * factor
    if not 0 < mean < 1:  # values that are not proportions
        return mean - half_width, mean + half_width
    place, width = float(logit(mean)), half_width / (mean * (1 - mean))
    return float(expit(place - width)), float(expit(place + width))
