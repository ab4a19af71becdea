"""Compare two runs or sweeps on the rows or folds that tested both."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from genre_classifier.config.settings import REPLICATE_KEYS
from genre_classifier.errors import ConfigError, RunFolderError
from genre_classifier.evaluation.intervals import difference_intervals
from genre_classifier.evaluation.paired_tests import McNemar, corrected_t, mcnemar
from genre_classifier.runs.folder import RunFolder, relative
from genre_classifier.runs.listing import RUN_FILE, Unreadable, lines_about, unreadable
from genre_classifier.runs.predictions import Predictions, read_predictions
from genre_classifier.runs.ranking.leaderboard import Row, Trial, find_trials, leaderboards, overlap

COMPARED = ("accuracy", "f1", "f1_macro")
SIGNIFICANT = 0.05
SHARES = ("data.split.train", "data.split.val", "data.split.test")


@dataclass(frozen=True, eq=False)
class Contestant:
    """A model with its replicates: a run, or a sweep's best configuration.

    Parameters
    ----------
    path : Path
        As it was named.
    trials : tuple of Trial
        Finished.
    chosen : str
        How a sweep's configuration was chosen; empty for a run.
    unreadable : tuple of Unreadable
        Trials of a sweep that were left out.
    """

    path: Path
    trials: tuple[Trial, ...]
    chosen: str
    unreadable: tuple[Unreadable, ...] = ()

    @property
    def folds(self) -> set[int]:
        """The folds that tested it; empty without folds."""
        return {trial.fold for trial in self.trials if trial.fold is not None}


@dataclass(frozen=True)
class Difference:
    """One metric of both, on test rows.

    Parameters
    ----------
    metric : str
    first, second : float
        Means over replicates and folds.
    difference : float
        First less second.
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
        How the rows were split, in words; where the two were split differently, both.
    method : str
        What the intervals come from.
    differences : tuple of Difference
        Of accuracy, f1 and f1_macro.
    mcnemar : McNemar or None
        Of two single runs.
    """

    first: Contestant
    second: Contestant
    protocol: str
    method: str
    differences: tuple[Difference, ...]
    mcnemar: McNemar | None

    @property
    def distinguishable(self) -> bool:
        """Whether the difference in accuracy is more than chance, by its interval and, for two runs, McNemar's test."""
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
        They were not tested on the same rows or folds.
    RunFolderError
        A folder holds no finished run.
    """
    one, other = contestant(first, metric), contestant(second, metric)
    if max(len(one.folds), len(other.folds)) > 1:
        return _over_folds(one, other)
    return _on_rows(one, other)


def contestant(path: Path, metric: str) -> Contestant:
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
    boards = leaderboards(trials, metric)
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


def _over_folds(one: Contestant, other: Contestant) -> Comparison:
    if one.folds != other.folds:
        raise ConfigError(
            f"{one.path} was tested on folds {_listed(one.folds)} and {other.path} on {_listed(other.folds)}; "
            "cross-validate both on the same folds (hparams_search=cross_validation)"
        )
    mine, others = one.trials[0], other.trials[0]
    if mine.data != others.data or _split(mine) != _split(others):
        raise ConfigError(
            f"{one.path} and {other.path} have other rows or another split (data.split.*), so their folds are not the "
            "same folds; compare runs of one data set and split"
        )
    differences = []
    shared = overlap([*one.trials, *other.trials])
    for metric in COMPARED:
        by_fold = [_by_fold(contestant, f"test/{metric}") for contestant in (one, other)]
        test = corrected_t([by_fold[0][fold] - by_fold[1][fold] for fold in sorted(by_fold[0])], shared)
        mine_mean, others_mean = (fmean(values.values()) for values in by_fold)
        # Two proportions differ by one at most.
        low, high = max(-1.0, test.mean - test.half_width), min(1.0, test.mean + test.half_width)
        differences.append(Difference(metric, mine_mean, others_mean, test.mean, low, high, test.p_value))
    method = f"corrected t-test over {len(one.folds)} folds (Nadeau and Bengio, 2003)"
    return Comparison(one, other, mine.protocol, method, tuple(differences), None)


def _listed(folds: set[int]) -> str:
    return ", ".join(map(str, sorted(folds))) or "none"


def _split(trial: Trial) -> dict[str, object]:
    """Return what decides which rows each fold tests; the shares only divide the other rows."""
    return {
        key: value
        for key, value in trial.settings.items()
        if key.startswith("data.split.") and key not in (*REPLICATE_KEYS, *SHARES)
    }


def _by_fold(contestant: Contestant, metric: str) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for trial in contestant.trials:
        if trial.fold is not None:
            values.setdefault(trial.fold, []).append(_metric_of(trial, metric))
    return {fold: fmean(found) for fold, found in values.items()}


def _on_rows(one: Contestant, other: Contestant) -> Comparison:
    (one, mine), (other, others) = _with_test_rows(one), _with_test_rows(other)
    tested = [mine, others]
    first = mine[0]
    for contestant, runs in zip((one, other), tested, strict=True):
        for trial, run in zip(contestant.trials, runs, strict=True):
            _require_same_rows(one.trials[0].folder, first, trial.folder, run)
    logits = [[run.logits() for run in runs] for runs in tested]
    groups = first.groups if first.has_groups else None
    found = difference_intervals(logits[0], logits[1], first.true, groups)
    differences = tuple(
        Difference(metric, _mean(one, metric), _mean(other, metric), *found[metric]) for metric in COMPARED
    )
    test = mcnemar(tested[0][0].right, tested[1][0].right) if max(map(len, tested)) == 1 else None
    method = f"paired bootstrap over {len(first)} rows"
    if groups is not None:
        method += f" in {len(set(groups))} groups"
    return Comparison(one, other, _protocol(one, other), method, differences, test)


def _with_test_rows(contestant: Contestant) -> tuple[Contestant, list[Predictions]]:
    """Return a contestant and its trials' test rows; a trial whose rows cannot be read is left out of several."""
    kept: list[Trial] = []
    rows: list[Predictions] = []
    left_out = list(contestant.unreadable)
    for trial in contestant.trials:
        try:
            rows.append(_tested(trial.folder))
            kept.append(trial)
        except RunFolderError as error:
            if len(contestant.trials) == 1:
                raise
            left_out.append(unreadable(trial.folder, error))
    if not kept:
        raise RunFolderError("\n".join([f"{contestant.path}: no trial can be read", *lines_about(left_out)]))
    return replace(contestant, trials=tuple(kept), unreadable=tuple(left_out)), rows


def _mean(contestant: Contestant, metric: str) -> float:
    return fmean(_metric_of(trial, f"test/{metric}") for trial in contestant.trials)


def _metric_of(trial: Trial, metric: str) -> float:
    try:
        return trial.metrics[metric]
    except KeyError:
        raise RunFolderError(
            f"{trial.folder.metrics_json}: there is no {metric}, so there is nothing to compare"
        ) from None


def _protocol(one: Contestant, other: Contestant) -> str:
    protocols = dict.fromkeys(contestant.trials[0].protocol for contestant in (one, other))
    return "; the other: ".join(protocols)


def _tested(folder: RunFolder) -> Predictions:
    """Return a run's test rows in the order of their ids."""
    found = read_predictions(folder)
    if found is None:
        raise RunFolderError(
            f"{folder.predictions_csv}: there is no such file, so there is nothing to compare"
        )
    return found.by_id()


def _require_same_rows(
    folder: RunFolder, mine: Predictions, other_folder: RunFolder, other: Predictions
) -> None:
    where = f"{relative(folder.path)} and {relative(other_folder.path)}"
    if mine.ids.tolist() != other.ids.tolist():
        common = len(set(mine.ids) & set(other.ids))
        raise ConfigError(
            f"{where} were tested on different rows ({len(mine.ids)} and {len(other.ids)}, {common} in common); "
            "compare runs of the same data and split, or cross-validate both"
        )
    if mine.genre_names != other.genre_names or (mine.true != other.true).any():
        raise ConfigError(
            f"{where} were tested on the same ids with different genres; compare runs of one table"
        )


def verdict(comparison: Comparison) -> str:
    """Return in one sentence what the comparison amounts to."""
    accuracy = comparison.differences[0]
    if not comparison.distinguishable:
        return f"not distinguishable: the difference of {accuracy.difference:+.3f} in accuracy may well be chance"
    better = comparison.first if accuracy.difference > 0 else comparison.second
    return (
        f"{relative(better.path)} is better: {abs(accuracy.difference):.3f} in accuracy is more than chance"
    )


def names_of(comparison: Comparison) -> Mapping[str, Sequence[str]]:
    """Return under ``first`` and ``second`` what each contestant is, a line for each thing to say."""
    found = {}
    for name, one in (("first", comparison.first), ("second", comparison.second)):
        lines = [str(relative(one.path))]
        if one.chosen:
            lines.append(one.chosen)
        if len(one.trials) > 1:
            lines.append(f"{len(one.trials)} runs")
        found[name] = lines
    return found
