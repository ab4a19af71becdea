"""The settings of the stacked launcher that say where stacks are trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from genre_classifier.errors import ConfigError
from genre_classifier.sweeps.stacked.backends.stack import Backend

# Each backend's own settings.
BACKENDS: dict[str, tuple[str, ...]] = {"local": (), "ray": ("ray_address",), "submitit": ("submitit",)}


def check_backend(launcher: Mapping[str, Any]) -> None:
    """Check the stacked launcher's settings before the sweep has a folder. With Ray, connect to the cluster.

    Raises
    ------
    ConfigError
        The backend is unknown, or a setting is unknown or belongs to another backend.
    MissingExtraError
        The backend's library is not installed.
    GenreClassifierError
        The Ray cluster cannot be reached.
    """
    chosen = launcher["backend"]
    if chosen not in BACKENDS:
        raise ConfigError(
            f"hydra.launcher.backend={chosen}: there is no such backend; choose {', '.join(BACKENDS)}"
        )
    for backend, names in BACKENDS.items():
        for name in names:
            if backend != chosen and (given := _drop_unset(launcher[name])):
                raise ConfigError(
                    f"hydra.launcher.{name}={given} is a setting of hydra.launcher.backend={backend}, and the "
                    f"backend is {chosen}: drop it or choose that backend"
                )
    if chosen == "ray":
        from genre_classifier.sweeps.stacked.backends.on_ray import connect

        connect(launcher["ray_address"])
    elif chosen == "submitit":
        from genre_classifier.sweeps.stacked.backends.on_submitit import check_submitit

        check_submitit(_drop_unset(launcher["submitit"]))


def _drop_unset(value: Any) -> Any:
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=True)
    return {key: own for key, own in value.items() if own is not None} if isinstance(value, dict) else value


def make_backend(
    backend: str,
    n_jobs: int | None,
    ray_address: str | None,
    submitit: Mapping[str, Any],
    sweep: Path,
) -> Backend:
    """Return the chosen backend. `sweep` is the sweep's folder."""
    if backend == "ray":
        from genre_classifier.sweeps.stacked.backends.on_ray import RayTasks, connect

        return RayTasks(connect(ray_address), n_jobs, is_local=ray_address is None)
    if backend == "submitit":
        from genre_classifier.sweeps.stacked.backends.on_submitit import SubmititJobs

        return SubmititJobs(_drop_unset(submitit), n_jobs, sweep / ".submitit")
    from genre_classifier.sweeps.stacked.backends.local import LocalProcesses

    return LocalProcesses(n_jobs)
