import logging

import numpy as np
import pytest

from genre_classifier.config.schema import NanPolicy
from genre_classifier.data.values import divide_rows, find_far_values, find_genre_codes
from tests.data.test_table import table

RNG = np.random.default_rng(0)
ORDINARY = {
    "normal": RNG.normal(120, 30, (1000, 20)),
    "long tail": RNG.lognormal(0, 1, (1000, 20)),
    "kurtosis": RNG.standard_t(3, (1000, 20)),
    "rarely not 0": RNG.poisson(0.02, (1000, 20)),
    "two heaps": RNG.choice([0.0, 1e6], (1000, 20)) + RNG.normal(size=(1000, 20)),
    "nearly constant": (np.arange(1000) == 7)[:, None] * np.ones(20),
    "constant": np.full((1000, 20), 1e20),
    "large": RNG.normal(3e38, 1e36, (1000, 20)),
}


@pytest.mark.parametrize("kind", list(ORDINARY))
def test_ordinary_columns_have_no_far_values(kind: str) -> None:
    assert list(find_far_values(ORDINARY[kind].astype(np.float32))) == []


@pytest.mark.parametrize("kind", ["normal", "long tail", "rarely not 0", "nearly constant", "constant"])
@pytest.mark.parametrize("value", [1e30, -1e38])
def test_a_value_far_outside_is_found_wherever_it_stands(
    kind: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genre_classifier.data.values.BLOCK_VALUES", 1000)
    features = ORDINARY[kind].astype(np.float32)
    features[[0, 997], 3] = value
    (found,) = find_far_values(features)
    assert found.column == 3
    assert found.rows.tolist() == [0, 997]
    rest = np.delete(features[:, 3], [0, 997])
    assert (found.low, found.high) == (rest.min(), rest.max())


@pytest.mark.parametrize("value", [-999, 12_000])
def test_a_code_for_a_missing_value_and_a_slipped_decimal_point_are_far_from_tempos(value: float) -> None:
    tempos = RNG.uniform(70, 180, (200, 1)).astype(np.float32)
    tempos[17] = value
    assert [far.rows.tolist() for far in find_far_values(tempos)] == [[17]]


def test_few_rows_have_no_far_values() -> None:
    assert list(find_far_values(np.array([[1], [2], [3], [1e30]], np.float32))) == []


def test_blocks_of_a_wide_table_stay_small() -> None:
    assert next(divide_rows(100_000, 518)).stop * 518 <= 1 << 20


def test_far_values_are_one_warning_with_row_column_and_value(caplog: pytest.LogCaptureFixture) -> None:
    features = RNG.normal(size=(30, 8)).astype(np.float32)
    features[4, :7] = 1e30
    features[9, 1] = 1e30
    features[0, 0] = np.nan
    with caplog.at_level(logging.WARNING):
        table(
            features=features,
            labels=["Rock", "Jazz"] * 15,
            feature_names=list("abcdefgh"),
            ids=[str(row) for row in range(30)],
            nan=NanPolicy.drop,
        )
    (message,) = [record.getMessage() for record in caplog.records if "far outside" in record.getMessage()]
    low, high = np.delete(features[1:, 0], 3).min(), np.delete(features[1:, 0], 3).max()
    assert message.startswith(
        "my.csv: values far outside the rest of their column: row 5, column 'a': 1e+30, all"
    )
    assert f"column 'a': 1e+30, all others from {low:g} to {high:g};" in message
    assert "row 5, column 'b': 1e+30 (and in 1 more rows)" in message
    assert "and in 2 more columns" in message


def test_a_column_that_is_the_genre_in_other_words_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    genres = RNG.permutation(np.repeat(np.arange(3), 10))
    features = RNG.normal(size=(30, 5)).astype(np.float32)
    features[:, 1] = genres  # label encoding
    features[:, 3] = np.array([120.5, 120.5, -7.0])[genres]  # tells one genre from the others
    features[:, 4] = 1.0  # constant
    assert find_genre_codes(features, genres) == [1, 3]
    features[29, 3] += 1
    assert find_genre_codes(features, genres) == [1]
    few = np.flatnonzero(genres > 0).tolist() + np.flatnonzero(genres == 0)[:4].tolist()
    assert find_genre_codes(features[few], genres[few]) == []
    with caplog.at_level(logging.WARNING):
        table(
            features=features,
            labels=[["Folk", "Jazz", "Rock"][genre] for genre in genres],
            feature_names=["a", "genre_id", "c", "d", "e"],
            ids=[str(row) for row in range(30)],
        )
    (message,) = [record.getMessage() for record in caplog.records if "per genre" in record.getMessage()]
    assert message.startswith("my.csv: these features have one value per genre")
    assert message.endswith("means nothing: 'genre_id'; remove them")
