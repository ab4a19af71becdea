"""Parts of a report that need a run's rows and network: importance of features, and a map of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from genre_classifier.data.scaling import scaled
from genre_classifier.errors import GenreClassifierError
from genre_classifier.reporting.contents import RunContents
from genre_classifier.reporting.rows.embedding import MOST_POINTS, Map, Method, last_hidden, mapped
from genre_classifier.reporting.rows.families import families
from genre_classifier.reporting.rows.importance import MOST_ROWS, SEED, Drop, permutation_importance
from genre_classifier.runs.folder import relative
from genre_classifier.runs.predictions import Int64
from genre_classifier.runs.rows import RunRows, read_rows
from genre_classifier.training.fit import threads
from genre_classifier.training.lit_module import GenreLitModule

# Above so many, features are shuffled by family only.
MOST_FEATURES = 100
# Probabilities of one network on one machine or another, in whatever precision it was trained.
TOLERANCE = 1e-2


@dataclass(frozen=True, eq=False)
class Importance:
    """Permutation importance on the test rows.

    Parameters
    ----------
    by_feature : tuple of Drop
        Empty where there are too many features.
    by_family : tuple of Drop
        Empty where no two features belong together, or all do.
    features : int
        How many the network has.
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
        Test rows there are, of which some may have been drawn.
    """

    map: Map
    genres: Int64
    predicted: Int64
    total: int


@dataclass(frozen=True, eq=False)
class FromRows:
    """The results, or why there are none.

    Parameters
    ----------
    importance : Importance or None
    places : Places or None
    why_not : str
        Empty where both were found.
    """

    importance: Importance | None
    places: Places | None
    why_not: str


def from_rows(contents: RunContents, method: Method) -> FromRows:
    """Read a finished run's rows again and try its network on its test rows.

    Where the rows or the network are not there as they were, the answer says so.

    Parameters
    ----------
    contents : RunContents
    method : str
        Of the map.
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
    features = torch.from_numpy(scaled(module.scaler, raw, np.arange(len(raw))))
    features = features.to(next(network.parameters()).dtype)
    # As the run itself: small products take no less time on several cores.
    with threads(1), torch.no_grad():
        probabilities = torch.softmax(network(features).double(), dim=1)
        if (difference := _difference(contents, rows, probabilities)) is not None:
            return FromRows(None, None, difference)
        importance = _importance(network, features, genres, module.feature_names)
        places = _places(network, features, genres, probabilities.argmax(dim=1), method)
    return FromRows(importance, places, "")


def _difference(contents: RunContents, rows: RunRows, probabilities: Tensor) -> str | None:
    """Return how the checkpoint's answers differ from predictions.csv; None if they do not."""
    recorded = contents.predictions
    if recorded is None:
        return None
    where = relative(contents.folder.predictions_csv)
    if [str(rows.table.ids[row]) for row in rows.split.test] != list(recorded.ids):
        return f"{where} lists other test rows than the run's configuration gives now"
    if recorded.probabilities.shape != probabilities.shape:
        return f"{where} has other genres than the checkpoint"
    worst = float(np.abs(recorded.probabilities - probabilities.numpy()).max())
    if not worst < TOLERANCE:
        return f"the checkpoint gives probabilities that differ from those in {where} by up to {worst:.2g}"
    return None


def _drawn(total: int, most: int) -> Tensor:
    """Return the positions of all rows, or of so many that were drawn from them."""
    if total <= most:
        return torch.arange(total)
    return torch.from_numpy(np.sort(np.random.default_rng(SEED).choice(total, most, replace=False)))


def _importance(network: nn.Module, features: Tensor, genres: Tensor, names: Sequence[str]) -> Importance:
    rows = _drawn(len(features), MOST_ROWS)
    features, genres = features[rows], genres[rows]
    grouped = families(names)
    together = grouped if 1 < len(grouped) < len(names) else {}
    apart = {name: [position] for position, name in enumerate(names)} if len(names) <= MOST_FEATURES else {}
    return Importance(
        by_feature=tuple(permutation_importance(network, features, genres, apart)),
        by_family=tuple(permutation_importance(network, features, genres, together)),
        features=len(names),
        rows=len(rows),
    )


def _places(
    network: nn.Module, features: Tensor, genres: Tensor, predicted: Tensor, method: Method
) -> Places | None:
    rows = _drawn(len(features), MOST_POINTS)
    hidden = last_hidden(network, features[rows])
    if hidden is None or len(rows) < 3:
        return None
    found = mapped(hidden.double().numpy(), method)
    return Places(found, genres[rows].numpy(), predicted[rows].numpy(), len(features))
