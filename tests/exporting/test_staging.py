"""What an export tries before it publishes leaves nothing behind, even where it is killed."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from genre_classifier.errors import ExportError
from genre_classifier.exporting import staging
from genre_classifier.exporting.staging import INSIDE, PREFIX, staging_folder
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, for this test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def used_and_left(folder: Path) -> Path:
    folder.mkdir()
    (folder / "x.pt").write_bytes(b"x")
    return folder


def fails(folder: Path) -> None:
    used_and_left(folder)
    raise ZeroDivisionError


def test_the_folder_is_gone_afterwards_also_after_an_error(place: Path) -> None:
    with pytest.raises(ZeroDivisionError), staging_folder() as folder:
        fails(folder)
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(place: Path) -> None:
    code = """
import os, signal, sys, tempfile
from genre_classifier.exporting.staging import staging_folder
tempfile.tempdir = sys.argv[1]
with staging_folder() as folder:
    folder.mkdir()
    (folder / "x.pt").write_bytes(b"x")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    with staging_folder() as used:
        used_and_left(used)
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        subprocess.run([sys.executable, "-c", code, str(place)], env=environment, check=False)
        (left,) = {path.parent for path in place.rglob("x.pt")} - {used}
        with staging_folder() as other:
            assert other not in (used, left)
            assert (used / "x.pt").is_file()
            assert not left.parent.exists()
    assert list(place.iterdir()) == []


def test_nothing_else_is_removed(place: Path) -> None:
    project = place / f"{PREFIX}of-mine"
    (project / "src").mkdir(parents=True)
    (place / f"{PREFIX}notes").write_text("mine")
    (place / "elsewhere" / INSIDE).mkdir(parents=True)
    (place / f"{PREFIX}link").symlink_to(place / "elsewhere")
    (place / "genre-classifier-main" / INSIDE).mkdir(parents=True)
    before = sorted(place.rglob("*"))
    with staging_folder():
        pass
    assert sorted(place.rglob("*")) == before


def test_a_folder_that_is_taken_away_at_once_is_made_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = tempfile.mkdtemp
    made: list[str] = []

    def taken_away(**arguments: str) -> str:
        made.append(make(**arguments))
        if len(made) < 3:
            Path(made[-1]).rmdir()
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", taken_away)
    with staging_folder() as folder:
        assert str(folder.parent) == made[2]


def test_a_temporary_folder_that_cannot_be_made_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place / "nowhere"))
    with (
        pytest.raises(ExportError, match=r"nowhere: a temporary folder .* cannot be made .*TMPDIR="),
        staging_folder(),
    ):
        pass
    monkeypatch.undo()
    monkeypatch.setattr(staging, "lock_folder", lambda handle: False)
    with pytest.raises(ExportError, match="removed again and again"), staging_folder():
        pass
