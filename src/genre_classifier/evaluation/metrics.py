"""Compute the metrics of config/metrics.py on a split, for one network or for all members of a stack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torchmetrics
from torch import Tensor, nn
from torch.nn import functional

from genre_classifier.config.metrics import CALIBRATION_BINS, Counts, compute_metrics, count_columns


@dataclass(frozen=True, eq=False)
class Scores:
    """A network's metrics on one split.

    Parameters
    ----------
    values : dict of str to float
        By name, as in `config.metrics.METRICS`.
    f1_per_genre : Tensor [shape=(genre,)]
    """

    values: dict[str, float]
    f1_per_genre: Tensor


@torch.no_grad()
def compute_row_sums(logits: Tensor, genres: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the sums over rows that `Counts` describes, shape (member, column). Sums of several processes add up.

    Parameters
    ----------
    logits : Tensor [shape=(member, row, genre)]
        Logits or log probabilities.
    genres : Tensor [shape=(member, row)]
        True genres.
    valid : Tensor [shape=(member, row), dtype=bool], optional
        False for rows that only pad the tensor.
    """
    n_members, _, n_genres = logits.shape
    # (member, genre, row): over a few genres in a row, torch takes several times as long.
    log_probabilities = torch.log_softmax(logits.float().transpose(1, 2).contiguous(), dim=1)
    best, predicted = log_probabilities.max(dim=1)  # (member, row)
    true = log_probabilities.gather(1, genres[:, None])  # (member, 1, row)
    losses = -true[:, 0]
    # Of equally probable genres the first comes first, as in `predicted`.
    numbers = torch.arange(n_genres, device=logits.device)[:, None]
    ahead = (log_probabilities > true) | ((log_probabilities == true) & (numbers < genres[:, None]))
    among_three = ahead.sum(dim=1) < 3
    confidence = best.exp()
    edges = torch.linspace(0, 1, CALIBRATION_BINS + 1, device=logits.device)
    bins = (torch.bucketize(confidence, edges, right=True) - 1).clamp(0, CALIBRATION_BINS - 1)
    whole = torch.float32 if logits.device.type == "mps" else torch.float64
    counted = torch.ones_like(confidence, dtype=torch.bool) if valid is None else valid
    first_bin, width = n_genres**2, count_columns(n_genres)
    sums = torch.zeros(n_members * width, dtype=whole, device=logits.device)
    start = torch.arange(n_members, device=logits.device)[:, None] * width
    for columns, values in (
        (genres * n_genres + predicted, counted),
        (first_bin + bins, (predicted == genres).to(whole) - confidence),
        (torch.full_like(genres, width - 2), losses),
        (torch.full_like(genres, width - 1), among_three),
    ):
        kept = values.to(whole).masked_fill(~counted, 0.0)
        sums.index_add_(0, (start + columns).flatten(), kept.flatten())
    return sums.view(n_members, width)


def compute_scores(sums: Tensor, n_genres: int) -> list[Scores]:
    """Return each member's scores.

    Parameters
    ----------
    sums : Tensor [shape=(member, column)]
        See `compute_row_sums`.
    """
    counts = Counts(sums.cpu(), n_genres)
    values = {name: found.tolist() for name, found in compute_metrics(counts).items()}
    return [
        Scores({name: found[member] for name, found in values.items()}, f1)
        for member, f1 in enumerate(counts.f1_per_genre)
    ]


class GenreMetrics(torchmetrics.Metric):
    """All metrics of a split, updated batch by batch. The processes of a distributed run add their sums.

    Parameters
    ----------
    n_genres : int
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, n_genres: int) -> None:
        super().__init__()
        self.n_genres = n_genres
        self.add_state(
            "sums", torch.zeros(1, count_columns(n_genres), dtype=torch.float64), dist_reduce_fx="sum"
        )

    def update(self, logits: Tensor, genres: Tensor, total_loss: float | None = None) -> None:
        """Add rows.

        Parameters
        ----------
        logits : Tensor [shape=(row, genre)]
        genres : Tensor [shape=(row,)]
            True genres.
        total_loss : float, optional
            The sum of the rows' losses, if they are not the cross entropy.
        """
        sums = compute_row_sums(logits[None], genres[None])
        if total_loss is not None:
            Counts(sums, self.n_genres).loss[:] = total_loss
        self.sums = self.sums.to(sums) + sums

    def compute(self) -> dict[str, Tensor]:
        """Return each metric by name, and ``f1_per_genre`` [shape=(genre,)]."""
        (scores,) = compute_scores(self.sums, self.n_genres)
        values = {name: torch.tensor(value, dtype=torch.float64) for name, value in scores.values.items()}
        return values | {"f1_per_genre": scores.f1_per_genre}


def score(logits: Tensor, genres: Tensor) -> Scores:
    """Return the metrics of logits (row, genre) against true genres (row,)."""
    return compute_scores(compute_row_sums(logits[None], genres[None]), logits.shape[1])[0]


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
        """Probabilities, shape (row, genre)."""
        return torch.softmax(self.logits, dim=-1)

    def as_dict(self) -> dict[str, float]:
        """Return the loss and the scores by name."""
        return {**self.scores.values, "loss": self.loss}


@torch.no_grad()
def evaluate(network: nn.Module, features: Tensor, genres: Tensor) -> Evaluation:
    """Return a network's predictions on one split, and their scores.

    Parameters
    ----------
    network : nn.Module
        From standardised features to logits. It is in evaluation mode during the call.
    features : Tensor [shape=(row, feature)]
    genres : Tensor [shape=(row,)]
    """
    was_training = network.training
    network.eval()
    try:
        logits = torch.cat([network(block) for block in features.split(8192)])
    finally:
        network.train(was_training)
    return evaluate_logits(logits, genres)


def evaluate_logits(logits: Tensor, genres: Tensor) -> Evaluation:
    """Return the evaluation of logits (row, genre), or log probabilities, against true genres (row,)."""
    sums = compute_row_sums(logits[None], genres[None])
    n_genres = logits.shape[1]
    (scores,) = compute_scores(sums, n_genres)
    return Evaluation(
        loss=float(functional.cross_entropy(logits, genres)),
        scores=scores,
        confusion=Counts(sums, n_genres).confusion[0].to(torch.int64),
        logits=logits,
    )
