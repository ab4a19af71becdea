"""The members' optimizer steps: the fused operations of torch's Adam, AdamW and SGD, over the rows of a stack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from genre_classifier.training.engine.layers import RefusedError

STATE = {
    torch.optim.Adam: ("exp_avg", "exp_avg_sq"),
    torch.optim.AdamW: ("exp_avg", "exp_avg_sq"),
    torch.optim.SGD: ("momentum_buffer",),
}
"""The names of an optimizer's state, by its class. Classes with the same names can share a stack."""
SETTINGS = {
    "exp_avg": ("lr", "betas", "eps", "weight_decay"),
    "momentum_buffer": ("lr", "momentum", "nesterov", "weight_decay"),
}
_RARER = ("amsgrad", "maximize", "capturable", "differentiable", "dampening")
OptimizerState = dict[str, list[Tensor]]
"""A part of the optimizers' state by its name, one row (parameter,) per member."""


def _check(optimizer: torch.optim.Optimizer) -> None:
    kind = type(optimizer)
    if kind not in STATE:
        raise RefusedError(f"the optimizer is {kind.__module__}.{kind.__qualname__}")
    if len(optimizer.param_groups) != 1:
        raise RefusedError("the optimizer has several groups of parameters")
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        raise RefusedError("the optimizer has a hook")
    # AdamW has this flag by definition; with it, Adam is AdamW by another name.
    rarer = _RARER if kind is torch.optim.AdamW else (*_RARER, "decoupled_weight_decay")
    for name in rarer:
        if optimizer.param_groups[0].get(name):
            raise RefusedError(f"the optimizer has {name}={optimizer.param_groups[0][name]}")


class Updates:
    """Updates each member's parameters as its optimizer would, with that optimizer's settings and state.

    The state of the optimizers becomes views of tensors in this class, so their ``state_dict()`` is always current.

    Parameters
    ----------
    optimizers : sequence of torch.optim.Optimizer
        Of one family (see `STATE`), each with one group. They may have state from a checkpoint.
    parameters : sequence of list of nn.Parameter
        By member, in the order of its row.
    rows, gradients : Tensor [shape=(member, parameter)]

    Raises
    ------
    RefusedError
        The engine does not know an optimizer, or one of its settings.
    """

    def __init__(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        parameters: Sequence[list[nn.Parameter]],
        rows: Tensor,
        gradients: Tensor,
    ) -> None:
        for optimizer in optimizers:
            _check(optimizer)
        kinds = {STATE[type(optimizer)] for optimizer in optimizers}
        if len(kinds) != 1:
            raise ValueError("a stack takes optimizers of one family")
        (names,) = kinds
        self.optimizers = list(optimizers)
        self._settings = SETTINGS[names[0]]
        self._rows, self._gradients = list(rows.unbind(0)), list(gradients.unbind(0))
        self._counts = rows.new_zeros(
            len(optimizers), max(map(len, parameters)), dtype=torch.float32
        )  # (member, tensor): optimizer steps so far
        self._first_counts = list(self._counts[:, 0].unbind(0))
        self._state: OptimizerState = {}
        for name in names:
            buffer = torch.zeros_like(rows)
            for own, optimizer, tensors in zip(buffer, optimizers, parameters, strict=True):
                entries = [optimizer.state.get(tensor, {}).get(name) for tensor in tensors]
                if all(entry is not None for entry in entries):
                    own.copy_(torch.cat([entry.flatten() for entry in entries]))
            self._state[name] = list(buffer.unbind(0))
        for member, (optimizer, tensors) in enumerate(zip(optimizers, parameters, strict=True)):
            self._bind(member, optimizer, tensors)

    def _bind(self, member: int, optimizer: torch.optim.Optimizer, tensors: Iterable[nn.Parameter]) -> None:
        start = 0
        for number, tensor in enumerate(tensors):
            end = start + tensor.numel()
            state = {name: rows[member][start:end].view(tensor.shape) for name, rows in self._state.items()}
            if "exp_avg" in state:
                count = self._counts[member, number]
                count.fill_(float(optimizer.state.get(tensor, {}).get("step", 0.0)))
                state = {"step": count, **state}
            optimizer.state[tensor] = state
            start = end
        # A scheduler warns if its optimizer has made no step. This optimizer never makes one.
        optimizer._opt_called = True  # type: ignore[attr-defined]

    @torch.no_grad()
    def make(self, members: Sequence[int]) -> None:
        """Make one step of each of these members."""
        # One operation, where torch.optim would count tensor by tensor.
        self._counts[slice(None) if len(members) == len(self._counts) else members, 0] += 1
        for group, numbers in self._group_alike(members):
            _UPDATES[type(self.optimizers[numbers[0]])](
                group,
                [self._rows[number] for number in numbers],
                [self._gradients[number] for number in numbers],
                *([rows[number] for number in numbers] for rows in self._state.values()),
                [self._first_counts[number] for number in numbers],
            )

    def _group_alike(self, members: Iterable[int]) -> Iterable[tuple[dict[str, Any], list[int]]]:
        """Yield each set of settings and the members that share it at this step. One call moves all of them."""
        alike: dict[tuple[Any, ...], list[int]] = {}
        for number in members:
            optimizer = self.optimizers[number]
            group = optimizer.param_groups[0]
            key = (type(optimizer), *(_make_hashable(group[name]) for name in self._settings))
            alike.setdefault(key, []).append(number)
        for numbers in alike.values():
            yield self.optimizers[numbers[0]].param_groups[0], numbers

    def finish_chunk(self) -> None:
        """Copy the count of steps of each member's first parameter, the only one counted, to the others."""
        self._counts[:, 1:] = self._counts[:, :1]


def _make_hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else float(value)


def _update_by_adam(
    group: dict[str, Any],
    rows: list[Tensor],
    gradients: list[Tensor],
    averages: list[Tensor],
    squares: list[Tensor],
    counts: list[Tensor],
    *,
    update: Callable[..., None] = torch._fused_adam_,
) -> None:
    beta1, beta2 = group["betas"]
    update(
        rows,
        gradients,
        averages,
        squares,
        [],
        counts,
        lr=group["lr"],
        beta1=beta1,
        beta2=beta2,
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
    )


def _update_by_sgd(
    group: dict[str, Any],
    rows: list[Tensor],
    gradients: list[Tensor],
    momenta: list[Tensor],
    counts: list[Tensor],
) -> None:
    sgd(
        rows,
        gradients,
        [*momenta],
        fused=True,
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        lr=group["lr"],
        dampening=0.0,
        nesterov=group["nesterov"],
        maximize=False,
    )


_UPDATES: dict[type, Callable[..., None]] = {
    torch.optim.Adam: _update_by_adam,
    torch.optim.AdamW: partial(_update_by_adam, update=torch._fused_adamw_),
    torch.optim.SGD: _update_by_sgd,
}
