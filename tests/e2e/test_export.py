"""The real command: python export.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genre_classifier.runs.folder import RunFolder
from tests.conftest import ROOT


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "export.py"), *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_run_becomes_a_bundle_and_the_checklist_is_printed(plain_run: RunFolder, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    result = command(f"run={plain_run.path}", "save_dir=models", "model_name=mine", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "production checklist, " in result.stdout
    rows = {
        cells[1].strip(): cells[2].strip()
        for line in result.stdout.splitlines()
        if len(cells := line.split("│")) == 5
    }
    content = json.loads((tmp_path / "models" / "mine_metadata.json").read_text())
    assert rows == {item["item"]: "yes" if item["met"] else "NO" for item in content["production_checklist"]}
    assert rows["service answered with the same result"] == "yes"
    assert "outputs/runs/plain, named by run=" in result.stdout
    assert "models/mine.pt" in result.stdout
    assert "genre-classifier verify models/mine" in result.stdout
    # No folder of Hydra's, no log file.
    assert {path.name for path in set(tmp_path.iterdir()) - before} == {"models"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["modle_name=x"],
            "error: modle_name: there is no such key. the configuration has run, sweep, ckpt, ",
        ),
        (["run=nowhere"], "error: nowhere: there is no run.json; name the folder of a run"),
        ([], "error: outputs_dir=outputs: no finished run with a checkpoint"),
        (["-m", "onnx=true,false"], "error: export.py exports one model: leave out --multirun"),
    ],
)
def test_a_mistake_is_one_message_before_torch_is_imported(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    # A torch that cannot be imported proves that nothing asked for it.
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    result = subprocess.run(
        [sys.executable, "-c", RUN_WITH_PATH, str(tmp_path), str(ROOT), *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


RUN_WITH_PATH = """
import runpy, sys
first, root, *arguments = sys.argv[1:]
sys.path[:0] = [first, root]
sys.argv = [root + "/export.py", *arguments]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_help_says_how_it_is_used(tmp_path: Path) -> None:
    result = command("--help", cwd=tmp_path)
    assert result.returncode == 0
    assert "python export.py run=outputs/runs/" in result.stdout
    assert "min_test_accuracy: 0.75" in result.stdout
    assert "Configuration groups" not in result.stdout
