"""The embedded demo table: clips composed and rendered by rule, measured as core20. Synthetic, not music."""

from __future__ import annotations

from importlib.resources import as_file, files

from genre_classifier.config.schema import DemoConfig
from genre_classifier.data.table import FeatureTable, Source, build_table
from genre_classifier.data.tables.columns import read_columns
from genre_classifier.errors import DataError
from genre_classifier.features.sets import CORE20

SOURCE = Source(
    name="demo",
    origin="synthetic clips composed and rendered by tools/demo, measured with librosa; no real music",
    licence="MIT, as this project",
    citation="this project; a result on synthetic data says nothing about music",
    synthetic=True,
)
GENRES = ("Rock", "Electronic", "Hip-Hop", "Classical", "Jazz", "Folk", "Pop", "Experimental")


def read(config: DemoConfig) -> FeatureTable:
    """Read the table shipped in the package; the synthetic artist is the group."""
    if config.split.column is not None:
        raise DataError(f"data.split.column={config.split.column}: the demo table has no split column")
    resource = files("genre_classifier.demo") / "features.parquet"
    with as_file(resource) as path:
        columns = read_columns(path, {"label": "genre", "group": "artist", "id": "id"}, CORE20.features)
    return build_table(
        features=columns.features,
        labels=columns.texts["label"],
        feature_names=columns.feature_names,
        ids=columns.texts["id"],
        groups=columns.texts["group"],
        group_name="artist",
        genre_order=GENRES,
        source=SOURCE,
        where="demo (synthetic)",
        nan=config.nan,
        row_name=columns.row_name,
    )
