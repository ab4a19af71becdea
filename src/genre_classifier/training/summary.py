"""Print the summary of a finished run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genre_classifier.commands import find_program, format_command, format_override
from genre_classifier.config.metrics import METRICS
from genre_classifier.runs.folder import shorten_path
from genre_classifier.terminal import format_name, say, say_table
from genre_classifier.training.run import Result

SHOWN = ("accuracy", "f1", "f1_macro")


def show(result: Result) -> None:
    """Print the metrics by split, F1 per genre, the run's folder, and the next commands."""
    _say_metrics(result)
    say(*_format_remarks(result))
    _say_genres(result)
    folder = shorten_path(result.folder.path)
    if result.best_epoch is not None:
        best = f"{result.best_epoch}, counted from 0: {result.optimized_metric} {result.objective:.4f}"
        say(f"best epoch   {best}")
    say(f"run folder   {folder} ({result.seconds:.1f} s)")
    say(*(f"{what:<12} {line}" for what, line in _list_next_commands(result, folder)))


def _say_metrics(result: Result) -> None:
    note = "synthetic data, not music; " if result.synthetic else ""
    say_table(
        f"{note}{result.protocol['description']}",
        [("split", "name"), *((metric.heading, "number") for metric in METRICS)],
        [
            (split, *(f"{values[metric.name]:.3f}" for metric in METRICS))
            for split, values in result.metrics.items()
        ],
    )


def _format_remarks(result: Result) -> Iterator[str]:
    found = result.intervals.get("test")
    if found is not None:
        ends = ", ".join(
            f"{metric.heading} {found[metric.name][0]:.3f} to {found[metric.name][1]:.3f}"
            for metric in METRICS
            if metric.name in SHOWN
        )
        yield f"95 % of test  {ends} ({found['units']} {format_name(found['unit'])}s resampled)"
    copies = {side: rows for side, rows in result.duplicates["rows"].items() if rows}
    if copies:
        copied = " and ".join(f"{rows} {side} rows" for side, rows in copies.items())
        yield f"copies       {copied} have the same features as a row on another side (metrics.json: duplicates)"


def _say_genres(result: Result) -> None:
    split = "test" if "test" in result.metrics else next(iter(result.metrics))
    say_table(
        f"F1 by genre, {split} rows",
        [("genre", "name"), ("rows", "number"), ("F1", "number")],
        [
            (genre, rows, f"{result.f1_per_genre[split][genre]:.3f}" if rows else "-")
            for genre, rows in result.support[split].items()
        ],
    )


def _list_next_commands(result: Result, folder: Path) -> list[tuple[str, str]]:
    commands = []
    if result.folder.tensorboard.exists():
        root = folder if folder.is_absolute() or not folder.parts else folder.parts[0]
        commands.append(("look at it", format_command("tensorboard", "--logdir", root)))
    if result.best_checkpoint is not None:
        commands.append(
            ("export it", format_command(*find_program("export"), format_override("run", folder)))
        )
    return commands
