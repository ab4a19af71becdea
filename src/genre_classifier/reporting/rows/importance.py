"""Measure permutation importance: the loss of test metrics when a feature is shuffled among the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from genre_classifier.runs.predictions import compute_accuracy_and_f1

PERMUTATIONS = 10
SEED = 0
# More rows make the report slow, but the drops hardly more precise.
MOST_ROWS = 5000


@dataclass(frozen=True)
class Drop:
    """The loss of metrics when some columns are shuffled among the rows.

    Parameters
    ----------
    name : str
        Name of the feature or of the group of features.
    features : int
        Number of columns that are shuffled together.
    accuracy, f1 : float
        Mean drop over the permutations.
    accuracy_deviation, f1_deviation : float
        Standard deviation over the permutations.
    """

    name: str
    features: int
    accuracy: float
    f1: float
    accuracy_deviation: float
    f1_deviation: float


def measure_importance(
    network: nn.Module,
    features: Tensor,
    genres: Tensor,
    columns: Mapping[str, Sequence[int]],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = SEED,
) -> list[Drop]:
    """Return the drops of accuracy and weighted F1, the largest drop of accuracy first (Breiman, 2001).

    Parameters
    ----------
    network : nn.Module
        From standardised features to logits, in evaluation mode.
    features : Tensor [shape=(row, feature)]
        Standardised.
    genres : Tensor [shape=(row,)]
    columns : mapping of str to sequence of int
        The columns that are shuffled together, by name. Each row gets all of them from one other row.
    permutations : int
        Two or more.
    seed : int
    """
    rng = np.random.default_rng(seed)
    orders = [torch.from_numpy(rng.permutation(len(features))) for _ in range(permutations)]
    accuracy, f1 = _measure(network, features, genres)
    found = []
    for name, positions in columns.items():
        where = torch.tensor(list(positions))
        changed = features.clone()
        lost = np.empty((permutations, 2))
        for number, order in enumerate(orders):
            changed[:, where] = features[order][:, where]
            lost[number] = np.array([accuracy, f1]) - _measure(network, changed, genres)
        means, deviations = lost.mean(axis=0), lost.std(axis=0, ddof=1)
        found.append(Drop(name, len(positions), *map(float, means), *map(float, deviations)))
    return sorted(found, key=lambda drop: -drop.accuracy)


@torch.no_grad()
def _measure(network: nn.Module, features: Tensor, genres: Tensor) -> tuple[float, float]:
    logits = network(features)
    n_genres = logits.shape[1]
    pairs = genres * n_genres + logits.argmax(dim=1)
    counts: npt.NDArray[np.int64] = torch.bincount(pairs, minlength=n_genres**2).numpy()
    return compute_accuracy_and_f1(counts.reshape(n_genres, n_genres))
