"""Launchers of other projects: what they need to start, and what they say if they cannot."""

from pathlib import Path
from unittest.mock import Mock

import pytest
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

from genre_classifier.errors import ConfigError, TrialFailedError
from genre_classifier.runs.folder import RunFolder
from genre_classifier.runs.sweep_folder import SweepFolder
from genre_classifier.sweeps.unfinished_jobs import Job, UnfinishedJobs, let_ray_connect


def test_ray_may_connect_to_a_cluster_that_runs_already() -> None:
    config = pytest.importorskip("hydra_plugins.hydra_ray_launcher._config")
    launcher = OmegaConf.structured(config.RayLauncherConf)
    let_ray_connect(launcher)
    launcher.ray.init.setdefault("object_store_memory", 78643200)  # as that launcher does
    assert launcher.ray.init.object_store_memory is None
    launcher.ray.init.object_store_memory = 10**9
    let_ray_connect(launcher)
    assert launcher.ray.init.object_store_memory == 10**9
    other = OmegaConf.create({"n_jobs": 2})
    let_ray_connect(other)
    assert other == {"n_jobs": 2}


@pytest.mark.parametrize(
    ("problem", "kind", "message"),
    [
        (RuntimeError("no srun"), TrialFailedError, r"hydra/launcher: .* \(RuntimeError: no srun\)"),
        (ConfigError("n_jobs=0"), ConfigError, "^n_jobs=0$"),
    ],
)
def test_a_launcher_that_cannot_start_is_one_error(
    problem: Exception, kind: type[Exception], message: str, tmp_path: Path
) -> None:
    jobs = object.__new__(UnfinishedJobs)
    jobs.inner = Mock(spec=Launcher, launch=Mock(side_effect=problem))
    jobs.sweep = SweepFolder(tmp_path)
    with pytest.raises(kind, match=message):
        jobs._launch([Job(("seed=1",), RunFolder(tmp_path / "0"))], 0)
