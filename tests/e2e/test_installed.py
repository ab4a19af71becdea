"""A wheel that is installed into an empty environment, and used from an empty folder, does everything."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import sysconfig
import urllib.request
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT, rows_of_music, write_csv

SHORT = ["trainer.max_epochs=2", "trainer.enable_progress_bar=false", "logger=none"]


class Installation:
    """An environment with the wheel; the other packages are those of the tests.

    Parameters
    ----------
    folder : Path
    wheel : Path
    """

    def __init__(self, folder: Path, wheel: Path) -> None:
        venv.create(folder, with_pip=False)
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        scheme = {"base": str(folder), "platbase": str(folder)}
        packages = Path(sysconfig.get_path("purelib", vars=scheme))
        pip = [sys.executable, "-m", "pip", "--python", self.bin / "python"]
        run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel])
        # What is listed in a .pth file of such a folder is not read, so the repository itself is not found by it.
        (packages / "others.pth").write_text("\n".join(site.getsitepackages()) + "\n")

    def __call__(self, *words: str | Path, cwd: Path) -> str:
        return run([self.bin / "genre-classifier", *words], cwd=cwd)


def run(words: Sequence[str | Path], cwd: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist"]
    run(build, cwd=ROOT)
    (wheel,) = (folder / "dist").glob("*.whl")
    return Installation(folder / "venv", wheel)


def test_the_wheel_alone_does_everything(installed: Installation, tmp_path: Path) -> None:
    where = run(
        [installed.bin / "python", "-c", "import genre_classifier; print(genre_classifier.__file__)"],
        tmp_path,
    )
    assert str(ROOT) not in where
    no_app = [installed.bin / "python", "-c", "import importlib.util as u; assert u.find_spec('app') is None"]
    run(no_app, tmp_path)

    shown = installed("train", "model.dropout=0.3", *SHORT, "hydra.run.dir=run", cwd=tmp_path)
    assert "genre-classifier export run=run" in shown
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert settings["model.dropout"] == 0.3

    table = write_csv(tmp_path / "music.csv", *rows_of_music())
    data = ["data=table", f"data.path={table}", "data.label=genre", "data.group=artist", "data.batch_size=16"]
    sweep = [*data, *SHORT, "seed=1,2", "hydra/launcher=stacked", "hydra.sweep.dir=sweep"]
    assert "2 of 2 trials finished" in installed("train", "-m", *sweep, cwd=tmp_path)
    assert "majority" in installed("baselines", *data, "--models", "majority", "--out", "base", cwd=tmp_path)
    installed("report", "sweep", cwd=tmp_path)
    assert (tmp_path / "sweep" / "report.html").is_file()

    exported = installed("export", "sweep=sweep", "save_dir=bundle", cwd=tmp_path)
    assert "genre-classifier verify" in exported
    bundle = tmp_path / "bundle" / "genre_classifier_production"
    assert "good" in installed("verify", bundle, cwd=tmp_path)
    assert "Ambient" in installed("predict", "--table", table, "--bundle", bundle, cwd=tmp_path)
    assert genres_served(installed, bundle, tmp_path) == ["Ambient", "Bluegrass", "Cumbia"]


def genres_served(installed: Installation, bundle: Path, folder: Path) -> list[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(installed.bin / "genre-classifier"), "serve", "--bundle", str(bundle), "--port", "0"]
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as service:
        try:
            assert service.stderr is not None
            line = next(line for line in service.stderr if "http://" in line)
            address = line.partition("http://")[2].split()[0].rstrip("/")
            with urllib.request.urlopen(f"http://{address}/genres", timeout=60) as answer:
                found: list[str] = json.load(answer)["genres"]
            for path, words in (("", b"Drop songs here"), ("page/page.js", b"import"), ("docs", b"swagger")):
                with urllib.request.urlopen(f"http://{address}/{path}", timeout=60) as answer:
                    assert words in answer.read()
        finally:
            service.terminate()
    return found
