"""Run one trial of a sweep in a separate process. If it fails, run.json says why, and the sweep goes on."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from genre_classifier.commands import format_override
from genre_classifier.config.settings import (
    OWN_PATHS,
    complete_paths,
    experiment_hash,
    flatten_settings,
    get_start_folder,
    list_overrides,
)
from genre_classifier.errors import GenreClassifierError, RunFolderError, TrialFailedError
from genre_classifier.machine.child_process import die_with_parent
from genre_classifier.runs.folder import RunFolder
from genre_classifier.runs.sweep_folder import SweepFolder
from genre_classifier.sweeps.processes import (
    run_in_process,
    set_up_logging,
    take_a_device,
    write_everything_to,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """The arguments of a trial's process.

    Parameters
    ----------
    job : DictConfig
    logging_settings : dict
        Hydra's settings for a job.
    sweep : Path
        The sweep's folder.
    script : Path
        The file of the command. Lightning starts it again for each further device.
    overrides : tuple of str
        The overrides of this job.
    """

    job: DictConfig
    logging_settings: Any
    sweep: Path
    script: Path
    overrides: tuple[str, ...]


def run_trial(cfg: DictConfig) -> float:
    """Run or finish one trial in a separate process and return its objective.

    The launcher's process calls this after Hydra has set the job's configuration. A trial with a checkpoint continues
    from it. A finished trial does not run again.

    Parameters
    ----------
    cfg : DictConfig
        The job's composed configuration.

    Raises
    ------
    TrialFailedError
        run.json says why.
    """
    _end_with_the_sweep()
    hydra = HydraConfig.get()
    if hydra.job.chdir:
        cfg = complete_paths(get_start_folder(), cfg)
    folder = RunFolder(Path(str(cfg.run_dir)))
    sweep = SweepFolder(get_start_folder() / str(hydra.sweep.dir))
    with sweep.locked(folder.path.name):
        settings = _flatten_settings(cfg, folder)
        if _is_finished(folder, settings):
            return float(folder.read_run()["objective"])
        write_status(folder, "running", None, settings=settings)
        job = cfg.copy()
        silence(job)
        with read_write(job), open_dict(job):
            job.run_dir = str(folder.path)
            if job.ckpt_path is None and folder.last_checkpoint.is_file():
                job.ckpt_path = str(folder.last_checkpoint)
        start = Start(
            job=job,
            logging_settings=OmegaConf.to_container(hydra.job_logging, resolve=True),
            sweep=sweep.path,
            script=Path(str(sweep.read_sweep()["script"])),
            overrides=tuple(list_overrides(hydra.overrides.task)),
        )
        end = run_in_process(_run_job, start, f"trial-{folder.path.name}")
    return _read_objective(folder, end)


@cache
def _end_with_the_sweep() -> None:
    """End a launcher's worker when the process that started it ends. The sweep's own process is not affected."""
    from genre_classifier.sweeps.start import get_started_sweep

    if get_started_sweep() is None:
        die_with_parent()


def silence(job: DictConfig) -> None:
    """Switch a job's progress bar off, and its figures unless the user asked for them."""
    with read_write(job), open_dict(job):
        job.trainer.enable_progress_bar = False
        if job.logger is not None and job.logger.get("figures", False) is None:
            job.logger.figures = False


def write_status(folder: RunFolder, status: str, reason: str | None, **more: Any) -> None:
    """Write a trial's status to its run.json, and keep the other entries."""
    try:
        before = folder.read_run()
    except RunFolderError:
        before = {"started": datetime.now().astimezone().isoformat(timespec="seconds")}
    folder.write_run({**before, **more, "status": status, "reason": reason})


def _flatten_settings(cfg: DictConfig, folder: RunFolder) -> dict[str, Any]:
    try:
        return flatten_settings(cfg)
    except Exception as error:
        write_status(folder, "failed", f"the configuration cannot be resolved: {error}")
        raise TrialFailedError(f"{folder.path}: {error}") from error


def _is_finished(folder: RunFolder, settings: Mapping[str, Any]) -> bool:
    if not folder.run_json.is_file():
        return False
    try:
        run = folder.read_run()
    except RunFolderError:  # the trial runs again
        return False
    recorded = run.get("settings") or {}
    return (
        run["status"] == "finished"
        and "objective" in run
        and experiment_hash(recorded) == experiment_hash(settings)
    )


def _read_objective(folder: RunFolder, end: str) -> float:
    run = folder.read_run()
    if run["status"] == "running":
        write_status(folder, "failed", end)
        run = folder.read_run()
    if run["status"] == "finished":
        return float(run["objective"])
    if run["reason"] == "interrupted":
        raise KeyboardInterrupt
    raise TrialFailedError(f"{folder.path}: {run['reason']}")


def _run_job(start: Start) -> None:
    die_with_parent()
    job = start.job
    folder = RunFolder(Path(job.run_dir))
    write_everything_to(folder.log)
    set_up_logging(start.logging_settings, folder.log)
    take_a_device(job, start.sweep)
    _make_restartable(start)
    try:
        from genre_classifier.training.fit import train

        train(job)
    except KeyboardInterrupt:
        sys.exit(130)
    except BaseException as error:
        # The run itself records errors as soon as its record has begun. This records earlier ones.
        if folder.read_run()["status"] == "running":
            write_status(folder, "failed", f"{type(error).__name__}: {error}")
        if not isinstance(error, GenreClassifierError):
            log.exception("the trial failed")
        else:
            log.error("%s", error)
        sys.exit(1)


def _make_restartable(start: Start) -> None:
    """Set sys.argv to this trial's command. Lightning starts the processes of further devices with it."""
    own = [format_override("hydra.run.dir", start.job.run_dir), "hydra.output_subdir=null"]
    # Lightning starts the command in this process's folder, so relative paths need those of the job.
    paths = {key: OmegaConf.select(start.job, key, throw_on_missing=False) for key in OWN_PATHS}
    own += [format_override(key, path) for key, path in paths.items() if isinstance(path, str)]
    sys.argv = [str(start.script), *start.overrides, *own]
