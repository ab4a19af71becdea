"""train.py as a person runs it: a process of its own, its output, its exit code, what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genre_classifier.features.sets import CORE20
from tests.conftest import ROOT


def train(folder: Path, *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run train.py with runs and sweeps below `folder`."""
    places = [f"hydra.run.dir={folder}/run", f"hydra.sweep.dir={folder}/sweep"]
    return subprocess.run(
        [sys.executable, "train.py", *places, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=timeout,
    )


def test_the_default_run_trains_on_the_demo_data_and_says_what_came_out(tmp_path: Path) -> None:
    result = train(tmp_path, "trainer.max_epochs=3", "model.dropout=0.2")
    assert result.returncode == 0, result.stderr
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert run["status"] == "finished"
    assert run["data"]["synthetic"] is True
    assert run["data"]["feature_set"] == CORE20.build_reference().as_dict()
    assert run["split_protocol"]["name"] == "grouped"
    assert metrics["test"]["accuracy"] > 0.4, "three epochs learn far more than chance, 0.125"
    for text in (
        "synthetic data, not music",
        "no artist on two",
        "F1 by genre",
        "Experimental",
        "tensorboard --logdir",
    ):
        assert text in result.stdout
    assert f"{metrics['test']['accuracy']:.3f}" in result.stdout
    assert str(tmp_path / "run") in result.stdout
    assert result.stderr.startswith(
        "demo; GenreClassifier 128-64-32, dropout 0.2; Adam at 0.001, up to 3 epochs, "
    )
    assert (
        tmp_path / "run" / ".hydra" / "overrides.yaml"
    ).read_text() == "- trainer.max_epochs=3\n- model.dropout=0.2\n"
    assert "epoch 2 of 3" in (tmp_path / "run" / "train.log").read_text()
    assert "Traceback" not in result.stderr
    assert "Warning" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.dropout=2"], "error: model.dropout=2.0: expected a number in [0, 1)\n"),
        (["optimiser.lr=1"], "error: optimiser: there is no such key"),
        (
            ["trainer.max_epochs=many"],
            "error: trainer.max_epochs: Value 'many' of type 'str' could not be converted",
        ),
        (
            ["data.split.test=0.9", "data.split.train=0.6"],
            "error: data.split.train=0.6, val=0.15 and test=0.9 add up to",
        ),
        (["hydra.run.dir="], "error: hydra.run.dir is empty: name the run's folder"),
        (["-m", "seed=1,2", "hydra.sweep.dir="], "error: hydra.sweep.dir is empty: name the sweep's folder"),
        (
            ["-m", "optimizer.lr=0", "model.dropout=0.1,0.2"],
            "error: optimizer.lr=0.0: expected a number above 0\n",
        ),
    ],
)
def test_a_wrong_setting_is_one_message_and_nothing_is_written(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = train(tmp_path, *arguments)
    assert result.returncode == 1
    assert result.stderr.startswith(message)
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_setting_shows_its_traceback_on_request(tmp_path: Path) -> None:
    environment = os.environ | {"HYDRA_FULL_ERROR": "1"}
    command = [sys.executable, "train.py", f"hydra.run.dir={tmp_path}/run", "model.dropuot=1"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert result.returncode != 0
    assert "Traceback" in result.stderr


def test_help_and_the_printed_configuration_import_nothing_heavy(tmp_path: Path) -> None:
    spy = tmp_path / "sitecustomize.py"
    spy.write_text(
        "import atexit, sys\n"
        "heavy = ('torch', 'lightning', 'pandas', 'sklearn')\n"
        "atexit.register(lambda: print('HEAVY', [m for m in heavy if m in sys.modules], file=sys.stderr))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    for arguments, expected in ((["--help"], "trainer: cpu, ddp, gpu"), (["--cfg", "job"], "max_epochs: 50")):
        result = subprocess.run(
            [sys.executable, "train.py", *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        assert result.returncode == 0, result.stderr
        assert expected in result.stdout
        assert result.stderr == "HEAVY []\n"


def test_bad_data_is_one_message_without_a_traceback(tmp_path: Path) -> None:
    result = train(tmp_path, "data=table", f"data.path={tmp_path}/none.csv")
    assert result.returncode == 1
    assert f"error: {tmp_path}/none.csv: there is no such file; check data.path\n" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_sweep_has_a_folder_for_each_combination(tmp_path: Path, music_overrides: list[str]) -> None:
    sweep = [
        "-m",
        *music_overrides,
        "trainer.max_epochs=1",
        "model.dropout=0.1,0.3",
        "optimizer.lr=1e-3,3e-3",
    ]
    result = train(tmp_path, *sweep)
    assert result.returncode == 0, result.stderr
    runs = sorted((tmp_path / "sweep").glob("*/run.json"))
    assert [path.parent.name for path in runs] == ["0", "1", "2", "3"]
    assert {json.loads(path.read_text())["status"] for path in runs} == {"finished"}
    overrides = {(path.parent / ".hydra" / "overrides.yaml").read_text() for path in runs}
    assert len(overrides) == 4


def test_two_processes_share_one_run(tmp_path: Path, music_overrides: list[str]) -> None:
    words = [word for word in music_overrides if not word.startswith("trainer.enable")]
    result = train(tmp_path, *words, "trainer=ddp", "trainer.devices=2")
    assert result.returncode == 0, result.stderr
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (run["status"], run["epochs"]) == ("finished", 3)
    history = (tmp_path / "run" / "history.csv").read_text().splitlines()
    steps = [int(line.split(",")[1]) for line in history[1:]]
    assert steps == [2, 4, 6], "60 rows in two processes are 2 batches of 16 each"
    said = "autograd trains the network, one mini-batch at a time: the engine has no trainer.devices=2"
    assert (tmp_path / "run" / "train.log").read_text().count(said) == 1
    predictions = (tmp_path / "run" / "predictions.csv").read_text().splitlines()
    assert len(predictions) == 1 + run["data"]["rows_by_split"]["test"]
    assert result.stdout.count("F1 by genre") == 1


def test_ctrl_c_keeps_the_last_checkpoint_and_the_run_can_go_on(
    tmp_path: Path, music_overrides: list[str]
) -> None:
    words = [*music_overrides, "callbacks.early_stopping=null"]
    folder = tmp_path / "run"
    command = [sys.executable, "train.py", f"hydra.run.dir={folder}", *words, "trainer.max_epochs=100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        deadline = time.monotonic() + 120
        while not (folder / "checkpoints" / "last.ckpt").exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "the last finished epoch is kept. To go on, give the same command and ckpt_path=" in errors
    assert "Traceback" not in errors
    run = json.loads((folder / "run.json").read_text())
    assert (run["status"], run["reason"]) == ("failed", "interrupted")
    done = len((folder / "history.csv").read_text().splitlines()) - 1

    last = folder / "checkpoints" / "last.ckpt"
    places = [f"hydra.run.dir={tmp_path}/again", f"trainer.max_epochs={done + 2}", f"ckpt_path={last}"]
    result = subprocess.run(
        [sys.executable, "train.py", *words, *places], capture_output=True, text=True, cwd=ROOT, timeout=240
    )
    assert result.returncode == 0, result.stderr
    again = json.loads((tmp_path / "again" / "run.json").read_text())
    assert (again["status"], again["epochs"]) == ("finished", done + 2)


def test_of_two_runs_started_into_one_folder_at_once_one_is_refused(tmp_path: Path) -> None:
    words = ["trainer.max_epochs=2", "logger=none", f"hydra.run.dir={tmp_path}/run"]
    processes = [
        subprocess.Popen(
            [sys.executable, "train.py", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(3)
    ]
    ends = [(*process.communicate(timeout=240), process.returncode) for process in processes]
    assert sorted(code for _, _, code in ends) == [0, 1, 1]
    for _, errors, code in ends:
        if code:
            assert errors.startswith(f"error: {tmp_path}/run")
            assert errors.count("\n") == 1
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (run["status"], run["epochs"]) == ("finished", 2)
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_folder_that_holds_a_run_is_not_used_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    result = train(tmp_path)
    assert result.returncode == 1
    assert "already holds a run (run.json): choose a folder that does not exist yet" in result.stderr
