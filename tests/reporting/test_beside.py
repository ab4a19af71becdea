"""The grouped number beside that of a random split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from genre_classifier.reporting.beside import (
    build_grouped_command,
    find_grouped_trials,
    find_or_train_grouped_run,
)
from genre_classifier.reporting.contents import read_contents
from genre_classifier.runs.folder import RunFolder
from genre_classifier.runs.ranking.leaderboard import read_trial
from tests.conftest import composed
from tests.reporting.conftest import Folders

Copied = Callable[..., Path]


def test_the_grouped_run_is_trained_once_and_found_again(folders: Folders, copied: Copied) -> None:
    contents = read_contents(RunFolder(copied(folders.random)))

    trained = find_or_train_grouped_run(contents, train_it=True)
    found = find_or_train_grouped_run(contents, train_it=False)

    grouped = RunFolder(contents.folder.path / "grouped")
    metrics = grouped.read_metrics()
    assert metrics["split_protocol"]["groups_disjoint"] is True
    assert trained.estimates["test/accuracy"].mean == metrics["test"]["accuracy"]
    assert "trained for this report" in trained.remark
    assert found.estimates == trained.estimates
    assert "found among the runs" in found.remark


def test_the_trained_run_is_the_one_that_train_would_give(
    folders: Folders, copied: Copied, tmp_path: Path, music_overrides: list[str]
) -> None:
    from genre_classifier.training.fit import train

    contents = read_contents(RunFolder(copied(folders.random)))
    beside = find_or_train_grouped_run(contents, train_it=True)

    result = train(composed(*music_overrides, "data.split.method=grouped", f"run_dir={tmp_path / 'other'}"))

    assert result is not None
    assert beside.estimates["test/f1"].mean == result.metrics["test"]["f1"]


def test_a_grouped_run_with_other_settings_does_not_count(folders: Folders, copied: Copied) -> None:
    folder = copied(folders.random, name="outputs/runs/day/random")
    copied(folders.run, name="outputs/runs/day/grouped")  # more epochs, another schedule

    beside = find_or_train_grouped_run(read_contents(RunFolder(folder)), train_it=False)

    assert not beside.estimates
    assert beside.command.startswith("python train.py data=table")
    assert beside.command.endswith("data/split=stratified data.split.method=grouped")


def test_a_grouped_run_whose_rows_are_gone_names_the_command(folders: Folders, copied: Copied) -> None:
    folder = RunFolder(copied(folders.random))
    config = folder.config_yaml
    config.write_text(config.read_text().replace("music.csv", "gone.csv"))

    beside = find_or_train_grouped_run(read_contents(folder), train_it=True)

    assert not beside.estimates
    assert "It could not be trained" in beside.remark
    assert "gone.csv" in beside.remark
    assert "data.split.method=grouped" in beside.command


def test_a_sweep_is_not_trained_again(folders: Folders) -> None:
    trial = read_trial(RunFolder(folders.random))
    assert trial is not None

    beside = find_grouped_trials([trial], ("seed=1,2",))

    assert not beside.estimates
    assert beside.command == "python train.py -m seed=1,2 data.split.method=grouped"


def test_the_grouped_partners_of_a_sweep_are_found(folders: Folders, copied: Copied) -> None:
    contents = read_contents(RunFolder(copied(folders.random)))
    trained = find_or_train_grouped_run(contents, train_it=True)
    trial = read_trial(contents.folder)
    assert trial is not None

    beside = find_grouped_trials([trial], ())

    assert beside.estimates == trained.estimates
    assert "no artist on two sides" in beside.protocol


@pytest.mark.parametrize("method", ["stratified", "auto"])
def test_a_method_that_was_asked_for_is_replaced(method: str) -> None:
    assert build_grouped_command([f"data.split.method={method}", "a=b c"]) == (
        "python train.py 'a=b c' data.split.method=grouped"
    )


def test_partners_need_the_same_rows(folders: Folders, copied: Copied) -> None:
    contents = read_contents(RunFolder(copied(folders.random)))
    find_or_train_grouped_run(contents, train_it=True)
    grouped = contents.folder.path / "grouped" / "run.json"
    record = json.loads(grouped.read_text())
    record["data"]["fingerprint"] = "other"
    grouped.write_text(json.dumps(record))

    assert not find_or_train_grouped_run(contents, train_it=False).estimates
