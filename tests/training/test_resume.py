"""A resumed run ends as one that had its settings from the start, or is refused; nothing is passed over in silence."""

import csv
import json
import logging
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genre_classifier.errors import CheckpointError
from genre_classifier.runs.folder import RunFolder
from genre_classifier.sweeps.stacked.fit import train_stack
from genre_classifier.training.resume import SETTINGS_KEY, may_change
from genre_classifier.training.run import Result
from tests.conftest import composed, rows_of_music, write_csv
from tests.contracts.test_every_knob import KNOBS, Knob, Outcome, leaves, outcome
from tests.training.test_fit import assert_same_weights, history, stop_after

Train = Callable[..., Result]
# Leaves that a resumed run may have with another value; all others are refused.
APPLIED = {
    "callbacks.checkpoint.monitor": "as long as its best epoch is at hand",
    "callbacks.early_stopping.min_delta": "as long as it ends no earlier than now",
    "callbacks.early_stopping.monitor": "as long as it ends no earlier than now",
    "callbacks.early_stopping.patience": "as long as it ends no earlier than now",
    "ckpt_path": "where it goes on from",
    "data.path": "its content is compared",
    "data.split.files.train": "its content is compared",
    "data.split.files.val": "its content is compared",
    "data.split.files.test": "its content is compared",
    "data.jobs": "of the machine",
    "data.cache": "of the machine",
    "logger._target_": "of the machine",
    "logger.figures": "of the machine",
    "logger.save_dir": "of the machine",
    "optimized_metric": "names the value of the best epoch",
    "run_dir": "where it goes",
    "sweep.max_trials": "of a multirun",
    "sweep.resume": "of a multirun",
    "threads": "of the machine",
    "trainer.accelerator": "of the machine",
    "trainer.batches_per_training_step": "changes nothing but the time",
    "trainer.detect_anomaly": "of the machine",
    "trainer.deterministic": "of the machine",
    "trainer.enable_progress_bar": "of the machine",
    "trainer.max_epochs": "no fewer than are done",
    "trainer.max_time": "counts from the first epoch on",
    "trainer.min_epochs": "as long as it ends no earlier than now",
    "trainer.profiler": "of the machine",
    "trainer.strategy": "of the machine; the number of processes is not",
}
CHOICES = [
    ["optimizer=adam", "scheduler=cosine", "callbacks=ema", "data=table"],
    ["optimizer=adamw", "scheduler=one_cycle", "data=gtzan"],
    ["optimizer=sgd", "scheduler=plateau", "data=audio_folder"],
    ["data=fma"],
    ["data=demo"],
]


def test_every_leaf_may_change_on_resuming_or_not() -> None:
    found = {leaf for choice in CHOICES for leaf in leaves(composed(*choice))}
    found -= {leaf.rpartition(".")[0] for leaf in found}  # a part that is null in another choice
    assert {leaf for leaf in found if may_change(leaf)} == APPLIED.keys() & found
    assert APPLIED.keys() - found == set()
    assert len(found) > 70


@pytest.fixture(scope="module")
def half_of(tmp_path_factory: pytest.TempPathFactory, music_overrides: list[str]) -> Callable[..., Path]:
    """A function that trains two of four epochs with the given overrides, once, and returns last.ckpt."""

    @cache
    def go(*overrides: str) -> Path:
        from genre_classifier.training.fit import train

        folder = tmp_path_factory.mktemp("half")
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, 1)
            with pytest.raises(RuntimeError, match="stopped by the test"):
                train(composed(*music_overrides, "trainer.max_epochs=4", f"run_dir={folder}", *overrides))
        return RunFolder(folder).last_checkpoint

    return go


def values(key: str, *overrides: str) -> Any:
    node: Any = composed(*overrides)
    for name in key.split("."):
        node = None if node is None else node[name]
    return (
        list(node) if hasattr(node, "__iter__") and not isinstance(node, str) else getattr(node, "name", node)
    )


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: f"{knob.key}={knob.value}")
def test_another_value_is_refused_by_name_or_counts_as_if_from_the_start(
    knob: Knob, half_of: Callable[..., Path], tmp_path: Path, music_overrides: list[str]
) -> None:
    from genre_classifier.training.fit import train

    checkpoint = half_of(*knob.base)
    common = [*music_overrides, "trainer.max_epochs=4", *knob.base]
    words = [*common, *knob.with_it, f"{knob.key}={knob.value}"]

    def go(name: str, *more: str) -> Outcome:
        result = train(composed(*words, f"run_dir={tmp_path / name}", *more))
        assert result is not None
        run = result.folder.read_run()
        if more:
            before, now = run["changed_on_resuming"][knob.key]
            assert (before, now) == (values(knob.key, *common), run["settings"][knob.key])
        return outcome(result)

    if knob.key in APPLIED:
        assert go("resumed", f"ckpt_path={checkpoint}") == go("whole")
        return
    with pytest.raises(CheckpointError) as refusal:
        go("resumed", f"ckpt_path={checkpoint}")
    lines = str(refusal.value).splitlines()
    assert lines[0].endswith("a run goes on with the settings it began with, and these differ:")
    old = values(knob.key, *common)
    new = values(knob.key, *words)
    shown = ["null" if value is None else str(value) for value in (old, new)]
    assert f"  - {knob.key}={shown[0]}, now {shown[1]}" in lines
    assert lines[-1] == "give them as they were, or train a new run without ckpt_path"
    run = json.loads((tmp_path / "resumed" / "run.json").read_text())
    assert (run["status"], run["reason"]) == ("failed", f"CheckpointError: {refusal.value}")
    assert {path.name for path in (tmp_path / "resumed").iterdir()} == {".hydra", "run.json"}


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        (
            [],
            ["scheduler=cosine"],
            "  - scheduler._target_=null, now torch.optim.lr_scheduler.CosineAnnealingLR",
        ),
        (["scheduler=cosine"], [], "  - scheduler.eta_min=0.0, now null"),
        ([], ["callbacks=ema"], "  - callbacks.ema.decay=null, now 0.99"),
        (["callbacks=ema"], ["callbacks=default"], "  - callbacks.ema.decay=0.99, now null"),
        ([], ["optimizer=sgd"], "  - optimizer.momentum=not set, now 0.9"),
        (["optimizer=sgd"], ["optimizer=adam"], "  - optimizer.nesterov=True, now not set"),
        ([], ["loss.class_weights=balanced"], "  - loss.class_weights=none, now balanced"),
        ([], ["trainer.devices=2"], "  - trainer.devices=1, now 2"),
        ([], ["data.nan=drop"], "  - data.nan=error, now drop"),
    ],
)
def test_a_part_that_was_not_there_or_is_gone_is_named(
    before: list[str], now: list[str], message: str, half_of: Callable[..., Path], trained: Train
) -> None:
    with pytest.raises(CheckpointError) as refusal:
        trained("trainer.max_epochs=4", *now, f"ckpt_path={half_of(*before)}")
    assert message in str(refusal.value).splitlines()


def test_early_stopping_can_be_switched_off_or_on(half_of: Callable[..., Path], trained: Train) -> None:
    for before, now in (([], "callbacks.early_stopping=null"), (["callbacks.early_stopping=null"], None)):
        words = ["trainer.max_epochs=4", *([now] if now else [])]
        resumed = trained(*words, f"ckpt_path={half_of(*before)}")
        whole = trained(*words)
        assert_same_weights(whole.folder.last_checkpoint, resumed.folder.last_checkpoint)
        assert whole.metrics == resumed.metrics


@pytest.mark.parametrize("scheduler", ["cosine", "one_cycle"])
def test_a_schedule_is_not_made_longer(scheduler: str, trained: Train) -> None:
    recipe = [f"scheduler={scheduler}"]
    last = trained(*recipe, "trainer.max_epochs=3").folder.last_checkpoint
    key = {"cosine": "T_max", "one_cycle": "epochs"}[scheduler]
    with pytest.raises(
        CheckpointError, match=rf"  - scheduler.{key}=3, now 6; it follows trainer.max_epochs"
    ):
        trained(*recipe, "trainer.max_epochs=6", f"ckpt_path={last}")


def test_a_cosine_does_not_climb_again(trained: Train) -> None:
    recipe = ["scheduler=cosine", "scheduler.T_max=3"]
    last = trained(*recipe, "trainer.max_epochs=3").folder.last_checkpoint
    with pytest.raises(
        CheckpointError, match=r"reaches its end with epoch 3 \(scheduler.T_max=3\) and would climb"
    ):
        trained(*recipe, "trainer.max_epochs=6", f"ckpt_path={last}")
    # One that was made to swing from the start goes on swinging, and one that is long enough goes on falling.
    for period, first in ((2, 4), (8, 4)):
        recipe = ["scheduler=cosine", f"scheduler.T_max={period}"]
        last = trained(*recipe, f"trainer.max_epochs={first}").folder.last_checkpoint
        resumed = trained(*recipe, "trainer.max_epochs=6", f"ckpt_path={last}")
        whole = trained(*recipe, "trainer.max_epochs=6")
        assert_same_weights(whole.folder.last_checkpoint, resumed.folder.last_checkpoint)


def test_more_epochs_are_those_of_a_longer_run(trained: Train) -> None:
    short = trained("trainer.max_epochs=3")
    resumed = trained("trainer.max_epochs=6", f"ckpt_path={short.folder.last_checkpoint}")
    whole = trained("trainer.max_epochs=6")
    assert_same_weights(whole.folder.last_checkpoint, resumed.folder.last_checkpoint)
    assert whole.metrics == resumed.metrics
    assert resumed.folder.read_run()["changed_on_resuming"] == {"trainer.max_epochs": [3, 6]}


def test_fewer_epochs_than_done_is_one_message(trained: Train) -> None:
    last = trained("trainer.max_epochs=3").folder.last_checkpoint
    with pytest.raises(CheckpointError, match=r"3 epochs are done, trainer.max_epochs=1 is fewer; set"):
        trained("trainer.max_epochs=1", f"ckpt_path={last}")


def test_a_patience_by_which_it_would_have_ended_before_is_refused(trained: Train) -> None:
    recipe = ["trainer.max_epochs=6", "optimizer.lr=1e-9"]
    last = trained(*recipe).folder.last_checkpoint
    with pytest.raises(
        CheckpointError, match=r"6 epochs are done, and with .*patience=2 the run would have ended after"
    ):
        trained(*recipe, "callbacks.early_stopping.patience=2", f"ckpt_path={last}")


def test_other_rows_are_refused_and_the_same_rows_in_another_file_are_not(
    trained: Train, tmp_path: Path, music_csv: Path
) -> None:
    last = trained("trainer.max_epochs=2").folder.last_checkpoint
    moved = shutil.copy(music_csv, tmp_path / "moved.csv")
    resumed = trained(f"data.path={moved}", f"ckpt_path={last}")
    assert_same_weights(trained().folder.last_checkpoint, resumed.folder.last_checkpoint)

    ids = tmp_path / "test.txt"
    header, rows = rows_of_music()
    files = [f"data.split.files.test={ids}", "data.group=null"]
    ids.write_text("\n".join(str(row[0]) for row in rows[::6]))
    last = trained(*files, "trainer.max_epochs=2").folder.last_checkpoint
    table = write_csv(tmp_path / "other.csv", header, [*rows[:-1], [*rows[-1][:-1], 5.0]])
    with pytest.raises(CheckpointError, match=r"its (scaler|table) differs from this run's"):
        trained(*files, f"data.path={table}", f"ckpt_path={last}")
    ids.write_text("\n".join(str(row[0]) for row in rows[1::6]))
    with pytest.raises(CheckpointError, match=r"its (scaler|division of the rows) differs from this run's"):
        trained(*files, f"ckpt_path={last}")


def test_a_checkpoint_of_an_earlier_version_is_checked_as_far_as_it_records(
    trained: Train, caplog: pytest.LogCaptureFixture
) -> None:
    last = trained("trainer.max_epochs=2").folder.last_checkpoint
    content = torch.load(last, weights_only=True)
    assert content.pop(SETTINGS_KEY)["optimizer.lr"] == 1e-3
    torch.save(content, last)
    with pytest.raises(CheckpointError, match=r"  - optimizer.lr=0.001, now 1e-05\n"):
        trained("optimizer.lr=1e-5", f"ckpt_path={last}")
    with caplog.at_level(logging.WARNING):
        resumed = trained("data.batch_size=8", f"ckpt_path={last}")
    assert "which recorded no settings of data, trainer and callbacks" in caplog.text
    assert len(history(resumed)) == 3


RECIPES = [
    ["trainer.max_epochs=6"],
    ["trainer.max_epochs=40", "callbacks.early_stopping.patience=3", "optimizer.lr=0.01"],
    [
        "trainer.max_epochs=40",
        "callbacks.early_stopping.patience=3",
        "optimizer.lr=0.01",
        "trainer.min_epochs=9",
    ],
    ["trainer.max_epochs=6", "callbacks=ema", "optimizer.lr=0.02", "scheduler=one_cycle"],
    ["trainer.max_epochs=6", "optimizer.lr=0.02", "optimized_metric=val/ece"],
    ["trainer.max_epochs=5", "callbacks.checkpoint.monitor=null", "callbacks=ema"],
]
FILES = ("metrics.json", "predictions.csv", "history.csv")


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar of a run's TensorBoard folder, by its run and tag."""
    found = {}
    for path in sorted({events.parent for events in folder.rglob("events.*")}):
        events = EventAccumulator(str(path))
        events.Reload()
        for tag in events.Tags()["scalars"]:
            found[f"{path.relative_to(folder)} {tag}"] = [(e.step, e.value) for e in events.Scalars(tag)]
    return found


def same_end(whole: Result, resumed: Result) -> None:
    for name in FILES:
        assert (resumed.folder.path / name).read_bytes() == (whole.folder.path / name).read_bytes(), name
    assert (resumed.best_epoch, resumed.objective) == (whole.best_epoch, whole.objective)
    for name in ("best_checkpoint", "last_checkpoint"):
        one, two = (getattr(result.folder, name).read_bytes() for result in (whole, resumed))
        assert one == two, name
    runs = [result.folder.read_run() for result in (whole, resumed)]
    for key in ("status", "epochs", "best_epoch", "objective", "data", "split_protocol"):
        assert runs[0][key] == runs[1][key]
    curves = [scalars(result.folder.tensorboard) for result in (whole, resumed)]
    assert curves[0] == curves[1]
    assert any("f1_by_genre" in tag for tag in curves[0])


@pytest.mark.parametrize("recipe", RECIPES, ids=" ".join)
def test_a_run_whose_training_is_complete_ends_as_it_would_have(recipe: list[str], trained: Train) -> None:
    recipe = ["logger=tensorboard", "logger.figures=false", *recipe]
    whole = trained(*recipe, name="whole")
    last = whole.folder.last_checkpoint
    same_end(whole, trained(*recipe, f"ckpt_path={last}", name="elsewhere"))

    # In its own folder, killed before it was evaluated.
    before = {name: (whole.folder.path / name).read_bytes() for name in FILES}
    for name in ("metrics.json", "predictions.csv"):
        (whole.folder.path / name).unlink()
    again = trained(*recipe, f"ckpt_path={last}", name="whole")
    assert {name: (whole.folder.path / name).read_bytes() for name in FILES} == before
    assert again.best_epoch == whole.best_epoch


@pytest.mark.parametrize("recipe", RECIPES[:5], ids=" ".join)
def test_a_member_of_a_stack_whose_training_is_complete_ends_as_it_would_have(
    recipe: list[str], trained: Train, tmp_path: Path, music_overrides: list[str]
) -> None:
    recipe = ["logger=tensorboard", "logger.figures=false", *recipe]
    whole = trained(*recipe)
    words = [*music_overrides, *recipe, f"ckpt_path={whole.folder.last_checkpoint}"]
    train_stack([composed(*words, f"run_dir={tmp_path / 'member'}")])
    member = RunFolder(tmp_path / "member")
    run = member.read_run()
    assert (run["status"], run["reason"]) == ("finished", None)
    assert (run["best_epoch"], run["objective"]) == (whole.best_epoch, whole.objective)
    for name in FILES:
        assert (member.path / name).read_bytes() == (whole.folder.path / name).read_bytes(), name
    assert_same_weights(member.best_checkpoint, whole.folder.best_checkpoint)
    assert_same_weights(member.last_checkpoint, whole.folder.last_checkpoint)
    assert scalars(member.tensorboard) == scalars(whole.folder.tensorboard)


def test_a_complete_run_without_checkpoints_is_evaluated_with_its_averaged_weights(trained: Train) -> None:
    recipe = ["callbacks=ema", "optimizer.lr=0.02"]
    whole = trained(*recipe)
    last = whole.folder.last_checkpoint
    without = trained(*recipe, "callbacks.checkpoint=null")
    resumed = trained(*recipe, "callbacks.checkpoint=null", f"ckpt_path={last}")
    assert resumed.metrics == without.metrics
    assert (resumed.best_epoch, resumed.best_checkpoint) == (2, None)


def test_the_best_epoch_is_kept_where_none_that_follows_is_better(
    trained: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = ["trainer.max_epochs=12", "optimizer.lr=0.02", "logger=tensorboard", "logger.figures=false"]
    whole = trained(*recipe)
    assert whole.best_epoch is not None
    assert whole.best_epoch < 10
    with monkeypatch.context() as patch:
        stop_after(patch, 10)
        with pytest.raises(RuntimeError):
            trained(*recipe, name="half")
    resumed = trained(*recipe, f"ckpt_path={tmp_path}/half/checkpoints/last.ckpt")
    assert resumed.metrics == whole.metrics
    assert resumed.best_epoch == whole.best_epoch
    assert_same_weights(resumed.folder.best_checkpoint, whole.folder.best_checkpoint)
    assert scalars(resumed.folder.tensorboard) == scalars(whole.folder.tensorboard)


# Their best epoch is in the middle.
MIDDLE = ["optimizer.lr=0.005", "optimized_metric=val/loss", "callbacks.early_stopping=null"]


def not_last(trained: Train) -> Result:
    result = trained("trainer.max_epochs=12", *MIDDLE)
    assert result.best_epoch is not None
    assert 2 < result.best_epoch < 9
    return result


def test_without_the_best_weights_there_is_one_message_and_a_way_out(trained: Train) -> None:
    whole = not_last(trained)
    whole.folder.best_checkpoint.unlink()
    words = [*MIDDLE, f"ckpt_path={whole.folder.last_checkpoint}"]
    told = rf"best epoch so far, {whole.best_epoch} by val/loss, are neither in it nor in a best.ckpt of the same run"
    for epochs in (12, 14):
        with pytest.raises(CheckpointError, match=told):
            trained(*words, f"trainer.max_epochs={epochs}")
    resumed = trained(*words, "trainer.max_epochs=12", "callbacks.checkpoint.monitor=null")
    assert resumed.best_epoch == 11
    assert_same_weights(resumed.folder.best_checkpoint, whole.folder.last_checkpoint)
    assert resumed.objective == history(resumed)[-1]["val/loss"]


def test_a_best_checkpoint_of_another_run_is_not_taken(trained: Train) -> None:
    whole = not_last(trained)
    assert whole.best_epoch is not None
    other = trained(
        f"trainer.max_epochs={whole.best_epoch + 1}", "callbacks.checkpoint.monitor=null", "seed=3"
    )
    shutil.copy(other.folder.best_checkpoint, whole.folder.best_checkpoint)
    with pytest.raises(CheckpointError, match=r"nor in a best.ckpt of the same run beside it"):
        trained(*MIDDLE, "trainer.max_epochs=12", f"ckpt_path={whole.folder.last_checkpoint}")


def test_a_run_killed_between_its_two_checkpoints_loses_nothing(
    trained: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A stack writes the best one first, so that it may be ahead of the last one."""
    recipe = ["trainer.max_epochs=12", *MIDDLE]
    whole = not_last(trained)
    assert whole.best_epoch is not None
    with monkeypatch.context() as patch:
        stop_after(patch, whole.best_epoch - 1)
        with pytest.raises(RuntimeError):
            trained(*recipe, name="half")
    checkpoints = tmp_path / "half" / "checkpoints"
    (checkpoints / "best.ckpt").unlink()
    shutil.copy(whole.folder.best_checkpoint, checkpoints)
    resumed = trained(*recipe, f"ckpt_path={checkpoints / 'last.ckpt'}", name="half")
    assert resumed.metrics == whole.metrics
    assert_same_weights(resumed.folder.best_checkpoint, whole.folder.best_checkpoint)


def test_a_home_folder_in_the_path_is_understood(
    trained: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trained(name="whole")
    monkeypatch.setenv("HOME", str(tmp_path))
    resumed = trained("trainer.max_epochs=4", "ckpt_path='~/whole/checkpoints/last.ckpt'")
    assert len(history(resumed)) == 4
    with (resumed.folder.history_csv).open() as stream:
        assert [row["epoch"] for row in csv.DictReader(stream)] == ["0", "1", "2", "3"]
