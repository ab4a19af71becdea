"""What one optimizer step minimises: the cross entropy of a mini-batch with smoothing, class weights and mixup.

The functions take rows in their last two axes but one, so that they also serve several members at once:
``(..., row, genre)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Targets(NamedTuple):
    """What the rows of mini-batches are taught, divided by the number of rows (or their weights) of a mini-batch.

    A mini-batch's loss is ``(log_target * log_probabilities).sum()``, so what is needed of several mini-batches can be
    made at once.

    Parameters
    ----------
    log_target : Tensor [shape=(..., row, genre)]
        Minus the share of each genre in the loss.
    mass : Tensor [shape=(..., row, 1)]
        Minus their sum.
    """

    log_target: Tensor
    mass: Tensor


def target_table(
    n_genres: int,
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return what a row of each genre is taught, as torch.nn.functional.cross_entropy defines it.

    Parameters
    ----------
    n_genres : int
    label_smoothing : float
        Share of a row's target that all genres have in common.
    class_weights : sequence of float, optional
        Weight of each genre.

    Returns
    -------
    Tensor [shape=(genre of the row, genre)]
    """
    weights = torch.ones(n_genres, dtype=torch.float64)
    if class_weights is not None:
        weights = torch.tensor(list(class_weights), dtype=torch.float64)
    table = (1.0 - label_smoothing) * torch.diag(weights) + label_smoothing / n_genres * weights
    return table.to(device=device, dtype=dtype)


def targets_of(
    table: Tensor, genres: Tensor, batch_size: int, class_weights: Tensor | None = None
) -> Targets:
    """Return the targets of rows that are trained in mini-batches of `batch_size`; the last one may be smaller.

    Parameters
    ----------
    table : Tensor [shape=(genre of the row, genre)]
        See `target_table`.
    genres : Tensor [shape=(row,)]
    class_weights : Tensor [shape=(genre,)], optional
    """
    rows = len(genres)
    whole = rows - rows % batch_size
    divisor = torch.empty(rows, 1, dtype=table.dtype, device=table.device)
    if class_weights is None:
        divisor[:whole] = batch_size
        divisor[whole:] = rows - whole
    else:
        for place, part in zip(divisor.split(batch_size), genres.split(batch_size), strict=True):
            place[:] = class_weights[part].sum()
    # The mass comes from the table, since summing many rows at once may round otherwise than summing a few.
    return Targets(-table[genres] / divisor, -table.sum(dim=-1, keepdim=True)[genres] / divisor)


def mixup(features: Tensor, targets: Targets, alpha: float) -> tuple[Tensor, Targets, float, Tensor]:
    """Mix the rows of a mini-batch in pairs, and their targets alike (Zhang et al., 2018).

    Parameters
    ----------
    features : Tensor [shape=(row, feature)]
    alpha : float
        Of the Beta distribution that the share is drawn from.

    Returns
    -------
    features, targets : of the mixed rows
    share : float
        How much of each row is left in its place.
    other : Tensor [shape=(row,)]
        The row that each one is mixed with.
    """
    # Two gammas make a Beta draw from torch's own stream, which is seeded by epoch.
    draws = torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64))
    share = float((draws[0] / draws.sum()).clamp(0.0, 1.0))
    other = torch.randperm(len(features), device=features.device)
    mixed = Targets(*(share * part + (1.0 - share) * part[other] for part in targets))
    return share * features + (1.0 - share) * features[other], mixed, share, other


def loss_gradient(logits: Tensor, targets: Targets) -> Tensor:
    """Return the gradient of a mini-batch's loss with respect to its logits, shape (..., row, genre)."""
    probabilities = torch.softmax(logits, dim=-1, dtype=targets.log_target.dtype)
    return torch.addcmul(targets.log_target, probabilities, targets.mass, value=-1.0)


def row_losses(logits: Tensor, targets: Targets) -> Tensor:
    """Return each row's part of its mini-batch's loss, shape (..., row); a mini-batch's sum is its loss."""
    log_probabilities = torch.log_softmax(logits, dim=-1, dtype=targets.log_target.dtype)
    return (targets.log_target * log_probabilities).sum(dim=-1)


def summed_loss(logits: Tensor, targets: Targets, batch_size: int) -> Tensor:
    """Return the sum over rows of the loss of each one's mini-batch, in double precision where the device has it.

    Parameters
    ----------
    logits : Tensor [shape=(row, genre)]
    targets : Targets
        See `targets_of`.
    batch_size : int
        Rows a mini-batch; the last one may be smaller.
    """
    losses = row_losses(logits, targets)
    if losses.device.type != "mps":
        losses = losses.double()
    rest = len(losses) % batch_size
    whole = len(losses) - rest
    return losses[:whole].sum() * batch_size + losses[whole:].sum() * rest


class _Loss(torch.autograd.Function):
    """The sum of `row_losses`, with `loss_gradient` as its gradient to the last bit."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, log_target: Tensor, mass: Tensor) -> Tensor:
        ctx.save_for_backward(logits, log_target, mass)
        return row_losses(logits, Targets(log_target, mass)).sum()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        logits, log_target, mass = ctx.saved_tensors
        gradient = loss_gradient(logits, Targets(log_target, mass)).mul_(grad_outputs[0])
        return gradient.to(logits.dtype), None, None


def loss(logits: Tensor, targets: Targets) -> Tensor:
    """Return a mini-batch's loss, for autograd; its gradient is `loss_gradient`."""
    value: Tensor = _Loss.apply(logits, targets.log_target, targets.mass)
    return value
