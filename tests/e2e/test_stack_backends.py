"""Whole sweeps whose stacks are tasks of Ray or jobs of submitit, against the same sweep in local processes."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.e2e.test_sweep_command import command, environment, leaderboard, statuses, sweep, wait_for


@pytest.fixture(scope="module")
def words(music_overrides: list[str]) -> list[str]:
    """Two stacks of two trials."""
    short = [
        word for word in music_overrides if not word.startswith(("trainer.enable", "trainer.max_epochs"))
    ]
    own = [
        "model._target_=tests.sweeps.often.Often",
        "trainer.max_epochs=200",
        "callbacks.early_stopping=null",
    ]
    return [*short, *own, "seed=1,2,3,4", "hydra/launcher=stacked", "hydra.launcher.n_jobs=2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> Path:
    """The sweep in local processes, never stopped."""
    folder = tmp_path_factory.mktemp("whole") / "sweep"
    result = sweep(folder, *words)
    assert result.returncode == 0, result.stderr
    return folder


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(folder, *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
    )


def find_worker(trial: Path) -> int:
    """Return the process that has locked a trial's folder."""
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if path.readlink() == trial / ".lock":
                return int(path.parts[2])
        except OSError:
            continue
    raise AssertionError(f"no process is at work in {trial}")


def list_files(trial: Path) -> list[str]:
    """Return a trial's files, less what a kill in the middle of a write leaves."""
    return sorted(path.name for path in trial.rglob("*") if path.suffix != ".tmp")


def assert_same(folder: Path, whole: Path) -> None:
    for name in ("leaderboard.csv", "trials.csv"):
        pd.testing.assert_frame_equal(leaderboard(folder, name), leaderboard(whole, name))
    for trial in ("0", "1", "2", "3"):
        assert list_files(folder / trial) == list_files(whole / trial)


def resumed_from(folder: Path, trial: str) -> str | None:
    found: str | None = json.loads((folder / trial / "run.json").read_text())["resumed_from"]
    return found


@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds the worker in /proc")
def test_a_stack_whose_ray_worker_is_killed_goes_on_in_another(
    tmp_path: Path, words: list[str], whole: Path
) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    folder = tmp_path / "sweep"
    process = start(folder, *words, "hydra.launcher.backend=ray")
    try:
        wait_for(folder / "1" / "checkpoints" / "last.ckpt", process)
        os.kill(find_worker(folder / "0"), signal.SIGKILL)
        _, errors = process.communicate(timeout=200)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert_same(folder, whole)
    for trial in ("0", "1"):
        assert resumed_from(folder, trial) is not None
    for trial in ("2", "3"):
        assert resumed_from(folder, trial) is None


def test_ctrl_c_cancels_the_jobs_of_submitit_and_another_backend_goes_on(
    tmp_path: Path, words: list[str], whole: Path
) -> None:
    folder = tmp_path / "sweep"
    process = start(
        folder, *words, "hydra.launcher.backend=submitit", "hydra.launcher.submitit.cluster=local"
    )
    try:
        wait_for(folder / "0" / "checkpoints" / "last.ckpt", process)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "train.py" not in errors, (
        "of the command there is no traceback; submitit's own local jobs print one"
    )
    assert f"sweep.resume={folder}" in output
    assert statuses(folder)["0"][0] in {"failed", "running"}
    resumed = subprocess.run(
        [*command(folder, *words)[:3], *words, f"sweep.resume={folder}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        env=environment(),
    )
    assert resumed.returncode == 0, resumed.stderr
    assert_same(folder, whole)
    assert resumed_from(folder, "0") is not None
