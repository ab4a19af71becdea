"""FMA, the Free Music Archive dataset: the tables features.csv and tracks.csv as published."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from genre_classifier.config.schema import FmaConfig, FmaSubset
from genre_classifier.data.table import FeatureTable, Source, build_table
from genre_classifier.data.tables.columns import read_columns
from genre_classifier.data.tables.fma_tables import ARCHIVE, INDEX, cache_tables
from genre_classifier.data.tables.readers import Asked
from genre_classifier.data.values import Int64
from genre_classifier.errors import DataError
from genre_classifier.features.sets import FMA518, FMA_SERIES, PARAMETERS, FeatureSetReference
from genre_classifier.files.home import expand_home

log = logging.getLogger(__name__)

SOURCE = Source(
    name="fma",
    origin=f"FMA: a dataset for music analysis, tables of the Free Music Archive's tracks, {ARCHIVE.url}",
    licence="CC BY 4.0 for the tables; each track has the licence that its artist chose",
    citation="M. Defferrard, K. Benzi, P. Vandergheynst and X. Bresson, 'FMA: A dataset for music analysis', 18th "
    "International Society for Music Information Retrieval Conference (ISMIR), 2017",
)
ASKED = Asked("data.path", "FMA's features")
SPLIT_COLUMN = "split"
# FMA measured each file at its own sample rate with the librosa of its day, so these are not this package's features.
MADE_WITH = FeatureSetReference(
    FMA518.name,
    FMA518.version,
    {**PARAMETERS, "sample_rate_hz": "each file's own", "made_by": "FMA's features.py"},
)


def read(config: FmaConfig) -> FeatureTable:
    """Read FMA's tables: a subset's tracks with a top genre, the artist as group, the official split.

    Raises
    ------
    DataError
        A table is missing or not as published, or the configuration names a feature group or column there is not.
    """
    if config.split.column not in (None, SPLIT_COLUMN):
        raise DataError(
            f"data.split.column={config.split.column}: FMA's tables have one split, {SPLIT_COLUMN!r} (set, split)"
        )
    names = _list_feature_names(config.feature_groups)
    cache = cache_tables(expand_home(config.path))
    group = None if config.group is None else config.group.value
    texts = {"id": INDEX, "genre": "genre", "subset": "subset", "split": "split"}
    if group is not None:
        texts["group"] = group
    try:
        columns = read_columns(cache, texts, names, asked=ASKED)
    except DataError as error:
        raise DataError(
            f"{error}; {cache.name} is made from the two tables: remove it, and it is made again"
        ) from error
    rows = _choose_rows(columns.texts["subset"], columns.texts["genre"], config)

    def of(key: str) -> list[object]:
        values = columns.texts[key]
        return [values[row] for row in rows]

    return build_table(
        features=columns.features if len(rows) == len(columns.features) else columns.features[rows],
        labels=of("genre"),
        feature_names=names,
        ids=of("id"),
        groups=None if group is None else of("group"),
        group_name=group,
        given_split=of("split"),
        source=SOURCE,
        where=f"{config.path} ({config.subset.value})",
        nan=config.nan,
        row_name=lambda row: f"track {columns.texts['id'][rows[row]]}",
        made_with=MADE_WITH,
    )


def _list_feature_names(groups: Sequence[str] | None) -> tuple[str, ...]:
    if groups is None:
        return FMA518.features
    unknown = [group for group in groups if group not in FMA_SERIES]
    if unknown or not groups:
        found = ", ".join(unknown) or "nothing"
        raise DataError(f"data.feature_groups names {found}: expected one or more of {', '.join(FMA_SERIES)}")
    # Names end in _STATISTIC_NUMBER.
    return tuple(name for name in FMA518.features if name.rsplit("_", 2)[0] in groups)


def _choose_rows(subsets: list[str | None], genres: list[str | None], config: FmaConfig) -> Int64:
    """Return the rows of at most a subset's size that have a top genre, counting those that have none."""
    sizes = [size.value for size in FmaSubset]
    within = set(sizes[: sizes.index(config.subset.value) + 1])
    inside = np.array([subset in within for subset in subsets], dtype=np.bool_)
    labelled = np.array([genre is not None for genre in genres], dtype=np.bool_)
    rows = np.flatnonzero(inside & labelled)
    without = int((inside & ~labelled).sum())
    if without:
        log.warning(
            "%s: %d of the %d tracks of subset %s have no top genre and are left out",
            config.path,
            without,
            int(inside.sum()),
            config.subset.value,
        )
    if not rows.size:
        raise DataError(f"{config.path}: no track of subset {config.subset.value} has a top genre")
    return rows
