"""Build the content of a sweep's report for the template."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from genre_classifier.commands import format_command, format_export_command, format_train_command
from genre_classifier.config.schema import SELECTION_METRICS
from genre_classifier.config.settings import REPLICATE_KEYS, format_value
from genre_classifier.errors import RunFolderError
from genre_classifier.evaluation.replicates import FEWEST
from genre_classifier.reporting.beside import Beside, find_grouped_trials, is_random_despite_groups
from genre_classifier.reporting.contents import RunContents, read_contents
from genre_classifier.reporting.figures import draw_settings
from genre_classifier.reporting.rows.embedding import Method
from genre_classifier.reporting.run_view import RunView, build_run_view, list_warnings
from genre_classifier.reporting.sections import (
    Calibration,
    Confusion,
    Mistake,
    Number,
    build_calibration,
    build_confusion,
    list_mistakes,
)
from genre_classifier.reporting.svg import Figure
from genre_classifier.runs.folder import shorten_path
from genre_classifier.runs.listing import Readable, describe_unreadable, format_unreadable, read_each
from genre_classifier.runs.predictions import join_predictions
from genre_classifier.runs.ranking.leaderboard import (
    Estimate,
    Leaderboard,
    Row,
    Trial,
    find_best_trial,
    rank_trials,
    read_trial,
)
from genre_classifier.runs.ranking.out_of_fold import complete_folds
from genre_classifier.runs.ranking.tables import LIKE_BEST, average_known
from genre_classifier.runs.sweep_folder import SweepFolder

ROWS_SHOWN = 50


@dataclass(frozen=True)
class Line:
    """A configuration in the leaderboard.

    Parameters
    ----------
    rank : str
    settings : tuple of str
        Values in the order of the board's keys.
    estimates : tuple of Estimate or None
        Estimates of the ranking metric, test accuracy and test F1.
    replicates : int
    seconds : float or None
        Mean seconds per trial.
    verdict : str
        The comparison with the best row.
    status : str
    """

    rank: str
    settings: tuple[str, ...]
    estimates: tuple[Estimate | None, ...]
    replicates: int
    seconds: float | None
    verdict: str
    status: str


@dataclass(frozen=True)
class Board:
    """A leaderboard.

    Parameters
    ----------
    protocol : str
    metrics : tuple of str
        The ranking metric comes first.
    keys : tuple of str
    lines : tuple of Line
    left_out : int
        Number of lines that are not shown.
    remarks : tuple of str
    figures : tuple of Figure
        Plots of the metric over each swept setting.
    """

    protocol: str
    metrics: tuple[str, ...]
    keys: tuple[str, ...]
    lines: tuple[Line, ...]
    left_out: int
    remarks: tuple[str, ...]
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Failure:
    """A trial that did not finish.

    Parameters
    ----------
    name, settings, status, reason : str
    """

    name: str
    settings: str
    status: str
    reason: str


@dataclass(frozen=True)
class OutOfFold:
    """The predictions of each row by the model that was not trained on it.

    Parameters
    ----------
    accuracy : float
    seeds : int
        Number of predictions per row.
    confusion : Confusion or None
    calibration : Calibration or None
    mistakes : tuple of Mistake
    """

    accuracy: float
    seeds: int
    confusion: Confusion | None
    calibration: Calibration | None
    mistakes: tuple[Mistake, ...]


@dataclass(frozen=True)
class SweepView:
    """A sweep's report. Sections without content are None or empty.

    Parameters
    ----------
    name, started, counts : str
    is_cross_validation : bool
    protocol : str
    numbers : tuple of Number
        Numbers of the best configuration.
    level, chosen : str
        Texts on how the intervals were computed, and how the configuration was chosen.
    warnings : tuple of str
    beside : Beside or None
    boards : tuple of Board
    failures : tuple of Failure
    out_of_fold : OutOfFold or None
    best : RunView or None
        The best configuration's best trial.
    commands : tuple of tuple of str
    """

    name: str
    started: str
    counts: str
    is_cross_validation: bool
    protocol: str
    numbers: tuple[Number, ...]
    level: str
    chosen: str
    warnings: tuple[str, ...]
    beside: Beside | None
    boards: tuple[Board, ...]
    failures: tuple[Failure, ...]
    out_of_fold: OutOfFold | None
    best: RunView | None
    commands: tuple[tuple[str, str], ...]


def build_sweep_view(sweep: SweepFolder, *, with_rows: bool, method: Method) -> SweepView:
    """Return a sweep's report.

    Parameters
    ----------
    sweep : SweepFolder
    with_rows : bool
        Whether the rows may be read again.
    method : str
        Method of the map.

    Raises
    ------
    RunFolderError
        There is no trial that can be read.
    """
    record = sweep.read_sweep() if sweep.sweep_json.is_file() else {}
    trials = read_each(sweep.trials(), read_trial)
    metric = _find_metric(record, trials)
    boards, row, contents = _find_best(sweep, trials, metric)
    trial = None if row is None else find_best_trial(row.finished, metric)
    best = None if trial is None else contents[trial]
    folds = row if row is not None and complete_folds(row) else None
    overrides = tuple(map(str, record.get("overrides") or ()))
    beside = None
    if row is not None and best is not None and is_random_despite_groups(best.protocol):
        beside = find_grouped_trials(row.finished, overrides)
    view = (
        None
        if best is None
        else build_run_view(best, with_rows=with_rows, method=method, key="best", alone=False)
    )
    return SweepView(
        name=str(shorten_path(sweep.path)),
        started=str(record.get("started", "")).replace("T", " ")[:16],
        counts=_describe_counts(trials, record.get("expected"), len(trials.unreadable)),
        is_cross_validation=folds is not None,
        protocol=row.trials[0].protocol if row is not None else "",
        numbers=_list_numbers(row, view, folds is not None),
        level=_describe_level(row, view, folds is not None),
        chosen=_describe_choice(row, boards, metric, folds is not None),
        warnings=() if best is None else tuple(list_warnings(best)),
        beside=beside,
        boards=tuple(_build_board(board, f"board{number}x") for number, board in enumerate(boards)),
        failures=tuple(_list_failures(trials, boards)),
        out_of_fold=None if folds is None else _gather_out_of_fold(folds, contents),
        best=view,
        commands=tuple(_list_commands(sweep, overrides, folds=folds is not None)),
    )


def _find_metric(record: Mapping[str, Any], trials: Sequence[Trial]) -> str:
    candidates = [
        record.get("optimized_metric"),
        *(trial.settings.get("optimized_metric") for trial in trials),
    ]
    return next((str(name) for name in candidates if name in SELECTION_METRICS), "val/f1")


def _find_best(
    sweep: SweepFolder, trials: Readable[Trial], metric: str
) -> tuple[list[Leaderboard], Row | None, dict[Trial, RunContents]]:
    """Rank the trials. Return the leaderboards, the best configuration and the contents of its finished trials.

    If the contents of such a trial cannot be read, it moves to `trials.unreadable`, and the others are ranked again.

    Raises
    ------
    RunFolderError
        There is no trial that can be read.
    """
    while trials:
        boards = rank_trials(trials, metric)
        row = next((board.rows[0] for board in boards if board.rows[0].rank is not None), None)
        contents: dict[Trial, RunContents] = {}
        for trial in () if row is None else row.finished:
            try:
                contents[trial] = read_contents(trial.folder)
            except RunFolderError as error:
                trials.unreadable.append(describe_unreadable(trial.folder, error))
                trials.remove(trial)
        if row is None or len(contents) == len(row.finished):
            return boards, row, contents
    if not trials.unreadable:
        raise RunFolderError(f"{sweep.path}: no trial of this sweep has begun, so there is nothing to report")
    listed = "\n".join(format_unreadable(trials.unreadable))
    raise RunFolderError(f"{sweep.path}: no trial of this sweep can be read\n{listed}")


def _describe_counts(trials: Sequence[Trial], expected: Any, n_unreadable: int) -> str:
    counts = Counter(trial.status for trial in trials)
    counted = [f"{counts['finished']} of {max(expected or 0, len(trials) + n_unreadable)} trials finished"]
    counted += [f"{counts[status]} {words}" for status, words in (("failed", "failed"), ("running", "not at their end"))
              if counts[status]]  # fmt: skip
    if n_unreadable:
        counted.append(f"{n_unreadable} unreadable and left out")
    return ", ".join(counted)


def _list_numbers(row: Row | None, best: RunView | None, folds: bool) -> tuple[Number, ...]:
    """Return the best configuration's mean over replicates, or the numbers of its single run."""
    if row is None:
        return ()
    if len(row.finished) == 1 and best is not None:
        return best.numbers
    words = "over folds" if folds else "mean over trials"
    names = (("test/accuracy", f"Test accuracy, {words}"), ("test/f1", f"Weighted F1, {words}"))
    found = [(title, row.estimates[name]) for name, title in names if name in row.estimates]
    return tuple(
        Number(title, one.mean, one.low, one.high, least=one.least, most=one.most) for title, one in found
    )


def _describe_level(row: Row | None, best: RunView | None, folds: bool) -> str:
    if row is None:
        return "No trial is finished."
    if len(row.finished) == 1:
        return best.level if best is not None else ""
    n = len(row.finished)
    if all(estimate.low is None for estimate in row.estimates.values()):
        return (
            f"Means over {n} trials, and their smallest and largest values: fewer than {FEWEST} seeds or folds are too "
            "few for an interval."
        )
    if folds:
        return (
            f"95 % intervals over {n} trials: Student's on the logit scale, with the wider error of Nadeau and Bengio "
            "(2003), since the training rows of the folds overlap."
        )
    return (
        f"95 % intervals of the mean over {n} trials, Student's on the logit scale. They show how much training "
        "varies, not how much other test rows would."
    )


def _describe_choice(row: Row | None, boards: Sequence[Leaderboard], metric: str, folds: bool) -> str:
    if row is None:
        return ""
    among = next(len(board.rows) for board in boards if row in board.rows)
    apart = " Trials on other rows or under another split have a separate table." if len(boards) > 1 else ""
    if among == 1:
        return f"One configuration was tried, so nothing was chosen.{apart}"
    text = f"The best of {among} configurations by {metric}; test rows did not choose."
    if folds:
        text += (
            " The validation rows of one fold are test rows of another, so the best of many looks a little better than "
            "it is."
        )
    return text + apart


def _build_board(board: Leaderboard, key: str) -> Board:
    metrics = (board.metric, "test/accuracy", "test/f1")
    lines = [_build_line(board, row, metrics) for row in board.rows[:ROWS_SHOWN]]
    return Board(
        protocol=board.protocol or "protocol unknown",
        metrics=metrics,
        keys=board.keys,
        lines=tuple(lines),
        left_out=len(board.rows) - len(lines),
        remarks=tuple(_list_remarks(board)),
        figures=tuple(draw_settings(board, key)),
    )


def _build_line(board: Leaderboard, row: Row, metrics: Sequence[str]) -> Line:
    return Line(
        rank="" if row.rank is None else str(row.rank),
        settings=tuple(format_value(row.settings.get(key)) for key in board.keys),
        estimates=tuple(row.estimates.get(name) for name in metrics),
        replicates=len(row.finished),
        seconds=average_known([trial.seconds for trial in row.finished]),
        verdict="best" if row.rank == 1 else LIKE_BEST[row.like_best],
        status=row.status,
    )


def _list_remarks(board: Leaderboard) -> list[str]:
    found = []
    ranked = [row for row in board.rows if row.rank is not None]
    if any(row.like_best for row in board.rows):
        found.append("Not distinguishable: the 95 % interval of the difference to the best row contains 0.")
    if len(ranked) > 1 and all(len(row.finished) == 1 for row in ranked):
        found.append(
            "One run each, which may differ by chance. Several seeds or folds would show by how much."
        )
    return found


def _list_failures(trials: Readable[Trial], boards: Sequence[Leaderboard]) -> list[Failure]:
    keys = dict.fromkeys([*(key for board in boards for key in board.keys), *REPLICATE_KEYS])
    return [
        Failure(
            name=trial.folder.path.name,
            settings=" ".join(
                f"{key}={format_value(trial.settings[key])}"
                for key in keys
                if trial.settings.get(key) is not None
            ),
            status=trial.status,
            reason=trial.reason or "no reason is recorded; a killed trial says it is running",
        )
        for trial in trials
        if trial.status != "finished"
    ] + [Failure(one.folder.name, "", "unreadable", one.reason) for one in trials.unreadable]


def _gather_out_of_fold(row: Row, contents: Mapping[Trial, RunContents]) -> OutOfFold | None:
    tested = [contents[trial].predictions for trial in row.finished]
    present = [fold for fold in tested if fold is not None and len(fold)]
    if not present:
        return None
    rows = join_predictions(present)
    seeds = len({trial.settings.get("seed") for trial in row.finished})
    side = "rows, each by the model that had not seen it" + (f", with {seeds} seeds" if seeds > 1 else "")
    return OutOfFold(
        accuracy=float((rows.true == rows.predicted).mean()),
        seeds=seeds,
        confusion=build_confusion(rows.count_confusion(), rows.genre_names, side),
        calibration=build_calibration(
            rows.bin_reliability(), {}, _describe_temperatures(list(contents.values())), "folds"
        ),
        mistakes=list_mistakes(rows),
    )


def _describe_temperatures(folds: Sequence[RunContents]) -> str:
    recorded = [contents.metrics.get("temperature") or {} for contents in folds]
    fitted = [found for found in recorded if found.get("temperature") is not None]
    if not fitted:
        return "No fold has a temperature."
    before, after = (fmean(found["test"][when]["ece"] for found in fitted) for when in ("before", "after"))
    typical = math.exp(fmean(math.log(found["temperature"]) for found in fitted))
    return (
        f"A temperature fitted on each fold's validation rows, {typical:.2f} on average, moves the mean ECE of the "
        f"test folds from {before:.3f} to {after:.3f}."
    )


def _list_commands(sweep: SweepFolder, overrides: Sequence[str], *, folds: bool) -> list[tuple[str, str]]:
    folder = shorten_path(sweep.path)
    again = [("run it again", format_train_command(overrides, multirun=True))] if overrides else []
    return [
        *again,
        ("rank its trials", format_command("genre-classifier", "leaderboard", folder)),
        ("export its best", format_export_command(folder, folds=folds)),
        ("write this page again", format_command("genre-classifier", "report", folder)),
    ]
