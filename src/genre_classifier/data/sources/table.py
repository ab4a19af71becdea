"""Read the user's table: CSV, TSV or Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genre_classifier.config.schema import TableConfig
from genre_classifier.data.table import FeatureTable, Source, build_table
from genre_classifier.data.tables.columns import read_columns
from genre_classifier.features.names import normalise
from genre_classifier.features.output import read_feature_set
from genre_classifier.features.sets import FEATURE_SETS, FeatureSetReference
from genre_classifier.files.home import expand_home

SOURCE = Source(
    name="table",
    origin="a table of the user's own",
    licence="as its owner says",
    citation="as its owner says",
)


def read(config: TableConfig) -> FeatureTable:
    """Read the file that `config.path` names.

    Raises
    ------
    DataError
        The message names the file, and if possible the row and column.
    """
    path = expand_home(config.path)
    texts = {
        key: name
        for key, name in (
            ("data.label", config.label),
            ("data.group", config.group),
            ("data.id", config.id),
            ("data.split.column", config.split.column),
        )
        if name is not None
    }
    columns = read_columns(path, texts, config.features)
    rows = len(columns.features)
    return build_table(
        features=columns.features,
        labels=columns.texts["data.label"],
        feature_names=columns.feature_names,
        ids=columns.texts["data.id"] if config.id is not None else [str(row) for row in range(rows)],
        groups=columns.texts["data.group"] if config.group is not None else None,
        group_name=None if config.group is None else normalise(config.group),
        given_split=columns.texts["data.split.column"] if config.split.column is not None else None,
        source=SOURCE,
        where=str(path),
        nan=config.nan,
        row_name=columns.row_name,
        columns={
            "genre": config.label,
            "group": config.group,
            "id": config.id,
            "split": config.split.column,
        },
        made_with=_find_feature_set(path, columns.feature_names),
    )


def _find_feature_set(path: Path, names: Sequence[str]) -> FeatureSetReference | None:
    """Return the feature set that the file names, if the features belong to it."""
    found = read_feature_set(path)
    known = None if found is None else FEATURE_SETS.get(found.name)
    return found if known is not None and set(names) <= set(known.features) else None
