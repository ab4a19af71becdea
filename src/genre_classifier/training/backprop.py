"""Forward and backward through GenreClassifier's layers without autograd, which costs as much as their arithmetic.

The operations are those that autograd would call, in its order, so the gradients are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from genre_classifier.network import Dropout, GenreClassifier, dropout_noise

NetworkPass = Callable[[Tensor], tuple[Tensor, Callable[[Tensor], None]]]
"""From features to detached logits, and to the function that takes their gradient and leaves the parameters theirs."""


def autograd_pass(network: nn.Module) -> NetworkPass:
    """Return the pass through any network."""

    def run(features: Tensor) -> tuple[Tensor, Callable[[Tensor], None]]:
        logits: Tensor = network(features)
        return logits.detach(), lambda gradient: logits.backward(gradient.to(logits.dtype))

    return run


def explicit_pass(network: nn.Module) -> NetworkPass | None:
    """Return the pass through a GenreClassifier in training mode on the CPU, or None where there is more to it.

    That is where a layer is of another kind, has a hook, does not train, or leaves its dropout to torch.
    """
    if type(network) is not GenreClassifier:
        return None
    layers = list(network.network)
    if any(_has_hooks(module) for module in network.modules()) or not all(map(_is_plain, layers)):
        return None
    return partial(_forward, layers)


def _is_plain(layer: nn.Module) -> bool:
    parameters = list(layer.parameters())
    if any(p.device.type != "cpu" or not p.requires_grad or _has_hooks(p) for p in parameters):
        return False
    if type(layer) is Dropout:
        return layer.p == 0.0 or layer.is_fine
    return type(layer) in {nn.Linear, nn.ReLU} and all(p.dtype in _WHOLE_PRECISION for p in parameters)


_WHOLE_PRECISION = {torch.float32, torch.float64}
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_post_accumulate_grad_hooks",
)


def _has_hooks(owner: nn.Module | nn.Parameter) -> bool:
    return any(getattr(owner, name, None) for name in _HOOKS)


@torch.no_grad()
def _forward(layers: list[nn.Module], features: Tensor) -> tuple[Tensor, Callable[[Tensor], None]]:
    value = features
    saved: list[tuple[nn.Module, Tensor]] = []
    for layer in layers:
        if isinstance(layer, nn.Linear):
            saved.append((layer, value))
            value = functional.linear(value, layer.weight, layer.bias)
        elif isinstance(layer, nn.ReLU):
            value = torch.relu(value)
            saved.append((layer, value))
        elif isinstance(layer, Dropout) and layer.p > 0.0:
            noise = dropout_noise(value.shape, layer.p, value.dtype)
            saved.append((layer, noise))
            value = value * noise
    return value, partial(_backward, saved)


@torch.no_grad()
def _backward(saved: list[tuple[nn.Module, Tensor]], gradient: Tensor) -> None:
    first = saved[0][0]
    for layer, value in reversed(saved):
        if isinstance(layer, nn.Linear):
            _accumulate(layer.weight, gradient.t() @ value)
            _accumulate(layer.bias, gradient.sum(0))
            if layer is not first:
                gradient = gradient @ layer.weight
        elif isinstance(layer, nn.ReLU):
            gradient = _relu_backward(gradient, value, 0)
        else:
            gradient = gradient * value


_relu_backward: Callable[..., Any] = torch.ops.aten.threshold_backward.default


def _accumulate(parameter: Tensor, gradient: Tensor) -> None:
    if parameter.grad is None:
        parameter.grad = gradient
    else:
        parameter.grad += gradient
