"""Give each job of a sweeper a folder, let the launcher run only the unfinished jobs, and record failures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from genre_classifier.config.messages import explain_error
from genre_classifier.config.settings import (
    build_job_config,
    complete_paths,
    experiment_hash,
    flatten_settings,
)
from genre_classifier.errors import RunFolderError, TrialFailedError
from genre_classifier.runs.folder import RunFolder
from genre_classifier.runs.listing import format_unreadable, read_each
from genre_classifier.runs.sweep_folder import SweepFolder
from genre_classifier.sweeps.progress import Progress
from genre_classifier.sweeps.trial import write_status

DAMAGED = "damaged"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One job of the sweeper.

    Parameters
    ----------
    overrides : tuple of str
    folder : RunFolder
        The folder of its run.
    """

    overrides: tuple[str, ...]
    folder: RunFolder

    @property
    def status(self) -> str | None:
        """Status of its run; None if it has not begun."""
        if not self.folder.run_json.is_file():
            return None
        try:
            return str(self.folder.read_run()["status"])
        except RunFolderError:
            return DAMAGED  # not finished, so the job runs again


class UnfinishedJobs:
    """Runs the jobs of a sweep that are not finished, with the launcher that the user chose.

    Parameters
    ----------
    inner : DictConfig
        Configuration of the launcher that runs the jobs.
    hydra_context, task_function, config
        As Hydra gives them to a launcher.
    """

    def __init__(
        self, inner: DictConfig, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        within = config.copy()
        with read_write(within):
            within.hydra.launcher = inner
            let_ray_connect(within.hydra.launcher)
        self.inner = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=within
        )
        self.hydra_context = hydra_context
        self.config = config
        self.sweep = SweepFolder(Path(config.hydra.sweep.dir).absolute())
        record = self.sweep.read_sweep()
        self.resumed = bool(record.get("resumed"))
        self.progress = Progress(self.sweep, record["expected"], record["optimized_metric"], record["swept"])
        self.known = self._find_known_trials() if self.resumed else {}

    def run(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs that are not finished and return every job's result. A failed job does not stop the others."""
        jobs = self._build_jobs(job_overrides)
        pending = [job for job in jobs if job.status != "finished"]
        for job in pending:
            if job.status is not None:
                # The recorded status belongs to an earlier attempt.
                write_status(job.folder, "running", None)
        with self.progress.watching([job.folder for job in jobs]):
            while pending:
                pending = self._launch(pending, initial_job_idx)
        return [self._build_return(job) for job in jobs]

    def _launch(self, pending: list[Job], initial_job_idx: int) -> list[Job]:
        """Let the launcher run the jobs. Return the jobs that it never began because it failed at another."""
        before = {job.folder.path: job.status for job in pending}
        overrides = [(*job.overrides, f"hydra.sweep.subdir='{job.folder.path.name}'") for job in pending]
        try:
            self.inner.launch(overrides, initial_job_idx=initial_job_idx)
            problem: Exception | None = None
        except Exception as error:
            problem = error
            log.info("the launcher broke down: %s", error)
        untouched = [job for job in pending if job.status == before[job.folder.path]]
        for job in pending:
            if job not in untouched and job.status == "running":
                write_status(
                    job.folder, "failed", f"its worker broke down ({problem or 'without a message'})"
                )
        if untouched and len(untouched) == len(pending):
            if problem is not None and explain_error(problem) is not None:
                raise problem
            if problem is not None:
                reason = f"{type(problem).__name__}: {problem}"
                raise TrialFailedError(f"hydra/launcher: it could not start a trial ({reason})") from problem
            raise TrialFailedError(f"{self.sweep.path}: the launcher returned without having run a trial")
        return untouched

    def _build_jobs(self, job_overrides: Sequence[Sequence[str]]) -> list[Job]:
        free = self.sweep.free_names()
        jobs = []
        for overrides in job_overrides:
            folder = self._find_known_folder(overrides) or self.sweep.trial(next(free))
            jobs.append(Job(tuple(overrides), folder))
        return jobs

    def _find_known_folder(self, overrides: Sequence[str]) -> RunFolder | None:
        if not self.known:
            return None
        composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        job = build_job_config(composed, "run_dir")
        if composed.hydra.job.chdir:
            job = complete_paths(Path(self.config.hydra.runtime.cwd), job)
        candidates = self.known.get(experiment_hash(flatten_settings(job)), [])
        return candidates.pop(0) if candidates else None

    def _find_known_trials(self) -> dict[str, list[RunFolder]]:
        """Return the sweep's trials by the hash of their experiment, finished ones first.

        A trial that cannot be read, or is finished without an objective, keeps its folder. Its values are tried again.
        """
        runs = read_each(self.sweep.trials(), _read_known_run)
        for line in format_unreadable(runs.unreadable):
            log.warning("%s", line)
        known: dict[str, list[RunFolder]] = {}
        for finished in (True, False):
            for folder, run in runs:
                if (run["status"] == "finished") is finished:
                    known.setdefault(experiment_hash(run.get("settings") or {}), []).append(folder)
        return known

    def _build_return(self, job: Job) -> JobReturn:
        """Return a finished trial's objective; None for a failed trial.

        An exception would end Hydra's own sweeper. Optuna's sweeper records None as a failed trial.
        """
        returned = JobReturn()
        returned.overrides = list(job.overrides)
        returned.working_dir = str(job.folder.path)
        returned.status = JobStatus.COMPLETED
        try:
            run = job.folder.read_run()
        except RunFolderError as error:
            log.warning("%s", error)
            return returned
        objective = run.get("objective") if run["status"] == "finished" else None
        returned.return_value = None if objective is None else float(objective)
        return returned


def _read_known_run(folder: RunFolder) -> tuple[RunFolder, dict[str, Any]]:
    run = folder.read_run()
    if run["status"] == "finished":
        if run.get("objective") is None:
            raise RunFolderError(f"{folder.run_json}: there is no objective")
        folder.read_metrics()
    return folder, run


def let_ray_connect(launcher: DictConfig) -> None:
    """Leave the size of Ray's object store to Ray if the launcher is Hydra's for Ray.

    That launcher asks for a small one, which Ray refuses if it connects to a cluster that runs already.
    """
    init = OmegaConf.select(launcher, "ray.init")
    if init is not None:
        with open_dict(init):
            init.setdefault("object_store_memory", None)
