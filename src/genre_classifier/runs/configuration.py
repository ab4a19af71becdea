"""Read a run's configuration for use from any working folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genre_classifier.class_names import check_name
from genre_classifier.config.checks import restore_schemas
from genre_classifier.config.settings import PATHS, flatten
from genre_classifier.errors import ConfigError
from genre_classifier.files.home import expand_home
from genre_classifier.runs.folder import RunFolder

# "${trainer.max_epochs}" and "${run_dir}/tensorboard": one other setting, and text around it.
_REFERENCE: Final = re.compile(r"[^${}]*\$\{([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\}[^${}]*")

# OmegaConf also raises these for a node of the wrong kind, and pathlib for an impossible path.
_OF_OMEGACONF: Final = (AttributeError, KeyError, TypeError, ValueError, RuntimeError)


def read_configuration(folder: RunFolder) -> DictConfig:
    """Return a run's configuration with its schemas. Paths of its data lead to the same files as in the run.

    The file may come from anywhere. A setting in it may follow another one, as in ``${trainer.max_epochs}``. Every
    other interpolation, such as ``${oc.env:HOME}``, is replaced by the value in run.json: this machine resolves none.
    `class_names` looks up the classes in the configuration and knows which ones are allowed.

    Raises
    ------
    RunFolderError, ConfigError
        The configuration is missing or damaged, or has a key or value that no schema takes.
    """
    settings = folder.read_settings()
    recorded = folder.read_run().get("settings")
    recorded = {**(recorded if isinstance(recorded, dict) else {}), "run_dir": str(folder.path)}
    start = folder.read_working_folder()
    try:
        cfg = restore_schemas(OmegaConf.create(_replace_resolvers(settings, flatten(settings), recorded)))
        _check_groups(cfg)
        if start is not None:
            for key in PATHS:
                value = OmegaConf.select(cfg, key)
                if isinstance(value, str):
                    OmegaConf.update(cfg, key, str(_resolve_path(start, expand_home(value))))
    except ConfigError:
        raise
    except (OmegaConfBaseException, *_OF_OMEGACONF) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"{folder.config_yaml}: the saved configuration cannot be used ({reason:.300})"
        ) from error
    return cfg


def read_trainable_configuration(folder: RunFolder) -> DictConfig:
    """Return a run's configuration for training, after checking that a file may name each of its classes.

    Raises
    ------
    RunFolderError, ConfigError
        As `read_configuration`, and for a class that a file may not name (see `class_names`).
    """
    cfg = read_configuration(folder)
    for group in ("model", "optimizer", "scheduler", "logger"):
        if cfg.get(group) is not None:
            try:
                check_name(cfg[group]._target_)
            except ConfigError as error:
                raise ConfigError(f"{folder.config_yaml}: {group}.{error}") from error
    return cfg


def _replace_resolvers(node: Any, flat: Mapping[str, Any], recorded: Mapping[str, Any], key: str = "") -> Any:
    """Return settings whose interpolations only name another setting with a value. Others get their recorded value."""
    if isinstance(node, dict) and node:
        return {
            name: _replace_resolvers(child, flat, recorded, f"{key}.{name}".removeprefix("."))
            for name, child in node.items()
        }
    if "${" not in str(node):
        return node
    reference = _REFERENCE.fullmatch(node) if isinstance(node, str) else None
    if reference is not None and (reference[1] == "run_dir" or "${" not in str(flat.get(reference[1], "${"))):
        return node
    value = recorded.get(key)
    if value is None or "${" in str(value):
        raise ConfigError(
            f"the run's saved configuration: {key}={node!s:.80}: an interpolation in a file is not resolved unless "
            "it names another setting, and run.json has no value for this one"
        )
    return value


def _check_groups(node: DictConfig, key: str = "") -> None:
    """Raise ConfigError if a whole group of settings is an interpolation or has no value."""
    for name in node:
        child = node._get_node(name)
        where = f"{key}.{name!s}".removeprefix(".")
        if isinstance(child, DictConfig) and not child._is_none():
            if child._is_missing() or child._is_interpolation():
                raise ConfigError(f"the run's saved configuration: {where} is no group of settings")
            _check_groups(child, where)


def _resolve_path(start: Path, path: Path) -> Path:
    """Return a path relative to `start`, or to this folder if run and data were moved here together."""
    original = start / path
    return path if not original.exists() and path.exists() else original
