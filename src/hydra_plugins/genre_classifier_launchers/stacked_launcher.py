"""The stacked launcher: trials with networks of one shape train side by side, in one fit."""

# This module has no "from __future__ import annotations". Hydra's scan runs it before Python knows its name, and a
# dataclass would look up such annotations by that name.
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Dict, Optional  # noqa: UP035 - OmegaConf 2.3 reads no other

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

SUBMITIT_SETTINGS = ("cluster", "timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb")
SUBMITIT_SETTINGS += ("slurm_partition", "slurm_account", "slurm_qos", "slurm_max_num_timeout")


@dataclass
class StackedLauncherConf:
    """How many stacks run at once, the most trials per stack, and where stacks are trained.

    n_jobs: null means one per core, or one on a GPU; with ray as many as the cluster has room for; with submitit as few
    as possible. A stack that does not fit in memory is divided. More than 32 trials per stack gain nothing.

    backend: local (processes of this machine), ray or submitit. ray_address: of the cluster, auto for the one that this
    machine is part of, null for a local instance. submitit: cluster (slurm, or local to try it out), and what
    submitit's AutoExecutor.update_parameters takes; settings that are not listed need a + before them.
    """

    _target_: str = "hydra_plugins.genre_classifier_launchers.stacked_launcher.StackedLauncher"
    n_jobs: Optional[int] = None  # noqa: UP045 - OmegaConf 2.3 reads no other
    max_members: int = 32
    backend: str = "local"
    ray_address: Optional[str] = None  # noqa: UP045
    submitit: Dict[str, Any] = field(default_factory=lambda: dict.fromkeys(SUBMITIT_SETTINGS))  # noqa: UP006


ConfigStore.instance().store(
    group="hydra/launcher", name="stacked", node=StackedLauncherConf, provider="genre_classifier"
)


class StackedLauncher(Launcher):
    """Groups the jobs of any sweeper into stacks and lets a backend train each stack. The other jobs run one by one.

    Parameters
    ----------
    n_jobs : int or None
        Stacks that run at once. None means one per core, or one on a GPU; with Ray as many as the cluster has room
        for; with submitit as few as possible.
    max_members : int
        The most trials per stack.
    backend : str
        ``local``, ``ray`` or ``submitit``.
    ray_address : str or None
        Of the cluster, ``auto`` for the one that this machine is part of, None for a local instance.
    submitit : mapping of str to Any
        ``cluster``, and parameters of submitit's ``AutoExecutor.update_parameters``.
    """

    def __init__(
        self,
        n_jobs: int | None,
        max_members: int,
        backend: str,
        ray_address: str | None,
        submitit: Mapping[str, Any],
    ) -> None:
        self.n_jobs = n_jobs
        self.max_members = max_members
        self.backend = backend
        self.ray_address = ray_address
        self.submitit = submitit

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Set up the stacked jobs with Hydra's arguments for a launcher."""
        from genre_classifier.sweeps.stacked.backends.choice import make_backend
        from genre_classifier.sweeps.stacked.stacked_jobs import StackedJobs

        self.jobs = StackedJobs(
            lambda sweep: make_backend(self.backend, self.n_jobs, self.ray_address, self.submitit, sweep),
            self.max_members,
            hydra_context=hydra_context,
            task_function=task_function,
            config=config,
        )

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train the jobs."""
        return self.jobs.run(job_overrides, initial_job_idx)
