import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from genre_classifier.errors import CheckpointError, RunFolderError
from genre_classifier.files.atomic import replacing, write_text
from genre_classifier.runs.folder import RunFolder, claim, hold, let_go, read_checkpoint
from genre_classifier.runs.sweep_folder import SweepFolder
from tests.conftest import ROOT, composed


def test_two_runs_in_the_same_second_get_two_folders(tmp_path: Path) -> None:
    wanted = tmp_path / "2026-11-23" / "14-05-09"
    names = [claim(wanted, exact=False).name for _ in range(3)]
    assert names == ["14-05-09", "14-05-09-2", "14-05-09-3"]


@pytest.mark.parametrize(("name", "what"), [("run.json", "a run"), ("multirun.yaml", "a sweep")])
def test_a_chosen_folder_that_holds_a_run_is_refused(tmp_path: Path, name: str, what: str) -> None:
    assert claim(tmp_path / "mine", exact=True) == tmp_path / "mine"
    (tmp_path / "mine" / name).write_text("{}")
    with pytest.raises(RunFolderError, match=f"mine already holds {what}"):
        claim(tmp_path / "mine", exact=True)


HOLDER = """
import sys
from pathlib import Path
from genre_classifier.errors import RunFolderError
from genre_classifier.runs.folder import claim, hold
for line in sys.stdin:
    deed, path = line.split()
    try:
        print("has", claim(Path(path), exact=True) if deed == "claim" else hold(Path(path)), flush=True)
    except RunFolderError as error:
        print("refused:", error, flush=True)
"""


class Other:
    """Another process, which claims and holds folders when it is told."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        )

    def told(self, deed: str, path: Path) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{deed} {path}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def __enter__(self) -> "Other":
        return self

    def __exit__(self, *args: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_a_folder_that_another_process_has_claimed_is_refused_until_that_ends(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Other() as other:
        assert other.told("claim", folder).startswith("has ")
        for attempt in (lambda: claim(folder, exact=True), lambda: hold(folder)):
            with pytest.raises(RunFolderError, match="another run is at work in this folder; choose"):
                attempt()
        assert not list(folder.glob("run.json"))
    # It was killed; what is left of its lock holds nobody up.
    assert claim(folder, exact=True) == folder
    with Other() as other:
        assert other.told("claim", folder).startswith("refused: ")
        let_go(folder)
        assert list(folder.iterdir()) == []
        assert other.told("hold", folder).startswith("has ")


def test_training_into_a_folder_in_which_another_run_is_at_work_writes_nothing(
    tmp_path: Path, music_overrides: list[str]
) -> None:
    from genre_classifier.sweeps.stacked.fit import train_stack
    from genre_classifier.training.fit import train

    folder = tmp_path / "run"
    cfg = composed(*music_overrides, f"run_dir={folder}")
    with Other() as other:
        other.told("claim", folder)
        with pytest.raises(RunFolderError, match="another run is at work in this folder"):
            train(cfg)
        train_stack([cfg])
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert train(cfg) is not None
    assert not (folder / ".lock").exists()


def test_a_run_that_trains_in_this_process_has_its_folder_for_itself(tmp_path: Path) -> None:
    hold(tmp_path)
    hold(tmp_path, to_train=True)
    with pytest.raises(RunFolderError, match="another run is at work in this folder"):
        hold(tmp_path, to_train=True)
    let_go(tmp_path)
    hold(tmp_path, to_train=True)
    let_go(tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot write .*file.*hydra.run.dir=FOLDER"):
        claim(tmp_path / "file" / "run", exact=False)


def test_a_name_that_is_not_utf_8_is_an_error_that_says_which(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(
        RunFolderError, match=r"run.json: it would hold '/music/\\udcff.csv', which is not UTF-8; rename"
    ):
        folder.write_run({"status": "running", "settings": {"data.path": "/music/\udcff.csv"}})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    folder.write_run({"status": "running"})

    def full(self: Path, *args: object, **kwargs: object) -> None:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(
        RunFolderError, match=r"cannot write .*run.json: No space left on device; free some space"
    ):
        folder.write_run({"status": "finished"})
    monkeypatch.undo()
    assert folder.read_run()["status"] == "running"
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_failing_block_leaves_nothing_behind(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")

    def fail() -> None:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no run.json; name the folder of a run"),
        ("{", "cannot be read"),
        ('{"format_version": 99}', "format_version is 99, this version reads 1"),
        ("[]", "format_version is None"),
    ],
)
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunFolderError, match=message):
        RunFolder(tmp_path).read_run()


def test_trials_are_in_the_order_of_their_numbers_whatever_else_lies_there(tmp_path: Path) -> None:
    for name in ("10", "2", "²", "left over"):
        (tmp_path / name).mkdir()
        RunFolder(tmp_path / name).write_run({"status": "finished"})
    assert [trial.path.name for trial in SweepFolder(tmp_path).trials()] == ["2", "10", "left over", "²"]


def test_history_keeps_the_columns_of_all_rows(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_history([{"epoch": 0, "a": 1.5}, {"epoch": 1, "b": 2.5}])
    assert folder.history_csv.read_text() == "epoch,a,b\n0,1.5,\n1,,2.5\n"


def test_json_files_carry_the_format_version(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_metrics({"test": {"f1": 0.5}})
    assert json.loads(folder.metrics_json.read_text())["format_version"] == 1


def test_a_checkpoint_that_is_none_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    import torch

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"x": Evil()}, tmp_path / "evil.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    for name, message in (
        ("none.ckpt", "there is no such checkpoint"),
        ("text.ckpt", "truncated, or not a file that torch.save writes"),
        ("evil.ckpt", r"refused; the pickle asks for __builtin__\.getattr"),
        ("other.ckpt", "genre_classifier_format_version is None"),
    ):
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_the_configuration_and_the_predictions_can_be_read_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(RunFolderError, match=r"config.yaml: there is no such file; it is written when"):
        folder.read_settings()
    folder.write_config(OmegaConf.create({"seed": 3, "where": "${seed}"}))
    assert folder.read_settings() == {"seed": 3, "where": "${seed}"}
    for content, message in (("- 1\n", "expected a mapping"), ("a: [\n", "cannot be read")):
        folder.config_yaml.write_text(content)
        with pytest.raises(RunFolderError, match=message):
            folder.read_settings()
    header = ["id", "group", "true", "predicted", "p_Rock", "p_Jazz, Blues"]
    folder.write_predictions(header, [["a", "", "Rock", "Rock", 0.75, 0.25]])
    assert folder.read_predictions() == {"a": ("Rock", [0.75, 0.25])}
    folder.predictions_csv.write_text("id,group,true,predicted,p_Rock\na,,Rock,Rock,much\n")
    with pytest.raises(RunFolderError, match=r"predictions.csv: cannot be read \(could not convert"):
        folder.read_predictions()
