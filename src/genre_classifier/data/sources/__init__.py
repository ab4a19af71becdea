"""Data sources: each module has ``SOURCE`` (origin, licence, citation) and ``read(config) -> FeatureTable``."""

from __future__ import annotations

from importlib import import_module

from genre_classifier.config.schema import DataConfig
from genre_classifier.data.table import FeatureTable
from genre_classifier.errors import ConfigError

SOURCES = ("audio_folder", "demo", "fma", "gtzan", "table")


def read(config: DataConfig) -> FeatureTable:
    """Read the table that a data configuration names.

    Raises
    ------
    ConfigError
        There is no source of that name.
    DataError
        The file cannot be used as it is.
    """
    if config.source not in SOURCES:
        raise ConfigError(f"data.source={config.source}: expected one of {', '.join(SOURCES)}")
    table: FeatureTable = import_module(f"{__name__}.{config.source}").read(config)
    return table
