"""A launcher that calls the chosen one for unfinished trials only. A failed trial does not end the sweep."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ResumingLauncher(Launcher):
    """Gives each job a folder, runs the unfinished jobs with the chosen launcher, and reads results from the folders.

    Parameters
    ----------
    inner : DictConfig
        Configuration of the chosen launcher.
    """

    def __init__(self, inner: DictConfig) -> None:
        self.inner = inner

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Set up the chosen launcher as Hydra would."""
        from genre_classifier.sweeps.unfinished_jobs import UnfinishedJobs

        self.jobs = UnfinishedJobs(self.inner, hydra_context, task_function, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs that are not finished yet."""
        return self.jobs.run(job_overrides, initial_job_idx)
