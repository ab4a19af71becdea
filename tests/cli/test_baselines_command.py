"""`genre-classifier baselines` as a user gives it."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genre_classifier.baselines import models as baseline_models
from genre_classifier.baselines.models import get_baseline
from genre_classifier.cli import baselines as baselines_command
from genre_classifier.cli.main import main
from tests.conftest import ROOT

COMMON = ("--models", "majority", "logistic", "--jobs", "1")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the repository's conf/ in it, as the current one."""
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def told(music_csv: Path) -> list[str]:
    """The settings that name the table."""
    return [
        "--data",
        "table",
        "--path",
        str(music_csv),
        "data.label=genre",
        "data.group=artist",
        "data.id=track",
    ]


def statuses(folder: Path) -> dict[str, str]:
    return {path.parent.name: json.loads(path.read_text())["status"] for path in folder.glob("*/run.json")}


def test_every_fold_gets_a_run_folder_and_a_row_joins_them(
    here: Path, told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["baselines", *told, "--folds", "3", *COMMON, "seed=5", "--out", "out"]) == 0
    names = {f"{name}-fold{fold}" for name in ("majority", "logistic") for fold in range(3)}
    assert statuses(here / "out") == dict.fromkeys(names, "finished")
    with (here / "out" / "leaderboard.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [(line["model"], line["replicates"]) for line in table] == [("logistic", "3"), ("majority", "3")]
    assert table[1]["against_best"] == "worse"
    with (here / "out" / "out_of_fold.csv").open() as stream:
        tested = [line["id"] for line in csv.DictReader(stream) if line["rank"] == "1"]
    assert len(tested) == len(set(tested)) == 90
    shown = capsys.readouterr().out
    assert "each of 3 folds tests in turn, no artist on two sides" in shown
    assert "logistic" in shown


def test_like_a_run_takes_its_rows_from_wherever_it_is_started(
    here: Path, trained: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, music_csv: Path
) -> None:
    shutil.copy(music_csv, here / "music.csv")
    network = trained("data.path=music.csv", "data.split.seed=3", "seed=11", name="network").folder
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert main(["baselines", "--like", str(network.path), *COMMON, "--out", "out"]) == 0
    run = json.loads((here / "elsewhere/out/logistic/run.json").read_text())
    theirs = network.read_run()
    assert run["data"]["fingerprint"] == theirs["data"]["fingerprint"]
    assert (run["seed"], run["split_protocol"]) == (11, theirs["split_protocol"])
    board = here / "board.csv"
    assert main(["leaderboard", str(network.path), "out", "--csv", str(board)]) == 0
    with board.open() as stream:
        table = list(csv.DictReader(stream))
    assert {line["model"] for line in table} == {"GenreClassifier", "logistic", "majority"}
    settings = [name for name in table[0] if "." in name]
    assert settings == [], "one table, and no column for what only one kind of model has"


def test_like_a_sweep_runs_each_fold_once_and_random_models_with_every_seed(
    here: Path,
    trained: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = replace(get_baseline("forest"), settings={"n_estimators": 5}, grid=get_baseline("majority").grid)
    monkeypatch.setattr(baseline_models, "BASELINES", (get_baseline("majority"), small))
    for fold in (0, 1):
        for seed in (1, 2):
            name = f"sweep/{fold}{seed}"
            trained(
                "data.split.folds=2",
                f"data.split.fold={fold}",
                f"seed={seed}",
                "trainer.max_epochs=1",
                name=name,
            )
    words = ["baselines", "--like", "sweep", "--models", "majority", "forest", "--jobs", "1", "--out", "out"]
    assert main(words) == 0
    forests = {f"forest-fold{fold}-seed{seed}" for fold in (0, 1) for seed in (1, 2)}
    assert set(statuses(here / "out")) == forests | {"majority-fold0", "majority-fold1"}
    assert "one seed for majority: nothing in them is drawn at random" in capsys.readouterr().out


def test_a_model_that_fails_leaves_the_others_alone(
    here: Path, told: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from genre_classifier.baselines import fit as baselines

    fit = baselines.fit_baseline

    def failing(one: Any, *args: Any, **named: Any) -> Any:
        if one.name == "majority":
            raise MemoryError("no room")
        return fit(one, *args, **named)

    monkeypatch.setattr(baselines, "fit_baseline", failing)
    assert main(["baselines", *told, *COMMON, "--out", "out"]) == 1
    assert statuses(here / "out") == {"majority": "failed", "logistic": "finished"}
    assert json.loads((here / "out/majority/run.json").read_text())["reason"] == "MemoryError: no room"
    assert "1 of 2 runs failed" in capsys.readouterr().err


def test_ctrl_c_keeps_what_is_finished(
    here: Path, told: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from genre_classifier.baselines import fit as baselines

    fit = baselines.fit_baseline

    def stopping(one: Any, *args: Any, **named: Any) -> Any:
        if one.name == "logistic":
            raise KeyboardInterrupt
        return fit(one, *args, **named)

    monkeypatch.setattr(baselines, "fit_baseline", stopping)
    with pytest.raises(SystemExit) as ended:
        main(["baselines", *told, *COMMON, "--out", "out"])
    assert ended.value.code == baselines_command.INTERRUPTED
    assert statuses(here / "out") == {"majority": "finished", "logistic": "failed"}
    assert json.loads((here / "out/logistic/run.json").read_text())["reason"] == "interrupted"
    assert "interrupted; what is finished is kept in out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.dropout=0.3"], r"model\.dropout=0\.3: baselines have no such setting"),
        (["data.lable=x"], r"data\.lable: there is no such key.*Did you mean data\.label\?"),
        (["seed=1,2,3"], r"seed=1,2,3: one value each; --seeds 1 2 3 runs"),
        (["--seeds", "one"], r"--seeds one: expected whole numbers"),
        (["--folds", "1"], r"--folds 1: expected at least 2"),
        (
            ["--folds", "3", "data.split.fold=0"],
            r"--folds 3 runs every fold, but data\.split\.fold=0 chooses",
        ),
        (["--jobs", "0"], r"--jobs 0: expected at least 1"),
        (["--like", "outputs"], r"--like outputs and data=table both choose the rows"),
        (["data.split.train=0.9"], r"must add up to 1"),
        (["grouped"], r"grouped: expected a setting as KEY=VALUE"),
        (["--models", "boost"], r"--models boost: expected one of majority, logistic"),
    ],
)
def test_a_mistake_is_one_message_before_anything_is_written(
    words: list[str], message: str, here: Path, told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["baselines", *told, *words]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error, flags=re.DOTALL), error
    assert "Traceback" not in error
    assert not (here / "outputs").exists()


def test_without_runs_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["baselines", "--like", "outputs"]) == 1
    assert "--like outputs: there is no run" in capsys.readouterr().err


def test_settings_after_an_option_of_several_values_are_settings(here: Path, told: list[str]) -> None:
    assert main(["baselines", "--out", "out", "--models", "majority", *told[-3:], *told[:4]]) == 0
    assert statuses(here / "out") == {"majority": "finished"}


def test_a_folder_that_holds_runs_is_not_used_again(
    here: Path, told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["baselines", *told, "--models", "majority", "--out", "out"]
    assert main(words) == 0
    assert main(words) == 1
    assert "out already holds a sweep" in capsys.readouterr().err
