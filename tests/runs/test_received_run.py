"""A run's folder that somebody sends: what stands in it is data, whatever command reads it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from genre_classifier import class_names
from genre_classifier.errors import CheckpointError, ConfigError, RunFolderError
from genre_classifier.runs.configuration import read_configuration, read_trainable_configuration
from genre_classifier.runs.folder import RunFolder
from tests.conftest import composed
from tests.exporting.conftest import finished_run

Change = Callable[[dict[str, Any]], None]
ROOT = Path(__file__).parents[2]
BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40)]
)


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory, music_overrides: list[str]) -> Path:
    return finished_run(
        tmp_path_factory.mktemp("sent") / "run", [*music_overrides, "data/split=stratified"]
    ).path


@pytest.fixture
def received(original: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(original, tmp_path / "received")))


def change(folder: RunFolder, edit: Change) -> None:
    content = yaml.safe_load(folder.config_yaml.read_text())
    edit(content)
    folder.config_yaml.write_text(yaml.safe_dump(content))


@pytest.fixture
def spy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that the sender put beside the run, on the path as in the folder one stands in."""
    sentinel = tmp_path / "it ran"
    source = f"""
import pathlib
pathlib.Path({str(sentinel)!r}).touch()
from tests.contracts.linear_network import LinearNetwork as Net
from torch.optim import SGD as Optimizer
"""
    (tmp_path / "sent_along.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(class_names, "_registered", {})
    monkeypatch.delitem(sys.modules, "sent_along", raising=False)
    return sentinel


@pytest.mark.parametrize(
    ("group", "target"),
    [
        ("model", "sent_along.Net"),
        ("optimizer", "sent_along.Optimizer"),
        ("model", "torch.utils.model_dump.__main__.main"),
        ("optimizer", "torch.hub.load"),
    ],
)
def test_a_class_named_in_the_saved_configuration_is_not_imported(
    received: RunFolder, spy: Path, group: str, target: str, tmp_path: Path
) -> None:
    from genre_classifier.exporting.export import export
    from genre_classifier.reporting.beside import find_or_train_grouped_run
    from genre_classifier.reporting.contents import read_contents

    change(received, lambda content: content[group].update(_target_=target))
    with pytest.raises(
        ConfigError, match=rf"{group}._target_={target}: a name in a file alone imports nothing"
    ):
        read_trainable_configuration(received)
    with pytest.raises(ConfigError, match="a name in a file alone imports nothing"):
        export(exporting(received, tmp_path, "refit=full"))
    beside = find_or_train_grouped_run(read_contents(received), train_it=True)
    assert "a name in a file alone imports nothing" in beside.remark
    assert not spy.exists()


def exporting(folder: RunFolder, tmp_path: Path, *overrides: str) -> Any:
    places = [f"save_dir={tmp_path / 'models'}", f"outputs_dir={tmp_path / 'outputs'}", "onnx=false"]
    return composed(f"run={folder.path}", *places, *overrides, config="export")


def test_a_class_that_the_user_names_is_used(received: RunFolder, spy: Path) -> None:
    change(received, lambda content: content["model"].update(_target_="sent_along.Net"))
    class_names.allow(["sent_along.Net"])
    assert read_trainable_configuration(received).model._target_ == "sent_along.Net"
    assert spy.exists()


def test_a_run_with_the_users_network_is_exported_if_the_user_allows_it(
    tmp_path: Path, music_overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from genre_classifier.exporting.export import export

    path = "tests.contracts.linear_network.LinearNetwork"
    run = finished_run(tmp_path / "mine", [*music_overrides, f"model._target_={path}"])
    # As a later process finds it.
    monkeypatch.setattr(class_names, "_registered", {})
    with pytest.raises(CheckpointError, match=rf"python export\.py 'allow=\[{path}\]'"):
        export(exporting(run, tmp_path))
    assert export(exporting(run, tmp_path, f"allow=[{path}]")).paths["model"].is_file()
    assert export(exporting(run, tmp_path, "refit=full")).paths["model"].is_file()


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:A_SECRET}",
        "${oc.decode:${oc.env:A_SECRET}}",
        "${hydra:runtime.cwd}",
        "x${oc.env:A_SECRET}y",
        "${data.path}",
        "${" * 1000 + "}" * 1000,
        "${oc.create:{a: 1}}",
        "${..seed}",
        "${nothing.there}",
    ],
)
def test_an_interpolation_in_a_received_file_reads_nothing_of_this_machine(
    received: RunFolder, monkeypatch: pytest.MonkeyPatch, text: str, music_csv: Path
) -> None:
    monkeypatch.setenv("A_SECRET", "this is not for the sender")
    change(received, lambda content: content["data"].update(path=text))
    cfg = read_configuration(received)
    assert cfg.data.path == str(music_csv), "the value that run.json recorded"
    assert "A_SECRET" not in OmegaConf.to_yaml(cfg)
    record = json.loads(received.run_json.read_text())
    del record["settings"]["data.path"]
    received.run_json.write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"data\.path=.*an interpolation in a file is not resolved"):
        read_configuration(received)


def test_a_setting_that_follows_another_still_does(received: RunFolder) -> None:
    cfg = read_configuration(received)
    assert cfg.callbacks.checkpoint.monitor == cfg.optimized_metric == "val/f1"
    cfg.optimized_metric = "val/accuracy"
    assert cfg.callbacks.checkpoint.monitor == "val/accuracy"


@pytest.mark.parametrize("value", ["${seed}", "???", 5, [], {"a": 1}])
@pytest.mark.parametrize(
    "group", ["data", "data.split", "model", "optimizer", "trainer", "callbacks", "seed"]
)
def test_a_group_or_value_of_another_kind_is_one_error(received: RunFolder, group: str, value: Any) -> None:
    def put(content: dict[str, Any]) -> None:
        *parents, last = group.split(".")
        for parent in parents:
            content = content[parent]
        content[last] = value

    change(received, put)
    with contextlib.suppress(ConfigError, RunFolderError):
        cfg = read_trainable_configuration(received)
        assert OmegaConf.to_container(cfg, resolve=False)


def test_a_source_that_is_none_is_refused(received: RunFolder) -> None:
    change(received, lambda content: content["data"].update(source="demo.make"))
    with pytest.raises(ConfigError, match=r"data\.source=demo\.make is no source of this version"):
        read_configuration(received)


@pytest.mark.parametrize("file", ["config.yaml", "overrides.yaml", "hydra.yaml"])
def test_an_alias_bomb_hangs_neither_report_nor_leaderboard(
    received: RunFolder, file: str, tmp_path: Path
) -> None:
    record = json.loads(received.run_json.read_text())
    record |= {"settings": {}, "working_folder": None}
    received.run_json.write_text(json.dumps(record))
    (received.path / ".hydra" / file).write_text(BOMB)
    code = """
import sys
from pathlib import Path
from genre_classifier.cli.main import main
for command in (["report", sys.argv[1], "--out", sys.argv[2]], ["leaderboard", sys.argv[1]]):
    try:
        main(command)
    except SystemExit as end:
        print("ended", end.code)
"""
    words = [sys.executable, "-c", code, str(received.path), str(tmp_path / "report.html")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    assert "Traceback" not in done.stderr + done.stdout


PIPES = [
    "run.json",
    "metrics.json",
    "history.csv",
    "predictions.csv",
    "train.log",
    "scaler.pkl",
    "checkpoints/best.ckpt",
    ".hydra/config.yaml",
    ".hydra/overrides.yaml",
]


def test_no_command_waits_for_a_pipe_in_a_files_place(received: RunFolder, tmp_path: Path) -> None:
    arguments = []
    for number, name in enumerate(PIPES):
        folder = tmp_path / str(number)
        shutil.copytree(received.path, folder)
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        arguments += [str(folder), str(tmp_path / f"{number}.html")]
    code = """
import sys
from genre_classifier.cli.main import main
for folder, out in zip(sys.argv[1::2], sys.argv[2::2]):
    for command in (["report", folder, "--out", out], ["leaderboard", folder]):
        try:
            main(command)
        except SystemExit as end:
            print("ended", end.code)
"""
    words = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", "{"),
        ("run.json", '{"format_version": 1' + "0" * 400 + "}"),
        ("run.json", "[" * 100_000),
        ("metrics.json", '{"format_version": 1, "a": "\\ud800"}'),
        ("metrics.json", "\x00"),
    ],
)
def test_a_damaged_record_is_a_run_folder_error(received: RunFolder, name: str, content: str) -> None:
    (received.path / name).write_text(content)
    with pytest.raises(RunFolderError, match=name):
        received.read_run() if name == "run.json" else received.read_metrics()
