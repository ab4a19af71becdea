from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from genre_classifier.evaluation.replicates import FEWEST, compute_interval_of_mean


def test_a_proportions_interval_is_that_of_a_logistic_regression_with_robust_errors() -> None:
    """As survey::svyciprop(method="logit") computes it: the intercept's sandwich variance, by Newton's iteration."""
    values = np.array([0.91, 0.95, 0.88, 0.97, 0.93])
    place = 0.0
    for _ in range(50):
        fitted = expit(place)
        place += (values - fitted).sum() / (len(values) * fitted * (1 - fitted))
    fitted = expit(place)
    bread = len(values) * fitted * (1 - fitted)
    meat = ((values - fitted) ** 2).sum() * len(values) / (len(values) - 1)
    reach = stats.t.ppf(0.975, len(values) - 1) * np.sqrt(meat) / bread
    expected = float(expit(place - reach)), float(expit(place + reach))
    assert compute_interval_of_mean("test/accuracy", values.tolist()) == pytest.approx(expected)


def test_overlapping_folds_widen_it_as_nadeau_and_bengio_do() -> None:
    values = [0.60, 0.66, 0.58, 0.71, 0.65]
    found = compute_interval_of_mean("f1", values, overlap=0.25)
    mean, deviation = np.mean(values), np.std(values, ddof=1)
    error = deviation * np.sqrt(1 / 5 + 0.25) / (mean * (1 - mean))
    odds = np.exp(np.array([-1, 1]) * stats.t.ppf(0.975, 4) * error) * mean / (1 - mean)
    assert found == pytest.approx(tuple(odds / (1 + odds)))


def test_a_loss_has_its_interval_on_the_logarithmic_scale() -> None:
    values = [0.05, 0.40, 1.90, 0.30]
    found = compute_interval_of_mean("val/loss", values)
    assert found is not None
    reach = stats.t.ppf(0.975, 3) * stats.sem(values) / np.mean(values)
    assert np.log(found) == pytest.approx([np.log(np.mean(values)) - reach, np.log(np.mean(values)) + reach])
    assert found[0] > 0


@pytest.mark.parametrize("metric", ["accuracy", "f1", "f1_macro", "top3", "ece"])
@pytest.mark.parametrize("centre", [0.001, 0.02, 0.5, 0.98, 0.999])
def test_a_proportions_interval_stays_within_0_and_1_and_holds_the_mean(metric: str, centre: float) -> None:
    rng = np.random.default_rng(int(centre * 1000))
    for n in (4, 5, 10):
        for _ in range(20):
            values = np.clip(rng.normal(centre, 0.1, n), 0, 1).tolist()
            found = compute_interval_of_mean(metric, values, overlap=float(rng.uniform(0, 0.5)))
            assert found is not None
            assert 0 <= found[0] <= np.mean(values) <= found[1] <= 1


def test_equal_values_at_the_ends_have_an_interval_of_width_zero() -> None:
    for value in (0.0, 0.4, 1.0):
        assert compute_interval_of_mean("accuracy", [value] * 5) == (value, value)
    assert compute_interval_of_mean("loss", [0.0] * 5) == (0.0, 0.0)


def test_fewer_than_four_values_have_no_interval() -> None:
    assert FEWEST == 4
    for n in range(1, 4):
        assert compute_interval_of_mean("accuracy", [0.8, 0.9, 0.7][:n]) is None


def test_the_interval_has_its_nominal_coverage() -> None:
    rng = np.random.default_rng(0)
    trials = 2000
    for centre, n in ((0.6, 5), (0.9, 8)):
        drawn = rng.beta(centre * 40, (1 - centre) * 40, (trials, n))
        ends = [compute_interval_of_mean("accuracy", row.tolist()) for row in drawn]
        covered = np.mean([found is not None and found[0] <= centre <= found[1] for found in ends])
        assert 0.93 < covered < 0.975
