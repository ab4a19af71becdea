import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from genre_classifier.config.schema import NanPolicy
from genre_classifier.data.table import FeatureTable, Source, build_table
from genre_classifier.errors import DataError
from genre_classifier.features.sets import CORE20

SOURCE = Source("here", "a test", "none", "none")


def table(**changes: Any) -> FeatureTable:
    arguments: dict[str, Any] = {
        "features": np.arange(8, dtype=np.float32).reshape(4, 2),
        "labels": ["Rock", "Jazz", "Rock", "Jazz"],
        "feature_names": ["a", "b"],
        "ids": ["1", "2", "3", "4"],
        "source": SOURCE,
        "where": "my.csv",
    }
    return build_table(**(arguments | changes))


def test_genres_are_indices_into_the_sorted_names() -> None:
    made = table()
    assert made.genre_names == ("Jazz", "Rock")
    assert made.genres.tolist() == [1, 0, 1, 0]
    assert made.genres.dtype == np.int64
    assert made.features.dtype == np.float32


def test_a_given_order_of_genres_is_kept() -> None:
    assert table(genre_order=("Rock", "Jazz")).genres.tolist() == [0, 1, 0, 1]


def test_a_table_is_frozen() -> None:
    with pytest.raises(AttributeError):
        table().genres = np.zeros(4)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": []}, "my.csv has a header but no rows"),
        (
            {"features": np.array([[1, 2], [3, np.nan], [5, 6], [7, 8]], np.float32)},
            "row 2, column 'b': NaN or an empty",
        ),
        (
            {"features": np.array([[1, 2], [3, 4], [np.inf, 6], [7, 8]], np.float32)},
            "row 3, column 'a': infinity",
        ),
        ({"labels": ["Rock", None, "Rock", "Jazz"]}, "row 2: the genre is empty"),
        ({"labels": ["Rock", " ", "Rock", "Jazz"]}, "row 2: the genre is empty"),
        ({"labels": ["Rock"] * 4}, "all rows are of one genre, 'Rock'"),
        ({"ids": ["1", "2", "2", "4"]}, "id '2' appears 2 times"),
        ({"feature_names": ["a", "a"]}, "feature name 'a' appears 2 times"),
        ({"feature_names": ["a"]}, "2 feature columns but 1 feature names"),
        (
            {"groups": [None] * 4, "group_name": "artist"},
            "the artist is empty in every row; fill it in, or name",
        ),
        ({"genre_order": ("Rock", "Pop")}, "genre 'Jazz' is not one of Rock, Pop"),
        ({"genre_order": ("Rock", "Jazz", "Pop")}, "no row is of genre 'Pop'"),
        (
            {"row_name": "track {}".format, "labels": ["Rock", "", "Rock", "Jazz"]},
            "track 1: the genre is empty",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_row_and_column(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        table(**changes)


def test_rows_with_nan_are_dropped_when_asked_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    features = np.array([[1, 2], [3, np.nan], [5, 6], [7, 8], [np.inf, 1]], np.float32)
    made = table(
        features=features,
        labels=["Rock", "Jazz", "Rock", "Jazz", "Jazz"],
        ids=list("abcde"),
        groups=list("vwxyz"),
        nan=NanPolicy.drop,
    )
    assert made.ids.tolist() == ["a", "c", "d"]
    assert made.groups is not None
    assert made.groups.tolist() == ["v", "x", "y"]
    np.testing.assert_array_equal(made.features, features[[0, 2, 3]])
    assert "2 of 5 rows dropped" in caplog.text


def test_nothing_left_after_dropping_is_an_error() -> None:
    with pytest.raises(DataError, match="every row has NaN or infinity"):
        table(features=np.full((4, 2), np.nan, np.float32), nan=NanPolicy.drop)


def test_a_constant_feature_is_kept_and_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        made = table(features=np.array([[1, 2], [1, 3], [1, 4], [1, 5]], np.float32))
    assert made.constant_features == ("a",)
    assert made.features.shape == (4, 2)
    assert "1 constant feature, kept and scaled to 0: 'a'" in caplog.text


def test_the_fingerprint_changes_with_anything_a_result_depends_on() -> None:
    base = table(groups=list("wxyz"))
    same = table(groups=list("wxyz"))
    other_value = base.features.copy()
    other_value[0, 0] += 1
    others = [
        table(),
        table(groups=list("wxyy")),
        replace(base, features=other_value),
        replace(base, genres=base.genres[::-1].copy()),
        replace(base, feature_names=("a", "c")),
        replace(base, ids=np.array(list("1235"), dtype=object)),
    ]
    assert base.fingerprint == same.fingerprint
    assert base.fingerprint not in {other.fingerprint for other in others}


def test_a_known_feature_set_is_recognised_only_in_its_order() -> None:
    features = np.random.default_rng(0).normal(size=(4, 20)).astype(np.float32)
    assert table(features=features, feature_names=CORE20.features).feature_set is CORE20
    assert table(features=features, feature_names=CORE20.features[::-1]).feature_set is None


def test_rows_by_nobody_are_groups_of_their_own_and_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    groups = ["Various Artists", "Unknown Artist", "artist 1", "artist 1"]
    made = table(groups=groups, group_name="artist")
    assert made.groups is not None
    assert len(set(made.groups)) == 3
    assert made.groups[2] == made.groups[3] == "artist 1"
    (record,) = (record for record in caplog.records if "which names nobody" in record.message)
    assert "2 of 4 rows have the artist 'Various Artists', 'Unknown Artist'" in record.message
