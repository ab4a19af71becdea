"""Gather out-of-fold predictions: in a cross-validation, the model that was not trained on a row predicts it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genre_classifier.errors import RunFolderError
from genre_classifier.files.atomic import write_text
from genre_classifier.files.csv_files import format_csv
from genre_classifier.runs.folder import writing
from genre_classifier.runs.predictions import join_predictions, read_predictions
from genre_classifier.runs.ranking.leaderboard import Leaderboard, Row
from genre_classifier.runs.sweep_folder import SweepFolder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutOfFold:
    """The gathered predictions of one configuration.

    Parameters
    ----------
    genre_names : tuple of str
    confusion : tuple of tuple of int
        Number of rows by true genre (first axis) and predicted genre (second), summed over seeds.
    """

    genre_names: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]

    @property
    def accuracy(self) -> float:
        """Share of rows on the diagonal."""
        right = sum(line[i] for i, line in enumerate(self.confusion))
        return right / sum(map(sum, self.confusion))


def write_out_of_fold(sweep: SweepFolder, boards: Sequence[Leaderboard]) -> OutOfFold | None:
    """Write out_of_fold.csv for the configurations whose folds are all finished.

    Returns
    -------
    OutOfFold or None
        That of the best configuration; None if the sweep is no complete cross-validation. A configuration with
        unreadable predictions is left out, with a warning.
    """
    best: OutOfFold | None = None
    header: list[str] = []
    all_lines: list[list[Any]] = []
    for row in (row for board in boards for row in board.rows if complete_folds(row)):
        try:
            names, lines = _read_lines(row)
            found = gather_predictions(row)
            if header and names != header:
                raise RunFolderError(
                    f"{row.trials[0].folder.predictions_csv}: other columns than the other folds have"
                )
        except RunFolderError as error:
            log.warning("%s; out_of_fold.csv leaves this configuration out", error)
            continue
        header, best = names, best or found
        all_lines += lines
    if best is None:
        return None
    text = format_csv(["rank", "trial", "seed", "fold", *header], all_lines)
    with writing(sweep.out_of_fold_csv):
        write_text(sweep.out_of_fold_csv, text)
    return best


def _read_lines(row: Row) -> tuple[list[str], list[list[Any]]]:
    """Return the columns of a configuration's predictions, and its lines."""
    header: list[str] = []
    found: list[list[Any]] = []
    for trial in row.finished:
        names, lines = trial.folder.read_prediction_rows()
        header = header or names
        if names != header:
            raise RunFolderError(f"{trial.folder.predictions_csv}: other columns than the other folds have")
        start = [row.rank, trial.folder.path.name, trial.settings.get("seed"), trial.fold]
        found += ([*start, *line] for line in lines)
    return header, found


def complete_folds(row: Row) -> bool:
    """Return whether every fold of a configuration is finished, with each seed."""
    folds = row.trials[0].settings.get("data.split.folds")
    if not folds:
        return False
    seeds = {trial.settings.get("seed") for trial in row.trials}
    tested = {trial.replicate for trial in row.finished}
    return all((seed, fold) in tested for seed in seeds for fold in range(int(folds)))


def gather_predictions(row: Row) -> OutOfFold:
    """Return the counts of a configuration's out-of-fold predictions.

    Raises
    ------
    RunFolderError
        A fold has no predictions, or damaged ones.
    """
    folds = []
    for trial in row.finished:
        fold = read_predictions(trial.folder)
        if fold is None:
            raise RunFolderError(f"{trial.folder.predictions_csv}: there is no such file")
        folds.append(fold)
    rows = join_predictions(folds)
    return OutOfFold(rows.genre_names, tuple(map(tuple, rows.count_confusion().tolist())))
