"""GenreClassifier as somebody might edit it. The engine trains each of them as autograd does, or refuses it."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from genre_classifier.network import GenreClassifier


class ByAutograd(GenreClassifier):
    """Computes what GenreClassifier does, in a way that the engine does not know."""

    def forward(self, features: Tensor) -> Tensor:
        return self.network(features) * 1.0


class Same(GenreClassifier):
    """Another class, but the same layers."""

    def forward(self, features: Tensor) -> Tensor:
        hidden = features
        for layer in self.network:
            hidden = layer(hidden)
        return hidden


class Nested(GenreClassifier):
    """The same layers in a container of its own."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.network = nn.Sequential(self.network[:3], nn.Identity(), self.network[3:])


class InPlace(GenreClassifier):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        for layer in self.network:
            if isinstance(layer, nn.ReLU):
                layer.inplace = True


class WithoutBias(GenreClassifier):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        first = self.network[0]
        self.network[0] = nn.Linear(first.in_features, first.out_features, bias=False)


class WithoutReLU(GenreClassifier):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.network[-2] = nn.Identity()


class OtherDropouts(GenreClassifier):
    """Dropout after each hidden layer, with probabilities of their own."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        for number, layer in enumerate(self.network):
            if isinstance(layer, nn.Dropout):
                layer.p = 0.1 * (number + 1) if self.dropout else 0.0
        self.network.insert(len(self.network) - 1, nn.Dropout(self.dropout))


TAKEN = [GenreClassifier, Same, Nested, InPlace, WithoutBias, WithoutReLU, OtherDropouts]


def edit(change: str, network: GenreClassifier) -> nn.Module:
    """Return the network after a change by its name (see `REFUSED`)."""
    layers = network.network
    match change:
        case "GELU":
            layers[1] = nn.GELU()
        case "LeakyReLU":
            layers[1] = nn.LeakyReLU()
        case "LayerNorm":
            layers[2] = nn.LayerNorm(layers[0].out_features)
        case "BatchNorm":
            layers.insert(1, nn.BatchNorm1d(layers[0].out_features))
        case "AlphaDropout":
            layers[2] = nn.AlphaDropout(0.3)
        case "softmax at the end":
            layers.append(nn.Softmax(dim=-1))
        case "ReLU at the end":
            layers.append(nn.ReLU())
        case "dropout at the start":
            layers.insert(0, nn.Dropout(0.3))
        case "dropout before ReLU":
            layers[1], layers[2] = layers[2], layers[1]
        case "rare dropout":
            layers[2].p = 1e-4
        case "frozen":
            layers[0].weight.requires_grad_(False)
        case "shared weights":
            layers[3].weight = nn.Parameter(torch.zeros(9, 9))
            layers.insert(4, layers[3])
        case "unused parameter":
            network.temperature = nn.Parameter(torch.ones(1))
        case "weight norm":
            weight_norm(layers[0])
        case "forward hook":
            layers[3].register_forward_hook(lambda module, inputs, output: output * 2)
        case "forward hook of the network":
            network.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
        case "backward hook":
            layers[3].register_full_backward_hook(lambda module, gradient, _: gradient)
        case "gradient hook":
            layers[0].bias.register_hook(lambda gradient: gradient * 2)
        case "accumulation hook":
            layers[0].bias.register_post_accumulate_grad_hook(lambda parameter: None)
        case "forward replaced":
            layers[0].forward = lambda features: features[:, :1]
        case "subclass of Linear":
            layers[0] = ScaledLinear(layers[0].in_features, layers[0].out_features)
        case "half precision":
            network.bfloat16()
        case "evaluation mode":
            layers[2].eval()
        case _:
            return globals()[change](**network.get_config()).train()
    return network


class ScaledLinear(nn.Linear):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) * 2


class ClippedInput(GenreClassifier):
    def forward(self, features: Tensor) -> Tensor:
        return self.network(features.clamp(-3, 3))


class Functional(GenreClassifier):
    def forward(self, features: Tensor) -> Tensor:
        return functional.dropout(self.network(features), 0.1, self.training)


class Residual(GenreClassifier):
    def forward(self, features: Tensor) -> Tensor:
        hidden = self.network[0](features)
        hidden = hidden + self.network[1](hidden)
        for layer in list(self.network)[2:]:
            hidden = layer(hidden)
        return hidden


class Branch(GenreClassifier):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.skip = nn.Linear(self.input_dim, self.num_classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.network(features) + self.skip(features)


class OtherOrder(GenreClassifier):
    def forward(self, features: Tensor) -> Tensor:
        hidden = self.network[2](features)
        for number, layer in enumerate(self.network):
            hidden = layer(hidden) if number != 2 else hidden
        return hidden


class SkippedInEvaluation(GenreClassifier):
    def forward(self, features: Tensor) -> Tensor:
        hidden = features
        for number, layer in enumerate(self.network):
            hidden = layer(hidden) if self.training or number != 1 else hidden
        return hidden


class MaxNorm(GenreClassifier):
    def forward(self, features: Tensor) -> Tensor:
        with torch.no_grad():
            self.network[0].weight.clamp_(-0.1, 0.1)
        return self.network(features)


class DataDependent(GenreClassifier):
    def forward(self, features: Tensor) -> Tensor:
        return self.network(features if features.sum() > 0 else -features)


class RandomDepth(GenreClassifier):
    def forward(self, features: Tensor) -> Tensor:
        logits = self.network(features)
        return logits if random.random() < 2 else -logits


class RandomDepthByTorch(GenreClassifier):
    def forward(self, features: Tensor) -> Tensor:
        logits = self.network(features)
        return logits if torch.rand(()) < 2 else -logits


class OtherCall(GenreClassifier):
    def __call__(self, features: Tensor) -> Tensor:
        return super().__call__(features) * 2


REFUSED = {
    "GELU": "network.1 is a GELU",
    "LeakyReLU": "network.1 is a LeakyReLU",
    "LayerNorm": "network.2 is a LayerNorm",
    "BatchNorm": "network.1 is a BatchNorm1d",
    "AlphaDropout": "network.2 is a AlphaDropout",
    "softmax at the end": "network.9 is a Softmax",
    "ReLU at the end": "its last linear layer is followed by another layer",
    "dropout at the start": "network.0 is a Dropout in an unexpected place",
    "dropout before ReLU": "network.1 is a Dropout in an unexpected place",
    "rare dropout": "network.2 drops with probability 0.0001",
    "frozen": "network.0.weight is frozen",
    "shared weights": "layers share weights",
    "unused parameter": "temperature is a parameter outside of the chain of layers",
    "weight norm": "network.0 is a ParametrizedLinear",
    "forward hook": "network.3 has a forward hook",
    "forward hook of the network": "GenreClassifier has a forward hook",
    "backward hook": "network.3 has a backward hook",
    "gradient hook": "network.0.bias has a gradient hook",
    "accumulation hook": "network.0.bias has a gradient hook",
    "forward replaced": "network.0 has another forward than its class",
    "subclass of Linear": "network.0 is a ScaledLinear",
    "half precision": "network.0.weight is in bfloat16",
    "evaluation mode": "network.2 is in evaluation mode",
    "ClippedInput": "no chain of layers .*clamp",
    "Functional": "no chain of layers .*dropout",
    "Residual": "no chain of layers .*add",
    "Branch": "no chain of layers",
    "OtherOrder": "network.2 is a Dropout in an unexpected place",
    "SkippedInEvaluation": "differs between training and evaluation",
    "MaxNorm": "no chain of layers",
    "DataDependent": "cannot be recorded",
    "RandomDepth": "draws random numbers outside of dropout",
    "RandomDepthByTorch": "draws random numbers outside of dropout",
    "OtherCall": "OtherCall has another forward than its class",
    "ByAutograd": "no chain of layers .*mul",
}
