"""A child process ends with its parent, whatever ends that and whatever the child does."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from genre_classifier.cli import hydra_entry
from genre_classifier.machine.child_process import SCRIPT_RAN_AGAIN
from genre_classifier.service.application import GenreService
from genre_classifier.service.model import ModelService

# The standard output of the script is closed when the last process that inherited it has ended.
STARTED = """
import multiprocessing, os, signal, sys, time
from genre_classifier.machine.child_process import die_with_parent

def work(sending, deed):
    die_with_parent()
    sending.send(os.getpid())
    if deed == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif deed == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        time.sleep(60)

if __name__ == "__main__":
    method, deed = sys.argv[1:]
    receiving, sending = multiprocessing.Pipe(duplex=False)
    multiprocessing.get_context(method).Process(target=work, args=(sending, deed)).start()
    receiving.recv()
    if deed == "stopped":
        os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOWAIT)
    os.kill(os.getpid(), signal.SIGKILL)
"""

# A child that multiprocessing knows nothing of, as joblib's workers are.
FOREIGN = """
import os, signal, subprocess, sys, time
if len(sys.argv) == 1:
    child = subprocess.Popen([sys.executable, __file__, "child"], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    child.stderr.readline()
    os.kill(os.getpid(), signal.SIGKILL)
from genre_classifier.machine.child_process import die_with_parent
die_with_parent()
print("ready", file=sys.stderr, flush=True)
time.sleep(3600)
"""

# A parent that has ended before its child comes so far.
ORPHANED = """
import os, sys, time
parent = os.getpid()
if os.fork() == 0:
    while os.getppid() == parent:
        time.sleep(0.01)
    from genre_classifier.machine.child_process import die_with_parent
    die_with_parent(parent)
    print("went on", flush=True)
    time.sleep(3600)
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


def output_until_all_ended(script: Path, text: str, *arguments: str) -> str:
    script.write_text(text)
    started = subprocess.Popen(
        [sys.executable, str(script), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    with started:
        return started.communicate(timeout=60)[0]


@pytest.mark.parametrize("deed", ["busy", "deaf"])
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_child_ends_with_its_killed_parent(method: str, deed: str, tmp_path: Path) -> None:
    assert output_until_all_ended(tmp_path / "parent.py", STARTED, method, deed) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux' kernel watches the parent")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_stopped_child_ends_with_its_parent(method: str, tmp_path: Path) -> None:
    assert output_until_all_ended(tmp_path / "parent.py", STARTED, method, "stopped") == ""


def test_a_child_that_multiprocessing_does_not_know_ends_too(tmp_path: Path) -> None:
    assert output_until_all_ended(tmp_path / "parent.py", FOREIGN) == ""


def test_a_child_whose_parent_has_ended_before_does_not_go_on(tmp_path: Path) -> None:
    assert output_until_all_ended(tmp_path / "parent.py", ORPHANED) == ""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_without_the_kernels_help_a_thread_watches(method: str, tmp_path: Path) -> None:
    text = STARTED.replace(
        "    die_with_parent()\n", "    sys.platform = 'other'\n    die_with_parent()\n", 1
    )
    assert output_until_all_ended(tmp_path / "parent.py", text, method, "busy") == ""


@pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(),
    reason="this system cannot fork from a server",
)
def test_a_long_path_for_temporary_files_leaves_no_room_for_the_servers_socket(tmp_path: Path) -> None:
    code = (
        "from genre_classifier.machine.child_process import has_fork_server\n"
        "from genre_classifier.sweeps.processes import warm_up\n"
        "print(has_fork_server())\n"
        "warm_up()"
    )
    short = tempfile.mkdtemp(dir="/tmp")
    long = tmp_path / ("x" * 90)
    long.mkdir()
    for folder, expected in ((short, "True"), (str(long), "False")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"TMPDIR": folder}, capture_output=True, text=True
        )
        assert (done.stdout.strip(), done.stderr) == (expected, "")
    shutil.rmtree(short)


# Scripts without a main guard. Their processes import them before their task.
UNGUARDED = {
    "run_in_process": """
from genre_classifier.sweeps import processes
processes.PRELOADED.clear()
print(processes.run_in_process(print, "the task", "trial-0"))
""",
    "measure_apart": """
from pathlib import Path
from genre_classifier.features.decoding.apart import Limits, measure_apart
from genre_classifier.features.decoding.audio import Excerpt
try:
    measure_apart(Path("a.wav"), "core20", Excerpt(), Limits())
except Exception as error:
    print(error)
""",
}


@pytest.mark.parametrize("name", UNGUARDED)
def test_a_script_without_a_guard_gets_one_message(name: str, tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED[name])
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    told = f"its process ran {script} again instead of its task; put what that script calls under "
    assert (done.stdout, done.stderr) == (told + "if __name__ == '__main__':\n", "")


def test_no_command_or_service_begins_while_a_process_imports_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LeftError(Exception):
        pass

    def leave(code: int) -> None:
        assert code == SCRIPT_RAN_AGAIN
        raise LeftError

    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    monkeypatch.setattr(os, "_exit", leave)
    nothing = OmegaConf.create({})
    for begin in (
        lambda: hydra_entry.run(pytest.fail),
        lambda: hydra_entry.RunStart().on_run_start(nothing),
        lambda: hydra_entry.RunStart().on_multirun_start(nothing),
        lambda: asyncio.run(
            GenreService(ModelService(tmp_path, "none")).router.lifespan_context(None).__aenter__()
        ),
    ):
        with pytest.raises(LeftError):
            begin()
