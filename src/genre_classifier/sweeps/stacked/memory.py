"""Estimate the memory of a stack's trials, and divide a stack that does not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

from genre_classifier.config.schema import TrainConfig
from genre_classifier.machine.processors import usable_cores

# Of what is free, for all stacks that run at the same time; the rest is other programs' and what is not counted here.
SHARE = 0.5
VALUE = 4  # bytes of a float32
# Weights, gradients, two moments, an average, and the copies in the member's own network, best and last checkpoint.
COPIES_OF_WEIGHTS = 10
# Of a chunk's targets, logits, losses and their mixtures.
COPIES_OF_LOGITS = 6
OBJECTS = 7_000_000
"""Bytes of a member's Python objects, as measured: network, configuration, history, TensorBoard's writers."""


@dataclass(frozen=True)
class Cost:
    """The memory that a trial takes, in bytes.

    Parameters
    ----------
    member : int
        For each trial.
    rows : int
        For each way the rows are split: standardised once by split, and once more in the stack.
    """

    member: int
    rows: int


def cost(settings: TrainConfig, n_rows: int, n_features: int, n_genres: int, chunk_steps: int) -> Cost:
    """Return the memory that a trial takes in a stack.

    Parameters
    ----------
    settings : TrainConfig
    n_rows, n_features, n_genres : int
        Of the table.
    chunk_steps : int
        Mini-batches whose targets and logits are held at a time.
    """
    widths = [n_features, *settings.model.hidden_dims, n_genres]
    weights = sum((one + 1) * other for one, other in pairwise(widths))
    batch = settings.data.batch_size
    steps = min(chunk_steps, -(-n_rows // batch))
    # Inputs, outputs and gradients of the layers; dropout's factors and their random bits.
    activations = 3 * batch * sum(widths) + 2 * batch * sum(settings.model.hidden_dims[:-1])
    logits = COPIES_OF_LOGITS * (steps * batch + n_rows) * n_genres
    values = COPIES_OF_WEIGHTS * weights + activations + logits
    return Cost(VALUE * values + OBJECTS, 2 * VALUE * n_rows * n_features)


def divide_by_memory(
    trials: Sequence[TrainConfig], cost_of: Callable[[TrainConfig], Cost], limit: float
) -> list[list[int]]:
    """Return a group's trials, in their order, in parts that take at most `limit` bytes each.

    A trial that is too large by itself is a separate part.

    Parameters
    ----------
    trials : sequence of TrainConfig
    cost_of : callable
        From a trial's settings to its `Cost`.
    limit : float
    """
    found: list[list[int]] = []
    taken, splits = 0.0, set[str]()
    for place, settings in enumerate(trials):
        needed, split = cost_of(settings), repr(settings.data)
        more = needed.member + (0 if split in splits else needed.rows)
        if not found or taken + more > limit:
            found.append([])
            taken, splits = 0.0, set()
            more = needed.member + needed.rows
        found[-1].append(place)
        taken += more
        splits.add(split)
    return found


def limit_of(settings: TrainConfig) -> float:
    """Return the bytes that one stack may take: its share of what is free on the GPU, or in memory."""
    if settings.trainer.accelerator.value in {"gpu", "auto"} and torch.cuda.is_available():
        return SHARE * torch.cuda.mem_get_info()[0]
    return SHARE * free_memory() / usable_cores()


def free_memory(root: Path = Path("/")) -> float:
    """Return the free memory in bytes: that of the machine, or of the container if that is less.

    Parameters
    ----------
    root : Path
        Below which /proc and /sys are.
    """
    free = [_machine(root / "proc/meminfo"), _container(root / "sys/fs/cgroup")]
    known = [value for value in free if value is not None]
    return min(known, default=float("inf"))


def _machine(path: Path) -> float | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:  # no Linux
        return None
    return next((int(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable:")), None)


def _container(folder: Path) -> float | None:
    try:
        most = (folder / "memory.max").read_text().strip()
        return None if most == "max" else float(most) - float((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return None
