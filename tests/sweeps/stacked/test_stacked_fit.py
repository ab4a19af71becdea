"""Members of a stack against the same runs alone."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from genre_classifier.runs.folder import RunFolder, let_go, read_checkpoint
from genre_classifier.sweeps.stacked import fit as stacked_fit
from genre_classifier.sweeps.stacked.fit import train_stack
from genre_classifier.training.fit import train
from genre_classifier.training.lit_module import GenreLitModule
from tests.conftest import composed

OPTIMIZERS = {"adam": ["optimizer=adam"], "adamw": ["optimizer=adamw"], "sgd": ["optimizer=sgd"]}
SCHEDULERS = ["none", "cosine", "one_cycle", "plateau"]
# What else a member may have of its own, spread over the schedules.
OWN = [
    ["trainer.gradient_clip_val=0.5", "loss.label_smoothing=0", "model.dropout=0.5"],
    ["callbacks=ema", "data.split.folds=3", "data.split.fold=1"],
    ["loss.class_weights=balanced", "optimizer.weight_decay=0.01"],
    ["trainer.gradient_clip_val=0.01", "trainer.gradient_clip_algorithm=value", "trainer.max_epochs=3"],
]


def configs(overrides: list[list[str]], base: list[str], folder: Path) -> list[Any]:
    return [composed(*base, *own, f"run_dir={folder / str(number)}") for number, own in enumerate(overrides)]


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = read_checkpoint(folder / "checkpoints" / f"{name}.ckpt")["state_dict"]
    return state


def differences(first: Any, second: Any, path: str = "") -> list[str]:
    """Where two nested contents differ by more than 1e-5."""
    if isinstance(first, torch.Tensor):
        close = first.shape == second.shape and torch.allclose(
            first.double(), second.double(), atol=1e-5, rtol=0, equal_nan=True
        )
        return [] if close else [path]
    if isinstance(first, dict):
        if first.keys() != second.keys():
            return [f"{path}: {sorted(map(str, first.keys() ^ second.keys()))}"]
        return [found for key in first for found in differences(first[key], second[key], f"{path}.{key}")]
    if isinstance(first, (list, tuple)):
        if len(first) != len(second):
            return [f"{path}: length"]
        pairs = zip(first, second, strict=True)
        return [found for i, pair in enumerate(pairs) for found in differences(*pair, f"{path}[{i}]")]
    if isinstance(first, float):
        return [] if first == pytest.approx(second, abs=1e-5) else [path]
    return [] if first == second else [f"{path}: {first} and {second}"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_member_is_its_run_alone(optimizer: str, tmp_path: Path, music_overrides: list[str]) -> None:
    base = [
        *music_overrides,
        "trainer.max_epochs=5",
        "model.dropout=0.3",
        "loss.mixup=0.4",
        *OPTIMIZERS[optimizer],
    ]
    overrides = [
        [f"scheduler={scheduler}", f"seed={number}", f"optimizer.lr={0.01 * (number + 1)}", *own]
        for number, (scheduler, own) in enumerate(zip(SCHEDULERS, OWN, strict=True))
    ]
    for cfg in configs(overrides, base, tmp_path / "alone"):
        train(cfg)
    train_stack(configs(overrides, base, tmp_path / "stack"))
    for number in range(len(overrides)):
        alone, member = tmp_path / "alone" / str(number), tmp_path / "stack" / str(number)
        for name in ("last", "best"):
            found = weights(member, name)
            for key, expected in weights(alone, name).items():
                torch.testing.assert_close(found[key], expected, atol=1e-5, rtol=0)
            # All that a resumed run would go on from.
            contents = [
                read_checkpoint(folder / "checkpoints" / f"{name}.ckpt") for folder in (alone, member)
            ]
            for content in contents:
                table = content["callbacks"]["History"]["table"]
                seconds = content["callbacks"]["History"]["names"].index("seconds")
                table[:, seconds] = 0
            assert differences(*contents) == []
        metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (alone, member)]
        assert differences(*metrics) == []
        runs = [RunFolder(folder).read_run() for folder in (alone, member)]
        for key in ("status", "epochs", "best_epoch", "data", "split_protocol", "seed"):
            assert runs[0][key] == runs[1][key]
        assert runs[0].keys() == runs[1].keys()
        names = [{path.relative_to(f).as_posix() for path in f.rglob("*")} for f in (alone, member)]
        assert names[0] <= names[1]
        histories = [(folder / "history.csv").read_text().splitlines() for folder in (alone, member)]
        assert histories[0][0] == histories[1][0]
        assert len(histories[0]) == len(histories[1])


def find_stopping_reason(folder: Path) -> tuple[Any, ...]:
    """Return the state of early stopping that Lightning writes for people."""
    states = read_checkpoint(folder / "checkpoints/last.ckpt")["callbacks"].values()
    names = ("stopping_reason", "stopping_reason_message")
    return next(tuple(state[name] for name in names) for state in states if names[1] in state)


def test_a_member_that_stops_early_leaves_and_the_others_go_on(
    tmp_path: Path, music_overrides: list[str]
) -> None:
    base = [
        *music_overrides,
        "trainer.max_epochs=25",
        "model.dropout=0.3",
        "callbacks.early_stopping.patience=3",
    ]
    overrides = [
        ["seed=1", "optimizer.lr=0.03"],
        ["seed=2", "optimizer.lr=0.0001"],
        ["seed=3", "optimizer.lr=0.01"],
    ]
    for cfg in configs(overrides, base, tmp_path / "alone"):
        train(cfg)
    train_stack(configs(overrides, base, tmp_path / "stack"))
    epochs = []
    for number in range(3):
        alone, member = (RunFolder(tmp_path / name / str(number)).read_run() for name in ("alone", "stack"))
        assert (alone["epochs"], alone["best_epoch"]) == (member["epochs"], member["best_epoch"])
        epochs.append(alone["epochs"])
        reason, member_reason = (
            find_stopping_reason(tmp_path / name / str(number)) for name in ("alone", "stack")
        )
        assert reason == member_reason
        expected = weights(tmp_path / "alone" / str(number), "best")
        for key, found in weights(tmp_path / "stack" / str(number), "best").items():
            torch.testing.assert_close(found, expected[key], atol=1e-5, rtol=0)
    assert len(set(epochs)) > 1, "they stop at different epochs"


def test_a_member_that_diverges_or_cannot_begin_leaves_the_others_alone(
    tmp_path: Path, music_overrides: list[str]
) -> None:
    base = [*music_overrides, "model.dropout=0.3", "trainer.max_epochs=4"]
    overrides = [["seed=1"], ["seed=2", "optimizer.lr=1e30"], ["seed=3", "data.label=nothing"]]
    train_stack(configs(overrides, base, tmp_path / "stack"))
    runs = [RunFolder(tmp_path / "stack" / str(number)).read_run() for number in range(3)]
    assert [run["status"] for run in runs] == ["finished", "failed", "failed"]
    assert runs[1]["reason"].startswith("DivergedError: epoch ")
    assert "nothing" in runs[2]["reason"]
    train(configs(overrides, base, tmp_path / "alone")[0])
    expected = weights(tmp_path / "alone" / "0", "last")
    for key, found in weights(tmp_path / "stack" / "0", "last").items():
        torch.testing.assert_close(found, expected[key], atol=1e-5, rtol=0)


@pytest.mark.parametrize("way", ["stack", "alone"])
def test_a_members_checkpoint_goes_on_in_a_stack_or_alone(
    way: str, tmp_path: Path, music_overrides: list[str]
) -> None:
    base = [*music_overrides, "model.dropout=0.3", "callbacks=ema", "optimizer=adamw"]
    base += ["scheduler=cosine", "scheduler.T_max=6", "callbacks.early_stopping=null"]
    overrides = [["seed=1"], ["seed=2"]]
    train_stack(configs(overrides, [*base, "trainer.max_epochs=6"], tmp_path / "whole"))
    train_stack(configs(overrides, [*base, "trainer.max_epochs=3"], tmp_path / "half"))
    resumed = configs(overrides, [*base, "trainer.max_epochs=6"], tmp_path / "half")
    for cfg in resumed:
        cfg.ckpt_path = f"{cfg.run_dir}/checkpoints/last.ckpt"
    if way == "stack":
        train_stack(resumed)
    else:
        for cfg in resumed:
            train(cfg)
    for number in ("0", "1"):
        with (tmp_path / "half" / number / "history.csv").open(newline="") as stream:
            assert [row["epoch"] for row in csv.DictReader(stream)] == list("012345")
        for name in ("last", "best"):
            expected = weights(tmp_path / "whole" / number, name)
            for key, found in weights(tmp_path / "half" / number, name).items():
                torch.testing.assert_close(found, expected[key], atol=1e-5, rtol=0)


def test_a_members_checkpoint_loads_by_itself_and_its_charts_are_written(
    tmp_path: Path, music_overrides: list[str]
) -> None:
    words = [word for word in music_overrides if word != "logger=none"]
    train_stack(configs([["seed=1"], ["seed=2"]], words, tmp_path))
    module = GenreLitModule.load(tmp_path / "1" / "checkpoints" / "best.ckpt")
    assert module.genre_names == ["Ambient", "Bluegrass", "Cumbia"]
    assert len(list((tmp_path / "1" / "tensorboard").rglob("events.*"))) >= 3
    assert "epoch 2 of 3" in (tmp_path / "1" / "train.log").read_text()


RECIPE = [
    "loss.mixup=0.3",
    "optimizer.lr=0.01",
    "trainer.max_epochs=12",
    "callbacks.early_stopping.patience=4",
]
RATES = ["0.001", "0.03", "0.01", "0.003", "0.02", "0.0001"]
TRIALS = [[f"seed={number}", f"optimizer.lr={rate}"] for number, rate in enumerate(RATES)]


def results(folder: Path, n: int = len(TRIALS)) -> list[dict[str, Any]]:
    found = []
    for number in range(n):
        run = RunFolder(folder / str(number))
        record = run.read_run()
        assert record["status"] == "finished"
        found.append(
            {"metrics": run.read_metrics(), **{key: record[key] for key in ("epochs", "best_epoch")}}
        )
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, music_overrides: list[str]) -> list[dict[str, Any]]:
    """Return the results of a stack that was never stopped, with dropout and mixup on."""
    folder = tmp_path_factory.mktemp("whole")
    train_stack(configs(TRIALS, [*music_overrides, *RECIPE], folder))
    return results(folder)


@pytest.mark.parametrize("sizes", [[1] * 6, [2, 4], [5, 1]])
def test_who_else_is_in_a_stack_changes_no_result(
    sizes: list[int], tmp_path: Path, music_overrides: list[str], whole: list[dict[str, Any]]
) -> None:
    made = configs(TRIALS, [*music_overrides, *RECIPE], tmp_path)
    for size in sizes:
        train_stack(made[:size])
        del made[:size]
    assert differences(results(tmp_path), whole) == []


class Killed(BaseException):
    """Ends a stack with no time to write anything."""


@pytest.mark.parametrize("seconds_between_writes", [0.0, 1e9])
def test_a_stack_that_is_killed_and_resumed_ends_as_one_that_was_never_stopped(
    tmp_path: Path,
    music_overrides: list[str],
    monkeypatch: pytest.MonkeyPatch,
    whole: list[dict[str, Any]],
    seconds_between_writes: float,
) -> None:
    made = configs(TRIALS, [*music_overrides, *RECIPE], tmp_path)
    monkeypatch.setattr(stacked_fit, "SECONDS_BETWEEN_WRITES", seconds_between_writes)
    conclude = stacked_fit.StackedModule._conclude

    def concluding(self: stacked_fit.StackedModule, member: Any) -> None:
        conclude(self, member)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(stacked_fit.StackedModule, "_conclude", concluding)
        with pytest.raises(Killed):
            train_stack(made)
    folders = [RunFolder(Path(cfg.run_dir)) for cfg in made]
    finished = [folder.read_run()["status"] == "finished" for folder in folders]
    assert sum(finished) == 1
    for cfg, folder in zip(made, folders, strict=True):
        let_go(folder.path)  # as the death of a process does
        if folder.last_checkpoint.is_file():
            cfg.ckpt_path = str(folder.last_checkpoint)
    train_stack([cfg for cfg, done in zip(made, finished, strict=True) if not done])
    assert differences(results(tmp_path), whole) == []


def test_a_member_that_the_engine_refuses_is_trained_alone_and_the_log_says_why(
    tmp_path: Path, music_overrides: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    overrides = [["seed=1"], ["seed=2", "model._target_=tests.training.engine.edited.Functional"]]
    train_stack(configs(overrides, music_overrides, tmp_path))
    assert "1 is trained alone: its forward pass is no chain of layers" in caplog.text
    for cfg in configs([overrides[1]], music_overrides, tmp_path / "alone"):
        train(cfg)
    expected = RunFolder(tmp_path / "alone" / "0").read_metrics()
    assert differences(results(tmp_path, 2)[1]["metrics"], expected) == []
