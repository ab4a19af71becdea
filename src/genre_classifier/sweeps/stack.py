"""Many networks of one shape, trained side by side: the member axis is always axis 0.

A stack is made from GenreClassifiers. Their parameters become views of one tensor ``(member, parameter)``, so each
network holds its current weights at any time, and one batched matrix product does a layer of all of them. The gradient
of such a chain of linear layers, ReLU and dropout is written out: a stack needs no graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genre_classifier.network import Dropout, GenreClassifier, dropout_threshold, random_bits


@dataclass(frozen=True, eq=False)
class Layer:
    """One linear layer of all members.

    Parameters
    ----------
    weight : Tensor [shape=(member, output, input)]
    bias : Tensor [shape=(member, 1, output)]
    weight_gradient, bias_gradient : Tensor
        Of the same shapes; the bias's without its middle axis.
    dropout : bool
        Whether dropout follows.
    """

    weight: Tensor
    bias: Tensor
    weight_gradient: Tensor
    bias_gradient: Tensor
    dropout: bool


class Stack:
    """The parameters of several networks of one shape, their gradients, and the passes forward and backward.

    Parameters
    ----------
    networks : sequence of GenreClassifier
        Of the same widths; dropout may differ. Their parameters become views of the stack's.
    device : torch.device

    Attributes
    ----------
    parameters, gradients : Tensor [shape=(member, parameter)]
    """

    def __init__(self, networks: Sequence[GenreClassifier], device: torch.device | str = "cpu") -> None:
        self.networks = list(networks)
        shapes = {tuple(p.shape for p in network.parameters()) for network in networks}
        if len(shapes) != 1:
            raise ValueError(f"the networks have {len(shapes)} different shapes; a stack takes one")
        self.device = torch.device(device)
        self._adopt(torch.stack([_flat(network) for network in networks]).to(self.device))

    def __len__(self) -> int:
        return len(self.networks)

    def keep(self, members: Sequence[int]) -> None:
        """Go on with some members only; the other networks keep their weights as they are."""
        left = set(range(len(self))) - set(members)
        for member in left:
            for parameter in self.networks[member].parameters():
                parameter.data = parameter.data.clone()
        self.networks = [self.networks[member] for member in members]
        self._adopt(self.parameters[list(members)].clone())

    def _adopt(self, parameters: Tensor) -> None:
        self.parameters = parameters  # (member, parameter)
        self.gradients = torch.zeros_like(parameters)
        for member, network in enumerate(self.networks):
            start = 0
            for parameter in network.parameters():
                end = start + parameter.numel()
                parameter.data = parameters[member, start:end].view(parameter.shape)
                start = end
        self.layers = list(self._layers())
        self._drops = any(network.dropout > 0 for network in self.networks)
        thresholds, scales = zip(
            *(dropout_threshold(network.dropout) for network in self.networks), strict=True
        )
        self._threshold = torch.tensor(thresholds, dtype=torch.int16, device=self.device).view(-1, 1, 1)
        self._scale = torch.tensor(scales, device=self.device).view(-1, 1, 1)

    def _layers(self) -> list[Layer]:
        found: list[Layer] = []
        modules = list(self.networks[0].network)
        start = 0
        for position, module in enumerate(modules):
            if not isinstance(module, nn.Linear):
                continue
            n_weights, n_biases = module.weight.numel(), module.bias.numel()
            middle, end = start + n_weights, start + n_weights + n_biases
            shape = (len(self), module.out_features, module.in_features)
            found.append(
                Layer(
                    weight=self.parameters[:, start:middle].view(shape),
                    bias=self.parameters[:, middle:end].view(len(self), 1, module.out_features),
                    weight_gradient=self.gradients[:, start:middle].view(shape),
                    bias_gradient=self.gradients[:, middle:end],
                    dropout=any(isinstance(m, Dropout) for m in modules[position + 1 : position + 3]),
                )
            )
            start = end
        return found

    def logits(self, features: Tensor, members: slice | Sequence[int] = slice(None)) -> Tensor:
        """Return logits (member, row, genre) in evaluation mode.

        Parameters
        ----------
        features : Tensor [shape=(member, row, feature)] or [shape=(row, feature)], which all members share
        members : slice or sequence of int
            Those that are asked.
        """
        hidden = features
        for number, layer in enumerate(self.layers):
            weight, bias = layer.weight[members], layer.bias[members]
            if hidden.dim() == 2:
                hidden = hidden.expand(len(weight), -1, -1)
            hidden = torch.baddbmm(bias, hidden, weight.transpose(1, 2))
            if number < len(self.layers) - 1:
                hidden = hidden.relu_()
        return hidden

    def forward(self, features: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return logits (member, row, genre) in training mode, and each layer's input, which `backward` needs.

        Parameters
        ----------
        features : Tensor [shape=(member, row, feature)]
        """
        inputs = [features]
        hidden = features
        for layer in self.layers[:-1]:
            hidden = torch.baddbmm(layer.bias, hidden, layer.weight.transpose(1, 2)).relu_()
            if layer.dropout and self._drops:
                hidden = hidden.mul_(self._noise(hidden.shape))
            inputs.append(hidden)
        last = self.layers[-1]
        return torch.baddbmm(last.bias, hidden, last.weight.transpose(1, 2)), inputs

    def backward(self, gradient: Tensor, inputs: list[Tensor]) -> None:
        """Set the gradients of all parameters.

        Parameters
        ----------
        gradient : Tensor [shape=(member, row, genre)]
            Of the loss with respect to the logits.
        inputs : list of Tensor
            From `forward`.
        """
        for number in range(len(self.layers) - 1, -1, -1):
            layer, features = self.layers[number], inputs[number]
            torch.bmm(gradient.transpose(1, 2), features, out=layer.weight_gradient)
            torch.sum(gradient, dim=1, out=layer.bias_gradient)
            if number == 0:
                return
            gradient = torch.bmm(gradient, layer.weight)
            # Where an activation is 0, ReLU or dropout made it so: both let no gradient through.
            gradient = torch.ops.aten.threshold_backward(gradient, features, 0)
            if self.layers[number - 1].dropout and self._drops:
                gradient.mul_(self._scale)

    def _noise(self, shape: torch.Size) -> Tensor:
        """Return 0 with each member's dropout probability and else the scale that makes up for it."""
        return random_bits(shape, self.device).ge(self._threshold) * self._scale

    def clip(self, by_norm: Tensor | None, by_value: Tensor | None) -> None:
        """Clip each member's gradients.

        Parameters
        ----------
        by_norm, by_value : Tensor [shape=(member, 1)], optional
            Infinity leaves a member's as they are.
        """
        if by_norm is not None:
            norms = torch.linalg.vector_norm(self.gradients, dim=1, keepdim=True)
            self.gradients.mul_((by_norm / (norms + 1e-6)).clamp_(max=1.0))
        if by_value is not None:
            torch.clamp(self.gradients, min=-by_value, max=by_value, out=self.gradients)


def _flat(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
