"""Rank trials. Replicates share a row with an interval, and rows that may equal the best one are marked.

Only run folders are read. Validation metrics decide the rank; test metrics are only shown.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from genre_classifier.config.schema import SELECTION_METRICS, is_higher_better
from genre_classifier.config.settings import (
    PATHS,
    REPLICATE_KEYS,
    experiment_hash,
    flatten,
    replicate_hash,
    select_experiment_settings,
)
from genre_classifier.errors import ConfigError, RunFolderError
from genre_classifier.evaluation.paired_tests import LEVEL, run_corrected_t_test
from genre_classifier.evaluation.replicates import compute_interval_of_mean
from genre_classifier.runs.folder import RunFolder
from genre_classifier.runs.listing import Readable, find_run_folders, format_unreadable, read_each
from genre_classifier.runs.record_shapes import check_settings

SPLITS = ("val", "test", "train")
# The column with the kind of model, if trials differ in it. Its setting is a class path.
MODEL = "model"
TARGET = "model._target_"


@dataclass(frozen=True, eq=False)
class Trial:
    """One run: a row of trials.csv.

    Parameters
    ----------
    folder : RunFolder
    status : str
        ``finished``, ``failed`` or ``running``. A killed run still has ``running``.
    reason : str or None
        Reason of the failure.
    settings : mapping of str to Any
        Its settings, by flat names. Paths are absolute.
    metrics : mapping of str to float
        Metrics of the best epoch, such as ``val/f1``; empty unless finished.
    rows : mapping of str to int
        Rows by split.
    data : str
        Fingerprint of its rows.
    protocol : str
        The split in words, without the number of the fold.
    epochs : int or None
    seconds : float or None
    synthetic : bool
    baseline : str or None
        Its name, such as ``svc``; None for a network.
    seeded : bool
        Whether the result depends on the seed.
    chosen : mapping of str to Any
        The hyperparameters that a baseline chose on its training rows.
    """

    folder: RunFolder
    status: str
    reason: str | None
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]
    rows: Mapping[str, int]
    data: str
    protocol: str
    epochs: int | None
    seconds: float | None
    synthetic: bool
    baseline: str | None = None
    seeded: bool = True
    chosen: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> str | None:
        """A baseline's name, GenreClassifier, or the path of another network's class."""
        target = self.settings.get(TARGET)
        return self.baseline or (
            None if target is None else str(target).removeprefix("genre_classifier.network.")
        )

    @property
    def kind(self) -> str:
        """The path of the model's class. Models of one kind have the same settings."""
        return str(self.settings.get(TARGET))

    def get_setting(self, key: str) -> Any:
        """Return a setting by its name in a leaderboard; None if the trial has no such setting."""
        return self.model if key == MODEL else self.settings.get(key)

    @property
    def replicate(self) -> tuple[Any, ...]:
        """Seed and fold."""
        return tuple(self.settings.get(key) for key in REPLICATE_KEYS)

    @property
    def fold(self) -> int | None:
        """Number of the fold that tests; None without folds."""
        fold = self.settings.get("data.split.fold")
        return None if fold is None else int(fold)


@dataclass(frozen=True)
class Estimate:
    """A metric over replicates.

    Parameters
    ----------
    n : int
        Replicates.
    mean : float
    deviation : float or None
        Standard deviation over the replicates; None for one.
    low, high : float or None
        The 95 % interval of the mean; None if there are fewer than four seeds or folds.
    least, most : float or None
        The smallest and largest value of the replicates; None for one.
    """

    n: int
    mean: float
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True, eq=False)
class Row:
    """One configuration and all its replicates.

    Parameters
    ----------
    rank : int or None
        From 1. Rows with equal means share a rank. None if no replicate is finished.
    trials : tuple of Trial
    settings : mapping of str to Any
        Settings of this kind of model in which the compared configurations differ.
    estimates : mapping of str to Estimate
        By metric, over the finished replicates.
    like_best : bool or None
        Whether the difference to the best row may be chance; None if there are too few replicates.
    """

    rank: int | None
    trials: tuple[Trial, ...]
    settings: Mapping[str, Any]
    estimates: Mapping[str, Estimate]
    like_best: bool | None

    @property
    def finished(self) -> list[Trial]:
        """The finished replicates."""
        return [trial for trial in self.trials if trial.status == "finished"]

    @property
    def status(self) -> str:
        """The replicates' common status, or the number of each."""
        counts = Counter(trial.status for trial in self.trials)
        if len(counts) == 1:
            return next(iter(counts))
        return ", ".join(f"{count} {status}" for status, count in counts.items())


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """Configurations with the same rows and the same split.

    Parameters
    ----------
    metric : str
        The metric of the ranking.
    protocol : str
    synthetic : bool
    keys : tuple of str
        The settings that differ between rows.
    rows : tuple of Row
        Best first; those without a finished replicate last.
    """

    metric: str
    protocol: str
    synthetic: bool
    keys: tuple[str, ...]
    rows: tuple[Row, ...]


def complete_metric_name(name: str) -> str:
    """Return the full name of a metric to rank by. ``f1`` means ``val/f1``.

    Raises
    ------
    ConfigError
        There is no such metric, or it is one of the test rows.
    """
    full = name if "/" in name else f"val/{name}"
    if full.startswith("test/"):
        raise ConfigError(
            f"--metric {name}: test rows judge the one that was chosen and never take part in choosing; rank by "
            f"val/{full.partition('/')[2]}"
        )
    if full not in SELECTION_METRICS:
        raise ConfigError(
            f"--metric {name}: expected one of {', '.join(SELECTION_METRICS)}, or the part after val/"
        )
    return full


def find_trials(folders: Sequence[Path]) -> Readable[Trial]:
    """Return every run in or below the folders, each once. Unreadable folders are left out.

    Raises
    ------
    RunFolderError
        A folder does not exist, or no folder has a readable run.
    """
    paths: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise RunFolderError(
                f"{folder}: there is no such folder; runs and sweeps are kept below outputs/"
            )
        paths |= dict.fromkeys(find_run_folders(folder))
    trials = read_each(map(RunFolder, paths), read_trial)
    if not trials:
        where = ", ".join(map(str, folders))
        if trials.unreadable:
            raise RunFolderError(
                "\n".join([f"{where}: there is no readable run", *format_unreadable(trials.unreadable)])
            )
        raise RunFolderError(f"{where}: there is no run; python train.py makes one")
    return trials


def read_trial(folder: RunFolder) -> Trial:
    """Read a run's folder.

    Raises
    ------
    RunFolderError
        A file is missing or damaged.
    """
    run = folder.read_run()
    settings = run.get("settings")
    if not settings:
        settings = flatten(folder.read_settings())
        check_settings(settings, folder.config_yaml)
    status = str(run.get("status"))
    metrics = folder.read_metrics() if status == "finished" else {}
    protocol = run.get("split_protocol") or {}
    data = run.get("data") or {}
    baseline = run.get("baseline") or {}
    return Trial(
        folder=folder,
        status=status,
        reason=run.get("reason"),
        settings=_complete_paths(settings, run.get("working_folder")),
        metrics=_flatten_metrics(metrics),
        rows=data.get("rows_by_split") or {},
        data=data.get("fingerprint") or "",
        protocol=_drop_fold(protocol.get("description") or ""),
        epochs=run.get("epochs"),
        seconds=run.get("seconds"),
        synthetic=bool(metrics.get("synthetic_data", data.get("synthetic", False))),
        baseline=baseline.get("name"),
        seeded=bool(baseline.get("seeded", True)),
        chosen=baseline.get("chosen") or {},
    )


def _complete_paths(settings: Mapping[str, Any], start: str | None) -> dict[str, Any]:
    """Return settings with absolute paths, so that runs from different folders have the same path for a file."""
    if start is None:
        return dict(settings)
    whole = {
        # os.path's function leaves a ~ whose user is unknown as it is.
        key: os.path.normpath(Path(start) / os.path.expanduser(path))  # noqa: PTH111
        for key in PATHS
        if isinstance(path := settings.get(key), str)
    }
    return {**settings, **whole}


def _flatten_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {
        f"{split}/{name}": float(value)
        for split in SPLITS
        for name, value in (metrics.get(split) or {}).items()
        if value is not None and math.isfinite(value)
    }


def _drop_fold(description: str) -> str:
    return re.sub(r"^fold \d+ of (\d+) tests", r"each of \1 folds tests in turn", description)


def rank_trials(trials: Sequence[Trial], metric: str, by: str | None = None) -> list[Leaderboard]:
    """Rank trials. Trials with other rows or another split get a separate leaderboard.

    Only one of several trials with exactly the same settings counts.

    Parameters
    ----------
    trials : sequence of Trial
    metric : str
        See `complete_metric_name`.
    by : str, optional
        A setting. Trials with the same value share a row; other settings do not count.

    Raises
    ------
    ConfigError
        No trial has the setting.
    """
    if by is not None and not any(by == MODEL or by in trial.settings for trial in trials):
        known = sorted({key for trial in trials for key in _find_differing_settings(trials)})
        raise ConfigError(f"--by {by}: no run has such a setting; these differ: {', '.join(known) or 'none'}")
    fingerprints = {_make_source_key(trial): trial.data for trial in trials if trial.data}
    worlds: dict[tuple[str, str], list[Trial]] = {}
    for trial in _drop_copies(trials):
        # A trial that failed before it read its rows belongs to the trials with the same file.
        data = trial.data or fingerprints.get(_make_source_key(trial), "")
        worlds.setdefault((data, _make_split_key(trial)), []).append(trial)
    return [_rank(members, metric, by) for members in worlds.values()]


def _drop_copies(trials: Sequence[Trial]) -> list[Trial]:
    found: dict[str, Trial] = {}
    for trial in sorted(trials, key=lambda trial: trial.status != "finished"):
        found.setdefault(experiment_hash(trial.settings) + trial.data, trial)
    kept = {id(trial) for trial in found.values()}
    return [trial for trial in trials if id(trial) in kept]


def _make_source_key(trial: Trial) -> str:
    return json.dumps(
        [trial.settings.get(f"data.{name}") for name in ("source", "path", "label", "features")]
    )


def _make_split_key(trial: Trial) -> str:
    settings = {key: value for key, value in trial.settings.items() if key.startswith("data.split.")}
    return json.dumps(
        {key: value for key, value in settings.items() if key not in REPLICATE_KEYS}, sort_keys=True
    )


def find_best_trial(trials: Sequence[Trial], metric: str) -> Trial | None:
    """Return the best of some finished trials by a validation metric, or the first of several equal ones."""
    sign = 1 if is_higher_better(metric) else -1
    candidates = [trial for trial in trials if metric in trial.metrics]
    return max(candidates, key=lambda trial: sign * trial.metrics[metric], default=None)


def _rank(trials: Sequence[Trial], metric: str, by: str | None) -> Leaderboard:
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        value = trial.get_setting(by) if by is not None else None
        key = replicate_hash(trial.settings) if by is None else json.dumps(value)
        groups.setdefault(key, []).append(trial)
    keys = (
        (by,) if by is not None else tuple(_find_differing_settings([group[0] for group in groups.values()]))
    )
    estimates = [_estimate_metrics(group) for group in groups.values()]
    order = sorted(
        zip(groups.values(), estimates, strict=True), key=lambda pair: _sort_key(pair[1].get(metric), metric)
    )
    known = _collect_known_settings(trials)
    best = order[0] if order and metric in order[0][1] else None
    rows: list[Row] = []
    for position, (group, found) in enumerate(order):
        estimate = found.get(metric)
        rank = None
        if estimate is not None:
            tied = rows and rows[-1].rank is not None and rows[-1].estimates[metric].mean == estimate.mean
            rank = rows[-1].rank if tied else position + 1
        like_best = None
        if best is not None and estimate is not None and group is not best[0]:
            like_best = _may_be_chance(best[0], group, metric, by)
        first = group[0]
        settings = {key: first.get_setting(key) for key in keys if key in known[first.kind]}
        rows.append(Row(rank, tuple(group), settings, found, like_best))
    return Leaderboard(
        metric=metric,
        protocol=next((trial.protocol for trial in trials if trial.protocol), ""),
        synthetic=any(trial.synthetic for trial in trials),
        keys=keys,
        rows=tuple(rows),
    )


def _collect_known_settings(trials: Sequence[Trial]) -> dict[str, set[str]]:
    """Return the settings that each kind of model has."""
    known: dict[str, set[str]] = {}
    for trial in trials:
        known.setdefault(trial.kind, {MODEL}).update(trial.settings)
    return known


def _find_differing_settings(trials: Sequence[Trial]) -> list[str]:
    """Return the settings in which trials of one kind of model differ."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for trial in trials:
        kinds.setdefault(trial.kind, []).append(select_experiment_settings(trial.settings))
    values: dict[str, set[str]] = {}
    for of_kind in kinds.values():
        for key in dict.fromkeys(key for settings in of_kind for key in settings):
            values.setdefault(key, set()).update(json.dumps(settings.get(key)) for settings in of_kind)
    found = [key for key, of_key in values.items() if key not in REPLICATE_KEYS and len(of_key) > 1]
    named = TARGET in found or any(trial.baseline for trial in trials)
    return [MODEL, *(key for key in found if key != TARGET)] if named else found


def _sort_key(estimate: Estimate | None, metric: str) -> tuple[bool, float]:
    if estimate is None:
        return (True, 0.0)
    return (False, -estimate.mean if is_higher_better(metric) else estimate.mean)


def _estimate_metrics(trials: Sequence[Trial]) -> dict[str, Estimate]:
    finished = [trial for trial in trials if trial.status == "finished"]
    names = dict.fromkeys(name for trial in finished for name in trial.metrics)
    return {
        name: estimate_metric(
            name, {trial: trial.metrics[name] for trial in finished if name in trial.metrics}
        )
        for name in names
    }


def estimate_metric(metric: str, values: Mapping[Trial, float]) -> Estimate:
    """Return mean, standard deviation, 95 % interval and spread of a metric over replicates.

    The interval is that of `compute_interval_of_mean`. The training rows of folds overlap, so the interval over folds
    is wider (Nadeau and Bengio, 2003). The seeds of one fold count as their mean.

    Parameters
    ----------
    metric : str
    values : mapping of Trial to float
        At least one.
    """
    numbers = list(values.values())
    mean = fmean(numbers)
    if len(numbers) < 2:
        return Estimate(len(numbers), mean)
    low, high = compute_interval_of_mean(metric, average_by_fold(values), compute_overlap(list(values))) or (
        None,
        None,
    )
    return Estimate(len(numbers), mean, stdev(numbers), low, high, min(numbers), max(numbers))


def average_by_fold(values: Mapping[Trial, float]) -> list[float]:
    """Return one value per fold if there are folds, else one per trial."""
    if all(trial.fold is None for trial in values):
        return list(values.values())
    by_fold: dict[int | None, list[float]] = {}
    for trial, value in values.items():
        by_fold.setdefault(trial.fold, []).append(value)
    return [fmean(of_fold) for of_fold in by_fold.values()]


def compute_overlap(trials: Sequence[Trial]) -> float:
    """Return the mean ratio of test to training rows over folds; 0 if only the seed changes."""
    ratios = [
        trial.rows["test"] / trial.rows["train"]
        for trial in trials
        if trial.fold is not None and trial.rows.get("train") and "test" in trial.rows
    ]
    return fmean(ratios) if ratios else 0.0


def _may_be_chance(best: Sequence[Trial], other: Sequence[Trial], metric: str, by: str | None) -> bool | None:
    """Return whether 0 is in the 95 % interval of the difference; None if there are too few replicates.

    Trials are compared in pairs (see `_pair_by_seed`), else by the means of their folds. Without pairs and folds,
    Welch's interval decides.
    """
    first, second = (
        [t for t in group if t.status == "finished" and metric in t.metrics] for group in (best, other)
    )
    differences = (
        _pair_by_seed(first, second, metric) if by is None else _pair_by_setting(first, second, metric, by)
    )
    units = average_by_fold(differences)
    if len(units) < 2 and by is None:
        units = _pair_by_fold(first, second, metric)
    if len(units) >= 2:
        test = run_corrected_t_test(units, compute_overlap(list(differences) or first))
        return abs(test.mean) <= test.half_width
    samples = [[trial.metrics[metric] for trial in found] for found in (first, second)]
    if min(map(len, samples)) < 2:
        return None
    return _may_be_equal_by_welch(*samples)


def _pair_by_seed(first: Sequence[Trial], second: Sequence[Trial], metric: str) -> dict[Trial, float]:
    """Return the differences of trials with the same seed and fold, by the seeded trial of each pair.

    A model without randomness gives the same result with any seed, so its trial pairs with every seed of the other
    model. The spread of the other model over its seeds is then all the noise.
    """
    return {
        (one if one.seeded else two): one.metrics[metric] - two.metrics[metric]
        for one in first
        for two in second
        if one.fold == two.fold and (one.replicate == two.replicate or not (one.seeded and two.seeded))
    }


def _pair_by_setting(
    first: Sequence[Trial], second: Sequence[Trial], metric: str, by: str
) -> dict[Trial, float]:
    """Return the differences of trials that share every setting but `by`."""
    others = {_hash_without(trial, by): trial for trial in second}
    return {
        trial: trial.metrics[metric] - others[key].metrics[metric]
        for trial in first
        if (key := _hash_without(trial, by)) in others
    }


def _hash_without(trial: Trial, by: str) -> str:
    return experiment_hash({key: value for key, value in trial.settings.items() if key != by})


def _pair_by_fold(first: Sequence[Trial], second: Sequence[Trial], metric: str) -> list[float]:
    """Return the difference of the seeds' means for each fold that both have; empty without folds."""
    means: list[dict[int, float]] = []
    for trials in (first, second):
        by_fold: dict[int, list[float]] = {}
        for trial in trials:
            if trial.fold is not None:
                by_fold.setdefault(trial.fold, []).append(trial.metrics[metric])
        means.append({fold: fmean(values) for fold, values in by_fold.items()})
    return [value - means[1][fold] for fold, value in means[0].items() if fold in means[1]]


def _may_be_equal_by_welch(first: Sequence[float], second: Sequence[float]) -> bool:
    from scipy.special import stdtrit

    shares = [stdev(sample) ** 2 / len(sample) for sample in (first, second)]
    total = sum(shares)
    difference = abs(fmean(first) - fmean(second))
    if total == 0:
        return difference == 0
    freedom = total**2 / sum(
        share**2 / (len(sample) - 1) for share, sample in zip(shares, (first, second), strict=True)
    )
    return difference <= float(stdtrit(freedom, 0.5 + LEVEL / 2)) * math.sqrt(total)
