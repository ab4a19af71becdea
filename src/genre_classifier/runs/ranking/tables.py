"""Write leaderboards as CSV files, and print them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genre_classifier.config.metrics import METRICS
from genre_classifier.config.settings import format_value
from genre_classifier.evaluation.replicates import FEWEST
from genre_classifier.files.atomic import write_text
from genre_classifier.files.csv_files import format_csv
from genre_classifier.runs.folder import shorten_path, writing
from genre_classifier.runs.ranking.leaderboard import SPLITS, Estimate, Leaderboard, Row, find_best_trial
from genre_classifier.terminal import Kind, format_name, get_terminal_width, say, say_table

if TYPE_CHECKING:
    from rich.console import Console

ALL_METRICS = tuple(f"{split}/{metric.name}" for split in SPLITS for metric in METRICS)
ROWS_SHOWN = 20
# Columns of leaderboard.csv beside a metric's mean, with their fields of an Estimate.
ESTIMATE_PARTS = {"std": "deviation", "low": "low", "high": "high", "min": "least", "max": "most"}
KEYS_SHOWN_APART = 3
SETTINGS_SHOWN = 5
WIDE = 100
LIKE_BEST = {True: "not distinguishable", False: "worse", None: "unknown"}


def write_leaderboard(path: Path, boards: Sequence[Leaderboard]) -> None:
    """Write one line for each configuration: rank, settings, metrics over replicates, status and paths."""
    keys = list(dict.fromkeys(key for board in boards for key in board.keys))
    metrics = [name for name in ALL_METRICS if any(name in row.estimates for b in boards for row in b.rows)]
    header = ["rank", "status", "replicates", *keys]
    for name in metrics:
        header += [name, *(f"{name}_{part}" for part in ESTIMATE_PARTS)]
    header += ["against_best", "epochs", "seconds", "best_path", "reasons", "protocol"]
    lines = ([*_build_cells(board, row, keys, metrics)] for board in boards for row in board.rows)
    _write(path, header, lines)


def write_trials(path: Path, boards: Sequence[Leaderboard]) -> None:
    """Write one line for each trial, in the order of the leaderboard."""
    trials = [trial for board in boards for row in board.rows for trial in row.trials]
    keys = list(dict.fromkeys(key for board in boards for key in board.keys))
    replicate_keys = ["seed", "data.split.fold"]
    metrics = [name for name in ALL_METRICS if any(name in trial.metrics for trial in trials)]
    header = ["rank", "status", *keys, *replicate_keys, *metrics, "epochs", "seconds", "path", "reason"]
    chose = any(trial.chosen for trial in trials)
    header += ["chosen"] if chose else []
    lines = (
        [
            _format_cell(row.rank),
            trial.status,
            *(_format_cell(trial.get_setting(key)) for key in (*keys, *replicate_keys)),
            *(_format_cell(trial.metrics.get(name)) for name in metrics),
            _format_cell(trial.epochs),
            _format_cell(trial.seconds),
            str(shorten_path(trial.folder.path)),
            _format_cell(trial.reason),
            *([_format_cell(dict(trial.chosen) or None)] if chose else ()),
        ]
        for board in boards
        for row in board.rows
        for trial in row.trials
    )
    _write(path, header, lines)


def _build_cells(board: Leaderboard, row: Row, keys: Sequence[str], metrics: Sequence[str]) -> Iterable[str]:
    yield _format_cell(row.rank)
    yield row.status
    yield str(len(row.finished))
    yield from (_format_cell(row.settings.get(key)) for key in keys)
    for name in metrics:
        estimate = row.estimates.get(name)
        yield from (
            _format_cell(getattr(estimate, part, None)) for part in ("mean", *ESTIMATE_PARTS.values())
        )
    yield "best" if row.rank == 1 else LIKE_BEST[row.like_best] if row.rank is not None else ""
    finished = row.finished
    yield _format_cell(average_known([trial.epochs for trial in finished]))
    yield _format_cell(average_known([trial.seconds for trial in finished]))
    best = find_best_trial(row.finished, board.metric)
    yield "" if best is None else str(shorten_path(best.folder.path))
    yield "; ".join(dict.fromkeys(trial.reason or "" for trial in row.trials if trial.status == "failed"))
    yield board.protocol


def average_known(values: Sequence[float | None]) -> float | None:
    """Return the mean of the known values; None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _format_cell(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, (list, dict, bool)) else str(value)


def _write(path: Path, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    text = format_csv(header, lines)
    with writing(path):
        write_text(path, text)


def show_leaderboard(board: Leaderboard, console: Console | None = None) -> None:
    """Print a leaderboard."""
    note = "synthetic data, not music; " if board.synthetic else ""
    together = len(board.keys) > KEYS_SHOWN_APART
    metrics = [board.metric, "test/f1", "test/accuracy"]
    # A narrow terminal leaves out some columns. The CSV file has them.
    wide = get_terminal_width(console) >= WIDE
    failures = any(row.status != "finished" for row in board.rows)
    settings = ["trial"] if together else [_shorten_heading(key, board.keys) for key in board.keys]
    numbers = [name.replace("accuracy", "acc") for name in metrics]
    numbers += ["n", "epochs", "seconds"] if wide else ["n"]
    headings: list[tuple[str, Kind]] = [
        ("rank", "number"),
        *((name, "name") for name in settings),
        *((name, "number") for name in numbers),
    ]
    if failures:
        headings.append(("status", "prose"))
    rows = [
        (
            _format_rank(row),
            *([_find_best_name(row, board.metric)] if together else _format_settings(row, board.keys)),
            *(_format_estimate(row.estimates.get(name), wide=wide) for name in metrics),
            len(row.trials),
            *(_format_cost(row) if wide else ()),
            *((_format_status(row),) if failures else ()),
        )
        for row in board.rows[:ROWS_SHOWN]
    ]
    title = f"{note}{board.protocol or 'protocol unknown'}; ranked by {board.metric}"
    say_table(title, headings, rows, console)
    if together:
        for row in board.rows[:SETTINGS_SHOWN]:
            line = " ".join(
                f"{key}={format_name(format_value(row.settings[key]))}"
                for key in board.keys
                if key in row.settings
            )
            say(f"{_format_rank(row):>4}  {line}", console=console)
    for line in _build_notes(board):
        say(line, console=console)


def _build_notes(board: Leaderboard) -> Iterable[str]:
    if len(board.rows) > ROWS_SHOWN:
        yield f"the table shows {ROWS_SHOWN} of {len(board.rows)} rows; a CSV file has them all"
    if any(row.like_best for row in board.rows):
        yield "≈  the difference to the best row may be chance (the 95 % interval of the difference contains 0)"
    finished = [row for row in board.rows if row.rank is not None]
    if finished and board.metric.startswith("train/"):
        yield f"{board.metric} is measured on training rows, so it rewards overfitting (see genre-classifier compare)"
    if len(finished) > 1 and all(len(row.finished) == 1 for row in finished):
        yield "one run each, which may differ by chance; add seeds (seed=1,2,3) or folds (cross_validation)"
    elif unknown := sum(row.like_best is None for row in finished if row.rank != 1):
        rows = "1 row" if unknown == 1 else f"{unknown} rows"
        yield f"{rows}: too few seeds or folds to tell whether the difference to the best row is chance"
    estimates = [row.estimates[board.metric] for row in finished]
    if any(estimate.low is not None for estimate in estimates):
        yield "[low, high]  the 95 % interval of the mean over seeds or folds"
    if any(estimate.low is None and estimate.least is not None for estimate in estimates):
        yield f"(min to max)  of the values; fewer than {FEWEST} seeds or folds are too few for an interval"


def _shorten_heading(key: str, keys: Sequence[str]) -> str:
    short = key.rpartition(".")[2]
    return short if sum(other.rpartition(".")[2] == short for other in keys) == 1 else key


def _format_rank(row: Row) -> str:
    if row.rank is None:
        return ""
    return f"≈ {row.rank}" if row.like_best else str(row.rank)


def _format_estimate(estimate: Estimate | None, *, wide: bool) -> str | tuple[str, str]:
    """Return a mean with its interval or spread. In a narrow terminal they take two lines."""
    if estimate is None:
        return ""
    mean = f"{estimate.mean:.3f}"
    if estimate.low is not None and estimate.high is not None:
        around = f"[{estimate.low:.3f}, {estimate.high:.3f}]"
    elif estimate.least is not None and estimate.most is not None:
        around = f"({estimate.least:.3f} to {estimate.most:.3f})"
    else:
        return mean
    return f"{mean} {around}" if wide else (mean, around)


def _format_settings(row: Row, keys: Sequence[str]) -> list[str]:
    return [format_value(row.settings[key]) if key in row.settings else "" for key in keys]


def _find_best_name(row: Row, metric: str) -> str:
    trial = find_best_trial(row.finished, metric) or row.trials[0]
    return trial.folder.path.name


def _format_cost(row: Row) -> list[str]:
    epochs, seconds = (
        average_known([getattr(t, name) for t in row.finished]) for name in ("epochs", "seconds")
    )
    return [_format_number(epochs, 0), _format_number(seconds, 1)]


def _format_number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _format_status(row: Row) -> str:
    reasons = [trial.reason for trial in row.trials if trial.status == "failed" and trial.reason]
    if not reasons:
        return row.status
    return f"{row.status}: {format_name(reasons[0].splitlines()[0])}"
