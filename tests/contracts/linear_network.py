"""A network of somebody else's, to be chosen by its path."""

from typing import Any

from torch import Tensor, nn


class LinearNetwork(nn.Module):
    def __init__(self, input_dim: int, num_classes: int, hidden_dims: list[int], dropout: float) -> None:
        super().__init__()
        self.config = {
            "input_dim": input_dim,
            "num_classes": num_classes,
            "hidden_dims": hidden_dims,
            "dropout": dropout,
        }
        self.layers = nn.Sequential(nn.Dropout(dropout), nn.Linear(input_dim, num_classes))

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.layers(features)
        return logits

    def get_config(self) -> dict[str, Any]:
        return self.config
