"""Rules for child processes: how they are started, and that they end with their parent process."""

from __future__ import annotations

import ctypes
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import wait
from typing import Any

SCRIPT_RAN_AGAIN = 78  # exit code
POLL_SECONDS = 0.2  # for systems that cannot report the end of a parent
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


LONGEST_SOCKET_FOLDER = 80  # bytes; a socket's path has at most 103, and its name takes about 20


def has_fork_server() -> bool:
    """Return whether processes can be forked from a server that has loaded their libraries.

    The server's socket lies in the folder for temporary files. If that folder's path is too long for a socket,
    processes must be started in another way.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return False
    return len(os.fsencode(multiprocessing.util.get_temp_dir())) <= LONGEST_SOCKET_FOLDER


def leave_if_script_runs_again() -> None:
    """End this process, with the exit code `SCRIPT_RAN_AGAIN`, if `multiprocessing` imports the main script in it.

    A process of `multiprocessing` imports the main script before it does its work. Without a main guard the script
    would start there a second time. Call this where a command or a further process begins.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing itself asks
        os._exit(SCRIPT_RAN_AGAIN)


def explain_script_ran_again() -> str:
    """Return the reason for the exit code `SCRIPT_RAN_AGAIN`, and what to do."""
    return (
        f"its process ran {sys.argv[0]} again instead of its task; put what that script calls under "
        "if __name__ == '__main__':"
    )


def die_with_parent(parent_pid: int | None = None) -> None:
    """Let the system end this process as soon as its parent has ended, even by SIGKILL.

    Call it first in a child process. A thread watches the parent. On Linux the kernel watches it too, and also ends a
    process that is stopped or busy outside of Python. For the kernel, the parent is the thread that started it, so
    that thread must live as long as the child. If ``multiprocessing`` started the process through its fork server,
    the process that asked for it is watched, not the server.

    Parameters
    ----------
    parent_pid : int, optional
        The parent's process id. By default ``multiprocessing`` or the system tells it. Give it if the parent may end
        before this call.
    """
    parent = multiprocessing.parent_process()
    sentinel: Any = None
    if parent_pid is None and parent is not None:
        parent_pid, sentinel = parent.pid, parent.sentinel
    elif parent_pid is None:
        parent_pid = os.getppid()
    direct = os.getppid() == parent_pid
    if direct and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if sentinel is None:
        if os.getppid() != parent_pid:  # the parent ended before anything watched it
            _die()
        sentinel = _open_process_descriptor(parent_pid)
    threading.Thread(target=_die_after, args=(sentinel, parent_pid), daemon=True).start()


def _open_process_descriptor(pid: int | None) -> int | None:
    """Return a descriptor that is ready when a process has ended; None if the system has no such descriptor."""
    try:
        return os.pidfd_open(pid) if sys.platform == "linux" and pid is not None else None
    except OSError:
        return None


def _die_after(sentinel: Any, parent_pid: int | None) -> None:
    if sentinel is not None:
        wait([sentinel])
    else:
        while os.getppid() == parent_pid:
            time.sleep(POLL_SECONDS)
    _die()


def _die() -> None:
    """End at once. No exit handler may wait for a parent that has ended."""
    os._exit(128 + signal.SIGTERM)
