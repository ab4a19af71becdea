"""Small real runs, trained once for all tests of the export, and what is done with them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from genre_classifier.config.schema import ExportConfig
from genre_classifier.runs.folder import RunFolder
from tests.conftest import composed

Export = Callable[..., Any]


def finished_run(folder: Path, overrides: list[str]) -> RunFolder:
    """Train into `folder`."""
    from genre_classifier.training.fit import train

    assert train(composed(*overrides, f"run_dir={folder}")) is not None
    return RunFolder(folder)


@pytest.fixture(scope="session")
def trained_runs(tmp_path_factory: pytest.TempPathFactory, music_overrides: list[str]) -> Path:
    """An outputs folder: runs/plain (cosine), runs/other, a sweep of folds."""
    outputs = tmp_path_factory.mktemp("outputs")
    plain = [*music_overrides, "scheduler=cosine", "trainer.max_epochs=5", "optimizer.lr=0.002"]
    finished_run(outputs / "runs" / "plain", plain)
    finished_run(outputs / "runs" / "other", [*music_overrides, "seed=7", "optimizer.lr=0.01"])
    for fold in range(3):
        folds = ["data.split.folds=3", f"data.split.fold={fold}", "optimizer.lr=0.01"]
        finished_run(outputs / "sweeps" / "folds" / str(fold), [*music_overrides, *folds])
    return outputs


@pytest.fixture
def outputs(trained_runs: Path, tmp_path: Path) -> Path:
    """A copy of the trained runs that a test may change."""
    return Path(shutil.copytree(trained_runs, tmp_path / "outputs"))


@pytest.fixture
def plain_run(outputs: Path) -> RunFolder:
    """The run that most tests export."""
    return RunFolder(outputs / "runs" / "plain")


@pytest.fixture
def exported(tmp_path: Path) -> Callable[..., Any]:
    """A function that exports with the given overrides to tmp_path/models and returns the Export."""
    from genre_classifier.exporting.export import export

    places = [f"save_dir={tmp_path / 'models'}", f"outputs_dir={tmp_path / 'outputs'}", "onnx=false"]

    def go(*overrides: str, ask_service: Any = None) -> Any:
        # Without Hydra, which would take half of the time here.
        given = OmegaConf.from_dotlist([*places, *overrides])
        cfg = OmegaConf.merge(OmegaConf.structured(ExportConfig), given)
        assert isinstance(cfg, DictConfig)
        return export(cfg, ask_service)

    return go
