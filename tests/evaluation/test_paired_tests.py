import math

import numpy as np
import pytest
from scipy import stats

from genre_classifier.evaluation.paired_tests import run_corrected_t_test, run_mcnemar_test


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (5, 0), (3, 9), (12, 12), (40, 21)])
def test_mcnemar_is_scipys_binomial_test_of_the_rows_that_differ(only_first: int, only_second: int) -> None:
    first = np.array([True] * 20 + [True] * only_first + [False] * only_second + [False] * 7)
    second = np.array([True] * 20 + [False] * only_first + [True] * only_second + [False] * 7)
    found = run_mcnemar_test(first, second)
    assert (found.only_first, found.only_second) == (only_first, only_second)
    n_rows = only_first + only_second
    expected = stats.binomtest(only_first, n_rows).pvalue if n_rows else 1.0
    assert found.p_value == pytest.approx(expected)


def test_without_overlap_the_corrected_test_is_students() -> None:
    values = [0.02, -0.01, 0.03, 0.05, 0.01]
    expected = stats.ttest_1samp(values, 0.0)
    found = run_corrected_t_test(values, 0.0)
    interval = expected.confidence_interval(0.95)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.mean - found.half_width == pytest.approx(interval.low)
    assert found.mean + found.half_width == pytest.approx(interval.high)


def test_overlap_widens_as_nadeau_and_bengio_say() -> None:
    values = np.array([0.02, -0.01, 0.03, 0.05, 0.01])
    variance = (1 / 5 + 1 / 4) * values.var(ddof=1)
    expected = 2 * stats.t.sf(abs(values.mean()) / math.sqrt(variance), df=4)
    assert run_corrected_t_test(values.tolist(), 1 / 4).p_value == pytest.approx(expected)


def test_equal_differences_have_no_uncertainty() -> None:
    assert run_corrected_t_test([0.0, 0.0, 0.0], 0.25).p_value == 1.0
    assert run_corrected_t_test([0.1, 0.1, 0.1], 0.25).p_value == 0.0
