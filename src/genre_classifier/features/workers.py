"""Measure many files at a time: in processes of this machine, or in a Ray cluster."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from joblib.externals.loky import ProcessPoolExecutor

from genre_classifier.errors import GenreClassifierError
from genre_classifier.features.decoding.audio import Excerpt
from genre_classifier.features.measure import Failure, Outcome, try_to_measure
from genre_classifier.machine.child_process import die_with_parent
from genre_classifier.machine.ray_cluster import connect_to_ray

Result = TypeVar("Result")
Outcomes = Generator[tuple[int, Outcome], None, None]

QUEUED = 4  # files that wait per process
RAY_BATCH = 16  # files per task


def measure_here(paths: Sequence[Path], name: str, excerpt: Excerpt) -> Outcomes:
    """Yield each file's position and outcome, in order."""
    for position, path in enumerate(paths):
        yield position, try_to_measure(path, name, excerpt)


def measure_in_processes(paths: Sequence[Path], name: str, excerpt: Excerpt, jobs: int) -> Outcomes:
    """Yield each file's position and outcome as they come. A file that crashes its process is one failure."""
    job = partial(try_to_measure, name=name, excerpt=excerpt)
    return run_in_processes(job, paths, jobs, partial(Outcome, ""))


def run_in_processes(
    job: Callable[[Path], Result], paths: Sequence[Path], jobs: int, failed: Callable[[Failure], Result]
) -> Generator[tuple[int, Result], None, None]:
    """Yield each file's position and a job's result as they come.

    Parameters
    ----------
    job : callable
        Run in a process for each file; a function that can be pickled.
    paths : sequence of Path
    jobs : int
        Processes.
    failed : callable
        Makes the result of a file that crashes its process.
    """
    waiting = iter(list(enumerate(paths)))
    while True:
        running: dict[Future[Result], tuple[int, Path]] = {}
        try:
            yield from _run_pool(job, waiting, running, jobs)
            return
        except BrokenProcessPool:
            suspects = list(running.values())
        for position, path in suspects:
            yield position, _measure_alone(job, path, failed)


def _run_pool(
    job: Callable[[Path], Result],
    waiting: Iterator[tuple[int, Path]],
    running: dict[Future[Result], tuple[int, Path]],
    jobs: int,
) -> Generator[tuple[int, Result], None, None]:
    """Keep a pool busy. If it breaks, `running` has the files that were not yielded."""
    with _open_pool(jobs) as pool:
        try:
            while True:
                for position, path in islice(waiting, jobs * (1 + QUEUED) - len(running)):
                    running[pool.submit(job, path)] = (position, path)
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    position, _ = running.pop(future)
                    yield position, result
        except BaseException:
            pool.shutdown(kill_workers=True)  # it would finish the files that it has queued
            raise


def _measure_alone(job: Callable[[Path], Result], path: Path, failed: Callable[[Failure], Result]) -> Result:
    with _open_pool(1) as pool:
        try:
            return pool.submit(job, path).result()
        except BrokenProcessPool:
            return failed(Failure("unreadable", f"{path} crashed or exhausted the process that decoded it"))


def _open_pool(jobs: int) -> ProcessPoolExecutor:
    """Open a pool whose processes do not import the main module, unlike those of `multiprocessing`.

    A script needs no ``if __name__ == "__main__":`` for it.
    """
    return ProcessPoolExecutor(jobs, initializer=_start_worker)


def _start_worker() -> None:
    """Let a worker ignore interruptions, and end with its parent process."""
    die_with_parent()
    # Else loky prints a traceback when a file crashes its process.
    os.environ.setdefault("PYTHONFAULTHANDLER", "0")
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def measure_in_ray(paths: Sequence[Path], name: str, excerpt: Excerpt, address: str) -> Outcomes:
    """Yield each file's position and outcome when a Ray cluster returns it.

    Parameters
    ----------
    paths : sequence of Path
        Paths of the files, the same on every machine of the cluster.
    address : str
        Address of the cluster; ``auto`` for this machine's cluster, ``local`` for a new instance.

    Raises
    ------
    MissingExtraError
        Ray is not installed.
    GenreClassifierError
        The cluster cannot be reached, or a task failed on it.
    """
    context = connect_to_ray(address, f"--ray {address}")
    import ray

    with context:
        yield from _run_ray_tasks(ray, paths, name, excerpt)


def _run_ray_tasks(ray: Any, paths: Sequence[Path], name: str, excerpt: Excerpt) -> Outcomes:
    measure = ray.remote(num_cpus=1, max_retries=2)(_try_batch)
    batches = iter(
        [
            list(enumerate(paths[start : start + RAY_BATCH], start))
            for start in range(0, len(paths), RAY_BATCH)
        ]
    )
    at_most = max(1, int(ray.cluster_resources().get("CPU", 1))) * (1 + QUEUED)
    running: list[Any] = []
    while True:
        running.extend(
            measure.remote(batch, name, excerpt) for batch in islice(batches, at_most - len(running))
        )
        if not running:
            return
        done, running = ray.wait(running)
        for task in done:
            try:
                yield from ray.get(task)
            except ray.exceptions.RayError as error:
                first = str(error).strip().partition("\n")[0]
                raise GenreClassifierError(
                    f"a task failed on the Ray cluster: {first}; is genre-classifier installed there, and are the "
                    "files under the same paths?"
                ) from error


def _try_batch(batch: list[tuple[int, Path]], name: str, excerpt: Excerpt) -> list[tuple[int, Outcome]]:
    return [(position, try_to_measure(path, name, excerpt)) for position, path in batch]
