"""The libraries of every trial. The server of the trials' processes imports this module once, before it forks."""

from __future__ import annotations

from genre_classifier.machine.imports import importing

with importing():
    import hydra  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401

    import genre_classifier.sweeps.stacked.fit  # noqa: F401
