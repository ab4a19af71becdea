"""Predictions of every row by the model that had not seen it, gathered from the folds of a cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genre_classifier.atomic import write_text
from genre_classifier.csv_files import csv_text
from genre_classifier.errors import RunFolderError
from genre_classifier.run_folder import writing
from genre_classifier.sweeps.leaderboard import Leaderboard, Row
from genre_classifier.sweeps.sweep_folder import SweepFolder


@dataclass(frozen=True)
class OutOfFold:
    """The gathered predictions of one configuration.

    Parameters
    ----------
    genre_names : tuple of str
    confusion : tuple of tuple of int
        Rows by true genre (first axis) and predicted genre (second), summed over seeds.
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
        Of the best of them; None where the sweep is no complete cross-validation.
    """
    rows = [row for board in boards for row in board.rows if complete_folds(row)]
    if not rows:
        return None
    header: list[str] = []
    gathered_rows: list[list[Any]] = []
    for row in rows:
        for trial in row.finished:
            names, lines = trial.folder.read_prediction_rows()
            if not header:
                header = names
            if names != header:
                raise RunFolderError(
                    f"{trial.folder.predictions_csv}: other columns than the other folds have"
                )
            start = [row.rank, trial.folder.path.name, trial.settings.get("seed"), trial.fold]
            gathered_rows += ([*start, *line] for line in lines)
    text = csv_text(["rank", "trial", "seed", "fold", *header], gathered_rows)
    with writing(sweep.out_of_fold_csv):
        write_text(sweep.out_of_fold_csv, text)
    return gathered(rows[0])


def complete_folds(row: Row) -> bool:
    """Return whether every fold of a configuration is finished, with each seed."""
    folds = row.trials[0].settings.get("data.split.folds")
    if not folds:
        return False
    seeds = {trial.settings.get("seed") for trial in row.trials}
    tested = {trial.replicate for trial in row.finished}
    return all((seed, fold) in tested for seed in seeds for fold in range(int(folds)))


def gathered(row: Row) -> OutOfFold:
    """Return a configuration's out-of-fold predictions, counted."""
    names: tuple[str, ...] = ()
    counts: list[list[int]] = []
    for trial in row.finished:
        header, lines = trial.folder.read_prediction_rows()
        if not names:
            names = tuple(name.removeprefix("p_") for name in header if name.startswith("p_"))
            counts = [[0] * len(names) for _ in names]
        true, predicted = header.index("true"), header.index("predicted")
        position = {name: index for index, name in enumerate(names)}
        for line in lines:
            counts[position[line[true]]][position[line[predicted]]] += 1
    return OutOfFold(names, tuple(map(tuple, counts)))
