"""Whole sweeps by the real command, small: every launcher, failures, kill and resume, bad input."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import optuna
import pandas as pd
import pytest
from filelock import FileLock

from tests.conftest import ROOT, composed
from tests.sweeps.hparams_tab import NUMBER, TEXT, Tab

POISON = "tests.sweeps.poison"
OPTUNA = "hparams_search=optuna"


def command(folder: Path, *overrides: str) -> list[str]:
    return [sys.executable, "train.py", "-m", f"hydra.sweep.dir={folder}", *overrides]


def sweep(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Run a sweep into `folder`; the package is found where the tests found it."""
    return subprocess.run(
        command(folder, *overrides), capture_output=True, text=True, cwd=ROOT, timeout=300, env=environment()
    )


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "COLUMNS": "160"}


def statuses(folder: Path) -> dict[str, tuple[str, str | None]]:
    runs = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/run.json")}
    return {name: (run["status"], run["reason"]) for name, run in sorted(runs.items())}


def leaderboard(folder: Path, name: str = "leaderboard.csv") -> pd.DataFrame:
    """What does not depend on the clock or the place."""
    table = pd.read_csv(folder / name)
    return table[[column for column in table if column not in {"seconds", "path", "best_path"}]]


def targets(*names: str) -> str:
    own = "genre_classifier.network.GenreClassifier"
    return "model._target_=" + ",".join(own if name == "good" else f"{POISON}.{name}" for name in names)


def trained_alone(folder: Path, *overrides: str) -> dict[str, float]:
    """Train one run in this process and return its test metrics."""
    from genre_classifier.training.fit import train

    result = train(composed(*overrides, "trainer.enable_progress_bar=false", f"run_dir={folder}"))
    assert result is not None
    return result.metrics["test"]


@pytest.fixture(scope="module")
def short(music_overrides: list[str]) -> list[str]:
    return [word for word in music_overrides if not word.startswith("trainer.enable")]


def test_one_poisoned_trial_of_each_kind_does_not_stop_the_others(tmp_path: Path, short: list[str]) -> None:
    kinds = targets("Killed", "good", "Diverging", "OutOfMemory", "Refusing", "good2").replace(
        f"{POISON}.good2", "genre_classifier.network.GenreClassifier"
    )
    result = sweep(tmp_path / "sweep", *short, kinds, "logger=tensorboard")
    found = statuses(tmp_path / "sweep")
    assert [status for status, _ in found.values()] == [
        "failed",
        "finished",
        "failed",
        "failed",
        "failed",
        "finished",
    ]
    assert (
        found["0"][1]
        == "killed by SIGKILL: by a person, or by the system because memory ran out; there is no record of it"
    )
    assert str(found["2"][1]).startswith("DivergedError: epoch 0: the val loss is nan")
    assert "memory" in str(found["3"][1])
    assert "is not to my taste" in str(found["4"][1])
    assert result.returncode == 1
    last = result.stdout.splitlines()[-1]
    assert last.startswith(
        "2 of 6 trials finished, 4 failed; to run those, give the same command and sweep.resume="
    )
    assert "Traceback" not in result.stderr
    table = leaderboard(tmp_path / "sweep", "trials.csv")
    assert sorted(table["status"]) == ["failed"] * 4 + ["finished"]  # the two good ones are one and the same
    lines = [line for line in result.stdout.splitlines() if re.match(r"\d/6 ", line)]
    assert len(lines) == 6
    tab = Tab(tmp_path / "sweep")
    assert tab.settings == {"model._target_": TEXT}
    assert set(tab.lines) == {"1/tensorboard", "5/tensorboard"}
    assert tab.images == {}


def test_joblib_runs_trials_side_by_side_and_outlives_a_killed_one(tmp_path: Path, short: list[str]) -> None:
    result = sweep(
        tmp_path / "sweep",
        *short,
        targets("good", "Killed"),
        "seed=1,2",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
    )
    assert [status for status, _ in statuses(tmp_path / "sweep").values()] == [
        *["finished"] * 2,
        *["failed"] * 2,
    ]
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    for number, seed in (("0", 1), ("1", 2)):
        # A trial does not depend on the launcher that ran it.
        alone = trained_alone(tmp_path / f"alone{seed}", *short, f"seed={seed}")
        assert json.loads((tmp_path / "sweep" / number / "metrics.json").read_text())["test"] == alone


def test_submitit_runs_the_same_trials(tmp_path: Path, short: list[str]) -> None:
    result = sweep(tmp_path / "sweep", *short, "seed=1,2", "hydra/launcher=submitit_local")
    assert result.returncode == 0, result.stderr
    assert [status for status, _ in statuses(tmp_path / "sweep").values()] == ["finished"] * 2
    assert "2 of 2 trials finished" in result.stdout


@pytest.mark.ray
def test_ray_runs_the_same_trials_and_outlives_a_killed_one(tmp_path: Path, short: list[str]) -> None:
    kinds = targets("good", "Killed")
    result = sweep(
        tmp_path / "sweep", *short, kinds, "hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"
    )
    assert [status for status, _ in statuses(tmp_path / "sweep").values()] == ["finished", "failed"], (
        result.stderr
    )
    assert result.returncode == 1


def test_the_stacked_launcher_trains_what_it_can_side_by_side_and_the_rest_alone(
    tmp_path: Path, short: list[str]
) -> None:
    folder = tmp_path / "sweep"
    words = [*short, "model.dropout=0.3", targets("good", "Killed"), "optimizer.lr=1e-2,1e30,1e-3"]
    result = sweep(folder, *words, "hydra/launcher=stacked", "hydra.launcher.n_jobs=1")
    found = statuses(folder)
    assert [status for status, _ in found.values()] == ["finished", "failed", "finished", *["failed"] * 3]
    assert str(found["1"][1]).startswith("DivergedError")
    assert (
        found["3"][1]
        == "killed by SIGKILL: by a person, or by the system because memory ran out; there is no record of it"
    )
    assert (
        "3 is trained alone: recording the forward pass of tests.sweeps.poison.Killed failed" in result.stdout
    )
    assert result.returncode == 1
    assert "2 of 6 trials finished, 4 failed" in result.stdout
    for number, rate in (("0", "1e-2"), ("2", "1e-3")):
        alone = trained_alone(tmp_path / rate, *short, "model.dropout=0.3", f"optimizer.lr={rate}")
        stacked = folder / number
        assert json.loads((stacked / "metrics.json").read_text())["test"] == pytest.approx(alone, abs=1e-5)
        names = {path.name for path in stacked.iterdir()} - {"train.log"}
        assert names == {path.name for path in (tmp_path / rate).iterdir()}
        assert (stacked / ".hydra" / "config.yaml").is_file()


def test_optuna_runs_as_stacks(tmp_path: Path, short: list[str]) -> None:
    folder = tmp_path / "sweep"
    words = [*short, "hparams_search=optuna", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2"]
    words += ["model.hidden_dims=[16,8]", "data.batch_size=16", "logger=tensorboard"]
    result = sweep(folder, *words, "hydra/launcher=stacked")
    assert result.returncode == 0, result.stderr
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{folder}/study.db")
    assert len(study.trials) == 4
    tab = Tab(folder)
    assert set(tab.settings) == set(study.trials[0].params)
    found = [line["optimizer.lr"] for line, _ in tab.lines.values()]
    assert sorted(found) == pytest.approx(sorted(trial.params["optimizer.lr"] for trial in study.trials))
    assert tab.images == {}


def test_a_search_in_which_every_trial_fails_says_so(tmp_path: Path, short: list[str]) -> None:
    words = [*short, "hparams_search=optuna", "hydra.sweeper.n_trials=2", f"model._target_={POISON}.Refusing"]
    result = sweep(tmp_path / "sweep", *words, "logger=tensorboard")
    assert [status for status, _ in statuses(tmp_path / "sweep").values()] == ["failed"] * 2
    assert result.returncode == 1
    assert result.stdout.splitlines()[-1].startswith("0 of 2 trials finished, 2 failed")
    tab = Tab(tmp_path / "sweep")  # written when the sweep begins
    assert tab.settings.items() >= {"model.dropout": NUMBER, "model.hidden_dims": TEXT}.items()
    assert "Traceback" not in result.stderr


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def killed_when(path: Path, folder: Path, *overrides: str) -> None:
    """Start a sweep and kill it as soon as a file is there."""
    process = subprocess.Popen(
        command(folder, *overrides),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment(),
    )
    try:
        wait_for(path, process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_the_workers_of_a_killed_sweep_end_with_it(tmp_path: Path, short: list[str]) -> None:
    folder = tmp_path / "sweep"
    words = [*short, "trainer.max_epochs=1000000", "callbacks.early_stopping=null", "seed=1,2"]
    words += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    killed_when(folder / "1" / "checkpoints" / "last.ckpt", folder, *words)
    # Worker and trial hold these for as long as they live, and the trials would take days.
    for held in (".locks/0.lock", ".locks/1.lock", "0/.lock", "1/.lock"):
        with FileLock(folder / held, timeout=60):
            pass
    assert [status for status, _ in statuses(folder).values()] == ["running", "running"]


def elsewhere(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run train.py in another folder than its own, with jobs that run in theirs."""
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words, "hydra.job.chdir=true"],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
        env=environment(),
    )


def test_a_sweep_over_tables_by_relative_paths_from_another_folder(
    tmp_path: Path, short: list[str], music_csv: Path
) -> None:
    for name in ("a b.csv", "c.csv"):
        shutil.copy(music_csv, tmp_path / name)
    words = [word for word in short if not word.startswith("data.path=")]
    words = ["-m", *words, "data.path='a b.csv',c.csv", "trainer.max_epochs=1"]
    result = elsewhere(tmp_path, *words, "hydra.sweep.dir='my (1) sweep'")
    assert result.returncode == 0, result.stderr
    sweep = tmp_path / "my (1) sweep"
    runs = [json.loads((sweep / name / "run.json").read_text()) for name in ("0", "1")]
    assert [run["status"] for run in runs] == ["finished"] * 2
    paths = [run["settings"]["data.path"] for run in runs]
    assert paths == [str(tmp_path / name) for name in ("a b.csv", "c.csv")]
    assert "genre-classifier export \"sweep='my (1) sweep'\"\n" in result.stdout
    again = elsewhere(tmp_path, *words, "sweep.resume='my (1) sweep'")
    assert again.returncode == 0, again.stderr
    assert "2 of 2 trials are finished already" in again.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"a b.csv", "c.csv", "my (1) sweep"}


def test_a_run_in_its_own_folder_finds_what_is_named_from_where_it_was_started(
    tmp_path: Path, short: list[str], music_csv: Path
) -> None:
    shutil.copy(music_csv, tmp_path / "music.csv")
    for name, more in (("one", []), ("two", ["trainer.max_epochs=4", "ckpt_path=one/checkpoints/last.ckpt"])):
        result = elsewhere(tmp_path, *short, "data.path=music.csv", f"hydra.run.dir={name}", *more)
        assert result.returncode == 0, result.stderr
        assert f"export it    genre-classifier export run={name}\n" in result.stdout
    assert json.loads((tmp_path / "two" / "run.json").read_text())["epochs"] == 4
    assert {path.name for path in tmp_path.iterdir()} == {"music.csv", "one", "two"}


def in_one_go_and_killed(tmp_path: Path, at: str, overrides: Sequence[str]) -> None:
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    killed_when(cut / at, cut, *overrides)
    assert "running" in {status for status, _ in statuses(cut).values()}
    resumed = subprocess.run(
        [sys.executable, "train.py", "-m", *overrides, f"sweep.resume={cut}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        env=environment(),
    )
    assert resumed.returncode == 0, resumed.stderr
    assert sweep(whole, *overrides).returncode == 0
    for name in ("leaderboard.csv", "trials.csv"):
        pd.testing.assert_frame_equal(leaderboard(cut, name), leaderboard(whole, name))
    # The half-done trial went on; it was not begun anew.
    assert json.loads((cut / at.split("/")[0] / "run.json").read_text())["resumed_from"] is not None


def test_a_grid_that_was_killed_ends_with_the_same_leaderboard(tmp_path: Path, short: list[str]) -> None:
    words = [
        *short,
        "trainer.max_epochs=40",
        "callbacks.early_stopping.patience=3",
        "seed=1,2",
        "model.dropout=0.1,0.3",
    ]
    in_one_go_and_killed(tmp_path, "1/checkpoints/last.ckpt", words)


def test_an_optuna_search_that_was_killed_ends_with_the_same_leaderboard(
    tmp_path: Path, short: list[str]
) -> None:
    words = [
        *short,
        "trainer.max_epochs=40",
        "hparams_search=optuna",
        "hydra.sweeper.n_trials=3",
        "optimized_metric=val/loss",
    ]
    in_one_go_and_killed(tmp_path, "1/checkpoints/last.ckpt", words)
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{tmp_path}/cut/study.db")
    assert study.direction.name == "MINIMIZE"
    objectives = [
        json.loads((tmp_path / "cut" / str(n) / "run.json").read_text())["objective"] for n in range(3)
    ]
    assert [trial.value for trial in study.trials] == objectives
    # The objective is in single precision, as Lightning gives it, and a float32 loss is rounded by its row's place.
    best = leaderboard(tmp_path / "cut")["val/loss"].iloc[0]
    assert best == pytest.approx(min(objectives), rel=2**-22)
    assert best < sorted(objectives)[1]


def test_folds_and_seeds_are_replicates_and_every_row_is_predicted_once(
    tmp_path: Path, short: list[str]
) -> None:
    folder = tmp_path / "sweep"
    result = sweep(
        folder,
        *short,
        "hparams_search=cross_validation",
        "data.split.folds=2",
        "seed=1,2",
        "model.dropout=0.1,0.5",
        "hydra/launcher=stacked",
    )
    assert result.returncode == 0, result.stderr
    table = leaderboard(folder)
    assert list(table["replicates"]) == [4, 4]
    trials = pd.read_csv(folder / "trials.csv")
    means = trials.groupby("model.dropout")["test/accuracy"].mean()
    for _, row in table.iterrows():
        assert row["test/accuracy"] == pytest.approx(means[row["model.dropout"]])
    predictions = pd.read_csv(folder / "out_of_fold.csv")
    for _, of_one in predictions.groupby(["rank", "seed"]):
        assert sorted(of_one["id"]) == sorted(set(of_one["id"]))
        assert len(of_one) == 90
    best = predictions[predictions["rank"] == 1]
    accuracy = (best["true"] == best["predicted"]).mean()
    assert f"out of fold  accuracy {accuracy:.4f} over all rows" in result.stdout
    assert (folder / "out_of_fold.png").stat().st_size > 5000
    assert (folder / "sweep.png").stat().st_size > 5000

    again = subprocess.run(
        [sys.executable, "-m", "genre_classifier.cli.main", "leaderboard", str(folder)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    assert "each of 2 folds tests in turn" in again.stdout
    exported = subprocess.run(
        [sys.executable, "export.py", f"sweep={folder}", f"save_dir={tmp_path}/models", "onnx=false"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    assert exported.returncode == 0, exported.stderr
    metadata = json.loads((tmp_path / "models" / "genre_classifier_production_metadata.json").read_text())
    folds = metadata["metrics"]["cross_validation"]
    assert (folds["folds"], folds["seeds"]) == (2, 2)
    assert folds["test"]["accuracy"]["mean"] == pytest.approx(table["test/accuracy"].iloc[0])
    assert "the best by val/f1" in exported.stdout


@pytest.mark.parametrize(
    ("launcher", "interrupted"), [("basic", ["0"]), ("stacked", ["0", "1"])], ids=["basic", "stacked"]
)
def test_ctrl_c_stops_the_sweep_and_says_how_to_go_on(
    launcher: str, interrupted: list[str], tmp_path: Path, short: list[str]
) -> None:
    folder = tmp_path / "sweep"
    words = [*short, "trainer.max_epochs=100000", "callbacks.early_stopping=null", "seed=1,2"]
    words += [f"hydra/launcher={launcher}"]
    process = subprocess.Popen(
        command(folder, *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    try:
        deadline = time.monotonic() + 120
        while not (folder / "0" / "checkpoints" / "last.ckpt").exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert statuses(folder) == dict.fromkeys(interrupted, ("failed", "interrupted"))
    assert f"sweep.resume={folder}" in output


def test_two_processes_train_one_trial_wherever_the_sweep_is_started(
    tmp_path: Path, short: list[str], music_csv: Path
) -> None:
    shutil.copy(music_csv, tmp_path / "music.csv")
    words = [*short, "data.path=music.csv", "seed=7", "trainer=ddp", "trainer.devices=2"]
    result = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "-m", f"hydra.sweep.dir={tmp_path}/sweep", *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
        env=environment(),
    )
    assert result.returncode == 0, result.stderr
    assert [status for status, _ in statuses(tmp_path / "sweep").values()] == ["finished"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model.dropuot=0.1,0.2"],
            "model.dropuot: there is no such key. model has hidden_dims, dropout. Did you",
        ),
        ([OPTUNA, "optimizer.rate=interval(0,1)"], "optimizer.rate: the search space names a setting"),
        (["seed=range(3,3)"], "seed: its range is empty, so there is no trial"),
        (["model.dropout=interval(0.1,0.5)"], "model.dropout=interval(0.1,0.5): an interval has no list"),
        (
            [OPTUNA, "model.dropout=interval(0.5,0.5)"],
            "the interval is empty; its start must be below its end",
        ),
        (
            ["seed=range(0,100)", "data.split.seed=range(0,100)"],
            "has 10,000 trials, sweep.max_trials is 1,000",
        ),
        ([OPTUNA, "hydra.sweeper.n_trials=2000"], "this sweep has 2,000 trials, sweep.max_trials is 1,000"),
        (
            [OPTUNA, "hydra.sweeper.direction=minimize"],
            "contradicts optimized_metric=val/f1, where higher is",
        ),
        (["seed=1,2", "sweep.resume=nowhere"], "sweep.resume=nowhere: there is no such folder"),
        (["seed=1,2", "sweep.resume=src"], "there is no sweep.json; name the folder of a sweep"),
        (["seed=1,2", "sweep.max_trials=0"], "sweep.max_trials=0"),
    ],
)
def test_a_mistake_is_one_message_before_anything_starts(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    words = (
        overrides
        if any("resume" in word for word in overrides)
        else [f"hydra.sweep.dir={tmp_path}/sweep", *overrides]
    )
    result = subprocess.run(
        [sys.executable, "train.py", "-m", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "sweep").exists()


def test_a_folder_of_another_sweep_is_not_resumed_or_shared(tmp_path: Path, short: list[str]) -> None:
    folder = tmp_path / "sweep"
    assert sweep(folder, *short, "seed=1,2", "trainer.max_epochs=1").returncode == 0

    def again(*overrides: str) -> str:
        result = subprocess.run(
            [sys.executable, "train.py", "-m", *short, *overrides],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment(),
        )
        assert result.returncode == 1
        return result.stderr

    other = again("seed=1,2", "trainer.max_epochs=2", f"sweep.resume={folder}")
    assert "that sweep had another configuration:\n  - trainer.max_epochs=1, now 2" in other
    other = again("model.dropout=0.1,0.2", "trainer.max_epochs=1", f"sweep.resume={folder}")
    assert "swept seed, now model.dropout" in other
    assert "already holds a sweep (" in again("seed=1,2", f"hydra.sweep.dir={folder}")
    both = again("seed=1,2", f"hydra.sweep.dir={tmp_path}/x", f"sweep.resume={folder}")
    assert "name two folders: drop hydra.sweep.dir" in both
    with FileLock(folder / ".locks" / "sweep.lock"):
        locked = again("seed=1,2", "trainer.max_epochs=1", f"sweep.resume={folder}")
    assert "another process is at work on this sweep; wait for it or stop it first" in locked
    before = (folder / "0" / "run.json").read_text()
    more = subprocess.run(
        [
            sys.executable,
            "train.py",
            "-m",
            *short,
            "seed=1,2,3",
            "trainer.max_epochs=1",
            f"sweep.resume={folder}",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    assert more.returncode == 0, more.stderr
    assert "2 of 3 trials are finished already" in more.stdout
    assert "3 of 3 trials finished" in more.stdout
    assert (folder / "0" / "run.json").read_text() == before, "a finished trial is not touched"
