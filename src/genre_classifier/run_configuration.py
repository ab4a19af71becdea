"""A run's configuration, to be used again from wherever a command is started."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genre_classifier.config import restored
from genre_classifier.errors import ConfigError
from genre_classifier.run_folder import RunFolder
from genre_classifier.settings import PATHS


def configuration_of(folder: RunFolder) -> DictConfig:
    """Return a run's configuration with its schemas, its data's paths leading where they led the run.

    Raises
    ------
    RunFolderError, ConfigError
        The configuration is missing or damaged, or has a key or value that no schema takes.
    """
    cfg = restored(folder.read_config())
    start = folder.working_folder()
    if start is None:
        return cfg
    try:
        for key in PATHS:
            value = OmegaConf.select(cfg, key)
            if isinstance(value, str):
                OmegaConf.update(cfg, key, str(_from(start, Path(value).expanduser())))
    except OmegaConfBaseException as error:
        raise ConfigError(f"the run's saved configuration cannot be resolved: {error}") from error
    return cfg


def _from(start: Path, path: Path) -> Path:
    """Return where a path led from `start`; from here, where run and data were moved together."""
    led = start / path
    return path if not led.exists() and path.exists() else led
