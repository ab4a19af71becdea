"""Train stacks as an array of jobs of Slurm, by submitit."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from genre_classifier.commands import advise_to_install
from genre_classifier.config.schema import TrainConfig
from genre_classifier.errors import ConfigError, MissingExtraError
from genre_classifier.sweeps.processes import SECONDS_TO_STOP
from genre_classifier.sweeps.stacked.backends.stack import StackStart, run_stack_elsewhere

CLUSTERS = ("slurm", "local")
DEFAULTS = {"timeout_min": 60, "name": "genre-classifier"}
# Of submitit's executor itself; the others are for its update_parameters.
MAX_TIMEOUTS = "slurm_max_num_timeout"
SECONDS_BETWEEN_LOOKS = 1.0


class StackJob:
    """The function that submitit runs. On preemption or a time limit, Slurm puts the job into its queue again."""

    def __call__(self, start: StackStart) -> str | None:
        """Train the stack and return the reason of a failure."""
        return run_stack_elsewhere(start)

    def checkpoint(self, start: StackStart) -> Any:
        """Return what the next attempt runs: the same, since a stack goes on from its members' checkpoints."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, start)


def check_submitit(settings: Mapping[str, Any]) -> None:
    """Check the settings ``hydra.launcher.submitit`` without submitting anything.

    Raises
    ------
    MissingExtraError
        submitit is not installed.
    ConfigError
        A setting is unknown or has a wrong type, or there is no Slurm.
    """
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "hydra.launcher.backend=submitit needs submitit, which is not installed; "
            f"{advise_to_install('slurm')}"
        ) from error
    cluster = settings.get("cluster", CLUSTERS[0])
    if cluster not in CLUSTERS:
        raise ConfigError(
            f"hydra.launcher.submitit.cluster={cluster}: there is no such cluster; choose {' or '.join(CLUSTERS)}"
        )
    for name in ("nodes", "tasks_per_node"):
        if settings.get(name, 1) != 1:
            raise ConfigError(
                f"hydra.launcher.submitit.{name}={settings[name]}: a stack is one process; leave {name} out, and "
                "divide the trials over more stacks with hydra.launcher.n_jobs"
            )
    try:
        with tempfile.TemporaryDirectory() as folder:
            _make_executor(settings, Path(folder))
    except RuntimeError as error:
        raise ConfigError(
            f"hydra.launcher.backend=submitit: {error} Start the sweep where Slurm's commands are, or try it on this "
            "machine with hydra.launcher.submitit.cluster=local"
        ) from error
    except (NameError, AssertionError, ValueError, TypeError) as error:
        first = str(error).partition("\n")[0]
        raise ConfigError(
            f"hydra.launcher.submitit={dict(settings)}: {first} (submitit's AutoExecutor.update_parameters lists the "
            "settings; those of Slurm begin with slurm_)"
        ) from error


def _make_executor(settings: Mapping[str, Any], folder: Path, **defaults: Any) -> Any:
    """Return submitit's executor. The user's settings win over `defaults`."""
    import submitit

    given = dict(settings)
    cluster = given.pop("cluster", CLUSTERS[0])
    own = {MAX_TIMEOUTS: given.pop(MAX_TIMEOUTS)} if MAX_TIMEOUTS in given else {}
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster, **own)
    executor.update_parameters(**{**DEFAULTS, **defaults, **given})
    return executor


class SubmititJobs:
    """Trains each stack as one job.

    Parameters
    ----------
    settings : mapping
        ``cluster`` (``slurm``, or ``local`` for processes of this machine), and parameters of submitit's
        ``AutoExecutor.update_parameters``.
    n_jobs : int or None
        Over how many stacks the trials are divided at least, and how many of them Slurm runs at once. None means as
        few stacks as possible, and no limit.
    folder : Path
        For submitit's files.
    """

    def __init__(self, settings: Mapping[str, Any], n_jobs: int | None, folder: Path) -> None:
        self.settings = settings
        self.n_jobs = n_jobs
        self.folder = folder

    def count_stacks_at_once(self, settings: Sequence[TrainConfig]) -> int:
        """Return `n_jobs` or its default."""
        return self.n_jobs or 1

    def run(self, stacks: Sequence[StackStart], ended: Callable[[StackStart, str], None]) -> None:
        """Train the stacks."""
        defaults: dict[str, Any] = {"cpus_per_task": max(start.threads for start in stacks)}
        if any(start.needs_gpu for start in stacks):
            defaults["gpus_per_node"] = 1
        if self.n_jobs:
            defaults["slurm_array_parallelism"] = self.n_jobs
        executor = _make_executor(self.settings, self.folder, **defaults)
        waiting = list(zip(executor.map_array(StackJob(), stacks), stacks, strict=True))
        try:
            while waiting:
                for pair in [pair for pair in waiting if pair[0].done()]:
                    job, start = pair
                    ended(start, _describe_end(job, self.folder))
                    waiting.remove(pair)
                if waiting:
                    time.sleep(SECONDS_BETWEEN_LOOKS)
        except BaseException:
            _cancel([job for job, _ in waiting])
            raise


def _describe_end(job: Any, folder: Path) -> str:
    import submitit

    try:
        return job.result() or "its job ended without a message"
    except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError):
        return f"its job {job.job_id} left no result (state {job.state}); its logs are in {folder}"


def _cancel(jobs: Sequence[Any]) -> None:
    """Cancel jobs, and give them time to close their files."""
    for job in jobs:
        job.cancel(check=False)
    deadline = time.monotonic() + SECONDS_TO_STOP
    while any(not job.done() for job in jobs) and time.monotonic() < deadline:
        time.sleep(SECONDS_BETWEEN_LOOKS)
