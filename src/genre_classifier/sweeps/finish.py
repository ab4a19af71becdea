"""Finish a sweep, also one that failed: write the leaderboard and figures, and print how many trials failed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from genre_classifier.commands import format_argument, format_command, format_export_command
from genre_classifier.evaluation.drawing import render_png
from genre_classifier.evaluation.figures import draw_confusion
from genre_classifier.files.atomic import replacing
from genre_classifier.runs.folder import shorten_path, writing
from genre_classifier.runs.listing import format_unreadable, read_each
from genre_classifier.runs.ranking.figure import draw_sweep
from genre_classifier.runs.ranking.leaderboard import Leaderboard, Trial, rank_trials, read_trial
from genre_classifier.runs.ranking.out_of_fold import OutOfFold, write_out_of_fold
from genre_classifier.runs.ranking.tables import show_leaderboard, write_leaderboard, write_trials
from genre_classifier.runs.sweep_folder import SweepFolder
from genre_classifier.sweeps.hparams import summarize_trials
from genre_classifier.terminal import say

log = logging.getLogger(__name__)


def finish_sweep(sweep: SweepFolder) -> int:
    """Write leaderboard.csv, trials.csv and the figures, print the outcome, and return the number of unfinished trials.

    Raises
    ------
    RunFolderError
        A file cannot be written.
    """
    record = sweep.read_sweep()
    trials = read_each(sweep.trials(), read_trial)
    boards = rank_trials(trials, record["optimized_metric"]) if trials else []
    out_of_fold = _write(sweep, boards) if boards else None
    summarize_trials(sweep, trials, record["optimized_metric"], record["swept"])
    _show(sweep, boards, trials, out_of_fold, record["expected"])
    say(*format_unreadable(trials.unreadable))
    unread = min(len(trials.unreadable), max(0, record["expected"] - len(trials)))
    return sum(trial.status != "finished" for trial in trials) + unread


def _write(sweep: SweepFolder, boards: Sequence[Leaderboard]) -> OutOfFold | None:
    write_leaderboard(sweep.leaderboard_csv, boards)
    write_trials(sweep.trials_csv, boards)
    if (figure := draw_sweep(boards[0])) is not None:
        with writing(sweep.figure), replacing(sweep.figure) as temporary:
            temporary.write_bytes(render_png(figure))
    out_of_fold = write_out_of_fold(sweep, boards)
    if out_of_fold is not None:
        import numpy as np

        title = "every row by the model that had not seen it"
        drawn = draw_confusion(np.array(out_of_fold.confusion), out_of_fold.genre_names, title)
        with writing(sweep.out_of_fold_figure), replacing(sweep.out_of_fold_figure) as temporary:
            temporary.write_bytes(render_png(drawn))
    return out_of_fold


def _show(
    sweep: SweepFolder,
    boards: Sequence[Leaderboard],
    trials: Sequence[Trial],
    out_of_fold: OutOfFold | None,
    expected: int,
) -> None:
    for board in boards:
        show_leaderboard(board)
    folder = shorten_path(sweep.path)
    counts = Counter(trial.status for trial in trials)
    best = any(row.rank is not None for board in boards for row in board.rows)
    lines = []
    if out_of_fold is not None:
        where = shorten_path(sweep.out_of_fold_csv)
        lines.append(("out of fold", f"accuracy {out_of_fold.accuracy:.4f} over all rows, best row; {where}"))
    lines.append(("sweep", str(folder)))
    if best:
        if any(trial.folder.tensorboard.is_dir() for trial in trials):
            lines.append(("look at it", format_command("tensorboard", "--logdir", folder)))
        lines.append(("export it", format_export_command(folder, folds=out_of_fold is not None)))
    say(*(f"{what:<12} {text}" for what, text in lines), _describe_end(counts, expected, str(folder)))


def _describe_end(counts: Counter[str], expected: int, folder: str) -> str:
    finished, failed = counts["finished"], counts["failed"]
    missing = max(0, expected - finished - failed)
    counted = [f"{finished} of {max(expected, finished + failed)} trials finished"]
    if failed:
        counted.append(f"{failed} failed")
    if missing:
        counted.append(f"{missing} not run to their end")
    text = ", ".join(counted)
    if failed or missing:
        text += f"; to run those, give the same command and {format_argument('sweep.resume', folder)}"
    return text
