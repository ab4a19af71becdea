import json
from pathlib import Path
from typing import Any

import pytest

from genre_classifier.config.schema import ExportConfig
from genre_classifier.errors import CheckpointError, ExportError, RunFolderError
from genre_classifier.exporting.choose import choose, describe
from genre_classifier.runs.folder import RunFolder


def made_run(
    folder: Path,
    f1: float | None = 0.5,
    *,
    status: str = "finished",
    synthetic: bool = False,
    checkpoint: bool = True,
    format_version: int = 1,
    started: str = "2026-01-01T00:00:00+00:00",
    reason: str | None = None,
) -> RunFolder:
    """Write the small files of a run."""
    run = RunFolder(folder)
    run.checkpoints.mkdir(parents=True)
    if checkpoint:
        run.best_checkpoint.touch()
    record = {"format_version": format_version, "status": status, "started": started, "reason": reason}
    run.run_json.write_text(json.dumps(record))
    metrics: dict[str, Any] = {} if f1 is None else {"val": {"f1": f1}}
    run.write_metrics({**metrics, "synthetic_data": synthetic})
    return run


def best(outputs: Path) -> Any:
    return choose(ExportConfig(outputs_dir=str(outputs)))


def test_the_best_finished_run_by_validation_f1_is_found_in_runs_and_sweeps(tmp_path: Path) -> None:
    made_run(tmp_path / "runs" / "d" / "1", 0.70)
    made_run(tmp_path / "sweeps" / "d" / "t" / "3", 0.80)
    made_run(tmp_path / "runs" / "d" / "2", 0.75)
    choice = best(tmp_path)
    assert choice.folder.path == tmp_path / "sweeps" / "d" / "t" / "3"
    assert choice.checkpoint == choice.folder.best_checkpoint
    assert [run.score for run in choice.considered] == [0.80, 0.75, 0.70]
    assert choice.reason == "the best of 3 finished runs by validation F1, 0.8000"
    assert choice.skipped == {}


def test_runs_that_cannot_be_exported_are_counted_by_reason(tmp_path: Path) -> None:
    made_run(tmp_path / "good", 0.5)
    made_run(tmp_path / "still", 0.9, status="running")
    made_run(tmp_path / "broken", 0.9, status="failed")
    made_run(tmp_path / "broken2", 0.9, status="failed")
    made_run(tmp_path / "bare", 0.9, checkpoint=False)
    made_run(tmp_path / "future", 0.9, format_version=2)
    made_run(tmp_path / "no_validation", None)
    made_run(tmp_path / "diverged", float("nan"))
    made_run(tmp_path / "played", 0.99, synthetic=True)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.json").write_text("[1")
    choice = best(tmp_path)
    assert choice.folder.path == tmp_path / "good"
    assert choice.skipped == {
        "running or killed": 1,
        "failed": 2,
        "without a checkpoint": 1,
        "of another format or damaged": 2,
        "without validation F1": 2,
        "on synthetic data": 1,
    }
    lines = "\n".join(describe(choice))
    assert "the only finished run, validation F1 0.5000" in lines
    assert "skipped 9: " in lines
    assert "2 failed" in lines


def test_synthetic_runs_are_taken_where_there_are_no_others(tmp_path: Path) -> None:
    made_run(tmp_path / "a", 0.9, synthetic=True)
    made_run(tmp_path / "b", 0.8, synthetic=True)
    choice = best(tmp_path)
    assert choice.folder.path == tmp_path / "a"
    assert [line.endswith("synthetic data") for line in describe(choice)] == [False, True, True]


def test_of_equal_runs_the_newest_is_taken(tmp_path: Path) -> None:
    for name, started in (("a", "2026-01-02"), ("b", "2026-01-03"), ("c", "2026-01-01")):
        made_run(tmp_path / name, 0.5, started=f"{started}T00:00:00+00:00")
    assert best(tmp_path).folder.path == tmp_path / "b"


def test_a_long_list_of_runs_is_cut(tmp_path: Path) -> None:
    for number in range(8):
        made_run(tmp_path / str(number), number / 10)
    lines = describe(best(tmp_path))
    assert len(lines) == 7
    assert lines[0].startswith(str(tmp_path / "7"))
    assert lines[1].split()[0] == "0.7000"
    assert lines[-1] == "  and 3 more"


def test_no_finished_run_is_an_error(tmp_path: Path) -> None:
    wanted = r"outputs_dir=.*: no finished run with a checkpoint and a validation F1; train one with python train.py"
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ExportError, match=wanted):
            best(folder)
    made_run(tmp_path / "x", status="running")
    with pytest.raises(ExportError, match=r"validation F1 \(1 running or killed\); train one"):
        best(tmp_path)


def test_a_named_run_must_be_finished_and_have_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    made_run(tmp_path / "still", status="running")
    made_run(tmp_path / "broken", status="failed", reason="DivergedError: epoch 3")
    made_run(tmp_path / "bare", checkpoint=False)
    for name, kind, message in (
        ("empty", RunFolderError, "empty: there is no run.json; name the folder of a run"),
        ("nowhere", RunFolderError, "nowhere: there is no run.json"),
        ("still", ExportError, "run=.*still: its status is 'running', not 'finished'; let it finish"),
        ("broken", ExportError, r"its status is 'failed' \(DivergedError: epoch 3\), not 'finished'"),
        ("bare", ExportError, "bare: there is no checkpoints/best.ckpt; the run was trained with callbacks"),
    ):
        with pytest.raises(kind, match=message):
            choose(ExportConfig(run=str(tmp_path / name)))


def test_a_named_checkpoint_knows_its_run_where_it_lies_in_one(tmp_path: Path) -> None:
    run = made_run(tmp_path / "a", status="running")
    inside = choose(ExportConfig(ckpt=str(run.best_checkpoint)))
    assert inside.folder is not None
    assert inside.folder.path == tmp_path / "a"
    (tmp_path / "loose.ckpt").touch()
    assert choose(ExportConfig(ckpt=str(tmp_path / "loose.ckpt"))).folder is None
    with pytest.raises(CheckpointError, match=r"ckpt=.*none.ckpt: there is no such file"):
        choose(ExportConfig(ckpt=str(tmp_path / "none.ckpt")))
