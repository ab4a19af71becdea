"""The settings that the engine refuses. layers.py refuses networks. A sweep's launcher imports this without torch."""

from __future__ import annotations

from genre_classifier.config.schema import Strategy, TrainConfig

# Optimizers of one family can share a stack.
OPTIMIZER_FAMILIES = {"torch.optim.Adam": "adam", "torch.optim.AdamW": "adam", "torch.optim.SGD": "sgd"}


def find_refused_setting(settings: TrainConfig) -> str | None:
    """Return the first setting that the engine does not support, as ``key=value``; None if it supports all."""
    trainer = settings.trainer
    kind = settings.optimizer._target_
    refused = {
        f"optimizer._target_={kind}": kind not in OPTIMIZER_FAMILIES,
        f"trainer.precision={trainer.precision}": trainer.precision not in ("32-true", "64-true"),
        f"trainer.devices={trainer.devices}": trainer.devices != 1,
        f"trainer.num_nodes={trainer.num_nodes}": trainer.num_nodes != 1,
        f"trainer.strategy={trainer.strategy.value}": trainer.strategy is not Strategy.auto,
        f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}": trainer.accumulate_grad_batches
        != 1,
        "trainer.detect_anomaly=true": trainer.detect_anomaly,
    }
    return next((setting for setting, holds in refused.items() if holds), None)
