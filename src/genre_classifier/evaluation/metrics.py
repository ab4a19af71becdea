"""The metrics of a split, defined once for training, validation and testing."""

from __future__ import annotations

from dataclasses import dataclass
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

CALIBRATION_BINS = 15
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
    confusion : Tensor [shape=(true genre, predicted genre), dtype=int64]
        Counts of rows.
    """

    values: dict[str, float]
    f1_per_genre: Tensor
    confusion: Tensor


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
                "top3": MulticlassAccuracy(average="micro", top_k=min(3, n_genres), **quick),
                "ece": MulticlassCalibrationError(n_bins=CALIBRATION_BINS, norm="l1", **quick),
                "f1_per_genre": MulticlassF1Score(average="none", **quick),
                "confusion": MulticlassConfusionMatrix(**quick),
            }
        )

    @torch.no_grad()
    def forward(self, logits: Tensor, genres: Tensor) -> Scores:
        """Return the scores of logits (row, genre) against true genres (row,)."""
        self.collection.reset()
        probabilities = torch.softmax(logits.float(), dim=-1)
        for rows, truth in zip(probabilities.split(BLOCK_ROWS), genres.split(BLOCK_ROWS), strict=True):
            self.collection.update(rows, truth)
        computed = self.collection.compute()
        per_genre, confusion = computed.pop("f1_per_genre"), computed.pop("confusion")
        return Scores({name: float(value) for name, value in computed.items()}, per_genre, confusion)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A network's predictions on one split and their scores.

    Parameters
    ----------
    loss : float
        Mean cross entropy, without smoothing or weights.
    scores : Scores
    probabilities : Tensor [shape=(row, genre)]
    """

    loss: float
    scores: Scores
    probabilities: Tensor

    def as_dict(self) -> dict[str, float]:
        """Return the loss and the scores by name."""
        return {"loss": self.loss, **self.scores.values}


@torch.no_grad()
def evaluate(network: nn.Module, features: Tensor, genres: Tensor, n_genres: int) -> Evaluation:
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
    return Evaluation(
        loss=float(functional.cross_entropy(logits, genres)),
        scores=GenreMetrics(n_genres, all_processes=False)(logits, genres),
        probabilities=torch.softmax(logits, dim=-1),
    )
