"""Measure a file in a separate process, with limits of time, memory and length.

It is for files of unknown origin: a file that breaks a decoder does not stop the caller. The process sets its limits
itself, so it ends even if its caller is gone.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from genre_classifier.errors import AudioError, GenreClassifierError, MissingWeightsError
from genre_classifier.features.cache import Measured
from genre_classifier.features.decoding.audio import Excerpt
from genre_classifier.features.measure import EXTRACTORS, measure_file
from genre_classifier.machine.cache_folders import prepare_caches
from genre_classifier.machine.child_process import (
    SCRIPT_RAN_AGAIN,
    die_with_parent,
    explain_script_ran_again,
    has_fork_server,
    leave_if_script_runs_again,
)

GRACE_SECONDS = 1.0  # for a process to end after its answer
# Without preloading, each process would import these modules again.
PRELOADED = ("scipy.fft", "soundfile", "soxr", __name__)
PRELOADED_OF_LIBROSA = ("librosa", "librosa.feature", "librosa.onset", "librosa.decompose")
WITH_LIBROSA = ("gtzan57", "fma518")


@dataclass(frozen=True)
class Limits:
    """The limits of a process.

    Parameters
    ----------
    seconds : float
        Time from its start to its answer.
    memory : int
        Bytes, in addition to those of its libraries.
    music : float
        Seconds of a recording, from the start of its excerpt. The rest is neither decoded nor measured.
    """

    seconds: float = 30.0
    memory: int = 2**30
    music: float = 1200.0


def measure_apart(
    path: Path,
    name: str,
    excerpt: Excerpt,
    limits: Limits,
    given_up: Connection | None = None,
) -> Measured:
    """Measure a file as :func:`genre_classifier.features.measure.measure_file` does, in a separate process.

    The process ends when this process ends, even by SIGKILL, and when its time is over.

    Parameters
    ----------
    path : Path
    name : str
        Name of the feature set.
    excerpt : Excerpt
    limits : Limits
        Only the first ``limits.music`` seconds of a recording are measured. The result's notes say so.
    given_up : Connection, optional
        Becomes readable when nobody waits for the result any more, because its other end is closed.

    Raises
    ------
    AudioError
        The file cannot be measured, takes too long or too much memory, crashes the process, or is given up.
    MissingWeightsError
        The weights of a pretrained set's network are missing.
    GenreClassifierError
        The process ran the script that started this one again.
    """
    leave_if_script_runs_again()
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = _get_context(name).Process(target=_Measure(sending, path, name, excerpt, limits), daemon=True)
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
        found: Measured | AudioError | MissingWeightsError = receiving.recv()
    except EOFError:
        process.join(GRACE_SECONDS)
        if process.exitcode == SCRIPT_RAN_AGAIN:
            raise GenreClassifierError(explain_script_ran_again()) from None
        raise AudioError(f"{path} crashed the process that decoded it", kind="unreadable") from None
    finally:
        receiving.close()
        process.join(GRACE_SECONDS if answered else 0.0)
        if process.exitcode is None:
            process.kill()
        process.join()
        process.close()
    if isinstance(found, Measured):
        return found
    raise found


@cache
def _get_context(name: str) -> Any:
    """Return the context that starts processes. If possible, it forks a process that has loaded the libraries."""
    preloaded = [*PRELOADED, EXTRACTORS.get(name, __name__).partition(":")[0]]
    if name in WITH_LIBROSA:
        prepare_caches()
        preloaded += PRELOADED_OF_LIBROSA
    if not has_fork_server():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preloaded)
    return context


class _Measure:
    """Runs in the process: sets its limits, measures, and sends the result or the error."""

    def __init__(
        self,
        sending: Connection,
        path: Path,
        name: str,
        excerpt: Excerpt,
        limits: Limits,
    ) -> None:
        self.sending = sending
        self.path = path
        self.name = name
        self.excerpt = excerpt
        self.limits = limits

    def __call__(self) -> None:
        die_with_parent()
        _set_limits(self.limits)
        excerpt = replace(self.excerpt, duration=min(self.excerpt.duration or math.inf, self.limits.music))
        try:
            measured = measure_file(self.path, self.name, excerpt)
            self.sending.send(_add_note(measured, self.path, self.excerpt, self.limits))
        except (AudioError, MissingWeightsError) as error:
            self.sending.send(error)
        except MemoryError:
            reason = f"{self.path} needs more than {self.limits.memory:,} bytes of memory"
            self.sending.send(AudioError(reason, kind="unreadable"))


def _add_note(measured: Measured, path: Path, excerpt: Excerpt, limits: Limits) -> Measured:
    asked = min(measured.seconds - excerpt.offset, excerpt.duration or math.inf)
    if asked <= limits.music:
        return measured
    note = f"{path}: only {limits.music:g} of {asked:.0f} s were measured"
    return replace(measured, notes=(*measured.notes, note))


def _set_limits(limits: Limits) -> None:
    """Set limits of time and memory. The system enforces them."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    status = Path("/proc/self/statm")
    taken = int(status.read_text().split()[0]) * resource.getpagesize() if status.exists() else 2**32
    _lower_limit(resource.RLIMIT_AS, taken + limits.memory)
    _lower_limit(resource.RLIMIT_CORE, 0)
    # The caller's limit is reached first, and gives a message. These two end a process that no longer runs Python code.
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _lower_limit(
        resource.RLIMIT_CPU, math.ceil(usage.ru_utime + usage.ru_stime + limits.seconds + GRACE_SECONDS)
    )
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, limits.seconds + GRACE_SECONDS)


def _lower_limit(kind: int, value: int) -> None:
    """Set a limit, unless a lower limit exists."""
    import resource

    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))
