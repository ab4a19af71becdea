"""Get the grouped-split result that a report shows beside a random split: same settings, but no group on two sides."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genre_classifier.commands import format_train_command
from genre_classifier.config.schema import SplitMethod
from genre_classifier.config.settings import select_experiment_settings
from genre_classifier.errors import GenreClassifierError, RunFolderError
from genre_classifier.reporting.contents import RunContents
from genre_classifier.runs.configuration import read_trainable_configuration
from genre_classifier.runs.folder import RunFolder, shorten_path
from genre_classifier.runs.listing import find_run_folders, read_each
from genre_classifier.runs.ranking.leaderboard import Estimate, Trial, estimate_metric, read_trial

log = logging.getLogger(__name__)

METHOD = "data.split.method"
GROUPED = f"{METHOD}=grouped"
# The folder of the grouped run, in the folder of the run with the random split.
FOLDER = "grouped"
# Levels from outputs/ to sweeps/DATE/TIME/JOB/grouped. Elsewhere, from the parent folder to a folder in a run.
DEPTH, DEPTH_ELSEWHERE = 5, 2
OUTPUTS = ("runs", "sweeps", "baselines")
NOT_SEARCHED = frozenset({"checkpoints", "tensorboard", ".hydra", ".locks"})


@dataclass(frozen=True)
class Beside:
    """The grouped-split result; or the reason why there is none, and the command to get it.

    Parameters
    ----------
    estimates : mapping of str to Estimate
        ``test/accuracy`` and ``test/f1``; empty without a result.
    intervals : mapping of str to Sequence
        The ends of a single run's bootstrap intervals, by metric.
    where : str
        The folder of the grouped run, or of the first of several.
    protocol : str
    remark : str
        The origin of the result, or the reason why there is none.
    command : str
        The command to get a result; empty if there is one.
    """

    estimates: Mapping[str, Estimate]
    intervals: Mapping[str, Sequence[float]]
    where: str
    protocol: str
    remark: str
    command: str


def is_random_despite_groups(protocol: Mapping[str, Any]) -> bool:
    """Return whether rows were divided at random although the source knows their groups."""
    return protocol.get("groups_disjoint") is False


def find_or_train_grouped_run(contents: RunContents, *, train_it: bool) -> Beside:
    """Return a finished run with this run's settings and a grouped split. Train one if there is none.

    Parameters
    ----------
    contents : RunContents
        A finished run with a random split of rows that have groups.
    train_it : bool
        Whether a run may be trained, into this run's folder, if none is found.
    """
    found = _find_partners(read_each([contents.folder], read_trial), _read_nearby(contents.folder.path))
    if found:
        return _build_beside(found, "The same settings, found among the runs beside this one.")
    command = build_grouped_command(contents.overrides) if contents.folder.overrides_yaml.is_file() else ""
    if "trainer.max_epochs" not in contents.settings:
        return _build_empty_beside(
            "Give the command that made this run again, with a grouped split.", command
        )
    if not train_it:
        return _build_empty_beside(
            "It was not trained, since --no-rows leaves out what needs the data.", command
        )
    try:
        trained = _train(contents)
    except (GenreClassifierError, OmegaConfBaseException, OSError) as error:
        reason = str(error).splitlines()[0]
        return _build_empty_beside(f"It could not be trained: {reason}.", command)
    return _build_beside([trained], "The same settings, trained for this report.")


def find_grouped_trials(best: Sequence[Trial], overrides: Sequence[str]) -> Beside:
    """Return the grouped partners of a configuration's finished trials. A report does not train a sweep again."""
    found = _find_partners(best, _read_nearby(best[0].folder.path))
    if found:
        return _build_beside(
            found, "The same settings with the same seeds and folds, found beside this sweep."
        )
    return _build_empty_beside(
        "There is none beside this sweep with the same settings, seeds and folds.",
        build_grouped_command(overrides, multirun=True) if overrides else "",
    )


def build_grouped_command(overrides: Sequence[str], *, multirun: bool = False) -> str:
    """Return the command that trains with these overrides and a grouped split; empty if there are no overrides."""
    # An override such as data/split=folds sets more than the method. So the method comes last.
    kept = [text for text in overrides if not text.startswith(f"{METHOD}=")]
    return format_train_command([*kept, GROUPED], multirun=multirun)


def _build_beside(trials: Sequence[Trial], remark: str) -> Beside:
    first = trials[0]
    metrics = first.folder.read_metrics()
    intervals = (metrics.get("intervals") or {}).get("test", {}) if len(trials) == 1 else {}
    return Beside(
        estimates={
            name: estimate_metric(name, {trial: trial.metrics[name] for trial in trials})
            for name in ("test/accuracy", "test/f1")
        },
        intervals={name: intervals[name] for name in ("accuracy", "f1") if name in intervals},
        where=str(shorten_path(first.folder.path)),
        protocol=first.protocol,
        remark=remark,
        command="",
    )


def _build_empty_beside(remark: str, command: str) -> Beside:
    return Beside({}, {}, "", "", remark, command)


def _find_partners(trials: Sequence[Trial], others: Sequence[Trial]) -> list[Trial]:
    """Return the grouped partner of every trial; no partners if one trial has none."""
    grouped = [other for other in others if _is_grouped(other)]
    found = []
    for trial in trials:
        alike = (
            other
            for other in grouped
            if other.data == trial.data and _select_other_settings(other) == _select_other_settings(trial)
        )
        if (partner := next(alike, None)) is None:
            return []
        found.append(partner)
    return found


def _is_grouped(trial: Trial) -> bool:
    if trial.status != "finished" or "test/accuracy" not in trial.metrics:
        return False
    try:
        protocol = trial.folder.read_run().get("split_protocol") or {}
    except RunFolderError:  # the file has changed since it was listed
        return False
    return protocol.get("groups_disjoint") is True


def _select_other_settings(trial: Trial) -> dict[str, Any]:
    return {key: value for key, value in select_experiment_settings(trial.settings).items() if key != METHOD}


def _read_nearby(path: Path) -> list[Trial]:
    """Return the runs below the same outputs folder, or only those beside the run if it is in no such folder."""
    path = path.absolute()
    above = next((folder for folder in list(path.parents)[:3] if folder.name in OUTPUTS), None)
    start, depth = (path.parent, DEPTH_ELSEWHERE) if above is None else (above.parent, DEPTH)
    return read_each(map(RunFolder, find_run_folders(start, depth=depth, skip=NOT_SEARCHED)), read_trial)


def _train(contents: RunContents) -> Trial:
    from genre_classifier.training.fit import train

    folder = RunFolder(contents.folder.path / FOLDER)
    cfg = _build_grouped_config(read_trainable_configuration(contents.folder), folder.path)
    trainer = cfg.trainer
    if trainer.devices != 1 or trainer.num_nodes != 1:
        raise RunFolderError("the run used several devices, and a report takes one process")
    log.info("%-12s the same settings with a grouped split, in %s", "training", shorten_path(folder.path))
    train(cfg)
    trained = read_trial(folder)
    if "test/accuracy" not in trained.metrics:
        raise RunFolderError(f"{folder.path} has no test metrics")
    return trained


def _build_grouped_config(saved: DictConfig, folder: Path) -> DictConfig:
    cfg = saved.copy()
    cfg.run_dir = str(folder)
    cfg.data.split.method = SplitMethod.grouped
    cfg.logger, cfg.ckpt_path = None, None
    cfg.trainer.enable_progress_bar = False
    OmegaConf.resolve(cfg)
    return cfg
