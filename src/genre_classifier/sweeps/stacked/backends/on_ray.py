"""Train stacks as tasks of a Ray cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from genre_classifier.config.schema import TrainConfig
from genre_classifier.errors import ConfigError
from genre_classifier.machine.processors import count_usable_cores
from genre_classifier.machine.ray_cluster import connect_to_ray
from genre_classifier.sweeps.processes import SECONDS_TO_STOP
from genre_classifier.sweeps.stacked.backends.stack import StackStart, run_stack_elsewhere

# Further attempts at a stack whose worker died. Each goes on from the members' checkpoints.
RETRIES = 2

log = logging.getLogger(__name__)


def connect(address: str | None) -> Any:
    """Connect to the cluster, or start a local instance if the address is None, and return the module ``ray``.

    A second call keeps the connection.
    """
    asked = f"hydra.launcher.backend=ray hydra.launcher.ray_address={'null' if address is None else address}"
    try:
        import ray

        if ray.is_initialized():
            return ray
    except ImportError:
        pass
    connect_to_ray(address or "local", asked, count_usable_cores() if address is None else None)
    import ray

    return ray


class RayTasks:
    """Trains each stack as one task with its threads as CPUs, and one GPU with ``trainer=gpu``.

    Parameters
    ----------
    ray : module
        Connected, as `connect` returns it.
    n_jobs : int or None
        Stacks that run at once; None means as many as the cluster has room for.
    is_local : bool
        Whether Ray runs on this machine only, so that no other machine can join.
    """

    def __init__(self, ray: Any, n_jobs: int | None, *, is_local: bool) -> None:
        self.ray = ray
        self.n_jobs = n_jobs
        self.is_local = is_local

    def count_stacks_at_once(self, settings: Sequence[TrainConfig]) -> int:
        """Return `n_jobs`, or the number of stacks that the cluster's CPUs or GPUs have room for."""
        if self.n_jobs:
            return self.n_jobs
        resources = self.ray.cluster_resources()
        if any(own.trainer.accelerator.value == "gpu" for own in settings):
            return max(1, int(resources.get("GPU", 0)))
        return max(1, int(resources.get("CPU", 0)) // max(own.threads for own in settings))

    def run(self, stacks: Sequence[StackStart], ended: Callable[[StackStart, str], None]) -> None:
        """Train the stacks."""
        ray = self.ray
        for start in stacks:
            self._check_room(start)
        # A worker trains one stack and ends, so a stack has its process, logging and GPU memory for itself.
        task = ray.remote(max_calls=1, max_retries=RETRIES)(run_stack_elsewhere)
        waiting = iter(stacks)
        running: dict[Any, StackStart] = {}
        try:
            while True:
                for start in islice(waiting, (self.n_jobs or len(stacks)) - len(running)):
                    own = task.options(
                        name=start.name, num_cpus=start.threads, num_gpus=1 if start.needs_gpu else 0
                    )
                    running[own.remote(start)] = start
                if not running:
                    return
                (done,), _ = ray.wait(list(running))
                end = self._describe_end(done)
                ended(running.pop(done), end)
        except BaseException:
            for reference in running:
                ray.cancel(reference)
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=SECONDS_TO_STOP)
            raise

    def _check_room(self, start: StackStart) -> None:
        """Refuse a stack that a local instance can never run. A cluster may still grow."""
        wanted = {"CPU": start.threads, "GPU": 1 if start.needs_gpu else 0}
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if any(all(node.get(kind, 0) >= wanted[kind] for kind in wanted) for node in nodes):
            return
        needs = f"{start.name} needs {wanted['CPU']} CPU(s) and {wanted['GPU']} GPU(s)"
        if self.is_local:
            raise ConfigError(
                f"{needs}, which this machine does not have: lower threads, choose trainer=cpu, or name a cluster "
                "with hydra.launcher.ray_address"
            )
        log.warning("%s; no machine of the Ray cluster has them, so it waits until one joins", needs)

    def _describe_end(self, reference: Any) -> str:
        try:
            return self.ray.get(reference) or "its worker ended without a message"
        except self.ray.exceptions.RayError as error:
            first = str(error).strip().partition("\n")[0]
            died = isinstance(error, self.ray.exceptions.WorkerCrashedError)
            attempts = f"its Ray worker died in each of {1 + RETRIES} attempts: " if died else ""
            return f"{attempts}{type(error).__name__}: {first}"
