"""The stacked launcher: trials of one shape are trained side by side, in one fit."""

# No "from __future__ import annotations": Hydra's scan makes the module before Python knows its name, by which a
# dataclass would look such annotations up.
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
    """How many stacks run at once (null: one on each core, one on a GPU), and how many trials a stack has at most.

    Where memory holds fewer, a stack is divided further by itself; more than 32 gain nothing.
    """

    _target_: str = "hydra_plugins.genre_classifier_launchers.stacked_launcher.StackedLauncher"
    n_jobs: Optional[int] = None  # noqa: UP045 - OmegaConf 2.3 reads no other
    max_members: int = 32


ConfigStore.instance().store(
    group="hydra/launcher", name="stacked", node=StackedLauncherConf, provider="genre_classifier"
)


class StackedLauncher(Launcher):
    """Groups the jobs of any sweeper into stacks and trains each in one process; the others run one by one.

    Parameters
    ----------
    n_jobs : int or None
        Stacks at the same time; None is one on each core, or one on a GPU.
    max_members : int
        Trials a stack at most.
    """

    def __init__(self, n_jobs: int | None, max_members: int) -> None:
        self.n_jobs = n_jobs
        self.max_members = max_members

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives a launcher."""
        from genre_classifier.sweeps.stacked.launch import StackedLaunch

        self.launching = StackedLaunch(
            self.n_jobs,
            self.max_members,
            hydra_context=hydra_context,
            task_function=task_function,
            config=config,
        )

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train the jobs."""
        return self.launching.launch(job_overrides, initial_job_idx)
