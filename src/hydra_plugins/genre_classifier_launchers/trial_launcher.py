"""A launcher around any other: it knows which trials are left to run, and no failure of one ends the sweep."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class TrialLauncher(Launcher):
    """Gives each job a folder, hands those without a finished run to the launcher within, and reports from the folders.

    Parameters
    ----------
    inner : DictConfig
        The chosen launcher's own configuration.
    """

    def __init__(self, inner: DictConfig) -> None:
        self.inner = inner

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Set the launcher within up as if Hydra had chosen it."""
        from genre_classifier.sweeps.launching import Launch

        self.launching = Launch(self.inner, hydra_context, task_function, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs that are not finished yet."""
        return self.launching.launch(job_overrides, initial_job_idx)
