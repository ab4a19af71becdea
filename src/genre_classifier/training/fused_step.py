"""The step of a fused optimizer without the bookkeeping around it, which costs more than the arithmetic here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd


def step_function(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """Return what does the same as ``optimizer.step()``.

    For torch's own fused Adam, AdamW and SGD that is the function in which their step ends, over the same state; for
    every other optimizer, or one with several groups, hooks or rarer settings, it is ``optimizer.step`` itself.
    """
    kind = type(optimizer)
    if kind not in FUSED or len(optimizer.param_groups) != 1 or not _is_plain(optimizer):
        return optimizer.step
    return _FusedStep(optimizer, *FUSED[kind])


def _is_plain(optimizer: torch.optim.Optimizer) -> bool:
    group = optimizer.param_groups[0]
    rarer = ("amsgrad", "maximize", "capturable", "differentiable")
    hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    return bool(group.get("fused")) and not hooks and not any(group.get(name) for name in rarer)


Update = Callable[[dict[str, Any], list[Tensor], list[Tensor], dict[str, list[Tensor]]], None]
"""Moves parameters by their gradients, given the optimizer's settings and its state by name."""


class _FusedStep:
    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        state_names: tuple[str, ...],
        update: Update,
    ) -> None:
        self.optimizer = optimizer
        self.parameters: list[Tensor] = optimizer.param_groups[0]["params"]
        self.state_names = state_names
        self.update = update
        self.state: dict[str, list[Tensor]] | None = None

    @torch.no_grad()
    def __call__(self) -> None:
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if self.state is None or len(gradients) != len(self.parameters):
            # The first step makes the state; a parameter without gradient is to be passed over.
            self.optimizer.step()
            self.state = self._collect()
            return
        self.update(self.optimizer.param_groups[0], self.parameters, gradients, self.state)

    def _collect(self) -> dict[str, list[Tensor]] | None:
        # get(), since asking optimizer.state for what it has not makes an entry.
        entries = [self.optimizer.state.get(parameter, {}) for parameter in self.parameters]
        if any(entry.get(name) is None for entry in entries for name in self.state_names):
            return None
        return {name: [entry[name] for entry in entries] for name in self.state_names}


def _adam(
    group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor], state: dict[str, list[Tensor]]
) -> None:
    _adam_update(adam, group, parameters, gradients, state)


def _adamw(
    group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor], state: dict[str, list[Tensor]]
) -> None:
    _adam_update(adamw, group, parameters, gradients, state)


def _adam_update(
    function: Callable[..., None],
    group: dict[str, Any],
    parameters: list[Tensor],
    gradients: list[Tensor],
    state: dict[str, list[Tensor]],
) -> None:
    beta1, beta2 = group["betas"]
    function(
        parameters,
        gradients,
        state["exp_avg"],
        state["exp_avg_sq"],
        [],
        state["step"],
        fused=True,
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


def _sgd(
    group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor], state: dict[str, list[Tensor]]
) -> None:
    momenta: list[Tensor | None] = [*state["momentum_buffer"]]
    sgd(
        parameters,
        gradients,
        momenta,
        fused=True,
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        lr=group["lr"],
        dampening=group["dampening"],
        nesterov=group["nesterov"],
        maximize=False,
    )


FUSED: dict[type[torch.optim.Optimizer], tuple[tuple[str, ...], Update]] = {
    torch.optim.Adam: (("exp_avg", "exp_avg_sq", "step"), _adam),
    torch.optim.AdamW: (("exp_avg", "exp_avg_sq", "step"), _adamw),
    torch.optim.SGD: (("momentum_buffer",), _sgd),
}
