"""The steps of training: mixup, forward, loss, backward, clipping and update, for all members at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genre_classifier.training.engine.layers import list_parameters
from genre_classifier.training.engine.noise import DropoutNoise, MixupDraws
from genre_classifier.training.engine.objective import (
    Objective,
    Targets,
    compute_loss_gradient,
    compute_row_losses,
)
from genre_classifier.training.engine.stack import Stack
from genre_classifier.training.engine.update import Updates

NO_LIMIT = float("inf")


@dataclass(frozen=True, eq=False)
class Learner:
    """A member: its network, and how it is trained.

    Parameters
    ----------
    network : nn.Module
        A network that `layers.read_blocks` takes.
    optimizer : torch.optim.Optimizer
        Of the network's parameters (see `update.STATE`).
    n_genres : int
    seed : int
        Of dropout and mixup.
    label_smoothing : float
    class_weights : sequence of float or None
    mixup : float
        Alpha of the Beta distribution; 0 is off.
    clip_norm, clip_value : float
        Limits of the gradient's norm and of its values.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    n_genres: int
    seed: int
    label_smoothing: float = 0.0
    class_weights: Sequence[float] | None = None
    mixup: float = 0.0
    clip_norm: float = NO_LIMIT
    clip_value: float = NO_LIMIT


@dataclass(frozen=True, eq=False)
class Trained:
    """The results of an epoch's mini-batches, in their order.

    Parameters
    ----------
    logits : Tensor [shape=(member, row, genre)]
    genres : Tensor [shape=(member, row)]
        The true genres, or after mixup those with the larger share.
    valid : Tensor [shape=(member, row), dtype=bool]
        False for rows that only fill a mini-batch up.
    loss : Tensor [shape=(member,)]
        The mean over the rows. Each row counts with the loss of its mini-batch.
    """

    logits: Tensor
    genres: Tensor
    valid: Tensor
    loss: Tensor


class Engine:
    """Trains several networks side by side, each with its own rows, loss, optimizer, and random numbers.

    Parameters
    ----------
    learners : sequence of Learner
        With networks of one shape and optimizers of one family.
    batch_size : int
        Rows per mini-batch.
    device : torch.device

    Attributes
    ----------
    stack : Stack
        The members' weights.

    Raises
    ------
    RefusedError
        A network has something that the engine does not know.
    """

    def __init__(
        self, learners: Sequence[Learner], batch_size: int, device: torch.device | str = "cpu"
    ) -> None:
        self.batch_size = batch_size
        self.stack = Stack([learner.network for learner in learners], device)
        self._arrange(learners)

    def __len__(self) -> int:
        return len(self.learners)

    def keep(self, members: Sequence[int]) -> None:
        """Keep some members only, from the next epoch on."""
        self.stack.keep(members)
        self._arrange([self.learners[member] for member in members])

    def _arrange(self, learners: Sequence[Learner]) -> None:
        self.learners = list(learners)
        stack = self.stack
        device, dtype = stack.device, stack.parameters.dtype
        self._updates = Updates(
            [learner.optimizer for learner in learners],
            [list_parameters(blocks) for blocks in stack.blocks],
            stack.parameters,
            stack.gradients,
        )
        self._objective = Objective(
            learners[0].n_genres,
            [learner.label_smoothing for learner in learners],
            [learner.class_weights for learner in learners],
            self.batch_size,
            device=device,
            dtype=dtype,
        )
        dropping = [n for n, layer in enumerate(stack.layers) if layer.scale is not None]
        self._noise = DropoutNoise(
            [[blocks[n].dropout for n in dropping] for blocks in stack.blocks],
            [stack.layers[n].weight.shape[1] for n in dropping],
            self.batch_size,
            device=device,
            dtype=dtype,
        )
        alphas = [learner.mixup for learner in learners]
        self._mixup = MixupDraws(alphas, self.batch_size) if any(alphas) else None
        self._by_norm = self._build_limits([learner.clip_norm for learner in learners])
        self._by_value = self._build_limits([learner.clip_value for learner in learners])

    def _build_limits(self, limits: Sequence[float]) -> Tensor | None:
        """Return the members' limits, (member, 1); None if nobody has one."""
        if all(limit == NO_LIMIT for limit in limits):
            return None
        return self.stack.parameters.new_tensor(limits)[:, None]

    def start_epoch(self, epochs: Sequence[int], n_steps: Sequence[int]) -> None:
        """Begin an epoch.

        Parameters
        ----------
        epochs : sequence of int
            Number of each member's epoch, from 0.
        n_steps : sequence of int
            Number of each member's steps in this epoch.
        """
        seeds = [learner.seed for learner in self.learners]
        self._n_steps = list(n_steps)
        self._step = 0
        self._outputs: list[tuple[Tensor, ...]] = []
        self._noise.start_epoch(seeds, epochs)
        if self._mixup is not None:
            self._mixup.start_epoch(seeds, epochs, n_steps)

    @torch.no_grad()
    def run(
        self,
        batches: Iterable[Tensor],
        genres: Tensor,
        valid: Tensor,
        after_step: Callable[[list[int]], None],
    ) -> None:
        """Train on the next mini-batches of an epoch, one step for each.

        Parameters
        ----------
        batches : iterable of Tensor [shape=(member, row, feature)]
            Features of each mini-batch. The number of rows is the batch size.
        genres : Tensor [shape=(member, row)]
            Genres of the rows of all mini-batches.
        valid : Tensor [shape=(member, row), dtype=bool]
            False for rows that only fill a mini-batch up.
        after_step : callable
            Called after each step with the numbers of the members that made it. The epoch of the others is over.
        """
        targets = self._objective.build_targets(genres, valid)
        kept: list[Tensor] = []
        mixed: list[tuple[Tensor, ...]] = []
        for number, features in enumerate(batches):
            rows = slice(number * self.batch_size, (number + 1) * self.batch_size)
            batch = Targets(targets.log_target[:, rows], targets.mass[:, rows])
            if self._mixup is not None:
                features, batch, taught = self._mix(features, batch, genres[:, rows], valid[:, rows])
                mixed.append((taught, *batch))
            logits, inputs = self.stack.forward(features, self._noise.draw())
            self.stack.backward(compute_loss_gradient(logits, batch), inputs)
            self._clip()
            active = [member for member, steps in enumerate(self._n_steps) if self._step < steps]
            self._updates.make(active)
            self._step += 1
            after_step(active)
            kept.append(logits)
        self._updates.finish_chunk()
        if mixed:
            genres, *fields = (torch.cat(tensors, dim=1) for tensors in zip(*mixed, strict=True))
            targets = Targets(*fields)
        # Genre by genre, as a step's logits.
        all_logits = torch.cat([own.transpose(1, 2) for own in kept], dim=2).transpose(1, 2)
        self._outputs.append((all_logits, genres, valid, compute_row_losses(all_logits, targets)))

    def finish_epoch(self) -> Trained:
        """Return the results of the epoch's steps."""
        logits, genres, valid, losses = (
            torch.cat(chunks, dim=1) for chunks in zip(*self._outputs, strict=True)
        )
        self._outputs.clear()
        by_batch = (len(valid), -1, self.batch_size)
        n_rows = valid.view(by_batch).sum(dim=2)  # (member, step)
        summed = (losses.double().view(by_batch).sum(dim=2) * n_rows).sum(dim=1)
        return Trained(logits, genres, valid, summed / n_rows.sum(dim=1))

    def _mix(
        self, features: Tensor, targets: Targets, genres: Tensor, valid: Tensor
    ) -> tuple[Tensor, Targets, Tensor]:
        """Return a mini-batch with its rows and targets mixed in pairs, and the genres with the larger share."""
        assert self._mixup is not None
        share, other = self._mixup.read_step(self._step, valid)
        places = other[..., None]
        weight = share.to(features.dtype)[:, None, None]  # (member, 1, 1)

        def mix(part: Tensor) -> Tensor:
            return torch.lerp(part.gather(1, places.expand(-1, -1, part.shape[2])), part, weight)

        taught = torch.where(weight[:, :, 0] >= 0.5, genres, genres.gather(1, other))
        return mix(features), Targets(mix(targets.log_target), mix(targets.mass)), taught

    def _clip(self) -> None:
        gradients = self.stack.gradients  # (member, parameter)
        if self._by_norm is not None:
            norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
            gradients.mul_((self._by_norm / (norms + 1e-6)).clamp_(max=1.0))  # as torch's clip_grad_norm_
        if self._by_value is not None:
            torch.clamp(gradients, min=-self._by_value, max=self._by_value, out=gradients)
