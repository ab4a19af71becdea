"""Importance, families of features and the map, on networks whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import accuracy_score, f1_score
from torch import nn

from genre_classifier.features.sets import CORE20, FMA518, GTZAN57
from genre_classifier.network import GenreClassifier
from genre_classifier.reporting.rows.embedding import compute_last_hidden, map_rows
from genre_classifier.reporting.rows.families import group_into_families
from genre_classifier.reporting.rows.importance import measure_importance


class OneFeature(nn.Module):
    """Says genre 1 where a feature is above 0, and looks at nothing else."""

    def __init__(self, column: int) -> None:
        super().__init__()
        self.column = column

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        value = features[:, self.column]
        return torch.stack([-value, value], dim=1)


def rows(n: int = 400, n_features: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    features = torch.randn(n, n_features, generator=torch.Generator().manual_seed(0))
    return features, (features[:, 2] > 0).long()


def each(n: int) -> dict[str, list[int]]:
    return {f"f{i}": [i] for i in range(n)}


def test_the_only_feature_that_counts_comes_first_and_costs_half() -> None:
    features, genres = rows()

    drops = measure_importance(OneFeature(2), features, genres, each(5))

    assert drops[0].name == "f2"
    assert drops[0].accuracy == pytest.approx(0.5, abs=0.05)
    assert drops[0].accuracy_deviation > 0
    for drop in drops[1:]:
        assert (drop.accuracy, drop.f1, drop.accuracy_deviation, drop.f1_deviation) == (0, 0, 0, 0)


def test_drops_are_those_of_an_independent_loop() -> None:
    features, _ = rows(200, 4)
    genres = torch.randint(0, 3, (200,), generator=torch.Generator().manual_seed(1))
    network = GenreClassifier(4, [8], 3).eval()
    columns = {"a": [0], "rest": [1, 2, 3]}

    drops = {
        drop.name: drop for drop in measure_importance(network, features, genres, columns, permutations=4)
    }

    def scores(x: np.ndarray) -> tuple[float, float]:
        said = network.predict(torch.from_numpy(x)).numpy()
        return accuracy_score(genres, said), f1_score(genres, said, average="weighted", zero_division=0)

    rng = np.random.default_rng(0)
    orders = [rng.permutation(200) for _ in range(4)]
    for name, positions in columns.items():
        lost = []
        for order in orders:
            x = features.numpy().copy()
            for column in positions:
                x[:, column] = x[order, column]
            lost.append(np.subtract(scores(features.numpy()), scores(x)))
        drop = drops[name]
        assert (drop.accuracy, drop.f1) == pytest.approx(tuple(np.mean(lost, axis=0)), abs=1e-12)
        assert drop.accuracy_deviation == pytest.approx(np.std(lost, axis=0, ddof=1)[0], abs=1e-12)


def test_a_group_is_shuffled_as_one() -> None:
    class Difference(nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            same = (features[:, 0] - features[:, 1]).abs() < 1e-6
            return torch.stack([same.float(), 1 - same.float()], dim=1)

    features, _ = rows()
    features[:, 1] = features[:, 0]
    genres = torch.zeros(len(features), dtype=torch.long)

    drops = measure_importance(Difference(), features, genres, {"both": [0, 1], "one": [0]})

    assert [drop.name for drop in drops] == ["one", "both"]
    assert drops[1].accuracy == 0
    assert drops[1].features == 2


def test_features_are_left_as_they_were() -> None:
    features, genres = rows()
    before = features.clone()

    measure_importance(OneFeature(2), features, genres, each(5))

    assert torch.equal(features, before)


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        (CORE20.features, {"MFCC": 13, "spectral shape": 2, "zero crossings": 1, "loudness": 1, "chroma": 3}),
        (GTZAN57.features, {"MFCC": 40, "spectral shape": 6, "chroma": 2, "tempo": 1}),
        (FMA518.features, {"chroma_cens": 84, "mfcc": 140, "tonnetz": 42, "zcr": 7, "spectral_contrast": 49}),
        (("low_1", "low_2", "mid", "2x", "high-1", "high-2"), {"low": 2, "mid": 1, "2x": 1, "high": 2}),
        (("f0", "f1"), {"f": 2}),
    ],
)
def test_features_are_grouped_into_families(names: Sequence[str], sizes: dict[str, int]) -> None:
    found = group_into_families(names)

    assert {name: len(found[name]) for name in sizes} == sizes
    assert sorted(position for positions in found.values() for position in positions) == list(
        range(len(names))
    )


def test_the_last_hidden_layer_is_what_the_last_linear_layer_is_given() -> None:
    network = GenreClassifier(4, [8, 6], 3).eval()
    features = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))

    hidden = compute_last_hidden(network, features)

    assert hidden is not None
    torch.testing.assert_close(hidden, network.network[:-1](features))
    torch.testing.assert_close(network.network[-1](hidden), network(features))
    assert compute_last_hidden(OneFeature(0), features) is None


def test_the_map_is_that_of_principal_components() -> None:
    hidden = np.random.default_rng(0).normal(size=(30, 6)) * [5, 3, 1, 1, 1, 1]

    found = map_rows(hidden, "pca")

    expected = PCA(2).fit(hidden)
    np.testing.assert_allclose(np.abs(found.places), np.abs(expected.transform(hidden)), atol=1e-8)
    assert found.shares == pytest.approx(tuple(expected.explained_variance_ratio_))


@pytest.mark.parametrize("hidden", [np.zeros((5, 4)), np.arange(5.0)[:, None]])
def test_rows_without_two_dimensions_have_a_map_as_well(hidden: np.ndarray) -> None:
    assert np.isfinite(map_rows(hidden, "pca").places).all()
