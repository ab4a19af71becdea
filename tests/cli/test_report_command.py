"""``genre-classifier report`` as it is typed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genre_classifier.cli.main import main
from tests.reporting.conftest import train_into


@pytest.fixture(scope="module")
def random_run(tmp_path_factory: pytest.TempPathFactory, music_overrides: list[str]) -> Path:
    """A finished run, of a random split."""
    folder = tmp_path_factory.mktemp("command") / "run"
    train_into(folder, [*music_overrides, "data/split=stratified"])
    return folder


@pytest.fixture
def run(random_run: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(random_run, tmp_path / "run"))


def test_the_report_lies_in_the_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "--no-rows"]) == 0

    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert "--no-rows was given" in (run / "report.html").read_text()


def test_the_report_goes_where_it_is_asked_to(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    out = tmp_path / "new" / "page.html"

    assert main(["report", str(run), "--no-rows", "--out", str(out)]) == 0

    assert "</html>" in out.read_text()
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]
    assert not (run / "report.html").exists()


def test_warnings_are_printed_and_the_grouped_number_is_trained(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(run), "--map", "tsne"]) == 0

    said = capsys.readouterr().err
    assert "the same settings with a grouped split, in" in said
    assert "note: Random split." in said
    text = (run / "report.html").read_text()
    assert "trained for this report" in text
    assert "t-SNE axis 1" in text
    assert (run / "grouped" / "metrics.json").is_file()


def test_a_folder_that_is_neither_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 1
    assert "there is neither a run.json nor a sweep.json in it" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "none")]) == 1
    assert "there is no such folder; name the folder of a run or sweep" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()

    assert main(["report", str(run), "--no-rows", "--out", str(tmp_path / "file" / "page.html")]) == 1

    assert "choose another place with --out FILE" in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from genre_classifier.cli.main import main\n"
        "try: main(['report', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'jinja2', 'lightning'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
