"""Read a network's layers. Refuse a network that the engine would not train as autograd does.

The engine computes gradients by hand, so it must know each operation of a forward pass. torch.fx records the forward
pass itself: the recording contains every function, branch or layer that somebody adds to a network.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn.modules import module as torch_module

PRECISIONS = (torch.float32, torch.float64)
DEVICES = ("cpu", "cuda")
# Dropout draws 16 bits per activation. They miss a probability below this, or above its complement, by over 0.2 %.
FINEST_DROPOUT = 2**-8
_HOOKS = {
    "_forward_hooks": "a forward hook",
    "_forward_pre_hooks": "a forward hook",
    "_backward_hooks": "a backward hook",
    "_backward_pre_hooks": "a backward hook",
    "_post_accumulate_grad_hooks": "a gradient hook",
}


class RefusedError(ValueError):
    """The engine does not train this network. The message names the unsupported part."""


@dataclass(frozen=True, eq=False)
class Block:
    """A linear layer, with the activation and dropout that follow it.

    Parameters
    ----------
    linear : nn.Linear
    relu : bool
    dropout : float
        Its probability; 0 if there is none.
    """

    linear: nn.Linear
    relu: bool = False
    dropout: float = 0.0


def find_refusal(network: nn.Module) -> str | None:
    """Return the reason why the engine refuses a network; None if it takes the network."""
    try:
        read_blocks(network)
    except RefusedError as error:
        return str(error)
    return None


def read_blocks(network: nn.Module) -> list[Block]:
    """Return a network's linear layers in the order of its forward pass, each with the ReLU and dropout after it.

    Parameters
    ----------
    network : nn.Module
        In training mode. Its forward pass is recorded, without data.

    Raises
    ------
    RefusedError
        The network has a layer, function, hook, parameter or precision that the engine does not know.
    """
    _check_modules(network)
    layers = record_layers(network, training=True)
    if layers != record_layers(network, training=False):
        raise RefusedError("its forward pass differs between training and evaluation")
    modules = dict(network.named_modules())
    blocks: list[Block] = []
    for name in layers:
        layer = modules[name]
        if type(layer) is nn.Linear:
            blocks.append(Block(layer))
        elif type(layer) is nn.ReLU and blocks and not blocks[-1].relu:
            blocks[-1] = Block(blocks[-1].linear, relu=True)
        elif type(layer) is nn.Dropout and blocks and blocks[-1].relu and blocks[-1].dropout == 0.0:
            _check_probability(name, layer.p)
            blocks[-1] = Block(blocks[-1].linear, relu=True, dropout=layer.p)
        elif type(layer) is nn.Identity:
            continue
        elif type(layer) in (nn.ReLU, nn.Dropout):
            raise RefusedError(f"{name} is a {type(layer).__name__} in an unexpected place")
        else:
            raise RefusedError(f"{name} is a {type(layer).__name__}")
    if not blocks:
        raise RefusedError("it has no linear layer")
    if blocks[-1].relu:
        raise RefusedError("its last linear layer is followed by another layer")
    _check_parameters(network, blocks)
    return blocks


def list_parameters(blocks: Sequence[Block]) -> list[nn.Parameter]:
    """Return the parameters in the order of the layers, each layer's weight before its bias."""
    return [
        parameter
        for block in blocks
        for parameter in (block.linear.weight, block.linear.bias)
        if isinstance(parameter, nn.Parameter)
    ]


def _check_modules(network: nn.Module) -> None:
    if torch_module._has_any_global_hook():
        raise RefusedError("a hook is registered for all modules")
    for name, module in network.named_modules():
        where = name or type(network).__name__
        for attribute, what in _HOOKS.items():
            if getattr(module, attribute, None):
                raise RefusedError(f"{where} has {what}")
        if "forward" in vars(module) or type(module).__call__ is not nn.Module.__call__:
            raise RefusedError(f"{where} has another forward than its class")
        if not module.training:
            raise RefusedError(f"{where} is in evaluation mode")


class _Recorder(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        known = isinstance(module, (nn.Linear, nn.ReLU, nn.Dropout))
        return known or super().is_leaf_module(module, qualified_name)


def record_layers(network: nn.Module, *, training: bool) -> list[str]:
    """Return the names of the layers that a row passes, one after the other.

    Parameters
    ----------
    network : nn.Module
    training : bool
        Whether to record the forward pass of training or that of evaluation. No data is needed.

    Raises
    ------
    RefusedError
        The forward pass is no chain of layers.
    """
    state, torch_state = random.getstate(), torch.get_rng_state()
    try:
        with _in_mode(network, training=training):
            nodes = list(_Recorder().trace(network).nodes)
    except Exception as error:
        raise RefusedError(
            f"its forward pass cannot be recorded ({type(error).__name__}: {error})"
        ) from error
    if random.getstate() != state or not torch.equal(torch.get_rng_state(), torch_state):
        raise RefusedError("its forward pass draws random numbers outside of dropout")
    layers: list[str] = []
    for before, node in zip([None, *nodes], nodes, strict=False):
        is_expected = (
            (node.op == "placeholder" and before is None and not node.args)
            or (node.op == "call_module" and node.args == (before,) and not node.kwargs)
            or (node.op == "output" and node.args == (before,) and node is nodes[-1])
        )
        if not is_expected:
            raise RefusedError(f"its forward pass is no chain of layers ({node.format_node()})")
        if node.op == "call_module":
            layers.append(str(node.target))
    return layers


@contextmanager
def _in_mode(network: nn.Module, *, training: bool) -> Iterator[None]:
    before = [(module, module.training) for module in network.modules()]
    try:
        for module, _ in before:
            module.training = training
        yield
    finally:
        for module, was_training in before:
            module.training = was_training


def _check_probability(name: str, p: float) -> None:
    if not (p == 0.0 or FINEST_DROPOUT <= p <= 1.0 - FINEST_DROPOUT):
        raise RefusedError(f"{name} drops with probability {p}, which 16 random bits miss")


def _check_parameters(network: nn.Module, blocks: list[Block]) -> None:
    chained = list_parameters(blocks)
    if len({id(parameter) for parameter in chained}) != len(chained):
        raise RefusedError("layers share weights")
    known = {id(parameter) for parameter in chained}
    for name, parameter in network.named_parameters():
        if id(parameter) not in known:
            raise RefusedError(f"{name} is a parameter outside of the chain of layers")
        if not parameter.requires_grad:
            raise RefusedError(f"{name} is frozen")
        if any(getattr(parameter, attribute, None) for attribute in _HOOKS):
            raise RefusedError(f"{name} has a gradient hook")
        if type(parameter) is not nn.Parameter or parameter.layout is not torch.strided:
            raise RefusedError(f"{name} is no ordinary parameter")
        if parameter.dtype not in PRECISIONS:
            raise RefusedError(f"{name} is in {str(parameter.dtype).removeprefix('torch.')}")
        if parameter.device.type not in DEVICES:
            raise RefusedError(f"{name} is on the device {parameter.device.type}")
    if len({(parameter.dtype, parameter.device) for parameter in chained}) != 1:
        raise RefusedError("its parameters have several precisions or devices")
