"""The notebooks are stored without outputs, and run from a clean kernel."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

nbformat = pytest.importorskip("nbformat", reason="needs the extra docs")
nbclient = pytest.importorskip("nbclient", reason="needs the extra docs")
KernelSpecManager = pytest.importorskip(
    "jupyter_client.kernelspec", reason="needs the extra docs"
).KernelSpecManager
pytest.importorskip("ipykernel", reason="needs the extra docs")
pytest.importorskip("soundfile", reason="needs the extra audio")

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CELL_SECONDS = 300  # a cell that takes longer hangs


def test_the_notebooks_are_found() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["01_data", "02_modeling", "03_real_music"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    for cell in code:
        assert cell.outputs == []
        assert cell.execution_count is None
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    caches = tmp_path / "cache"
    if path.stem == "03_real_music":
        weights = request.getfixturevalue("musicnn_weights")
        (caches / "genre-classifier").mkdir(parents=True)
        shutil.copy(weights, caches / "genre-classifier")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(caches))
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    before = list_files()

    outputs = [output for cell in run(path, tmp_path).cells for output in cell.get("outputs", [])]

    printed = [output["text"] for output in outputs if output["output_type"] == "stream"]
    assert not [text for text in printed if "\x1b" in text or "Traceback" in text]
    shown = [key for output in outputs for key in output.get("data", {})]
    assert "image/png" in shown
    assert list_files() == before
    assert not list(temporary.glob("genres-*"))


def run(path: Path, folder: Path) -> Any:
    """Return the notebook with its outputs. Its kernel is a new process of the Python that runs the tests."""
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, kernel_name="python3", timeout=CELL_SECONDS, coalesce_streams=True
    )
    # Without folders to look in, python3 is this Python's own kernel, whatever kernels the user has installed.
    manager = client.create_kernel_manager()
    manager.kernel_spec_manager = KernelSpecManager(kernel_dirs=[])
    manager.shutdown_wait_time = CELL_SECONDS  # not killed before it has removed its temporary folder
    return client.execute(cwd=str(folder))


def list_files() -> set[Path]:
    """Return the files of the folders in which a notebook could leave something."""
    folders = (ROOT / name for name in ("notebooks", "outputs", "trained_models"))
    return {path for folder in folders for path in folder.rglob("*")}
