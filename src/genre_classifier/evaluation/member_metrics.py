"""The metrics of a split for many networks at once: the definitions of `GenreMetrics`, with a member axis."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genre_classifier.evaluation.calibration import CALIBRATION_BINS


@dataclass(frozen=True, eq=False)
class MemberScores:
    """What the logits of several networks amount to.

    Parameters
    ----------
    values : dict of str to Tensor [shape=(member,)]
        By the names of `Scores.values`.
    f1_per_genre : Tensor [shape=(member, genre)]
    """

    values: dict[str, Tensor]
    f1_per_genre: Tensor


@torch.no_grad()
def member_scores(logits: Tensor, genres: Tensor, valid: Tensor) -> MemberScores:
    """Return the scores of each member's logits.

    Parameters
    ----------
    logits : Tensor [shape=(member, row, genre)]
    genres : Tensor [shape=(member, row)]
        True genres.
    valid : Tensor [shape=(member, row), dtype=bool]
        False for rows that only fill the tensor up.
    """
    probabilities = torch.softmax(logits.float(), dim=-1)
    n_members, _, n_genres = probabilities.shape
    confidence, predicted = probabilities.max(dim=-1)
    rows = valid.sum(dim=1)
    confusion = _confusion(predicted, genres, valid, n_genres)
    right = confusion.diagonal(dim1=1, dim2=2)  # (member, genre)
    support, claimed = confusion.sum(dim=2), confusion.sum(dim=1)
    f1_per_genre = torch.nan_to_num(2.0 * right / (support + claimed))
    occurring = (support + claimed) > 0
    probable = probabilities.topk(min(3, n_genres), dim=-1).indices
    among = ((probable == genres[..., None]).any(dim=-1) & valid).sum(dim=1)
    values = {
        "accuracy": right.sum(dim=1) / rows,
        "f1": (f1_per_genre * support).sum(dim=1) / rows,
        "f1_macro": (f1_per_genre * occurring).sum(dim=1) / occurring.sum(dim=1),
        "top3": among / rows,
        "ece": _calibration_error(confidence, predicted == genres, valid, n_members),
    }
    return MemberScores(values, f1_per_genre)


def _confusion(predicted: Tensor, genres: Tensor, valid: Tensor, n_genres: int) -> Tensor:
    """Return counts of rows, shape (member, true genre, predicted genre)."""
    n_members = len(predicted)
    cells = torch.arange(n_members, device=genres.device)[:, None] * n_genres + genres
    cells = cells * n_genres + predicted
    counts = torch.zeros(n_members * n_genres * n_genres, device=genres.device)
    counts.index_add_(0, cells.flatten(), valid.flatten().to(counts.dtype))
    return counts.view(n_members, n_genres, n_genres)


def _calibration_error(confidence: Tensor, right: Tensor, valid: Tensor, n_members: int) -> Tensor:
    """Return the expected calibration error over 15 bins of equal width (Naeini et al., 2015)."""
    edges = torch.linspace(0, 1, CALIBRATION_BINS + 1, device=confidence.device)
    n_bins = len(edges)  # confidence 1 falls beyond the last edge
    bins = torch.bucketize(confidence, edges, right=True) - 1
    cells = (torch.arange(n_members, device=bins.device)[:, None] * n_bins + bins).flatten()
    weight = valid.flatten().float()

    def summed(values: Tensor) -> Tensor:
        empty = torch.zeros(n_members * n_bins, device=values.device)
        return empty.index_add_(0, cells, values.flatten().float() * weight).view(n_members, n_bins)

    gaps = (summed(confidence) - summed(right)).abs()  # times the rows in each bin
    return gaps.sum(dim=1) / valid.sum(dim=1)
