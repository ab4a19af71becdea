"""What is told of a trial's end is true."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from genre_classifier.errors import DataError
from genre_classifier.machine.child_process import has_fork_server
from genre_classifier.runs.folder import RunFolder
from genre_classifier.runs.record import describe_reason
from genre_classifier.sweeps import processes, start
from genre_classifier.sweeps.trial import Start, _make_restartable
from genre_classifier.training.fit import LAUNCHER_LOG
from tests.conftest import composed

UNKNOWN = "killed by SIGKILL: by a person, or by the system because memory ran out; there is no record of it"
KNOWN = "killed by SIGKILL: memory ran out, and the system killed a process for it"


def end(how: str) -> None:
    """End this process in one of several ways."""
    kind, number = how.split()
    if kind == "exit":
        os._exit(int(number))
    os.kill(os.getpid(), int(number))


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("exit 0", "its process ended with exit code 0 and without a message"),
        ("exit 7", "its process ended with exit code 7 and without a message"),
        (f"kill {int(signal.SIGKILL)}", UNKNOWN),
        (f"kill {int(signal.SIGTERM)}", "killed by SIGTERM"),
        (f"kill {int(signal.SIGSEGV)}", "killed by SIGSEGV"),
        ("kill 40", "killed by signal 40"),
    ],
)
def test_each_end_of_a_process_is_reported_with_its_cause(how: str, told: str) -> None:
    assert processes.run_in_process(end, how, "trial-0") == told


def test_the_libraries_load_in_the_trials_environment_and_only_for_a_sweep_that_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environments, stops = [], []
    monkeypatch.setattr(start, "warm_up", lambda: environments.append(dict(os.environ)))
    monkeypatch.setattr(start, "stop_server", lambda: stops.append(True))
    for launcher in ("basic_launcher.BasicLauncher", "joblib_launcher.JoblibLauncher"):
        settings = {"launcher": {"_target_": launcher}, "job": {"env_set": {"OF_THE_TRIAL": "16"}}}
        with start._loading_libraries(OmegaConf.create(settings)):
            pass
        with pytest.raises(DataError), start._loading_libraries(OmegaConf.create(settings)):
            raise DataError("no rows")
    assert [own["OF_THE_TRIAL"] for own in environments] == ["16", "16"]
    assert stops == [True]
    assert "OF_THE_TRIAL" not in os.environ


@pytest.mark.skipif(not has_fork_server(), reason="this system cannot fork from a server")
def test_a_server_that_is_not_needed_ends_during_its_imports() -> None:
    code = (
        "import os\n"
        "from multiprocessing import forkserver\n"
        "from genre_classifier.sweeps.processes import stop_server, warm_up\n"
        "stop_server()\n"  # there is none
        "warm_up()\n"
        "stop_server()\n"
        "_, status = os.waitpid(forkserver._forkserver._forkserver_pid, 0)\n"
        "print(os.waitstatus_to_exitcode(status))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == (f"-{int(signal.SIGTERM)}\n", "")


def test_out_of_memory_is_reported_if_the_system_counts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = tmp_path / "memory.events"
    counter.write_text("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\n")
    monkeypatch.setattr(processes, "_list_oom_counters", lambda: [tmp_path / "nothing", counter])
    assert processes._count_oom_kills() == 2
    assert processes.run_in_process(end, "kill 9", "trial-0") == UNKNOWN
    kills = iter([2, 3, 2, 3])
    monkeypatch.setattr(processes, "_count_oom_kills", lambda: next(kills))
    assert processes.run_in_process(end, "kill 9", "trial-0") == KNOWN
    assert processes.run_in_process(end, "kill 15", "trial-0") == "killed by SIGTERM"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell it elsewhere")
def test_the_counters_of_this_system_can_be_read() -> None:
    assert any(path.is_file() and "oom_kill" in path.read_text() for path in processes._list_oom_counters())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (MemoryError(), "MemoryError: out of memory"),
        (MemoryError("cannot allocate 8 EiB"), "MemoryError: cannot allocate 8 EiB"),
        (ValueError("x is 3"), "ValueError: x is 3"),
        (RuntimeError(), "RuntimeError without a message"),
    ],
)
def test_an_exception_is_reported_with_its_message(error: BaseException, told: str) -> None:
    assert describe_reason(error) == told


def test_the_processes_of_other_devices_are_started_with_the_trials_own_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["data=table", "data.path='/music/a (1).csv'", "data.label=genre", "run_dir='/runs/my sweep/0'"]
    job = composed(*words, "ckpt_path='/runs/my sweep/0/checkpoints/last.ckpt'")
    overrides = ("data=table", "data.path='a (1).csv'", "data.label=genre")
    monkeypatch.setattr(sys, "argv", ["of the sweep"])
    _make_restartable(Start(job, {}, Path("sweep"), Path("/project/train.py"), overrides))
    assert sys.argv == [
        "/project/train.py",
        *overrides,
        "hydra.run.dir=/runs/my sweep/0",
        "hydra.output_subdir=null",
        "data.path='/music/a (1).csv'",
        "ckpt_path=/runs/my sweep/0/checkpoints/last.ckpt",
    ]


def test_sigterm_is_reported_as_such(tmp_path: Path, music_overrides: list[str]) -> None:
    from genre_classifier.training.fit import train
    from tests.sweeps.poison import Terminated

    target = f"model._target_={Terminated.__module__}.Terminated"
    with pytest.raises(SystemExit, match="143"):
        train(composed(*music_overrides, target, f"run_dir={tmp_path}"))
    assert RunFolder(tmp_path).read_run()["reason"] == "stopped by SIGTERM"


def test_the_end_of_another_devices_process_is_not_reported_as_a_kill(
    tmp_path: Path, music_overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from genre_classifier.training import fit

    def killed(trainer: Any, run: Any) -> None:
        # As Lightning's observer does, after which it kills this process.
        logging.getLogger(LAUNCHER_LOG).info(
            "[rank: 1] Child process with PID 4711 terminated with code 3. Forcefully terminating all other processes"
        )
        raise RuntimeError("the other end has closed the connection")

    monkeypatch.setattr(fit, "_fit", killed)
    with pytest.raises(RuntimeError):
        fit.train(composed(*music_overrides, f"run_dir={tmp_path}"))
    run = RunFolder(tmp_path).read_run()
    assert run["status"] == "failed"
    assert run["reason"].startswith(
        "the process of another device ended with exit code 3; its output says why"
    )
