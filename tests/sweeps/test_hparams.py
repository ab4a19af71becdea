"""What TensorBoard's HParams tab is told of a sweep, by TensorBoard's own reader."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from genre_classifier.runs.sweep_folder import SweepFolder
from genre_classifier.sweeps.finish import finish_sweep
from genre_classifier.sweeps.hparams import list_shown_metrics, write_summary
from genre_classifier.sweeps.stacked.fit import train_stack
from genre_classifier.sweeps.trial import silence
from genre_classifier.training.fit import train
from tests.conftest import composed
from tests.sweeps.hparams_tab import NUMBER, TEXT, Tab


def swept(
    folder: Path, base: Sequence[str], trials: Sequence[Sequence[str]], names: Sequence[str], how: str
) -> Tab:
    """Run trials as a launcher would, end the sweep and return its tab."""
    words = [
        *(word for word in base if word != "logger=none"),
        "trainer.max_epochs=1",
        "optimized_metric=val/loss",
    ]
    configs = [
        composed(*words, *overrides, f"run_dir={folder / str(number)}")
        for number, overrides in enumerate(trials)
    ]
    for cfg in configs:
        silence(cfg)
    SweepFolder(folder).path.mkdir()
    record = {"optimized_metric": "val/loss", "expected": len(trials), "swept": dict.fromkeys(names, "")}
    SweepFolder(folder).write_sweep(record)
    if how == "stacked":
        train_stack(configs)
    else:
        for cfg in configs:
            train(cfg)
    assert finish_sweep(SweepFolder(folder)) == 0
    return Tab(folder)


@pytest.mark.parametrize("how", ["alone", "stacked"])
def test_the_tab_opens_on_what_was_swept_and_the_metrics_that_count(
    how: str, tmp_path: Path, music_overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    values = [(0.1, 1), (0.4, 2)]
    trials = [[f"model.dropout={dropout}", f"seed={seed}"] for dropout, seed in values]

    tab = swept(tmp_path / "sweep", music_overrides, trials, ["model.dropout", "seed", "threads"], how)

    assert tab.settings == {"model.dropout": NUMBER, "seed": NUMBER}
    assert tab.metrics == ["val/loss", "val/f1", "test/accuracy"]
    assert len(tab.lines) == 2
    for number, (dropout, seed) in enumerate(values):
        settings, metrics = tab.lines[f"{number}/tensorboard"]
        assert settings == {"model.dropout": dropout, "seed": seed}
        written = json.loads((tmp_path / "sweep" / str(number) / "metrics.json").read_text())
        expected = {name: written[name.split("/")[0]][name.split("/")[1]] for name in tab.metrics}
        assert metrics == pytest.approx(expected, abs=1e-6)
    assert tab.images == {}  # a trial draws no figures


def test_of_a_swept_group_the_tab_shows_what_its_choices_change(
    tmp_path: Path, music_overrides: list[str]
) -> None:
    trials = [
        ["optimizer=adam", "trainer.gradient_clip_val=1"],
        ["optimizer=sgd", "trainer.gradient_clip_val=null"],
    ]

    tab = swept(
        tmp_path / "sweep", music_overrides, trials, ["optimizer", "trainer.gradient_clip_val"], "alone"
    )

    assert tab.settings == {
        "optimizer._target_": TEXT,
        "optimizer.lr": NUMBER,
        "trainer.gradient_clip_val": TEXT,
    }
    assert {name: line[0]["trainer.gradient_clip_val"] for name, line in tab.lines.items()} == {
        "0/tensorboard": 1.0,
        "1/tensorboard": "null",
    }


def test_trials_without_tensorboard_files_get_no_tab(tmp_path: Path, music_overrides: list[str]) -> None:
    swept(tmp_path / "sweep", music_overrides, [["logger=none"]], ["seed"], "alone")
    assert not SweepFolder(tmp_path / "sweep").tensorboard.exists()


def test_a_later_summary_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    sweep = SweepFolder(tmp_path)
    write_summary(sweep, {"seed": True}, ["val/f1"])
    write_summary(
        sweep, {"model.dropout": True, "optimizer._target_": False}, list_shown_metrics("train/loss")
    )
    tab = Tab(tmp_path)
    assert tab.settings == {"model.dropout": NUMBER, "optimizer._target_": TEXT}
    assert tab.metrics == ["val/f1", "test/accuracy"]
    assert len(list(sweep.tensorboard.iterdir())) == 1


def test_of_runs_by_themselves_the_tab_shows_first_what_differs(
    tmp_path: Path, music_overrides: list[str]
) -> None:
    words = [word for word in music_overrides if word != "logger=none"]
    for name, *overrides in (("a", "model.dropout=0.1"), ("b", "model.dropout=0.2", "logger.figures=false")):
        train(composed(*words, "trainer.max_epochs=1", *overrides, f"run_dir={tmp_path / name}"))
    tab = Tab(tmp_path)
    assert next(iter(tab.settings)) == "model.dropout"
    assert "optimizer.lr" in tab.settings
    assert {"test/accuracy", "val/f1"} <= set(tab.metrics)
    assert set(tab.images) == {"a/tensorboard"}
