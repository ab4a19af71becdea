"""Flatten a run's settings into names and values, and tell which of them define the experiment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf._utils import get_omega_conf_dumper

from genre_classifier.files.home import expand_home

# Settings about where and how a run is computed. They do not change its results.
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
# Trials that differ only in these are replicates of one configuration.
REPLICATE_KEYS = ("seed", "data.split.fold")

# Settings that name a file or folder to read.
PATHS = ("data.path", "data.split.files.train", "data.split.files.val", "data.split.files.test")
# Paths that a run reads or writes, relative to the folder it was started in.
OWN_PATHS = (*PATHS, "data.cache", "ckpt_path")


def flatten_settings(cfg: DictConfig) -> dict[str, Any]:
    """Return a configuration as ``{"model.dropout": 0.3, ...}``, with interpolations resolved."""
    return flatten(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))


def flatten(node: Any, path: str = "") -> dict[str, Any]:
    """Return a nested mapping as one mapping with dotted names. Lists are values."""
    if isinstance(node, dict) and node:
        return {
            key: value
            for name, child in node.items()
            for key, value in flatten(child, f"{path}.{name}").items()
        }
    return {path.removeprefix("."): node}


def is_about_the_machine(key: str) -> bool:
    """Return whether a setting is about where and how a run is computed, and not about its results."""
    part, _, rest = key.partition(".")
    if key in ("data.jobs", "data.cache"):
        return True
    return rest in MACHINE_SETTINGS if part == "trainer" else part in MACHINE_PARTS


def select_experiment_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that define the experiment: all but those about the machine."""
    return {key: value for key, value in settings.items() if not is_about_the_machine(key)}


def experiment_hash(settings: Mapping[str, Any]) -> str:
    """Return a digest that is the same for two runs of the same experiment, and only for these."""
    return _digest(select_experiment_settings(settings))


def replicate_hash(settings: Mapping[str, Any]) -> str:
    """Return a digest that is the same for replicates (runs that differ in seed or fold), and only for these."""
    return _digest(
        {
            key: value
            for key, value in select_experiment_settings(settings).items()
            if key not in REPLICATE_KEYS
        }
    )


def _digest(settings: Mapping[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def list_overrides(node: Any) -> list[str]:
    """Return the overrides of a list below ``hydra.overrides`` as they were given, with each ``${...}`` unresolved."""
    texts = OmegaConf.to_container(node, resolve=False)
    assert isinstance(texts, list)
    return [str(text) for text in texts]


def get_start_folder() -> Path:
    """Return the folder that the command was started in. With hydra.job.chdir=true its jobs run in another."""
    from hydra.core.hydra_config import HydraConfig

    if HydraConfig.initialized() and HydraConfig.get().job.chdir:
        return Path(HydraConfig.get().runtime.cwd)
    return Path.cwd()


def complete_paths(start: Path, cfg: DictConfig) -> DictConfig:
    """Return a run's configuration with its relative paths made absolute, starting from the folder `start`."""
    found = cfg.copy()
    with read_write(found):
        for key in OWN_PATHS:
            value = OmegaConf.select(found, key, throw_on_missing=False)
            if isinstance(value, str):
                OmegaConf.update(found, key, str(start / expand_home(value)))
    return found


def build_job_config(config: DictConfig, run_dir: str) -> DictConfig:
    """Return a composed configuration without Hydra's own node.

    Parameters
    ----------
    config : DictConfig
        The configuration that Hydra composed.
    run_dir : str
        The run's folder. It replaces the interpolation that needs Hydra.
    """
    job = config.copy()
    become_job_config(job, run_dir)
    return job


def become_job_config(config: DictConfig, run_dir: str) -> None:
    """Change a composed configuration to what `build_job_config` returns, without a copy."""
    with read_write(config), open_dict(config):
        config.run_dir = run_dir
        del config["hydra"]


class _YamlDumper(getattr(yaml, "CDumper", yaml.Dumper)):  # type: ignore[misc]
    """Writes strings as OmegaConf does. libyaml takes about a quarter of the time of the dumper in Python."""


_YamlDumper.add_representer(str, get_omega_conf_dumper().str_representer)


def format_yaml(values: Any) -> str:
    """Return plain values as YAML that OmegaConf reads as the same values."""
    text: str = yaml.dump(
        values, Dumper=_YamlDumper, default_flow_style=False, allow_unicode=True, sort_keys=False
    )
    return text


def describe_plan(config: DictConfig) -> str:
    """Return in one line what a run is about to do: its data, network and recipe.

    It reads a composed configuration and nothing else, so it can be shown while libraries load.
    """
    data, model, optimizer = config.data, config.model, config.optimizer
    where = f" {data.path}" if OmegaConf.select(data, "path", default=None) else ""
    network = str(model._target_).rpartition(".")[2]
    if "hidden_dims" in model:
        widths = "-".join(str(width) for width in model.hidden_dims) or "no hidden layer"
        network += f" {widths}, dropout {format_value(model.dropout)}"
    optimizer_name = str(optimizer._target_).rpartition(".")[2]
    recipe = f"{optimizer_name} at {format_value(optimizer.lr)}, up to {config.trainer.max_epochs} epochs"
    return f"{data.source}{where}; {network}; {recipe}, {data.batch_size} rows a batch, seed {config.seed}"


def format_value(value: Any) -> str:
    """Return a setting's value, a number to four digits, a list without blanks between its values.

    Examples
    --------
    >>> [format_value(value) for value in (None, 0.123456, (128, 64), "my table.csv")]
    ['null', '0.1235', '[128,64]', 'my table.csv']
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(format_value(item) for item in value)}]"
    return "null" if value is None else str(value)
