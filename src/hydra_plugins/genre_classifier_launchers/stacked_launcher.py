"""The stacked launcher: trials with networks of one shape train side by side, in one fit."""

# This module has no "from __future__ import annotations". Hydra's scan runs it before Python knows its name, and a
# dataclass would look up such annotations by that name.
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class StackedLauncherConf:
    """The number of stacks that run at once (null: one per core, or one on a GPU), and the most trials per stack.

    A stack that does not fit in memory is divided. More than 32 trials per stack gain nothing.
    """

    _target_: str = "hydra_plugins.genre_classifier_launchers.stacked_launcher.StackedLauncher"
    n_jobs: Optional[int] = None  # noqa: UP045 - OmegaConf 2.3 reads no other
    max_members: int = 32


ConfigStore.instance().store(
    group="hydra/launcher", name="stacked", node=StackedLauncherConf, provider="genre_classifier"
)


class StackedLauncher(Launcher):
    """Groups the jobs of any sweeper into stacks and trains each stack in one process. The other jobs run one by one.

    Parameters
    ----------
    n_jobs : int or None
        Stacks that run at once; None means one per core, or one on a GPU.
    max_members : int
        The most trials per stack.
    """

    def __init__(self, n_jobs: int | None, max_members: int) -> None:
        self.n_jobs = n_jobs
        self.max_members = max_members

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Set up the stacked jobs with Hydra's arguments for a launcher."""
        from genre_classifier.sweeps.stacked.stacked_jobs import StackedJobs

        self.jobs = StackedJobs(
            self.n_jobs,
            self.max_members,
            hydra_context=hydra_context,
            task_function=task_function,
            config=config,
        )

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train the jobs."""
        return self.jobs.run(job_overrides, initial_job_idx)
