"""Choose the checkpoint to export, and say why. Reads only the runs' small files, imports nothing heavy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from genre_classifier.commands import format_argument
from genre_classifier.config.schema import ExportConfig
from genre_classifier.errors import CheckpointError, ExportError
from genre_classifier.runs.folder import RunFolder, shorten_path
from genre_classifier.runs.listing import Unreadable, find_run_folders, format_unreadable, read_each
from genre_classifier.runs.ranking.leaderboard import Row, Trial, find_best_trial, rank_trials, read_trial
from genre_classifier.runs.sweep_folder import SweepFolder

SYNTHETIC = "on synthetic data"
UNREADABLE = "of another format or damaged"


@dataclass(frozen=True)
class Finished:
    """A finished run with a checkpoint.

    Parameters
    ----------
    folder : RunFolder
    score : float
        Validation F1 of the best epoch. In a sweep, the mean of the swept metric over the configuration's replicates.
    synthetic : bool
        Whether its data is synthetic.
    started : str
        Time of the start, in ISO 8601.
    """

    folder: RunFolder
    score: float
    synthetic: bool
    started: str


@dataclass(frozen=True)
class Choice:
    """The checkpoint to export, and how it was chosen.

    Parameters
    ----------
    checkpoint : Path
    folder : RunFolder or None
        The checkpoint's run; None for a checkpoint outside a run's folder.
    reason : str
    considered : tuple of Finished
        The runs it was compared with, best first. Empty if the user named the run or checkpoint.
    skipped : mapping of str to int
        Number of runs that were not considered, by reason.
    unreadable : tuple of Unreadable
        Folders that are damaged or have another format.
    """

    checkpoint: Path
    folder: RunFolder | None
    reason: str
    considered: tuple[Finished, ...]
    skipped: Mapping[str, int]
    unreadable: tuple[Unreadable, ...] = ()


def choose(settings: ExportConfig) -> Choice:
    """Return the checkpoint that the settings name, or the best one.

    Raises
    ------
    RunFolderError, CheckpointError
        The named run or checkpoint cannot be used.
    ExportError
        There is no finished run to choose from, or the named run is not finished.
    """
    if settings.ckpt is not None:
        return _choose_named_checkpoint(Path(settings.ckpt))
    if settings.run is not None:
        return _choose_named_run(RunFolder(Path(settings.run)))
    if settings.sweep is not None:
        return _choose_from_sweep(SweepFolder(Path(settings.sweep)))
    return _choose_from_runs(Path(settings.outputs_dir))


def _choose_named_checkpoint(path: Path) -> Choice:
    if not path.is_file():
        raise CheckpointError(f"ckpt={path}: there is no such file; a run keeps its own under checkpoints/")
    folder = RunFolder(path.absolute().parent.parent)
    belongs = path.absolute().parent == folder.checkpoints and folder.run_json.is_file()
    return Choice(path, RunFolder(shorten_path(folder.path)) if belongs else None, "named by ckpt=", (), {})


def _choose_named_run(folder: RunFolder) -> Choice:
    run = folder.read_run()
    if run.get("baseline"):
        raise ExportError(
            f"run={folder.path}: is the baseline {run['baseline'].get('name')}, which has no network to export; name a "
            "run of train.py"
        )
    if run.get("status") != "finished":
        why = f" ({run['reason']})" if run.get("reason") else ""
        raise ExportError(
            f"run={folder.path}: its status is {run.get('status')!r}{why}, not 'finished'; let it finish, resume it "
            f"with train.py ckpt_path=..., or export one of its checkpoints with ckpt=FILE"
        )
    if not folder.best_checkpoint.is_file():
        raise ExportError(
            f"run={folder.path}: there is no {folder.best_checkpoint.relative_to(folder.path)}; the run was trained "
            "with callbacks.checkpoint=null, or the file was removed: train it again with checkpoints"
        )
    return Choice(folder.best_checkpoint, folder, "named by run=", (), {})


def _choose_from_sweep(sweep: SweepFolder) -> Choice:
    """Return the best replicate, by validation, of the configuration with the best mean over replicates."""
    metric = sweep.read_sweep()["optimized_metric"]
    if not sweep.trials():
        raise ExportError(
            f"sweep={sweep.path}: it has no trial; run it to its end with {format_argument('sweep.resume', sweep.path)}"
        )
    trials = read_each(sweep.trials(), read_trial)
    if not trials:
        listed = "\n".join(format_unreadable(trials.unreadable))
        raise ExportError(f"sweep={sweep.path}: no trial of it can be read\n{listed}")
    boards = rank_trials(trials, metric)
    if len(boards) > 1:
        raise ExportError(
            f"sweep={sweep.path}: its trials were on {len(boards)} different tables or splits, whose numbers do not "
            "compare; choose one with run=FOLDER (genre-classifier leaderboard lists them)"
        )
    rows = [row for row in boards[0].rows if _find_exportable(row)]
    if not rows:
        if all(trial.baseline for row in boards[0].rows for trial in row.trials):
            raise ExportError(f"sweep={sweep.path}: holds baselines only, which have no network to export")
        raise ExportError(
            f"sweep={sweep.path}: no trial is finished and has a checkpoint; run it to its end with "
            f"{format_argument('sweep.resume', sweep.path)}"
        )
    best = rows[0]
    trial = find_best_trial(_find_exportable(best), metric)
    assert trial is not None
    considered = tuple(_build_finished(row, metric) for row in rows)
    reason = f"of {len(rows)} configurations the best by {metric}, {best.estimates[metric].mean:.4f}"
    if len(best.finished) > 1:
        reason += f" on average of {len(best.finished)} replicates; the best of them has {trial.metrics[metric]:.4f}"
    failed = Counter(
        trial.status for row in boards[0].rows for trial in row.trials if trial.status != "finished"
    )
    return Choice(
        trial.folder.best_checkpoint, trial.folder, reason, considered, failed, tuple(trials.unreadable)
    )


def _find_exportable(row: Row) -> list[Trial]:
    return [trial for trial in row.finished if trial.folder.best_checkpoint.is_file()]


def _build_finished(row: Row, metric: str) -> Finished:
    trial = find_best_trial(_find_exportable(row), metric) or row.trials[0]
    return Finished(trial.folder, row.estimates[metric].mean, trial.synthetic, "")


def _choose_from_runs(outputs: Path) -> Choice:
    finished, skipped, left_out = _survey(outputs)
    real = [run for run in finished if not run.synthetic]
    if real and len(real) < len(finished):
        # A score on synthetic data says nothing about music, so real data is always preferred.
        skipped[SYNTHETIC] = len(finished) - len(real)
        finished = real
    if not finished:
        found = f" ({_format_counts(skipped)})" if skipped else ""
        message = (
            f"outputs_dir={outputs}: no finished run with a checkpoint and a validation F1{found}; train one with "
            "python train.py, or name what to export with run=FOLDER or ckpt=FILE"
        )
        raise ExportError("\n".join([message, *format_unreadable(left_out)]))
    best = finished[0]
    reason = f"the only finished run, validation F1 {best.score:.4f}"
    if len(finished) > 1:
        reason = f"the best of {len(finished)} finished runs by validation F1, {best.score:.4f}"
    return Choice(best.folder.best_checkpoint, best.folder, reason, tuple(finished), skipped, tuple(left_out))


def _survey(outputs: Path) -> tuple[list[Finished], Counter[str], list[Unreadable]]:
    """Return the runs that can be exported (best first), the number of others by reason, and the unreadable ones."""
    finished, skipped = [], Counter[str]()
    looked_at = read_each(map(RunFolder, find_run_folders(outputs)), _look_at)
    for found in looked_at:
        if isinstance(found, Finished):
            finished.append(found)
        else:
            skipped[found] += 1
    finished.sort(key=lambda run: (run.score, run.started), reverse=True)
    if looked_at.unreadable:
        skipped[UNREADABLE] = len(looked_at.unreadable)
    return finished, skipped, looked_at.unreadable


def _look_at(folder: RunFolder) -> Finished | str:
    """Return a run that can be exported, or the reason why it cannot.

    Raises
    ------
    RunFolderError
        One of its files is missing or damaged.
    """
    run = folder.read_run()
    if run.get("baseline"):
        return "baselines"
    if run["status"] != "finished":
        return "failed" if run["status"] == "failed" else "running or killed"
    if not folder.best_checkpoint.is_file():
        return "without a checkpoint"
    metrics = folder.read_metrics()
    score = (metrics.get("val") or {}).get("f1")
    if score is None or not math.isfinite(score):
        return "without validation F1"
    return Finished(folder, float(score), bool(metrics.get("synthetic_data")), run.get("started") or "")


def _format_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


def describe(choice: Choice, shown: int = 5) -> list[str]:
    """Return the lines that say which runs were considered and why this one."""
    if choice.folder is not None and choice.folder.best_checkpoint == choice.checkpoint:
        what = str(shorten_path(choice.folder.path))
    else:
        what = str(shorten_path(choice.checkpoint))
    lines = [f"{what}, {choice.reason}"]
    for run in choice.considered[:shown] if len(choice.considered) > 1 else ():
        note = ", synthetic data" if run.synthetic else ""
        lines.append(f"  {run.score:.4f}  {shorten_path(run.folder.path)}{note}")
    if len(choice.considered) > shown:
        lines.append(f"  and {len(choice.considered) - shown} more")
    if choice.skipped:
        lines.append(f"  skipped {sum(choice.skipped.values())}: {_format_counts(choice.skipped)}")
    lines += (f"  {line}" for line in format_unreadable(choice.unreadable))
    return lines
