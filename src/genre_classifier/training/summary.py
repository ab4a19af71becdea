"""What a person reads when a run has finished."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from genre_classifier.metric_definitions import METRICS
from genre_classifier.run_folder import relative
from genre_classifier.training.run import Result

SHOWN = ("accuracy", "f1", "f1_macro")


def show(result: Result) -> None:
    """Print the metrics by split, F1 by genre, where the run is, and what can be done next."""
    console = Console(highlight=False)
    console.print(_metrics(result))
    for line in _remarks(result):
        console.print(line, soft_wrap=True, markup=False)
    console.print(_genres(result))
    folder = relative(result.folder.path)
    if result.best_epoch is not None:
        best = f"{result.best_epoch}, counted from 0: {result.optimized_metric} {result.objective:.4f}"
        console.print(f"best epoch   {best}", soft_wrap=True, markup=False)
    console.print(f"run folder   {folder} ({result.seconds:.1f} s)", soft_wrap=True, markup=False)
    for what, command in _next_commands(result, folder):
        console.print(f"{what:<12} {command}", soft_wrap=True, markup=False)


def _metrics(result: Result) -> Table:
    note = "synthetic data, not music; " if result.synthetic else ""
    table = Table(title=f"{note}{result.protocol['description']}", title_justify="left")
    table.add_column("split")
    for metric in METRICS:
        table.add_column(metric.heading, justify="right")
    for split, values in result.metrics.items():
        table.add_row(split, *(f"{values[metric.name]:.3f}" for metric in METRICS))
    return table


def _remarks(result: Result) -> Iterator[str]:
    found = result.intervals.get("test")
    if found is not None:
        ends = ", ".join(
            f"{metric.heading} {found[metric.name][0]:.3f} to {found[metric.name][1]:.3f}"
            for metric in METRICS
            if metric.name in SHOWN
        )
        yield f"95 % of test  {ends} ({found['units']} {found['unit']}s resampled)"
    copies = {side: rows for side, rows in result.duplicates["rows"].items() if rows}
    if copies:
        told = " and ".join(f"{rows} {side} rows" for side, rows in copies.items())
        yield f"copies       {told} have the same features as a row on another side (metrics.json: duplicates)"


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
    if result.best_checkpoint is not None:
        commands.append(("export it", f"python export.py run={folder}"))
    return commands
