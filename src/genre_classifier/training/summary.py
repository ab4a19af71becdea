"""What a person reads when a run has finished."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console
from rich.table import Table

from genre_classifier.training.fit import Result

COLUMNS = (
    ("loss", "loss"),
    ("accuracy", "accuracy"),
    ("f1", "F1 weighted"),
    ("f1_macro", "F1 macro"),
    ("top3", "top-3"),
    ("ece", "ECE"),
)


def show(result: Result) -> None:
    """Print the metrics by split, F1 by genre, where the run is, and what can be done next."""
    console = Console(highlight=False)
    console.print(_metrics(result))
    console.print(_genres(result))
    folder = _relative(result.folder.path)
    line = f"run folder   {folder}"
    epoch = "" if result.best_epoch is None else f" (best epoch {result.best_epoch}, counted from 0; {result.seconds:.1f} s)"
    console.print(f"{line}{epoch}", soft_wrap=True, markup=False)
    for what, command in _next_commands(result, folder):
        console.print(f"{what:<12} {command}", soft_wrap=True, markup=False)


def _metrics(result: Result) -> Table:
    note = "synthetic data, not music; " if result.synthetic else ""
    table = Table(title=f"{note}{result.protocol['description']}", title_justify="left")
    table.add_column("split")
    for _, heading in COLUMNS:
        table.add_column(heading, justify="right")
    for split, values in result.metrics.items():
        table.add_row(split, *(f"{values[name]:.3f}" for name, _ in COLUMNS))
    return table


def _genres(result: Result) -> Table:
    split = "test" if "test" in result.metrics else next(iter(result.metrics))
    table = Table(title=f"F1 by genre, {split} rows", title_justify="left")
    table.add_column("genre")
    table.add_column("rows", justify="right")
    table.add_column("F1", justify="right")
    for genre, f1 in result.f1_per_genre[split].items():
        table.add_row(genre, str(result.support[split][genre]), f"{f1:.3f}")
    return table


def _next_commands(result: Result, folder: Path) -> list[tuple[str, str]]:
    commands = []
    if result.folder.tensorboard.exists():
        root = folder.parts[0] if not folder.is_absolute() else folder
        commands.append(("look at it", f"tensorboard --logdir {root}"))
    return commands


def _relative(path: Path) -> Path:
    try:
        return path.absolute().relative_to(Path.cwd())
    except ValueError:
        return Path(os.path.normpath(path))
