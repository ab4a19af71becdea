"""Group trials into stacks, and name the reason why a trial cannot be stacked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from genre_classifier.config.schema import TrainConfig
from genre_classifier.training.engine.settings import OPTIMIZER_FAMILIES, find_refused_setting


@dataclass(frozen=True)
class Group:
    """Trials that share a stack.

    Parameters
    ----------
    places : tuple of int
        Of the trials, in their order.
    """

    places: tuple[int, ...]


def group_trials(trials: Sequence[TrainConfig], max_members: int, n_jobs: int) -> list[Group]:
    """Return groups of trials that can be stacked.

    Parameters
    ----------
    trials : sequence of TrainConfig
        Trials for which `find_unstackable_setting` returns None.
    max_members : int
        The most trials per stack.
    n_jobs : int
        Stacks that are trained at the same time. Large groups are divided so that each job has one.
    """
    alike: dict[str, list[int]] = {}
    for place, settings in enumerate(trials):
        alike.setdefault(_describe_shape(settings), []).append(place)
    share = -(-len(trials) // max(1, n_jobs))
    size = max(1, min(max_members, share))
    return [
        Group(tuple(places[start : start + _compute_even_size(len(places), size)]))
        for places in alike.values()
        for start in range(0, len(places), _compute_even_size(len(places), size))
    ]


def _compute_even_size(total: int, size: int) -> int:
    """Return the size of the fewest equal parts that are at most `size`."""
    n_parts = -(-total // size)
    return -(-total // n_parts)


def _describe_shape(settings: TrainConfig) -> str:
    data = {name: value for name, value in vars(settings.data).items() if name != "split"}
    shape = [
        data,
        settings.model._target_,
        list(settings.model.hidden_dims),
        OPTIMIZER_FAMILIES[settings.optimizer._target_],
        settings.trainer.accelerator.value,
        settings.trainer.deterministic,
    ]
    return json.dumps(shape, sort_keys=True, default=str)


def find_unstackable_setting(settings: TrainConfig) -> str | None:
    """Return the first setting that a stack does not support; None if it supports all. networks.py checks networks."""
    trainer = settings.trainer
    reasons = {
        f"trainer.precision={trainer.precision}": trainer.precision != "32-true",
        f"trainer.limit_train_batches={trainer.limit_train_batches}": trainer.limit_train_batches is not None,
        f"trainer.overfit_batches={trainer.overfit_batches}": trainer.overfit_batches != 0,
        f"trainer.max_time={trainer.max_time}": trainer.max_time is not None,
        f"trainer.profiler={trainer.profiler}": trainer.profiler is not None,
    }
    own = next((reason for reason, holds in reasons.items() if holds), None)
    return find_refused_setting(settings) or own
