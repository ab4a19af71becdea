"""A run's settings as flat names and values, and which of them make two runs the same experiment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from genre_classifier.files.home import expanded

# Where and how a run is computed, not what.
MACHINE_SETTINGS = frozenset(
    {
        "accelerator",
        "batches_per_training_step",
        "detect_anomaly",
        "deterministic",
        "devices",
        "enable_progress_bar",
        "num_nodes",
        "profiler",
        "strategy",
    }
)
MACHINE_PARTS = frozenset({"run_dir", "logger", "ckpt_path", "threads", "sweep"})
# Trials that differ only in these are one configuration, tried again.
REPLICATE_KEYS = ("seed", "data.split.fold")

# Settings that name a file or folder to read.
PATHS = ("data.path", "data.split.files.train", "data.split.files.val", "data.split.files.test")
# Those that a run reads or writes, from the folder it was started in.
OWN_PATHS = (*PATHS, "data.cache", "ckpt_path")


def flat_settings(cfg: DictConfig) -> dict[str, Any]:
    """Return a configuration as ``{"model.dropout": 0.3, ...}``, every interpolation resolved."""
    return flattened(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))


def flattened(node: Any, path: str = "") -> dict[str, Any]:
    """Return a nested mapping as one of dotted names; lists are values."""
    if isinstance(node, dict) and node:
        return {
            key: value
            for name, child in node.items()
            for key, value in flattened(child, f"{path}.{name}").items()
        }
    return {path.removeprefix("."): node}


def is_about_the_machine(key: str) -> bool:
    """Return whether a setting says where and how a run is computed, not what."""
    part, _, rest = key.partition(".")
    if key in ("data.jobs", "data.cache"):
        return True
    return rest in MACHINE_SETTINGS if part == "trainer" else part in MACHINE_PARTS


def experiment_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that say what is computed."""
    return {key: value for key, value in settings.items() if not is_about_the_machine(key)}


def experiment_hash(settings: Mapping[str, Any]) -> str:
    """Return a digest that two runs share exactly when they were to compute the same."""
    return _digest(experiment_settings(settings))


def replicate_hash(settings: Mapping[str, Any]) -> str:
    """Return a digest that two runs share exactly when one is a replicate of the other: another seed or fold."""
    return _digest(
        {key: value for key, value in experiment_settings(settings).items() if key not in REPLICATE_KEYS}
    )


def _digest(settings: Mapping[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def started_in() -> Path:
    """Return the folder that the command was started in; with hydra.job.chdir=true its jobs run elsewhere."""
    from hydra.core.hydra_config import HydraConfig

    if HydraConfig.initialized() and HydraConfig.get().job.chdir:
        return Path(HydraConfig.get().runtime.cwd)
    return Path.cwd()


def with_paths_from(start: Path, cfg: DictConfig) -> DictConfig:
    """Return a run's configuration whose paths lead from anywhere where they lead from `start`."""
    found = cfg.copy()
    with read_write(found):
        for key in OWN_PATHS:
            value = OmegaConf.select(found, key, throw_on_missing=False)
            if isinstance(value, str):
                OmegaConf.update(found, key, str(start / expanded(value)))
    return found


def job_config(config: DictConfig, run_dir: str) -> DictConfig:
    """Return a composed configuration without Hydra's own node.

    Parameters
    ----------
    config : DictConfig
        As Hydra composes it.
    run_dir : str
        The run's folder, in place of the interpolation that needs Hydra.
    """
    job = config.copy()
    with read_write(job), open_dict(job):
        job.run_dir = run_dir
        del job["hydra"]
    return job


def describe_plan(config: DictConfig) -> str:
    """Return in one line what a run is about to do: its data, network and recipe.

    It reads a composed configuration and nothing else, so it can be shown while libraries load.
    """
    data, model, optimizer = config.data, config.model, config.optimizer
    where = f" {data.path}" if OmegaConf.select(data, "path", default=None) else ""
    network = str(model._target_).rpartition(".")[2]
    if "hidden_dims" in model:
        widths = "-".join(str(width) for width in model.hidden_dims) or "no hidden layer"
        network += f" {widths}, dropout {shown_value(model.dropout)}"
    optimizer_name = str(optimizer._target_).rpartition(".")[2]
    recipe = f"{optimizer_name} at {shown_value(optimizer.lr)}, up to {config.trainer.max_epochs} epochs"
    return f"{data.source}{where}; {network}; {recipe}, {data.batch_size} rows a batch, seed {config.seed}"


def shown_value(value: Any) -> str:
    """Return a setting's value, a number to four digits, a list without blanks between its values.

    Examples
    --------
    >>> [shown_value(value) for value in (None, 0.123456, (128, 64), "my table.csv")]
    ['null', '0.1235', '[128,64]', 'my table.csv']
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(shown_value(item) for item in value)}]"
    return "null" if value is None else str(value)
