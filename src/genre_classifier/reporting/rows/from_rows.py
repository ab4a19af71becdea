"""Compute the parts of a report that need a run's rows and network: importance of features, and a map of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from genre_classifier.data.scaling import standardise
from genre_classifier.errors import GenreClassifierError
from genre_classifier.reporting.contents import RunContents
from genre_classifier.reporting.rows.embedding import MOST_POINTS, Map, Method, compute_last_hidden, map_rows
from genre_classifier.reporting.rows.families import group_into_families
from genre_classifier.reporting.rows.importance import MOST_ROWS, SEED, Drop, measure_importance
from genre_classifier.runs.folder import shorten_path
from genre_classifier.runs.predictions import Int64
from genre_classifier.runs.rows import RunRows, read_rows
from genre_classifier.training.fit import threads
from genre_classifier.training.lit_module import GenreLitModule

# With more features, they are only shuffled by family.
MOST_FEATURES = 100
# The largest difference of a network's probabilities between machines, in any precision of training.
TOLERANCE = 1e-2


@dataclass(frozen=True, eq=False)
class Importance:
    """Permutation importance on the test rows.

    Parameters
    ----------
    by_feature : tuple of Drop
        Empty if there are too many features.
    by_family : tuple of Drop
        Empty if each family has one feature, or one family has all.
    features : int
        Number of the network's features.
    rows : int
    """

    by_feature: tuple[Drop, ...]
    by_family: tuple[Drop, ...]
    features: int
    rows: int


@dataclass(frozen=True, eq=False)
class Places:
    """The map of test rows.

    Parameters
    ----------
    map : Map
    genres, predicted : np.ndarray [shape=(row,)]
    total : int
        Number of all test rows. The map may have only some of them.
    """

    map: Map
    genres: Int64
    predicted: Int64
    total: int


@dataclass(frozen=True, eq=False)
class FromRows:
    """The results, or the reason why there are none.

    Parameters
    ----------
    importance : Importance or None
    places : Places or None
    why_not : str
        Empty if the rows and the network could be read.
    """

    importance: Importance | None
    places: Places | None
    why_not: str


def analyse_rows(contents: RunContents, method: Method) -> FromRows:
    """Read a finished run's rows again and analyse its network on its test rows.

    If the rows or the network are missing or have changed, the result has the reason.

    Parameters
    ----------
    contents : RunContents
    method : str
        Method of the map.
    """
    if not contents.has_checkpoint:
        return FromRows(None, None, "the run has no checkpoint from which its network could be rebuilt")
    rows, why_not = read_rows(contents.folder, contents.data.get("fingerprint"))
    if rows is None:
        return FromRows(None, None, f"the run's rows cannot be read again: {why_not}")
    if not len(rows.split.test):
        return FromRows(None, None, "the run has no test rows")
    try:
        module = GenreLitModule.load(contents.folder.best_checkpoint)
    except GenreClassifierError as error:
        return FromRows(None, None, str(error).splitlines()[0])
    network = module.network.eval()
    raw, genres = rows.side("test")
    features = torch.from_numpy(standardise(module.scaler, raw, np.arange(len(raw))))
    features = features.to(next(network.parameters()).dtype)
    # One thread, as in training: small matrix products are not faster on several cores.
    with threads(1), torch.no_grad():
        probabilities = torch.softmax(network(features).double(), dim=1)
        if (difference := _describe_difference(contents, rows, probabilities)) is not None:
            return FromRows(None, None, difference)
        importance = _measure_importance(network, features, genres, module.feature_names)
        places = _map_test_rows(network, features, genres, probabilities.argmax(dim=1), method)
    return FromRows(importance, places, "")


def _describe_difference(contents: RunContents, rows: RunRows, probabilities: Tensor) -> str | None:
    """Return how the checkpoint's answers differ from predictions.csv; None if they do not."""
    recorded = contents.predictions
    if recorded is None:
        return None
    where = shorten_path(contents.folder.predictions_csv)
    if [str(rows.table.ids[row]) for row in rows.split.test] != list(recorded.ids):
        return f"{where} lists other test rows than the run's configuration gives now"
    if recorded.probabilities.shape != probabilities.shape:
        return f"{where} has other genres than the checkpoint"
    worst = float(np.abs(recorded.probabilities - probabilities.numpy()).max())
    if not worst < TOLERANCE:
        return f"the checkpoint gives probabilities that differ from those in {where} by up to {worst:.2g}"
    return None


def _draw_rows(total: int, most: int) -> Tensor:
    """Return the positions of all rows, or of `most` rows drawn from them."""
    if total <= most:
        return torch.arange(total)
    return torch.from_numpy(np.sort(np.random.default_rng(SEED).choice(total, most, replace=False)))


def _measure_importance(
    network: nn.Module, features: Tensor, genres: Tensor, names: Sequence[str]
) -> Importance:
    rows = _draw_rows(len(features), MOST_ROWS)
    features, genres = features[rows], genres[rows]
    grouped = group_into_families(names)
    together = grouped if 1 < len(grouped) < len(names) else {}
    apart = {name: [position] for position, name in enumerate(names)} if len(names) <= MOST_FEATURES else {}
    return Importance(
        by_feature=tuple(measure_importance(network, features, genres, apart)),
        by_family=tuple(measure_importance(network, features, genres, together)),
        features=len(names),
        rows=len(rows),
    )


def _map_test_rows(
    network: nn.Module, features: Tensor, genres: Tensor, predicted: Tensor, method: Method
) -> Places | None:
    rows = _draw_rows(len(features), MOST_POINTS)
    hidden = compute_last_hidden(network, features[rows])
    if hidden is None or len(rows) < 3:
        return None
    found = map_rows(hidden.double().numpy(), method)
    return Places(found, genres[rows].numpy(), predicted[rows].numpy(), len(features))
