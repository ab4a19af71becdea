"""The loss of one optimizer step: the cross entropy of a mini-batch, with label smoothing and class weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Targets(NamedTuple):
    """The targets of rows, divided by the total weight of the rows in each mini-batch.

    The loss of a mini-batch is ``(log_target * log_probabilities).sum()``. The targets of many mini-batches can
    therefore be made at once, and mixup can mix them.

    Parameters
    ----------
    log_target : Tensor [shape=(member, row, genre)]
        Minus the share of each genre in the loss.
    mass : Tensor [shape=(member, row, 1)]
        Minus the sum of these shares.
    """

    log_target: Tensor
    mass: Tensor


class Objective:
    """The losses of several members.

    Parameters
    ----------
    n_genres : int
    label_smoothing : sequence of float
        One value per member: the share of a row's target that is spread over all genres.
    class_weights : sequence of (sequence of float or None)
        One entry per member: the weight of each genre; None for equal weights.
    batch_size : int
        Rows per mini-batch.
    """

    def __init__(
        self,
        n_genres: int,
        label_smoothing: Sequence[float],
        class_weights: Sequence[Sequence[float] | None],
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.batch_size = batch_size
        weights = torch.tensor(
            [[1.0] * n_genres if own is None else list(own) for own in class_weights], dtype=torch.float64
        )  # (member, genre)
        smoothing = torch.tensor(label_smoothing, dtype=torch.float64)[:, None]  # (member, 1)
        table = torch.diag_embed((1.0 - smoothing) * weights) + (smoothing / n_genres * weights)[:, None]
        self._table = table.to(device, dtype)  # (member, genre of the row, genre)
        self._mass = table.sum(dim=2).to(device, dtype)  # (member, genre of the row)
        self._weights = weights.to(device, dtype)  # (member, genre)

    def build_targets(self, genres: Tensor, valid: Tensor) -> Targets:
        """Return the targets of whole mini-batches, one after the other.

        Parameters
        ----------
        genres : Tensor [shape=(member, row)]
            The number of rows is a multiple of the batch size.
        valid : Tensor [shape=(member, row), dtype=bool]
            False for rows that only fill a mini-batch up. Their targets are 0.
        """
        members = torch.arange(len(genres), device=genres.device)[:, None]
        weights = self._weights[members, genres] * valid  # (member, row)
        batches = weights.view(len(genres), -1, self.batch_size)  # (member, step, row)
        divisor = batches.sum(dim=2, keepdim=True).clamp_min(1e-30).expand_as(batches).reshape(genres.shape)
        share = valid / divisor  # (member, row)
        log_target = self._table[members, genres] * -share[..., None]  # (member, row, genre)
        log_target = log_target.transpose(1, 2).contiguous().transpose(1, 2)  # genre by genre, as the logits
        return Targets(log_target, (self._mass[members, genres] * -share)[..., None])


def compute_loss_gradient(logits: Tensor, targets: Targets) -> Tensor:
    """Return the gradient of the losses with respect to the logits, both (member, row, genre)."""
    probabilities = torch.softmax(logits.transpose(1, 2), dim=1).transpose(1, 2)
    return torch.addcmul(targets.log_target, probabilities, targets.mass, value=-1.0)


def compute_row_losses(logits: Tensor, targets: Targets) -> Tensor:
    """Return each row's part of its mini-batch's loss, (member, row); their sum is the mini-batch's loss."""
    log_probabilities = torch.log_softmax(logits.transpose(1, 2), dim=1)  # (member, genre, row)
    return (targets.log_target.transpose(1, 2) * log_probabilities).sum(dim=1)
