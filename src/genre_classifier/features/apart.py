"""Measuring a file in a process of its own, under a limit of time and of memory.

For files from anywhere: whatever one of them does to a decoder, the caller goes on.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from genre_classifier.errors import AudioError
from genre_classifier.features.audio import Excerpt
from genre_classifier.features.cache import Measured
from genre_classifier.features.measure import measure_file

GRACE_SECONDS = 1.0  # for a process to end that has answered
# What a process would otherwise import anew for each file.
PRELOADED = ("scipy.fft", "soundfile", "soxr", "genre_classifier.features.core20", __name__)
PRELOADED_WIDE = ("librosa", "librosa.feature", "librosa.onset", "librosa.decompose")


@dataclass(frozen=True)
class Limits:
    """What a process may take.

    Parameters
    ----------
    seconds : float
        From its start to its answer.
    memory : int
        Bytes, beyond what its libraries take.
    """

    seconds: float = 30.0
    memory: int = 2**30


def measure_apart(
    path: Path, name: str, excerpt: Excerpt, limits: Limits, given_up: Connection | None = None
) -> Measured:
    """Measure a file as :func:`genre_classifier.features.measure.measure_file` does, in a process of its own.

    Parameters
    ----------
    path, name, excerpt
        As there.
    limits : Limits
    given_up : Connection, optional
        Becomes readable, by the closing of its other end, when nobody waits for the result any more.

    Raises
    ------
    AudioError
        The file cannot be measured, takes too long or too much memory, crashes the process, or is given up.
    """
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = _context(name != "core20").Process(
        target=_measure, args=(sending, path, name, excerpt, limits), daemon=True
    )
    process.start()
    sending.close()
    answered = False
    try:
        ready = wait([receiving] if given_up is None else [receiving, given_up], limits.seconds)
        if given_up in ready:
            raise AudioError(f"{path} was given up", kind="unreadable")
        if not ready:
            raise AudioError(f"{path} takes more than {limits.seconds:g} s to measure", kind="unreadable")
        answered = True
        found: Measured | AudioError = receiving.recv()
    except EOFError:
        raise AudioError(f"{path} crashed the process that decoded it", kind="unreadable") from None
    finally:
        receiving.close()
        process.join(GRACE_SECONDS if answered else 0.0)
        if process.exitcode is None:
            process.kill()
        process.join()
        process.close()
    if isinstance(found, AudioError):
        raise found
    return found


@cache
def _context(wide: bool) -> Any:
    """Return how processes are started: forked from one that has the libraries loaded, where that can be."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED, *(PRELOADED_WIDE if wide else ())])
    return context


def _measure(sending: Connection, path: Path, name: str, excerpt: Excerpt, limits: Limits) -> None:
    """What the process does: limit itself, measure, and send the result or the reason."""
    _limit(limits)
    try:
        sending.send(measure_file(path, name, excerpt))
    except AudioError as error:
        sending.send(error)
    except MemoryError:
        sending.send(
            AudioError(f"{path} needs more than {limits.memory:,} bytes of memory", kind="unreadable")
        )


def _limit(limits: Limits) -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    status = Path("/proc/self/statm")
    taken = int(status.read_text().split()[0]) * resource.getpagesize() if status.exists() else 2**32
    resource.setrlimit(resource.RLIMIT_AS, (taken + limits.memory, taken + limits.memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
