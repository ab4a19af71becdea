"""The pages 'adding a ...': their blocks change a copy of the package, and their commands run there."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ROOT, rows_of_music
from tests.docs.blocks import BLOCKS, Block

pytest.importorskip("sphinx", reason="needs the extra docs")

ADDING = sorted({block.page for block in BLOCKS if block.page.startswith("docs/adding-")})
# One process runs the commands of all pages, since starting it takes longer than they do.
PROGRAM = """
import json, shlex, sys, warnings
warnings.simplefilter("ignore")
sys.path[:0] = ["docs/_ext"]
from genre_classifier.cli.main import main

for number, command in enumerate(json.load(open("commands.json"))):
    print("$", command, flush=True)
    words = shlex.split(command)
    if words[:2] == ["python", "train.py"]:
        given = [] if any(word.startswith("hydra.run.dir=") for word in words) else [f"hydra.run.dir=outputs/{number}"]
        words = ["genre-classifier", "train", *words[2:], *given, "logger=none"]
    elif words[:2] == ["python", "export.py"]:
        words = ["genre-classifier", "export", *words[2:]]
    assert words[0] == "genre-classifier", command
    assert main(words[1:]) == 0, command

import reference
print(reference.configuration())
"""


def apply(block: Block, root: Path) -> None:
    """Write the file that a block is, or change the one that it changes."""
    assert block.caption is not None
    path = root / block.caption
    if block.language != "diff":
        assert not path.exists(), f"{block}: {block.caption} is there already"
        path.write_text(block.text, encoding="utf-8")
        return
    lines = block.text.splitlines()
    old = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
    new = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{block}: {block.caption} has not once the lines\n{old}"
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the changes of all pages and the files that their commands read."""
    from tests.features.sounds import collection  # skips where the extra audio is not installed

    root = tmp_path_factory.mktemp("changed")
    for name in ("src", "conf", "docs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "_build"))
    for block in BLOCKS:
        if block.page in ADDING and block.caption is not None:
            apply(block, root)
    header, rows = rows_of_music()
    names = header[3:]
    tracks = [
        {
            "track": row[0],
            "genre": row[1],
            "artist": row[2],
            "features": dict(zip(names, row[3:], strict=True)),
        }
        for row in rows
    ]
    (root / "tracks.jsonl").write_text("".join(f"{json.dumps(track)}\n" for track in tracks))
    collection(root / "music", n_tracks=5)
    return root


@pytest.fixture(scope="module")
def ran(changed: Path) -> str:
    """What the commands of all pages print in the changed copy."""
    commands = [
        command
        for block in BLOCKS
        if block.page in ADDING and block.is_shell and block.reason is None
        for command in block.commands()
    ]
    (changed / "commands.json").write_text(json.dumps(commands))
    environment = {
        **os.environ,
        "PYTHONPATH": f"{changed / 'src'}{os.pathsep}{changed}",
        "XDG_CACHE_HOME": str(changed / "cache"),
        "COLUMNS": "200",
    }
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=changed,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, f"{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    assert all(shlex.split(command) for command in commands)
    return result.stdout


def runs(root: Path) -> list[tuple[dict, dict]]:
    """Return record and metrics of each finished run."""
    return [
        (json.loads(path.read_text()), json.loads((path.parent / "metrics.json").read_text()))
        for path in sorted((root / "outputs").rglob("run.json"))
    ]


def test_the_pages_are_found() -> None:
    assert len(ADDING) == 4
    for page in ADDING:
        assert any(block.page == page and block.caption for block in BLOCKS)
        assert any(block.page == page and block.is_shell for block in BLOCKS)


def test_the_metric_is_in_the_runs_and_chooses_the_epoch(changed: Path, ran: str) -> None:
    found = [
        (record, metrics)
        for record, metrics in runs(changed)
        if record["settings"]["optimized_metric"] == "val/balanced_accuracy"
    ]
    ((record, metrics),) = found
    assert record["objective"] == pytest.approx(metrics["val"]["balanced_accuracy"], abs=1e-6)
    assert 0 < metrics["test"]["balanced_accuracy"] < 1
    assert "balanced" in ran


def test_the_network_is_trained_reported_and_exported(changed: Path, ran: str) -> None:
    record = json.loads((changed / "outputs" / "shortcut" / "run.json").read_text())
    assert record["settings"]["model._target_"] == "my_networks.ShortcutNetwork"
    assert (changed / "outputs" / "shortcut" / "report.html").is_file()
    metadata = json.loads(
        (changed / "trained_models" / "genre_classifier_production_metadata.json").read_text()
    )
    assert "ShortcutNetwork" in json.dumps(metadata)


def test_the_source_is_read_with_its_groups(changed: Path, ran: str) -> None:
    found = [record for record, _ in runs(changed) if record["settings"].get("data.source") == "json_lines"]
    assert len(found) == 3  # a network's run and two baselines
    assert all("no artist on two sides" in record["split_protocol"]["description"] for record in found)
    assert "data=json_lines" in ran.partition("## data")[2]  # the reference has it
    assert "A file with one JSON object per track." in ran


def test_the_features_are_measured_and_trained_on(changed: Path, ran: str) -> None:
    table = pd.read_parquet(changed / "loudness.parquet")
    assert list(table.columns[-3:]) == ["rms_mean", "rms_std", "crest"]
    assert (table[["rms_mean", "rms_std", "crest"]] > 0).all().all()
    assert any(record["settings"].get("data.features") == "loudness3" for record, _ in runs(changed))
