"""Group a sweeper's jobs into stacks, let a backend train each stack, and return one result per job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from genre_classifier.config.checks import to_train_config
from genre_classifier.config.schema import TrainConfig
from genre_classifier.config.settings import become_job_config, flatten_settings, format_yaml
from genre_classifier.errors import GenreClassifierError
from genre_classifier.runs.folder import RunFolder, writing
from genre_classifier.runs.sweep_folder import SweepFolder
from genre_classifier.sweeps.stacked.backends.local import LocalProcesses
from genre_classifier.sweeps.stacked.backends.stack import Backend, StackStart
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


class StackedJobs:
    """Trains jobs in stacks, for `StackedLauncher`; jobs that do not fit a stack run one by one.

    Parameters
    ----------
    backend : callable
        Makes the backend that trains the stacks, from the sweep's folder.
    max_members : int
    hydra_context, task_function, config
        As Hydra gives them to a launcher.
    """

    def __init__(
        self,
        backend: Callable[[Path], Backend],
        max_members: int,
        *,
        hydra_context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
    ) -> None:
        self.max_members = max_members
        self.hydra_context = hydra_context
        self.config = config
        self.sweep = SweepFolder(Path(config.hydra.sweep.dir).absolute())
        self.backend = backend(self.sweep.path)
        self.networks = NetworkQuestions()
        self.here = BasicLauncher()
        self.here.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def run(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train the jobs that fit in stacks as stacks, and the others one by one."""
        setup_globals()
        jobs = [
            self._compose(overrides, initial_job_idx + place) for place, overrides in enumerate(job_overrides)
        ]
        stackable, single = self._sort_out([job for job in jobs if job.settings is not None])
        here = [job for job in single if self._must_stay_here(job)]
        self._train(stackable, [job for job in single if job not in here])
        for job in here:
            self.here.launch([job.overrides], job.number)
        return [_build_return(overrides) for overrides in job_overrides]

    def _must_stay_here(self, job: ComposedJob) -> bool:
        """Return whether a single job runs in a trial's process of this machine, as with the other launchers."""
        assert job.settings is not None
        several_devices = job.settings.trainer.devices != 1
        if several_devices and not isinstance(self.backend, LocalProcesses):
            log.warning("%s has several devices and is trained on this machine", job.folder.path.name)
        return several_devices or isinstance(self.backend, LocalProcesses)

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
        # Copying the configurations of 512 jobs takes 3 s, so the composed one becomes the job's.
        cfg = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with read_write(cfg.hydra), open_dict(cfg.hydra):
            cfg.hydra.job.id = cfg.hydra.job.num = number
            folder = self.sweep.path / str(cfg.hydra.sweep.subdir)
            cfg.hydra.runtime.output_dir = str(folder)
        _write_hydra(folder, cfg)
        become_job_config(cfg, str(folder))
        silence(cfg)
        settings: TrainConfig | None = None
        try:
            settings = to_train_config(cfg)
        except GenreClassifierError as error:
            flat = flatten_settings(cfg)
            write_status(RunFolder(folder), "failed", f"{type(error).__name__}: {error}", settings=flat)
        return ComposedJob(tuple(overrides), number, cfg, settings)

    def _train(self, stackable: Sequence[ComposedJob], single: Sequence[ComposedJob]) -> None:
        """Let the backend train stacks of the stackable jobs, and each single job."""
        for job in (*stackable, *single):
            with self.sweep.locked(job.folder.path.name):
                pass  # a worker of an earlier start of this sweep may still be at work
        stacks = [
            self._make_stack([stackable[place] for place in places]) for places in self._group(stackable)
        ]
        stacks += [self._make_stack([job], is_single=True) for job in single]
        if stacks:
            self.backend.run(stacks, _record_end)

    def _group(self, jobs: Sequence[ComposedJob]) -> list[tuple[int, ...]]:
        settings = [job.settings for job in jobs if job.settings is not None]
        if not settings:
            return []
        n_stacks = self.backend.count_stacks_at_once(settings)
        return [group.places for group in group_trials(settings, self.max_members, n_stacks)]

    def _make_stack(self, jobs: Sequence[ComposedJob], *, is_single: bool = False) -> StackStart:
        first = jobs[0].folder
        name = f"{'trial' if is_single else 'stack'}-{first.path.name}"  # a stack is named by its first trial
        return StackStart(
            name=name,
            configs=tuple(job.cfg for job in jobs),
            settings=tuple(job.settings for job in jobs if job.settings is not None),
            logging_settings=OmegaConf.to_container(self.config.hydra.job_logging, resolve=False),
            sweep=self.sweep.path,
            log=first.log if is_single else self.sweep.path / f"{name}.log",
            working_folder=Path.cwd(),
            is_single=is_single,
        )


def _record_end(start: StackStart, end: str) -> None:
    """Record the failure of the members that could not record their end themselves."""
    for folder in start.folders:
        if not folder.run_json.is_file() or folder.read_run()["status"] == "running":
            write_status(folder, "failed", end if start.is_single else f"with its stack: {end}")


def _write_hydra(folder: Path, composed: DictConfig) -> None:
    """Write the .hydra folder that Hydra writes for a job."""
    values = OmegaConf.to_container(composed, resolve=False, enum_to_str=True)
    assert isinstance(values, dict)
    own = values.pop("hydra")
    contents = {"config": values, "hydra": {"hydra": own}, "overrides": own["overrides"]["task"]}
    hydra = folder / ".hydra"
    with writing(hydra):
        hydra.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (hydra / f"{name}.yaml").write_text(format_yaml(content), encoding="utf-8")


def _build_return(overrides: Sequence[str]) -> JobReturn:
    # ResumingLauncher calls this launcher and reads the results from the run folders.
    returned = JobReturn()
    returned.overrides = list(overrides)
    returned.status = JobStatus.COMPLETED
    return returned
