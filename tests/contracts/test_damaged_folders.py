"""One bad folder is one bad folder: whatever lists runs names it with the reason and goes on with the others."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genre_classifier.baselines.plan import read_divisions
from genre_classifier.cli.main import main
from genre_classifier.config.schema import ExportConfig
from genre_classifier.errors import RunFolderError
from genre_classifier.exporting.choose import choose, describe
from genre_classifier.runs.folder import RunFolder
from genre_classifier.runs.ranking.leaderboard import find_trials, rank_trials, read_trial
from genre_classifier.runs.sweep_folder import SweepFolder
from genre_classifier.sweeps.finish import finish_sweep
from genre_classifier.training.fit import train
from tests.conftest import composed

BAD, N_RUNS = "1", 3


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, music_overrides: list[str]) -> Path:
    """A cross-validation of three runs."""
    sweep = tmp_path_factory.mktemp("whole") / "sweep"
    for fold in range(N_RUNS):
        cfg = composed(
            *music_overrides, "data.split.folds=3", f"data.split.fold={fold}", f"run_dir={sweep / str(fold)}"
        )
        train(cfg)
    SweepFolder(sweep).write_sweep(
        {
            "started": "2026-11-26T10:00:00+00:00",
            "sweeper": "basic",
            "overrides": ["data.split.fold=0,1,2"],
            "swept": {"data.split.fold": "0,1,2"},
            "optimized_metric": "val/f1",
            "expected": N_RUNS,
            "settings": {},
        }
    )  # fmt: skip
    return sweep


@pytest.fixture
def sweep(whole: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "sweep"))


def changed(file: str, key: str, value: Any) -> Callable[[Path], None]:
    """Return what puts a value at a dotted key of a JSON file of a folder; `...` removes the key."""

    def change(folder: Path) -> None:
        path = folder / file
        content = json.loads(path.read_text())
        *above, last = key.split("/")
        place = content
        for name in above:
            place = place[name]
        if value is ...:
            del place[last]
        else:
            place[last] = value
        path.write_text(json.dumps(content))

    return change


def holds(file: str, content: bytes) -> Callable[[Path], None]:
    """Return what writes a file of a folder anew."""
    return lambda folder: (folder / file).write_bytes(content) and None


def is_folder(file: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()

    return change


def is_broken_link(file: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).symlink_to(folder / "nowhere")

    return change


def is_forbidden(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).chmod(0)


DEEP = b"[" * 100_000
JSON_DAMAGE = {
    "empty": b"",
    "half written": b'{"format_version": 1, "status": "fin',
    "a list": b"[1, 2]",
    "a text": b'"finished"',
    "null": b"null",
    "no UTF-8": b'{"format_version": 1, "status": "\xff"}',
    "nested": DEEP,
    "nested objects": b'{"a":' * 50_000,
    "future": b'{"format_version": 99}',
    "no version": b'{"status": "finished"}',
    "version as text": b'{"format_version": "1", "status": "finished"}',
}
DAMAGE: dict[str, Callable[[Path], None]] = {
    **{f"run.json {name}": holds("run.json", content) for name, content in JSON_DAMAGE.items()},
    **{f"metrics.json {name}": holds("metrics.json", content) for name, content in JSON_DAMAGE.items()},
    "run.json a folder": is_folder("run.json"),
    "metrics.json a folder": is_folder("metrics.json"),
    "run.json a broken link": is_broken_link("run.json"),
    "metrics.json a broken link": is_broken_link("metrics.json"),
    "metrics.json missing": lambda folder: (folder / "metrics.json").unlink(),
    "status missing": changed("run.json", "status", ...),
    "status unknown": changed("run.json", "status", "done"),
    "status a list": changed("run.json", "status", ["finished"]),
    "settings a list": changed("run.json", "settings", ["seed=1"]),
    "seed a list": changed("run.json", "settings/seed", [1]),
    "fold a text": changed("run.json", "settings/data.split.fold", "first"),
    "folds a text": changed("run.json", "settings/data.split.folds", "many"),
    "best_epoch a text": changed("run.json", "best_epoch", "the last"),
    "best_epoch true": changed("run.json", "best_epoch", True),
    "epochs a text": changed("run.json", "epochs", "ten"),
    "seconds a text": changed("run.json", "seconds", "long"),
    "seconds infinite": changed("run.json", "seconds", float("inf")),
    "objective NaN": changed("run.json", "objective", float("nan")),
    "objective infinite": changed("run.json", "objective", float("-inf")),
    "objective huge": changed("run.json", "objective", 10**400),
    "objective a text": changed("run.json", "objective", "0.9"),
    "data a list": changed("run.json", "data", []),
    "rows a text": changed("run.json", "data/rows_by_split", {"train": "all"}),
    "fingerprint a number": changed("run.json", "data/fingerprint", 7),
    "protocol a text": changed("run.json", "split_protocol", "grouped"),
    "baseline a text": changed("run.json", "baseline", "svc"),
    "reason a mapping": changed("run.json", "reason", {}),
    "working folder a number": changed("run.json", "working_folder", 1),
    "val a list": changed("metrics.json", "val", [0.5]),
    "val f1 a text": changed("metrics.json", "val/f1", "0.9"),
    "val f1 huge": changed("metrics.json", "val/f1", 10**400),
    "genre names a number": changed("metrics.json", "genre_names", 3),
    "temperature a text": changed("metrics.json", "temperature", "warm"),
    "intervals a list": changed("metrics.json", "intervals", [0, 1]),
    "an interval a number": changed("metrics.json", "intervals", {"test": {"accuracy": 0.5}}),
    "an interval with one end": changed("metrics.json", "intervals", {"test": {"accuracy": [0.5]}}),
    "a bin a mapping": changed("metrics.json", "reliability", {"test": [{}]}),
    "a bin cut off": changed("metrics.json", "reliability", {"test": [[0.0, 0.1, 3]]}),
    "a bin with a text": changed("metrics.json", "reliability", {"test": [["\x1b[31m", 0.1, 3, 0.5, 0.5]]}),
}
if os.geteuid() != 0:
    DAMAGE["run.json forbidden"] = is_forbidden("run.json")
    DAMAGE["metrics.json forbidden"] = is_forbidden("metrics.json")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_one_error_and_the_others_are_ranked(
    sweep: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = [row.estimates["val/f1"].mean for row in rank_trials(_without(sweep, BAD), "val/f1")[0].rows]
    DAMAGE[damage](sweep / BAD)
    with pytest.raises(RunFolderError):
        read_trial(RunFolder(sweep / BAD))
    trials = find_trials([sweep])
    assert [trial.folder.path.name for trial in trials] == ["0", "2"]
    (left_out,) = trials.unreadable
    assert left_out.folder == sweep / BAD
    assert left_out.reason
    (board,) = rank_trials(trials, "val/f1")
    assert [row.estimates["val/f1"].mean for row in board.rows] == expected
    assert main(["leaderboard", str(sweep), "--csv", str(sweep / "board.csv")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "1 folder is unreadable and left out:" in printed
    (line,) = [line for line in printed if f"{sweep / BAD}: " in line]
    assert line.endswith(left_out.reason)
    choice = choose(ExportConfig(outputs_dir=str(sweep.parent)))
    assert choice.folder is not None
    assert choice.folder.path.name in {"0", "2"}
    assert any(str(left_out.reason) in line for line in describe(choice))
    assert choose(ExportConfig(sweep=str(sweep))).unreadable == (left_out,)


def _without(sweep: Path, *names: str) -> list[Any]:
    return [trial for trial in find_trials([sweep]) if trial.folder.path.name not in names]


SEVERAL = (
    "run.json nested",
    "run.json a folder",
    "metrics.json half written",
    "objective huge",
    "fold a text",
)


@pytest.mark.parametrize("damage", SEVERAL)
def test_reports_comparisons_and_summaries_go_on(
    sweep: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    DAMAGE[damage](sweep / BAD)
    assert main(["report", str(sweep), "--no-rows"]) == 0
    page = (sweep / "report.html").read_text()
    assert "2 of 3 trials finished, 1 unreadable and left out" in page
    assert '<td class="words">unreadable</td>' in page
    capsys.readouterr()
    assert main(["compare", str(sweep), str(sweep)]) == 0
    assert "unreadable and left out" in capsys.readouterr().out
    assert finish_sweep(SweepFolder(sweep)) == 1
    assert "1 folder is unreadable and left out" in capsys.readouterr().out
    assert (sweep / "leaderboard.csv").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("predictions.csv", b"id,group\n1"),
        ("predictions.csv", b""),
        ("predictions.csv", b"id,group,true,predicted,p_a\nx,g,b,a,0.5\n"),
        ("predictions.csv", b"id,group,true,predicted,p_a\nx,g,a,a,nan\n"),
        ("predictions.csv", b"id,group,true,predicted,p_a,p_a\nx,g,a,a,0.5,0.5\n"),
        ("predictions.csv", b"\xff\xfe"),
        ("history.csv", b"epoch,val/f1\none,two\n"),
        ("history.csv", b"\xff\xfe"),
    ],
)
def test_a_fold_with_damaged_tables_is_left_out_of_the_report(sweep: Path, file: str, content: bytes) -> None:
    (sweep / BAD / file).write_bytes(content)
    assert main(["report", str(sweep), "--no-rows"]) == 0
    page = (sweep / "report.html").read_text()
    assert "2 of 3 trials finished, 1 unreadable and left out" in page
    assert f"{file}: cannot be read" in page
    assert finish_sweep(SweepFolder(sweep)) == 0, "its metrics count"
    assert (sweep / "out_of_fold.csv").exists() is (file == "history.csv")


def test_a_run_alone_that_is_damaged_is_an_error(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sweep / BAD / "run.json").write_text("{")
    for command in (["leaderboard"], ["report"], ["compare", str(sweep / "0")]):
        assert main([*command, str(sweep / BAD)]) == 1
        assert capsys.readouterr().err.startswith("error: ")


def test_a_sweep_without_a_readable_run_says_why(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for fold in range(N_RUNS):
        (sweep / str(fold) / "run.json").write_text("{")
    for command in ("leaderboard", "report"):
        assert main([command, str(sweep)]) == 1
        assert "3 folders are unreadable and left out:" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "- a list\n", "data: {source: {a: b}}\n", "\x00", "data: 5\n"])
def test_baselines_like_a_sweep_leave_a_damaged_configuration_out(sweep: Path, content: str) -> None:
    (sweep / BAD / ".hydra" / "config.yaml").write_text(content)
    divisions = read_divisions(sweep)
    assert [division.fold for division in divisions] == [0, 2]
    assert [one.folder for one in divisions.unreadable] == [sweep / BAD]
    for fold in (0, 2):
        (sweep / str(fold) / ".hydra" / "config.yaml").write_text(content)
    with pytest.raises(RunFolderError, match="no readable run"):
        read_divisions(sweep)


@pytest.mark.parametrize("name", ["overrides.yaml", "hydra.yaml"])
def test_other_damaged_yaml_does_not_matter(sweep: Path, name: str) -> None:
    (sweep / BAD / ".hydra" / name).write_text("{a: [")
    assert main(["leaderboard", str(sweep)]) == 0
    assert main(["report", str(sweep), "--no-rows"]) == 0
    assert not read_divisions(sweep).unreadable


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimized_metric", ...),
        ("optimized_metric", "test/f1"),
        ("expected", "3"),
        ("overrides", "x"),
        ("swept", []),
        ("settings", 1),
    ],
)
def test_a_damaged_sweep_json_is_one_error(
    sweep: Path, key: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    changed("sweep.json", key, value)(sweep)
    with pytest.raises(RunFolderError, match=key):
        SweepFolder(sweep).read_sweep()
    assert main(["leaderboard", str(sweep)]) == 0, "which reads runs only"
    assert main(["report", str(sweep)]) == 1
    assert "sweep.json" in capsys.readouterr().err


def test_a_resumed_sweep_runs_a_damaged_trial_anew(sweep: Path) -> None:
    from genre_classifier.sweeps.trial import _is_finished
    from genre_classifier.sweeps.unfinished_jobs import DAMAGED, Job

    folder = RunFolder(sweep / BAD)
    settings = folder.read_run()["settings"]
    assert Job((), folder).status == "finished"
    assert _is_finished(folder, settings)
    changed("run.json", "objective", 10**400)(sweep / BAD)
    assert Job((), folder).status == DAMAGED
    assert not _is_finished(folder, settings)
