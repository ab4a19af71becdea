"""Run trials in processes that are forked from a server, which has imported torch and Lightning once.

A trial starts at once and inherits no threads and no GPU state. If its process fails, the launcher goes on.
"""

from __future__ import annotations

import logging.config
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from genre_classifier.machine.child_process import (
    SCRIPT_RAN_AGAIN,
    explain_script_ran_again,
    has_fork_server,
    leave_if_script_runs_again,
)

PRELOADED = ["genre_classifier.sweeps.preloaded"]
# How long an interrupted process may take to close its files.
SECONDS_TO_STOP = 20.0
SECONDS_BETWEEN_LOOKS = 0.5
# These start their trials on this machine, where the files are the same.
LOCAL_LAUNCHERS = ("basic_launcher", "joblib_launcher", "stacked_launcher")


def runs_on_this_machine(launcher: DictConfig) -> bool:
    """Return whether a launcher starts its trials on this machine."""
    is_local = any(name in str(launcher._target_) for name in LOCAL_LAUNCHERS)
    return is_local and launcher.get("backend", "local") == "local"


def run_in_process(
    target: Callable[[Any], None], argument: Any, name: str, stop: threading.Event | None = None
) -> str:
    """Call a function in a new process and return how the process ended. An interruption here ends the process.

    Parameters
    ----------
    target : callable
    argument
        The argument of the call.
    name : str
        Name of the process.
    stop : threading.Event, optional
        Stops the process when it is set. A thread needs it because it gets no signals.
    """
    leave_if_script_runs_again()
    process: BaseProcess = _get_context().Process(target=target, args=(argument,), name=name)  # type: ignore[attr-defined]
    oom_kills = _count_oom_kills()
    process.start()
    try:
        while process.is_alive():
            process.join(None if stop is None else SECONDS_BETWEEN_LOOKS)
            if stop is not None and stop.is_set():
                _stop(process)
    except BaseException:
        _stop(process)
        raise
    exit_code = process.exitcode
    process.close()
    return describe_exit(exit_code, out_of_memory=_count_oom_kills() > oom_kills)


def warm_up() -> None:
    """Start the server and its imports before the first process is needed."""
    if has_fork_server():
        _get_context()
        from multiprocessing import forkserver

        forkserver.ensure_running()


def stop_server() -> None:
    """End the server at once, which otherwise would go on with its imports and keep the terminal's streams open."""
    if has_fork_server():
        from multiprocessing import forkserver

        pid = getattr(forkserver._forkserver, "_forkserver_pid", None)
        if pid is not None:
            os.kill(pid, signal.SIGTERM)


def describe_exit(exit_code: int | None, *, out_of_memory: bool = False) -> str:
    """Describe how a process ended that could not record its end.

    Parameters
    ----------
    exit_code : int or None
        Negative for the signal that ended it.
    out_of_memory : bool
        Whether the system has killed a process in the meantime because memory ran out.
    """
    if exit_code == SCRIPT_RAN_AGAIN:
        return explain_script_ran_again()
    if exit_code is None or exit_code >= 0:
        return f"its process ended with exit code {exit_code} and without a message"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    if name != "SIGKILL":
        return f"killed by {name}"
    if out_of_memory:
        return "killed by SIGKILL: memory ran out, and the system killed a process for it"
    return "killed by SIGKILL: by a person, or by the system because memory ran out; there is no record of it"


def _count_oom_kills() -> int:
    """Return the number of processes that the system has killed for lack of memory; 0 if it does not count them."""
    found = 0
    for path in _list_oom_counters():
        try:
            words = path.read_text(encoding="ascii").split()
            found += int(words[words.index("oom_kill") + 1])
        except (OSError, ValueError, IndexError):
            continue
    return found


def _list_oom_counters() -> list[Path]:
    """Return the files that count such kills: the kernel's, and those of this process's control groups."""
    found = [Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events")]
    try:
        groups = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return found
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found.append(Path(f"/sys/fs/cgroup{path}/memory.events"))
        elif "memory" in controllers.split(","):
            found.append(Path(f"/sys/fs/cgroup/memory{path}/memory.oom_control"))
    return found


def _get_context() -> BaseContext:
    if not has_fork_server():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _stop(process: BaseProcess) -> None:
    """Wait for a process that Ctrl-C has reached too. If it does not end, interrupt it, then kill it."""
    process.join(2.0)
    if process.is_alive() and process.pid is not None:
        os.kill(process.pid, signal.SIGINT)
        process.join(SECONDS_TO_STOP)
    if process.is_alive():
        process.kill()
        process.join()


def write_everything_to(path: Path) -> None:
    """Send the output of this process to a log. The terminal shows only the sweep."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.flush()
        os.dup2(file, number)
    os.close(file)


def set_up_logging(settings: dict[str, Any], path: Path) -> None:
    """Set up logging as Hydra would, without the terminal.

    Parameters
    ----------
    settings : dict
        Hydra's settings for a job.
    path : Path
        The log file.
    """
    root = settings.get("root", {})
    root["handlers"] = [name for name in root.get("handlers", []) if name != "console"]
    for handler in settings.get("handlers", {}).values():
        if "filename" in handler:
            handler["filename"] = str(path)
    logging.config.dictConfig(settings)
    logging.captureWarnings(True)
    warnings.simplefilter("default")


def take_a_device(job: DictConfig, sweep: Path) -> None:
    """Take a GPU that no other process of the sweep uses, if the configuration wants one."""
    if str(job.trainer.accelerator.name) not in {"gpu", "auto"} or job.trainer.devices != 1:
        return
    from genre_classifier.machine.devices import take_gpu

    take_gpu(sweep)
