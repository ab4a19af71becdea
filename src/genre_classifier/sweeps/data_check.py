"""Read and divide a sweep's rows before its first trial, so that an error of every trial is reported once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Glob, Override
from omegaconf import DictConfig

from genre_classifier.config.checks import to_train_config
from genre_classifier.config.schema import DataConfig, SplitConfig
from genre_classifier.config.settings import build_job_config, list_overrides
from genre_classifier.data.sources import read
from genre_classifier.data.splits import make_split
from genre_classifier.data.table import FeatureTable
from genre_classifier.errors import GenreClassifierError
from genre_classifier.sweeps.processes import runs_on_this_machine

# The most data settings to try. Among more, some are likely to work.
MOST = 100


def check_data(config: DictConfig, swept: Mapping[str, Override], loader: ConfigLoader) -> None:
    """Raise the error of every trial if none of the sweep's data settings gives rows that can be divided.

    It stops at the first setting that works, so most sweeps read only one table.

    Parameters
    ----------
    config : DictConfig
        Of the multirun as a whole.
    swept : mapping of str to Override
        The overrides with several values, by name.
    loader : ConfigLoader
        Hydra's.

    Raises
    ------
    GenreClassifierError
        The error of the first data settings.
    """
    if not runs_on_this_machine(config.hydra.launcher):
        return
    if any(
        not override.is_discrete_sweep() or isinstance(override.value(), Glob) for override in swept.values()
    ):
        return
    tables: dict[str, FeatureTable] = {}
    seen: set[str] = set()
    first: GenreClassifierError | None = None
    for number, overrides in enumerate(_list_jobs(config, swept)):
        if number >= MOST:
            return
        try:
            job = build_job_config(loader.load_sweep_config(config, overrides), "run_dir")
            data = to_train_config(job).data
            if repr(data) not in seen:
                seen.add(repr(data))
                make_split(_read_table(data, tables), data.split)
                return
        except GenreClassifierError as error:
            first = first or error
    if first is not None:
        raise first


def _read_table(data: DataConfig, tables: dict[str, FeatureTable]) -> FeatureTable:
    key = repr(replace(data, split=SplitConfig()))
    if key not in tables:
        tables[key] = read(data)
    return tables[key]


def _list_jobs(config: DictConfig, swept: Mapping[str, Override]) -> Iterator[list[str]]:
    """Yield a job's overrides for each of the sweep's data settings. Other swept settings keep their first value."""
    fixed = [
        text
        for text in list_overrides(config.hydra.overrides.task)
        if text.partition("=")[0].lstrip("+~") not in swept
    ]
    values = []
    for name, override in swept.items():
        texts = [f"{override.get_key_element()}={text}" for text in override.sweep_string_iterator()]
        of_the_data = name.partition("@")[0].split("/")[0].split(".")[0] in {"data", "experiment", "local"}
        values.append(texts if of_the_data else texts[:1])
    return ([*fixed, *chosen] for chosen in itertools.product(*values))
