"""The metrics of a split, defined once for training, validation and testing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)

from genre_classifier.evaluation.calibration import CALIBRATION_BINS

# With deterministic algorithms torchmetrics counts by a mask of rows x genres²: too much for all rows at once.
BLOCK_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Scores:
    """What a network's logits on one split amount to.

    Parameters
    ----------
    values : dict of str to float
        ``accuracy``, ``f1`` (weighted by support), ``f1_macro``, ``top3`` (the true genre is among the three most
        probable), ``ece`` (expected calibration error, 15 bins; Naeini et al., 2015).
    f1_per_genre : Tensor [shape=(genre,)]
    """

    values: dict[str, float]
    f1_per_genre: Tensor


class GenreMetrics(nn.Module):
    """torchmetrics of one split.

    Parameters
    ----------
    n_genres : int
    all_processes : bool
        Whether the scores cover the rows of all processes of a distributed run, which must then all ask for them.
    """

    def __init__(self, n_genres: int, *, all_processes: bool = True) -> None:
        super().__init__()
        self.n_probable = min(3, n_genres)
        quick: dict[str, Any] = {
            "num_classes": n_genres,
            "validate_args": False,
            "sync_on_compute": all_processes,
        }
        self.collection = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(average="micro", **quick),
                "f1": MulticlassF1Score(average="weighted", **quick),
                "f1_macro": MulticlassF1Score(average="macro", **quick),
                "f1_per_genre": MulticlassF1Score(average="none", **quick),
            }
        )
        self.top3 = MulticlassAccuracy(average="micro", **quick)
        self.ece = MulticlassCalibrationError(n_bins=CALIBRATION_BINS, norm="l1", **quick)

    @torch.no_grad()
    def forward(self, logits: Tensor, genres: Tensor) -> Scores:
        """Return the scores of logits (row, genre) against true genres (row,)."""
        for metric in (self.collection, self.top3, self.ece):
            metric.reset()
        probabilities = torch.softmax(logits.float(), dim=-1)
        for rows, truth in zip(probabilities.split(BLOCK_ROWS), genres.split(BLOCK_ROWS), strict=True):
            # Found once, where each metric would find them anew.
            probable = rows.topk(self.n_probable, dim=-1).indices
            predicted = rows.argmax(dim=-1)
            self.collection.update(predicted, truth)
            found = (probable == truth[:, None]).any(dim=-1)
            self.top3.update(torch.where(found, truth, probable[:, -1]), truth)
            self.ece.update(rows, truth)
        computed = self.collection.compute()
        values = {name: float(computed[name]) for name in ("accuracy", "f1", "f1_macro")}
        values |= {"top3": float(self.top3.compute()), "ece": float(self.ece.compute())}
        return Scores(values, computed["f1_per_genre"])


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A network's predictions on one split and their scores.

    Parameters
    ----------
    loss : float
        Mean cross entropy, without smoothing or weights.
    scores : Scores
    confusion : Tensor [shape=(true genre, predicted genre), dtype=int64]
        Counts of rows.
    logits : Tensor [shape=(row, genre)]
    """

    loss: float
    scores: Scores
    confusion: Tensor
    logits: Tensor

    @property
    def probabilities(self) -> Tensor:
        """The genres' probabilities, shape (row, genre)."""
        return torch.softmax(self.logits, dim=-1)

    def as_dict(self) -> dict[str, float]:
        """Return the loss and the scores by name."""
        return {"loss": self.loss, **self.scores.values}


@torch.no_grad()
def evaluate(network: nn.Module, features: Tensor, genres: Tensor) -> Evaluation:
    """Run a network over one split.

    Parameters
    ----------
    network : nn.Module
        From standardised features to logits; put into evaluation mode for the call.
    features : Tensor [shape=(row, feature)]
    genres : Tensor [shape=(row,)]
    """
    was_training = network.training
    network.eval()
    try:
        logits = torch.cat([network(block) for block in features.split(8192)])
    finally:
        network.train(was_training)
    return evaluation_of(logits, genres)


def evaluation_of(logits: Tensor, genres: Tensor) -> Evaluation:
    """Score logits (row, genre), or log probabilities, against true genres (row,)."""
    n_genres = logits.shape[1]
    return Evaluation(
        loss=float(functional.cross_entropy(logits, genres)),
        scores=_metrics(n_genres)(logits.cpu(), genres.cpu()),
        confusion=_confusion(logits.argmax(dim=-1), genres, n_genres),
        logits=logits,
    )


@lru_cache(maxsize=8)
def _metrics(n_genres: int) -> GenreMetrics:
    # Making them takes longer than using them once, and they forget what they were given before.
    return GenreMetrics(n_genres, all_processes=False)


def _confusion(predicted: Tensor, genres: Tensor, n_genres: int) -> Tensor:
    metric = MulticlassConfusionMatrix(n_genres, validate_args=False, sync_on_compute=False)
    for rows, truth in zip(predicted.split(BLOCK_ROWS), genres.split(BLOCK_ROWS), strict=True):
        metric.update(rows, truth)
    counts: Tensor = metric.compute()
    return counts
