import numpy as np
import pytest
import torch
from scipy import stats

from genre_classifier.config.metrics import Counts, compute_metrics
from genre_classifier.evaluation import intervals
from genre_classifier.evaluation.intervals import (
    RESAMPLES,
    Intervals,
    compute_difference_intervals,
    compute_intervals,
)
from genre_classifier.evaluation.metrics import evaluate_logits
from genre_classifier.evaluation.reliability import compute_expected_calibration_error, compute_reliability


def made(n_rows: int, n_genres: int = 4, seed: int = 0, skill: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    genres = rng.integers(0, n_genres, n_rows)
    return rng.normal(size=(n_rows, n_genres)) + skill * np.eye(n_genres)[genres], genres


def covers(found: Intervals | None, truth: float) -> bool:
    assert found is not None
    low, high = found.values["accuracy"]
    return low <= truth <= high


def test_an_accuracys_interval_is_the_one_that_scipys_bootstrap_gives() -> None:
    logits, genres = made(150)
    hits = (logits.argmax(axis=1) == genres).astype(float)
    expected = stats.bootstrap(
        (hits,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    found = compute_intervals(logits, genres)
    assert found is not None
    assert found.units == 150
    assert found.values["accuracy"] == pytest.approx((expected.low, expected.high), abs=0.008)


def test_ties_count_in_an_interval_as_in_the_metric_itself() -> None:
    rng = np.random.default_rng(0)
    votes = rng.multinomial(5, np.full(8, 1 / 8), size=100) / 5  # as of a model of five neighbours
    logits, genres = np.log(votes + 1e-9), rng.integers(0, 8, 100)
    scores = evaluate_logits(torch.from_numpy(logits), torch.from_numpy(genres)).scores.values
    sums = intervals._sum_by_unit(logits, genres, np.arange(100), 100).toarray().sum(axis=0)
    for name, value in compute_metrics(Counts(sums[None], 8)).items():
        assert float(value[0]) == pytest.approx(scores[name], abs=1e-6), name


def test_a_skewed_metrics_interval_is_the_one_that_scipys_bootstrap_gives() -> None:
    logits, genres = made(60, skill=3.0)
    losses = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(genres), reduction="none"
    ).numpy()
    assert stats.skew(losses) > 1
    expected = stats.bootstrap(
        (losses,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    found = compute_intervals(logits, genres)
    assert found is not None
    width = expected.high - expected.low
    assert found.values["loss"] == pytest.approx((expected.low, expected.high), abs=0.06 * width)


@pytest.mark.parametrize("n_genres", [2, 5])
def test_every_metric_of_a_resample_is_that_of_the_resampled_rows(n_genres: int) -> None:
    from genre_classifier.evaluation import intervals as module

    logits, genres = made(90, n_genres)
    groups = np.array([f"artist {i // 7}" for i in range(90)], dtype=object)
    units, n_units = module._number_units(90, groups)
    sums = module._sum_by_unit(logits, genres, units, n_units)
    first = next(iter(module._resample(sums, n_units)))
    found = module._compute_metrics(first, n_genres)

    draws = np.random.default_rng(module.SEED).integers(0, n_units, (len(first), n_units))
    for resample in range(5):
        rows = np.concatenate([np.flatnonzero(units == unit) for unit in draws[resample]])
        evaluation = evaluate_logits(torch.from_numpy(logits[rows]), torch.from_numpy(genres[rows]))
        expected = evaluation.as_dict()
        for name, value in expected.items():
            assert found[name][resample] == pytest.approx(value, abs=1e-6), name


def test_rows_of_one_group_are_drawn_together() -> None:
    # Ten copies of each of 30 rows hold no more than 30 rows do.
    logits, genres = made(30, seed=3)
    groups = np.repeat([f"track {i}" for i in range(30)], 10).astype(object)
    repeated = compute_intervals(np.repeat(logits, 10, axis=0), np.repeat(genres, 10), groups, "track")
    plain = compute_intervals(logits, genres)
    assert repeated is not None
    assert plain is not None
    order = np.unique(groups.astype(str), return_index=True)[1] // 10
    sorted_plain = compute_intervals(logits[order], genres[order])
    assert sorted_plain is not None
    assert repeated.values["accuracy"] == pytest.approx(sorted_plain.values["accuracy"])
    assert repeated.units == 30
    assert repeated.unit_name == "track"


def test_the_intervals_have_their_nominal_coverage() -> None:
    # Artists differ in how easy they are, so rows of one artist are alike; the truth is the mean over all artists.
    rng = np.random.default_rng(5)
    covered = alone = 0
    trials, few = 300, 60
    for trial in range(trials):
        easy = rng.beta(2, 2, 40)
        hits = rng.random((40, 10)) < easy[:, None]
        genres = np.zeros(400, dtype=np.int64)
        logits = np.where(hits.ravel()[:, None], [1.0, 0.0], [0.0, 1.0])
        groups = np.repeat([f"{i}" for i in range(40)], 10).astype(object)
        covered += covers(compute_intervals(logits, genres, groups), 0.5)
        alone += trial < few and covers(compute_intervals(logits, genres), 0.5)
    # Binomial noise of 300 trials at 0.95 is 0.0126; a bootstrap over 40 units falls short by a point or two.
    assert 0.90 <= covered / trials <= 0.985
    # Rows drawn one by one, as is common, promise far too much.
    assert alone / few < 0.80


def test_a_perfect_score_has_no_width_and_one_group_no_interval() -> None:
    genres = np.array([0, 1, 2, 0, 1, 2])
    found = compute_intervals(np.eye(3)[genres] * 50, genres)
    assert found is not None
    assert found.values["accuracy"] == (1.0, 1.0)
    assert compute_intervals(np.eye(3)[genres], genres, np.array(["a"] * 6, dtype=object)) is None
    with pytest.raises(ValueError, match="1 group or row: at least two"):
        compute_difference_intervals(
            [np.eye(3)[genres]], [np.eye(3)[genres]], genres, np.array(["a"] * 6, dtype=object)
        )


def test_a_paired_differences_interval_is_scipys() -> None:
    logits, genres = made(400, skill=1.0)
    better = logits + 0.3 * np.eye(4)[genres]
    losses = [
        torch.nn.functional.cross_entropy(
            torch.from_numpy(found), torch.from_numpy(genres), reduction="none"
        ).numpy()
        for found in (logits, better)
    ]
    expected = stats.bootstrap(
        (losses[0] - losses[1],), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    difference, low, high = compute_difference_intervals([logits], [better], genres)["loss"]
    assert difference == pytest.approx((losses[0] - losses[1]).mean())
    # Monte-Carlo noise of an end from 2,000 resamples is 1.5 % of the width.
    assert (low, high) == pytest.approx(
        (expected.low, expected.high), abs=0.05 * (expected.high - expected.low)
    )


def test_many_units_are_drawn_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    from genre_classifier.evaluation import intervals as module

    logits, genres = made(200)
    whole = compute_intervals(logits, genres)
    monkeypatch.setattr(module, "BLOCK_VALUES", 200 * 64)
    assert RESAMPLES % 64
    assert compute_intervals(logits, genres) == whole


def test_reliability_agrees_with_torchmetrics() -> None:
    from torchmetrics.functional.classification import multiclass_calibration_error

    logits, genres = made(500)
    probabilities = torch.softmax(torch.from_numpy(logits), dim=1)
    expected = multiclass_calibration_error(
        probabilities, torch.from_numpy(genres), num_classes=4, n_bins=15, norm="l1"
    )
    bins = compute_reliability(probabilities.numpy(), genres)
    assert compute_expected_calibration_error(bins) == pytest.approx(float(expected), abs=1e-6)
    assert sum(one.rows for one in bins) == 500
    assert bins[0].confidence is None  # four genres: the largest probability is at least 0.25


def test_a_model_does_not_differ_from_itself() -> None:
    logits, genres = made(80)
    assert set(compute_difference_intervals([logits], [logits], genres).values()) == {(0.0, 0.0, 0.0)}


def test_replicates_count_as_their_mean() -> None:
    logits, genres = made(80)
    other, _ = made(80, seed=1)
    both = compute_difference_intervals([logits, other], [other], genres)["accuracy"][0]
    alone = compute_difference_intervals([logits], [other], genres)["accuracy"][0]
    assert both == pytest.approx(alone / 2)


def test_the_same_replicates_in_another_order_do_not_differ() -> None:
    rng = np.random.default_rng(0)
    genres = rng.integers(0, 5, 190)
    replicates = [rng.normal(size=(190, 5)) + 2 * np.eye(5)[genres] for _ in range(3)]
    found = compute_difference_intervals(replicates, [replicates[place] for place in (2, 0, 1)], genres)
    assert set(found.values()) == {(0.0, 0.0, 0.0)}
