"""GenreClassifier: a small fully connected network from audio features to genres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn


class GenreClassifier(nn.Module):
    """Fully connected classifier: hidden layers with ReLU, dropout after every hidden layer but the last.

    The layers are one ``nn.Sequential`` named ``network``; with the default arguments the state-dict keys are
    ``network.0``, ``network.3``, ``network.6`` and ``network.8``, each with ``.weight`` and ``.bias``.

    Parameters
    ----------
    input_dim : int
        Number of features per row.
    hidden_dims : Sequence[int]
        Width of each hidden layer. An empty sequence gives a linear model.
    num_classes : int
        Number of genres.
    dropout : float
        Probability of zeroing a hidden activation while training, in [0, 1).

    Raises
    ------
    ValueError
        An argument is out of its range.

    Examples
    --------
    >>> model = GenreClassifier(input_dim=20, num_classes=8)
    >>> sum(p.numel() for p in model.parameters())
    13288
    >>> model(torch.zeros(3, 20)).shape
    torch.Size([3, 8])
    """

    def __init__(
        self,
        input_dim: int = 20,
        hidden_dims: Sequence[int] = (128, 64, 32),
        num_classes: int = 8,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        widths = [int(width) for width in hidden_dims]
        if input_dim < 1:
            raise ValueError(f"input_dim={input_dim}: expected at least one feature")
        if min(widths, default=1) < 1:
            raise ValueError(f"hidden_dims={list(hidden_dims)}: expected positive widths")
        if num_classes < 2:
            raise ValueError(f"num_classes={num_classes}: expected at least two genres")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout={dropout}: expected a probability in [0, 1)")
        self.input_dim = int(input_dim)
        self.hidden_dims = tuple(widths)
        self.num_classes = int(num_classes)
        self.dropout = float(dropout)

        layers: list[nn.Module] = []
        fan_in = self.input_dim
        for position, width in enumerate(widths):
            layers += [nn.Linear(fan_in, width), nn.ReLU()]
            if position < len(widths) - 1:
                layers.append(nn.Dropout(self.dropout))
            fan_in = width
        layers.append(nn.Linear(fan_in, self.num_classes))
        self.network = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (row, genre) for standardised features (row, feature)."""
        return self.network(features)

    @torch.no_grad()
    def predict_proba(self, features: Tensor) -> Tensor:
        """Return probabilities (row, genre). Dropout is off during the call, also in training mode."""
        was_training = self.training
        self.eval()
        try:
            return torch.softmax(self(features), dim=-1)
        finally:
            self.train(was_training)

    def predict(self, features: Tensor) -> Tensor:
        """Return the index of the most probable genre of each row, shape (row,)."""
        return self.predict_proba(features).argmax(dim=-1)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as built-in Python types."""
        return {
            "input_dim": self.input_dim,
            "hidden_dims": list(self.hidden_dims),
            "num_classes": self.num_classes,
            "dropout": self.dropout,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return a network with new weights from the arguments that :meth:`get_config` returned."""
        return cls(**config)


if __name__ == "__main__":
    from genre_classifier.terminal import say

    example = GenreClassifier()
    say(*str(example).splitlines(), f"{sum(p.numel() for p in example.parameters()):,} parameters")
