"""Compare two runs or sweeps on the rows or folds that tested both.

What must be equal is in predictions.csv: the ids and genres of the test rows, for each fold. Their features may differ.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from genre_classifier.errors import ConfigError, RunFolderError
from genre_classifier.evaluation.intervals import compute_difference_intervals
from genre_classifier.evaluation.paired_tests import McNemar, run_corrected_t_test, run_mcnemar_test
from genre_classifier.runs.folder import RunFolder, shorten_path
from genre_classifier.runs.listing import RUN_FILE, Unreadable, describe_unreadable, format_unreadable
from genre_classifier.runs.predictions import Predictions, read_predictions
from genre_classifier.runs.ranking.leaderboard import Row, Trial, compute_overlap, find_trials, rank_trials

COMPARED = ("accuracy", "f1", "f1_macro")
SIGNIFICANT = 0.05


@dataclass(frozen=True, eq=False)
class Contestant:
    """A model with its replicates: a run, or a sweep's best configuration.

    Parameters
    ----------
    path : Path
        As given by the user.
    trials : tuple of Trial
        Finished.
    chosen : str
        The way in which a sweep's configuration was chosen; empty for a run.
    unreadable : tuple of Unreadable
        Trials of a sweep that were left out.
    """

    path: Path
    trials: tuple[Trial, ...]
    chosen: str
    unreadable: tuple[Unreadable, ...] = ()

    @property
    def folds(self) -> set[int]:
        """The folds of its test rows; empty without folds."""
        return {trial.fold for trial in self.trials if trial.fold is not None}


@dataclass(frozen=True)
class Difference:
    """One metric of two contestants on test rows.

    Parameters
    ----------
    metric : str
    first, second : float
        Means over replicates and folds.
    difference : float
        The first minus the second.
    low, high : float
        Its 95 % interval.
    p_value : float or None
        Of the corrected t-test over folds; None without folds.
    """

    metric: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """How two contestants differ.

    Parameters
    ----------
    first, second : Contestant
    protocol : str
        The split in words; both splits if they differ.
    method : str
        The method of the intervals.
    differences : tuple of Difference
        Of accuracy, f1 and f1_macro.
    mcnemar : McNemar or None
        McNemar's test of two single runs; None for sweeps with several trials.
    """

    first: Contestant
    second: Contestant
    protocol: str
    method: str
    differences: tuple[Difference, ...]
    mcnemar: McNemar | None

    @property
    def distinguishable(self) -> bool:
        """Whether the difference in accuracy is more than chance, by its interval and, for runs, McNemar's test."""
        accuracy = self.differences[0]
        apart = not accuracy.low <= 0 <= accuracy.high
        return apart and (self.mcnemar is None or self.mcnemar.p_value < SIGNIFICANT)


def compare(first: Path, second: Path, metric: str) -> Comparison:
    """Compare two runs or sweeps.

    Parameters
    ----------
    first, second : Path
        Folders of runs or sweeps.
    metric : str
        Validation metric by which a sweep's best configuration is chosen, such as ``val/f1``.

    Raises
    ------
    ConfigError
        Their folds, or the ids or genres of their test rows, are not the same.
    RunFolderError
        A folder holds no finished run.
    """
    one, other = read_contestant(first, metric), read_contestant(second, metric)
    if max(len(one.folds), len(other.folds)) > 1:
        return _compare_over_folds(one, other)
    return _compare_on_rows(one, other)


def read_contestant(path: Path, metric: str) -> Contestant:
    """Return a run, or the best configuration of a sweep.

    Raises
    ------
    ConfigError
        A sweep has trials on several data sets or splits.
    RunFolderError
        There is no finished run.
    """
    trials = find_trials([path])
    if os.path.lexists(path / RUN_FILE):
        if trials[0].status != "finished":
            raise RunFolderError(
                f"{path}: the run is {trials[0].status}, so there are no test results to compare"
            )
        return Contestant(path, tuple(trials), "")
    boards = rank_trials(trials, metric)
    if len(boards) > 1:
        splits = "; ".join(dict.fromkeys(board.protocol or "unknown" for board in boards))
        raise ConfigError(
            f"{path}: its trials are on {len(boards)} data sets or splits ({splits}); name one of its runs"
        )
    best: Row = boards[0].rows[0]
    if not best.finished:
        raise RunFolderError(f"{path}: no trial is finished")
    chosen = f"best of {len(boards[0].rows)} by {metric}" if len(boards[0].rows) > 1 else ""
    return Contestant(path, tuple(best.finished), chosen, tuple(trials.unreadable))


def _compare_over_folds(one: Contestant, other: Contestant) -> Comparison:
    (one, mine), (other, others) = _read_test_rows(one), _read_test_rows(other)
    if one.folds != other.folds:
        raise ConfigError(
            f"{one.path} was tested on {_list_folds(one.folds)} and {other.path} on {_list_folds(other.folds)}; "
            "cross-validate both on the same folds (hparams_search=cross_validation)"
        )
    tested: dict[int | None, tuple[RunFolder, Predictions]] = {}
    for trial, run in zip((*one.trials, *other.trials), (*mine, *others), strict=True):
        _require_same_rows(*tested.setdefault(trial.fold, (trial.folder, run)), trial.folder, run)
    differences = []
    shared = compute_overlap([*one.trials, *other.trials])
    for metric in COMPARED:
        by_fold = [_average_by_fold(contestant, f"test/{metric}") for contestant in (one, other)]
        test = run_corrected_t_test(
            [by_fold[0][fold] - by_fold[1][fold] for fold in sorted(by_fold[0])], shared
        )
        mine_mean, others_mean = (fmean(values.values()) for values in by_fold)
        # Two proportions differ by one at most.
        low, high = max(-1.0, test.mean - test.half_width), min(1.0, test.mean + test.half_width)
        differences.append(Difference(metric, mine_mean, others_mean, test.mean, low, high, test.p_value))
    method = f"corrected t-test over {len(one.folds)} folds (Nadeau and Bengio, 2003)"
    return Comparison(one, other, _describe_protocols(one, other), method, tuple(differences), None)


def _list_folds(folds: set[int]) -> str:
    return f"folds {', '.join(map(str, sorted(folds)))}" if folds else "one holdout"


def _average_by_fold(contestant: Contestant, metric: str) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for trial in contestant.trials:
        if trial.fold is not None:
            values.setdefault(trial.fold, []).append(_get_metric(trial, metric))
    return {fold: fmean(found) for fold, found in values.items()}


def _compare_on_rows(one: Contestant, other: Contestant) -> Comparison:
    (one, mine), (other, others) = _read_test_rows(one), _read_test_rows(other)
    tested = [mine, others]
    first = mine[0]
    for contestant, runs in zip((one, other), tested, strict=True):
        for trial, run in zip(contestant.trials, runs, strict=True):
            _require_same_rows(one.trials[0].folder, first, trial.folder, run)
    logits = [[run.compute_logits() for run in runs] for runs in tested]
    groups = first.groups if first.has_groups else None
    found = compute_difference_intervals(logits[0], logits[1], first.true, groups)
    differences = tuple(
        Difference(metric, _average(one, metric), _average(other, metric), *found[metric])
        for metric in COMPARED
    )
    test = run_mcnemar_test(tested[0][0].right, tested[1][0].right) if max(map(len, tested)) == 1 else None
    method = f"paired bootstrap over {len(first)} rows"
    if groups is not None:
        method += f" in {len(set(groups))} groups"
    return Comparison(one, other, _describe_protocols(one, other), method, differences, test)


def _read_test_rows(contestant: Contestant) -> tuple[Contestant, list[Predictions]]:
    """Return a contestant and its trials' test rows. Of several trials, those with unreadable rows are left out."""
    kept: list[Trial] = []
    rows: list[Predictions] = []
    left_out = list(contestant.unreadable)
    for trial in contestant.trials:
        try:
            rows.append(_read_sorted_predictions(trial.folder))
            kept.append(trial)
        except RunFolderError as error:
            if len(contestant.trials) == 1:
                raise
            left_out.append(describe_unreadable(trial.folder, error))
    if not kept:
        raise RunFolderError(
            "\n".join([f"{contestant.path}: no trial can be read", *format_unreadable(left_out)])
        )
    return replace(contestant, trials=tuple(kept), unreadable=tuple(left_out)), rows


def _average(contestant: Contestant, metric: str) -> float:
    return fmean(_get_metric(trial, f"test/{metric}") for trial in contestant.trials)


def _get_metric(trial: Trial, metric: str) -> float:
    try:
        return trial.metrics[metric]
    except KeyError:
        raise RunFolderError(
            f"{trial.folder.metrics_json}: there is no {metric}, so there is nothing to compare"
        ) from None


def _describe_protocols(one: Contestant, other: Contestant) -> str:
    protocols = dict.fromkeys(contestant.trials[0].protocol for contestant in (one, other))
    return "; the other: ".join(protocols)


def _read_sorted_predictions(folder: RunFolder) -> Predictions:
    """Return a run's test rows in the order of their ids."""
    found = read_predictions(folder)
    if found is None:
        raise RunFolderError(
            f"{folder.predictions_csv}: there is no such file, so there is nothing to compare"
        )
    return found.sort_by_id()


def _require_same_rows(
    folder: RunFolder, mine: Predictions, other_folder: RunFolder, other: Predictions
) -> None:
    where = f"{shorten_path(folder.path)} and {shorten_path(other_folder.path)}"
    if mine.ids.tolist() != other.ids.tolist():
        common = len(set(mine.ids) & set(other.ids))
        raise ConfigError(
            f"{where} were tested on different rows ({len(mine.ids)} and {len(other.ids)}, {common} in common); "
            "compare runs with the same rows and the same split (data.split.*), or cross-validate both. Features and "
            "model may differ"
        )
    if mine.genre_names != other.genre_names or (mine.true != other.true).any():
        raise ConfigError(
            f"{where} were tested on the same ids with different genres; compare runs of one table"
        )


def describe_verdict(comparison: Comparison) -> str:
    """Return the result of a comparison in one sentence."""
    accuracy = comparison.differences[0]
    if not comparison.distinguishable:
        return f"not distinguishable: the difference of {accuracy.difference:+.3f} in accuracy may well be chance"
    better = comparison.first if accuracy.difference > 0 else comparison.second
    return f"{shorten_path(better.path)} is better: {abs(accuracy.difference):.3f} in accuracy is more than chance"


def describe_contestants(comparison: Comparison) -> Mapping[str, Sequence[str]]:
    """Return the lines that describe each contestant, under ``first`` and ``second``."""
    found = {}
    for name, one in (("first", comparison.first), ("second", comparison.second)):
        lines = [str(shorten_path(one.path))]
        if one.chosen:
            lines.append(one.chosen)
        if len(one.trials) > 1:
            lines.append(f"{len(one.trials)} runs")
        found[name] = lines
    return found
