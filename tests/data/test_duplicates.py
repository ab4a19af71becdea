from itertools import combinations

import numpy as np
import pytest

from genre_classifier.data.duplicates import TOLERANCE, find_duplicates
from genre_classifier.data.splits import Protocol, Split
from genre_classifier.data.table import FeatureTable, Source

SOURCE = Source(name="made", origin="made here", licence="none", citation="none", synthetic=True)


def table_of(features: np.ndarray, genres: np.ndarray) -> FeatureTable:
    return FeatureTable(
        features=features.astype(np.float32),
        genres=genres,
        feature_names=tuple(f"f{i}" for i in range(features.shape[1])),
        genre_names=("a", "b"),
        ids=np.array([f"row {i}" for i in range(len(features))], dtype=object),
        source=SOURCE,
    )


def split_of(*sides: list[int]) -> Split:
    train, val, test = (np.array(side, dtype=np.int64) for side in sides)
    return Split(train, val, test, Protocol("given", "made", None, None))


def by_comparing_all(table: FeatureTable, split: Split) -> dict[str, int]:
    scale = np.abs(table.features).max(axis=0).astype(np.float64)
    order = {row: side for side, name in enumerate(split.sides()) for row in split.sides()[name]}
    found: dict[str, set[int]] = {"val": set(), "test": set()}
    for one, other in combinations(sorted(order), 2):
        apart = np.abs(table.features[one].astype(np.float64) - table.features[other])
        if order[one] != order[other] and (apart <= TOLERANCE * np.maximum(scale, 1e-300)).all():
            later = one if order[one] > order[other] else other
            found[list(split.sides())[order[later]]].add(later)
    return {side: len(rows) for side, rows in found.items()}


@pytest.mark.parametrize("seed", range(6))
def test_it_finds_what_comparing_all_rows_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = (rng.normal(size=(120, 5)) * [1e-3, 1, 1e4, 1, 1]).astype(np.float32)
    features[:, 4] = rng.integers(0, 2, 120)
    copies = rng.integers(0, 120, (40, 2))
    for one, other in copies:
        features[one] = features[other]
    nudged = rng.integers(0, 120, (10, 2))
    for one, other in nudged:
        features[one] = features[other]
        features[one, 1] *= np.float32(1 + 3e-7)
    near_misses = rng.integers(0, 120, (10, 2))
    for one, other in near_misses:
        features[one] = features[other]
        features[one, 2] += np.float32(0.5)
    table = table_of(features, rng.integers(0, 2, 120) * 0 + (np.arange(120) % 2))
    rows = rng.permutation(120).tolist()
    split = split_of(sorted(rows[:70]), sorted(rows[70:90]), sorted(rows[90:]))
    expected = by_comparing_all(table, split)
    assert sum(expected.values()) > 0
    assert find_duplicates(table, split).rows == expected


def test_it_names_the_rows_and_says_where_genres_differ() -> None:
    features = np.arange(12, dtype=np.float32).reshape(6, 2)
    features[3] = features[0]
    features[5] = features[1]
    table = table_of(features, np.array([0, 1, 0, 1, 0, 1]))
    found = find_duplicates(table, split_of([0, 1, 2], [3], [4, 5]))
    assert found.rows == {"val": 1, "test": 1}
    assert found.other_genre == 1
    assert sorted(found.examples) == [("row 3", "val", "row 0", "train"), ("row 5", "test", "row 1", "train")]


def test_copies_on_one_side_do_not_matter_and_many_copies_are_few_comparisons() -> None:
    features = np.ones((500, 3), dtype=np.float32)
    features[-1] = 7
    table = table_of(features, np.arange(500) % 2)
    assert find_duplicates(table, split_of(list(range(400)), [], [499])).rows == {"val": 0, "test": 0}
    found = find_duplicates(table, split_of(list(range(400)), [], list(range(400, 500))))
    assert found.rows == {"val": 0, "test": 99}
    assert len(found.examples) == 20
