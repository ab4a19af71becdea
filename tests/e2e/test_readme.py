"""The README's commands, run as written, on small stand-ins for the files they name and for one epoch."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from genre_classifier.features.sets import GTZAN57
from tests.conftest import ROOT, composed, rows_of_music, write_csv
from tests.data.fma_layout import write_fma

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(prefix: str) -> list[str]:
    """All lines of the README's shell blocks that start so, continued lines joined and comments dropped."""
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.partition("  #")[0].strip() for line in lines if line.startswith(prefix)]


TRAIN = commands("python train.py")


@pytest.fixture
def stand_ins(tmp_path: Path) -> Path:
    """A folder with the files that the README names."""
    rng = np.random.default_rng(0)
    tracks = [f"{genre}.{number:05d}" for genre in ("blues", "jazz", "rock") for number in range(12)]
    rows = [[f"{track}.wav", 661794, *rng.normal(size=57), track.partition(".")[0]] for track in tracks]
    write_csv(tmp_path / "features_30_sec.csv", ["filename", "length", *GTZAN57.features, "label"], rows)
    for name, wanted in (("train_filtered.txt", range(8)), ("valid_filtered.txt", range(8, 12))):
        chosen = [track for track in tracks if int(track[-5:]) in wanted]
        (tmp_path / name).write_text("\n".join(f"{t.partition('.')[0]}/{t}.wav" for t in chosen))
    header, music = rows_of_music()
    pd.DataFrame(music, columns=header).to_parquet(tmp_path / "my.parquet")
    write_fma(tmp_path / "fma_metadata")
    return tmp_path


def test_the_tour_is_found() -> None:
    assert len(TRAIN) >= 12
    assert any("-m" in shlex.split(line) for line in TRAIN)


@pytest.mark.parametrize("command", TRAIN)
def test_a_train_command_of_the_readme_runs(
    command: str, stand_ins: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    from genre_classifier.training.fit import train

    if "musicnn" in command:
        weights = request.getfixturevalue("musicnn_weights")
        kept = stand_ins / "cache" / "genre-classifier"
        kept.mkdir(parents=True)
        shutil.copy(weights, kept)
    monkeypatch.chdir(stand_ins)
    monkeypatch.setenv("XDG_CACHE_HOME", str(stand_ins / "cache"))
    if "music/" in command:
        from tests.features.sounds import collection  # skips where the extra audio is not installed

        collection(stand_ins / "music", n_tracks=5)
    words = shlex.split(command)[2:]
    if "-m" in words:
        # One trial of the sweep; tests/e2e/test_sweep_command.py runs whole ones.
        words = [re.sub(r"=range\((\d+),.*", r"=\1", word) for word in words if word != "-m"]
        words = [re.sub(r"(=[^,\[]+),.*", r"\1", word) for word in words if not word.startswith("hydra")]
    if "trainer=ddp" in words:
        words = ["trainer=cpu"]  # two processes are tested with a command of their own
    short = [
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=2",
        "logger=none",
        f"run_dir={stand_ins}/run",
    ]
    result = train(composed(*words, *short))
    assert result is not None
    assert result.folder.read_run()["status"] == "finished"


def test_make_train_passes_its_arguments_on() -> None:
    plan = subprocess.run(
        ["make", "--dry-run", "--always-make", "train", "ARGS=model.dropout=0.3"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout
    assert "bin/python train.py model.dropout=0.3" in plan
    assert "-c constraints.txt" in plan


def test_every_file_and_option_that_the_readme_names_exists() -> None:
    for name in re.findall(r"`(?:src/|conf/)[\w./]+`", README):
        path = ROOT / name.strip("`")
        assert path.exists() or path.parent.name == "local", name
    rows = re.findall(r"^\| `([\w/]+)` \| (.+) \|$", README, flags=re.MULTILINE)
    groups = {group: set(re.findall(r"`(\w+)`", options)) for group, options in rows}
    assert len(groups) >= 9
    for group, options in groups.items():
        files = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
        assert files == {option for option in options if option in files}, group
    for name in re.findall(r"!\[.*?\]\((.+?)\)", README):
        assert (ROOT / name).exists()
