"""The weights of several networks as one tensor, and the passes forward and backward through all of them.

Each network's parameters become views of its row, so a network holds its current weights at any time. One batched
matrix product computes a layer of all networks. The gradients are written out: a stack needs no autograd.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genre_classifier.training.engine.layers import Block, list_parameters, read_blocks
from genre_classifier.training.engine.noise import compute_dropout_threshold


@dataclass(frozen=True, eq=False)
class Layer:
    """One linear layer of all members, with the activation and dropout that follow it.

    Parameters
    ----------
    weight, weight_gradient : Tensor [shape=(member, output, input)]
    bias : Tensor [shape=(member, 1, output)] or None
    bias_gradient : Tensor [shape=(member, output)] or None
    relu : bool
    scale : Tensor [shape=(member, 1, 1)] or None
        Dropout multiplies the activations that it keeps by this; None without dropout.
    """

    weight: Tensor
    weight_gradient: Tensor
    bias: Tensor | None
    bias_gradient: Tensor | None
    relu: bool
    scale: Tensor | None

    def apply(self, inputs: Tensor, members: slice | Sequence[int] = slice(None)) -> Tensor:
        """Return the layer's values before dropout, (member, row, output), of some members."""
        weight = self.weight[members]
        bias = None if self.bias is None else self.bias[members]
        if self.relu:
            return _multiply(inputs, weight.transpose(1, 2), bias).relu_()
        # The last layer. Logits are stored genre by genre: a softmax over a few values in a row takes 20 times as long.
        bias = None if bias is None else bias.transpose(1, 2)
        return _multiply(weight, inputs.transpose(1, 2), bias).transpose(1, 2)


def _multiply(first: Tensor, second: Tensor, bias: Tensor | None) -> Tensor:
    return torch.bmm(first, second) if bias is None else torch.baddbmm(bias, first, second)


class Stack:
    """Parameters, gradients and passes of several networks.

    Parameters
    ----------
    networks : sequence of nn.Module
        Of one shape (see `read_blocks`). Their dropout may differ. Their parameters become views of the stack's.
    device : torch.device

    Attributes
    ----------
    parameters, gradients : Tensor [shape=(member, parameter)]
    blocks : list of list of Block
        By member, then by layer.

    Raises
    ------
    RefusedError
        A network has something that the engine does not know.
    ValueError
        The networks have several shapes.
    """

    def __init__(self, networks: Sequence[nn.Module], device: torch.device | str = "cpu") -> None:
        self.networks = list(networks)
        self.blocks = [read_blocks(network) for network in networks]
        shapes = {tuple(_describe_shape(block) for block in blocks) for blocks in self.blocks}
        if len(shapes) != 1:
            raise ValueError(f"the networks have {len(shapes)} different shapes; a stack takes one")
        self._adopt(torch.stack([_flatten_parameters(blocks) for blocks in self.blocks]).to(device))

    def __len__(self) -> int:
        return len(self.networks)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.parameters.device

    @property
    def drops(self) -> bool:
        """Whether any member has dropout."""
        return any(block.dropout > 0.0 for blocks in self.blocks for block in blocks)

    def keep(self, members: Sequence[int]) -> None:
        """Keep some members only. The weights of the other networks do not change any more."""
        for member in set(range(len(self))) - set(members):
            for parameter in self.networks[member].parameters():
                parameter.data = parameter.data.clone()
        self.networks = [self.networks[member] for member in members]
        self.blocks = [self.blocks[member] for member in members]
        self._adopt(self.parameters[list(members)].clone())

    def _adopt(self, parameters: Tensor) -> None:
        self.parameters = parameters  # (member, parameter)
        self.gradients = torch.zeros_like(parameters)
        for member, blocks in enumerate(self.blocks):
            start = 0
            for parameter in list_parameters(blocks):
                end = start + parameter.numel()
                parameter.data = parameters[member, start:end].view(parameter.shape)
                start = end
        self.layers = self._build_layers()

    def _build_layers(self) -> list[Layer]:
        found: list[Layer] = []
        start = 0
        for number, block in enumerate(self.blocks[0]):
            linear = block.linear
            middle = start + linear.weight.numel()
            end = middle + (0 if linear.bias is None else linear.bias.numel())
            weight = self.parameters[:, start:middle].view(len(self), *linear.weight.shape)
            biased = linear.bias is not None
            found.append(
                Layer(
                    weight=weight,
                    weight_gradient=self.gradients[:, start:middle].view_as(weight),
                    bias=self.parameters[:, None, middle:end] if biased else None,
                    bias_gradient=self.gradients[:, middle:end] if biased else None,
                    relu=block.relu,
                    scale=self._build_scale(number),
                )
            )
            start = end
        return found

    def _build_scale(self, number: int) -> Tensor | None:
        probabilities = [blocks[number].dropout for blocks in self.blocks]
        if not any(probabilities):
            return None
        scales = [compute_dropout_threshold(p)[1] for p in probabilities]
        return self.parameters.new_tensor(scales)[:, None, None]

    def logits(self, features: Tensor, members: slice | Sequence[int] = slice(None)) -> Tensor:
        """Return logits (member, row, genre) in evaluation mode.

        Parameters
        ----------
        features : Tensor [shape=(row, feature)]
            All members share them.
        members : slice or sequence of int
            The members to compute.
        """
        n_members = len(self.layers[0].weight[members])
        hidden = features.expand(n_members, -1, -1)  # (member, row, feature)
        for layer in self.layers:
            hidden = layer.apply(hidden, members)
        return hidden

    def forward(self, features: Tensor, noise: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return logits (member, row, genre) in training mode, and each layer's input, which `backward` needs.

        Parameters
        ----------
        features : Tensor [shape=(member, row, feature)]
        noise : sequence of Tensor [shape=(member, row, width)]
            The factors of dropout, for each layer that has it.
        """
        factors = iter(noise)
        inputs, hidden = [], features
        for layer in self.layers:
            inputs.append(hidden)
            hidden = layer.apply(hidden)  # (member, row, output)
            if layer.scale is not None:
                hidden.mul_(next(factors))
        return hidden, inputs

    def backward(self, gradient: Tensor, inputs: Sequence[Tensor]) -> None:
        """Set the gradients of all parameters.

        Parameters
        ----------
        gradient : Tensor [shape=(member, row, genre)]
            Of the loss with respect to the logits.
        inputs : sequence of Tensor
            From `forward`.
        """
        for number in range(len(self.layers) - 1, -1, -1):
            layer = self.layers[number]
            torch.bmm(gradient.transpose(1, 2), inputs[number], out=layer.weight_gradient)
            if layer.bias_gradient is not None:
                torch.sum(gradient, dim=1, out=layer.bias_gradient)
            if number == 0:
                return
            before = self.layers[number - 1]
            gradient = torch.bmm(gradient, layer.weight)  # (member, row, input)
            if before.relu:
                # If an activation is 0, ReLU or dropout has set it. Neither lets a gradient through.
                torch.ops.aten.threshold_backward.grad_input(gradient, inputs[number], 0, grad_input=gradient)
            if before.scale is not None:
                gradient.mul_(before.scale)


def _describe_shape(block: Block) -> tuple[object, ...]:
    return block.linear.weight.shape, block.linear.bias is None, block.relu


def _flatten_parameters(blocks: Sequence[Block]) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in list_parameters(blocks)])
