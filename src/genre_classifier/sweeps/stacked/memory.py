"""Estimate the memory of a stack's trials, and divide a stack that does not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

from genre_classifier.config.schema import TrainConfig
from genre_classifier.machine.processors import count_usable_cores

# The share of free memory for all stacks that run at the same time. Other programs and uncounted objects need the rest.
SHARE = 0.5
VALUE = 4  # bytes of a float32
# Weights, gradients, two moments, an average, and copies in the member's network, best and last checkpoint.
COPIES_OF_WEIGHTS = 10
# Targets, logits, losses and their mixtures of a chunk.
COPIES_OF_LOGITS = 6
OBJECTS = 7_000_000
"""Measured bytes of a member's Python objects: network, configuration, history, TensorBoard's writers."""


@dataclass(frozen=True)
class Cost:
    """The memory that a trial takes, in bytes.

    Parameters
    ----------
    member : int
        For each trial.
    rows : int
        For each split of the rows: once standardised, and once more in the stack.
    """

    member: int
    rows: int


def estimate_cost(
    settings: TrainConfig, n_rows: int, n_features: int, n_genres: int, chunk_steps: int
) -> Cost:
    """Return the memory that a trial takes in a stack.

    Parameters
    ----------
    settings : TrainConfig
    n_rows, n_features, n_genres : int
        Of the table.
    chunk_steps : int
        Mini-batches whose targets and logits are in memory at a time.
    """
    widths = [n_features, *settings.model.hidden_dims, n_genres]
    weights = sum((one + 1) * other for one, other in pairwise(widths))
    batch = settings.data.batch_size
    steps = min(chunk_steps, -(-n_rows // batch))
    # Inputs, outputs and gradients of the layers, and dropout's factors and masks.
    activations = 3 * batch * sum(widths) + 2 * batch * sum(settings.model.hidden_dims[:-1])
    logits = COPIES_OF_LOGITS * (steps * batch + n_rows) * n_genres
    values = COPIES_OF_WEIGHTS * weights + activations + logits
    return Cost(VALUE * values + OBJECTS, 2 * VALUE * n_rows * n_features)


def divide_by_memory(
    trials: Sequence[TrainConfig], cost_of: Callable[[TrainConfig], Cost], limit: float
) -> list[list[int]]:
    """Divide a group's trials, in their order, into parts that take at most `limit` bytes each.

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


def compute_limit(settings: TrainConfig) -> float:
    """Return the bytes that one stack may take: its share of the free memory of the GPU or the machine."""
    if settings.trainer.accelerator.value in {"gpu", "auto"} and torch.cuda.is_available():
        return SHARE * torch.cuda.mem_get_info()[0]
    return SHARE * read_free_memory() / count_usable_cores()


def read_free_memory(root: Path = Path("/")) -> float:
    """Return the free memory in bytes: that of the machine, or of the container if that is less.

    Parameters
    ----------
    root : Path
        The folder of /proc and /sys.
    """
    free = [_read_machine(root / "proc/meminfo"), _read_container(root / "sys/fs/cgroup")]
    known = [value for value in free if value is not None]
    return min(known, default=float("inf"))


def _read_machine(path: Path) -> float | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:  # no Linux
        return None
    return next((int(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable:")), None)


def _read_container(folder: Path) -> float | None:
    try:
        most = (folder / "memory.max").read_text().strip()
        return None if most == "max" else float(most) - float((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return None
