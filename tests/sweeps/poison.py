"""Networks that go wrong in their own ways, for a sweep over them."""

from __future__ import annotations

import os
import signal

import torch
from torch import Tensor

from genre_classifier.network import GenreClassifier


class Killed(GenreClassifier):
    """Its process dies as one does that the system kills."""

    def forward(self, x: Tensor) -> Tensor:
        """Die."""
        os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


class Diverging(GenreClassifier):
    """Its logits are NaN."""

    def forward(self, x: Tensor) -> Tensor:
        """Return NaN."""
        return super().forward(x) * float("nan")


class OutOfMemory(GenreClassifier):
    """It asks for more memory than there is."""

    def forward(self, x: Tensor) -> Tensor:
        """Ask for four exbibytes."""
        return super().forward(x) + torch.empty(1 << 60).sum()


class Refusing(GenreClassifier):
    """It takes no arguments."""

    def __init__(self, **arguments: object) -> None:
        raise ValueError(f"hidden_dims={arguments['hidden_dims']} is not to my taste")


class Terminated(GenreClassifier):
    """Its process is asked to stop while it trains."""

    def forward(self, x: Tensor) -> Tensor:
        """Ask."""
        if (
            self.training and float(x.abs().sum()) >= 0
        ):  # which no recording of the pass can answer: autograd trains
            os.kill(os.getpid(), signal.SIGTERM)
        return super().forward(x)
