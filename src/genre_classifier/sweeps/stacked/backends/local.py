"""Train stacks in processes of this machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from genre_classifier.config.schema import TrainConfig
from genre_classifier.machine.child_process import die_with_parent
from genre_classifier.machine.processors import count_usable_cores
from genre_classifier.sweeps.processes import run_in_process
from genre_classifier.sweeps.stacked.backends.stack import StackStart, run_stack


class LocalProcesses:
    """Trains each stack in one process of this machine.

    Parameters
    ----------
    n_jobs : int or None
        Stacks that run at once; None means one per core, or one on a GPU.
    """

    def __init__(self, n_jobs: int | None) -> None:
        self.n_jobs = n_jobs

    def count_stacks_at_once(self, settings: Sequence[TrainConfig]) -> int:
        """Return `n_jobs` or its default."""
        if self.n_jobs:
            return self.n_jobs
        on_cpu = all(own.trainer.accelerator.value == "cpu" for own in settings)
        return count_usable_cores() if on_cpu else 1

    def run(self, stacks: Sequence[StackStart], ended: Callable[[StackStart, str], None]) -> None:
        """Train the stacks."""
        stop = threading.Event()

        def train(start: StackStart) -> None:
            ended(start, run_in_process(_run_in_child, start, start.name, stop))

        n_jobs = self.count_stacks_at_once([own for start in stacks for own in start.settings])
        with ThreadPoolExecutor(n_jobs) as pool:
            try:
                for done in [pool.submit(train, start) for start in stacks]:
                    done.result()
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise


def _run_in_child(start: StackStart) -> None:
    die_with_parent()
    run_stack(start)
