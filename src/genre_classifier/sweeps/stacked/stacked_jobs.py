"""Group a sweeper's jobs into stacks, train each stack in a separate process, and return one result per job."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from genre_classifier.config.checks import to_train_config
from genre_classifier.config.schema import TrainConfig
from genre_classifier.config.settings import build_job_config, flatten_settings
from genre_classifier.errors import GenreClassifierError
from genre_classifier.machine.child_process import die_with_parent
from genre_classifier.machine.processors import count_usable_cores
from genre_classifier.runs.folder import RunFolder, writing
from genre_classifier.runs.sweep_folder import SweepFolder
from genre_classifier.sweeps.processes import (
    run_in_process,
    set_up_logging,
    take_a_device,
    warm_up,
    write_everything_to,
)
from genre_classifier.sweeps.stacked.grouping import find_unstackable_setting, group_trials
from genre_classifier.sweeps.stacked.networks import NetworkQuestions
from genre_classifier.sweeps.trial import silence, write_status

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ComposedJob:
    """A job with its composed configuration.

    Parameters
    ----------
    overrides : tuple of str
    number : int
    cfg : DictConfig
        The configuration that the task function would get.
    settings : TrainConfig or None
        None if the configuration does not pass its check. Then run.json has the reason.
    """

    overrides: tuple[str, ...]
    number: int
    cfg: DictConfig
    settings: TrainConfig | None

    @property
    def folder(self) -> RunFolder:
        return RunFolder(Path(str(self.cfg.run_dir)))


@dataclass(frozen=True)
class StackStart:
    """The arguments of a stack's process.

    Parameters
    ----------
    configs : tuple of DictConfig
    settings : tuple of TrainConfig
        The same configurations, checked.
    logging_settings : dict
        Hydra's logging settings for a job.
    sweep : Path
        The sweep's folder.
    log : Path
        The file for messages that concern no single member.
    """

    configs: tuple[DictConfig, ...]
    settings: tuple[TrainConfig, ...]
    logging_settings: Any
    sweep: Path
    log: Path


class StackedJobs:
    """Trains jobs in stacks, for `StackedLauncher`; jobs that do not fit a stack run one by one.

    Parameters
    ----------
    n_jobs : int or None
    max_members : int
    hydra_context, task_function, config
        As Hydra gives them to a launcher.
    """

    def __init__(
        self,
        n_jobs: int | None,
        max_members: int,
        *,
        hydra_context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
    ) -> None:
        self.n_jobs = n_jobs
        self.max_members = max_members
        self.hydra_context = hydra_context
        self.config = config
        self.sweep = SweepFolder(Path(config.hydra.sweep.dir).absolute())
        self.networks = NetworkQuestions()
        self.alone = BasicLauncher()
        self.alone.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def run(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train the jobs that fit in stacks as stacks, and the others one by one."""
        setup_globals()
        warm_up()
        jobs = [
            self._compose(overrides, initial_job_idx + place) for place, overrides in enumerate(job_overrides)
        ]
        stackable, alone = self._sort_out([job for job in jobs if job.settings is not None])
        self._train(stackable)
        for job in alone:
            self.alone.launch([job.overrides], job.number)
        return [_build_return(overrides) for overrides in job_overrides]

    def _sort_out(self, jobs: Sequence[ComposedJob]) -> tuple[list[ComposedJob], list[ComposedJob]]:
        """Return the jobs that can be trained in stacks, and the others. Log the reason for each of the others."""
        reasons = {
            job: f"a stack has no {reason}"
            for job in jobs
            if job.settings is not None and (reason := find_unstackable_setting(job.settings)) is not None
        }
        rest = [job for job in jobs if job not in reasons]
        refused = self.networks.find_refusals([job.settings for job in rest if job.settings is not None])
        reasons |= {job: reason for job, reason in zip(rest, refused, strict=True) if reason is not None}
        for job in jobs:
            if job in reasons:
                log.warning("%s is trained alone: %s", job.folder.path.name, reasons[job])
        return [job for job in jobs if job not in reasons], [job for job in jobs if job in reasons]

    def _compose(self, overrides: Sequence[str], number: int) -> ComposedJob:
        composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with read_write(composed), open_dict(composed):
            composed.hydra.job.id = composed.hydra.job.num = number
        folder = self.sweep.path / str(composed.hydra.sweep.subdir)
        with read_write(composed), open_dict(composed):
            composed.hydra.runtime.output_dir = str(folder)
        cfg = silence(build_job_config(composed, str(folder)))
        settings: TrainConfig | None = None
        try:
            settings = to_train_config(cfg)
        except GenreClassifierError as error:
            folder.mkdir(parents=True, exist_ok=True)
            flat = flatten_settings(cfg)
            write_status(RunFolder(folder), "failed", f"{type(error).__name__}: {error}", settings=flat)
        _write_hydra(folder, composed, cfg)
        return ComposedJob(tuple(overrides), number, cfg, settings)

    def _train(self, jobs: Sequence[ComposedJob]) -> None:
        if not jobs:
            return
        n_jobs = self.n_jobs or self._count_default_jobs(jobs)
        groups = group_trials(
            [job.settings for job in jobs if job.settings is not None], self.max_members, n_jobs
        )
        hydra_logging = OmegaConf.to_container(self.config.hydra.job_logging, resolve=False)
        stop = threading.Event()
        with ThreadPoolExecutor(n_jobs) as pool:
            try:
                for done in [
                    pool.submit(
                        self._train_group, [jobs[place] for place in part.places], hydra_logging, stop
                    )
                    for part in groups
                ]:
                    done.result()
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    @staticmethod
    def _count_default_jobs(jobs: Sequence[ComposedJob]) -> int:
        on_cpu = all(
            job.settings is not None and job.settings.trainer.accelerator.value == "cpu" for job in jobs
        )
        return count_usable_cores() if on_cpu else 1

    def _train_group(self, members: Sequence[ComposedJob], hydra_logging: Any, stop: threading.Event) -> None:
        name = f"stack-{members[0].folder.path.name}"  # named by its first trial
        with ExitStack() as locks:
            settings = []
            for job in members:
                locks.enter_context(self.sweep.locked(job.folder.path.name))
                assert job.settings is not None
                ckpt_path = job.settings.ckpt_path
                if job.folder.last_checkpoint.is_file():
                    ckpt_path = str(job.folder.last_checkpoint)
                settings.append(replace(job.settings, ckpt_path=ckpt_path))
            start = StackStart(
                configs=tuple(job.cfg for job in members),
                settings=tuple(settings),
                logging_settings=hydra_logging,
                sweep=self.sweep.path,
                log=self.sweep.path / f"{name}.log",
            )
            end = run_in_process(_run_stack, start, name, stop)
        for job in members:
            if not job.folder.run_json.is_file() or job.folder.read_run()["status"] == "running":
                write_status(job.folder, "failed", f"with its stack: {end}")


def _run_stack(start: StackStart) -> None:
    die_with_parent()
    write_everything_to(start.log)
    set_up_logging(start.logging_settings, start.log)
    take_a_device(start.configs[0], start.sweep)
    from genre_classifier.sweeps.stacked.fit import train_stack
    from genre_classifier.training.fit import leave_messages_to_root, threads

    leave_messages_to_root()
    with threads(max(int(cfg.threads) for cfg in start.configs)):
        train_stack(start.configs, start.settings)


def _write_hydra(folder: Path, composed: DictConfig, cfg: DictConfig) -> None:
    """Write the .hydra folder that Hydra writes for a job."""
    hydra = folder / ".hydra"
    own = OmegaConf.masked_copy(composed, ["hydra"])
    HydraConfig.instance().set_config(composed)
    task = composed.copy()
    with read_write(task), open_dict(task):
        del task["hydra"]
    with writing(hydra):
        hydra.mkdir(parents=True, exist_ok=True)
        for name, content in (("config", task), ("hydra", own), ("overrides", composed.hydra.overrides.task)):
            (hydra / f"{name}.yaml").write_text(OmegaConf.to_yaml(content), encoding="utf-8")


def _build_return(overrides: Sequence[str]) -> JobReturn:
    # ResumingLauncher calls this launcher and reads the results from the run folders.
    returned = JobReturn()
    returned.overrides = list(overrides)
    returned.status = JobStatus.COMPLETED
    return returned
