"""GTZAN's table of 57 librosa features: the 30-second rows, or the 3-second ones with ten segments a track."""

from __future__ import annotations

import logging
import re

from genre_classifier.config.schema import GtzanConfig
from genre_classifier.data.table import FeatureTable, Source, build_table
from genre_classifier.data.tables.columns import read_columns
from genre_classifier.data.tables.readers import Asked
from genre_classifier.errors import DataError
from genre_classifier.features.sets import GTZAN57
from genre_classifier.files.home import expand_home

log = logging.getLogger(__name__)

SOURCE = Source(
    name="gtzan",
    origin="GTZAN genre collection (1,000 clips of 30 s), measured with librosa: the table features_30_sec.csv or "
    "features_3_sec.csv, published on Kaggle as 'GTZAN Dataset - Music Genre Classification'",
    licence="none stated by the collection's authors; used in research, the audio is under its owners' copyright",
    citation="G. Tzanetakis and P. Cook, 'Musical genre classification of audio signals', IEEE Transactions on Speech "
    "and Audio Processing 10(5), 2002",
)
ASKED = Asked("data.path", "GTZAN's features")
SEGMENT_SECONDS = 3.0
# blues.00000.wav is a track, blues.00000.3.wav the fourth segment of one.
_NAME = re.compile(r"^(?P<track>[^./\\]+\.\d{5})(?P<segment>\.\d+)?(\.[A-Za-z0-9]+)?$")


def read(config: GtzanConfig) -> FeatureTable:
    """Read GTZAN's table; segments of one track become one group.

    Raises
    ------
    DataError
        The columns are not those of the GTZAN table, or a file name is not of its form.
    """
    path = expand_home(config.path)
    texts = {"GTZAN's table": "filename", "GTZAN's label": "label"}
    if config.split.column is not None:
        texts["data.split.column"] = config.split.column
    columns = read_columns(path, texts, GTZAN57.features, asked=ASKED)
    names = columns.texts["GTZAN's table"]
    parsed = [_NAME.match(str(name).strip()) for name in names]
    for row, (name, match) in enumerate(zip(names, parsed, strict=True)):
        if match is None:
            raise DataError(
                f"{path}, {columns.row_name(row)}, column 'filename': {name!r} is not a GTZAN name such as "
                "blues.00000.wav or blues.00000.3.wav; for your own table use data=table"
            )
    segmented = [match["segment"] is not None for match in parsed if match]
    if any(segmented) and not all(segmented):
        raise DataError(f"{path} mixes 30-second tracks and 3-second segments; use one of the two tables")
    return build_table(
        features=columns.features,
        labels=columns.texts["GTZAN's label"],
        feature_names=columns.feature_names,
        ids=names,
        groups=[match["track"] for match in parsed if match] if any(segmented) else None,
        group_name="track",
        given_split=columns.texts["data.split.column"] if config.split.column is not None else None,
        source=SOURCE,
        where=str(path),
        nan=config.nan,
        row_name=columns.row_name,
        columns={"genre": "label", "id": "filename", "split": config.split.column},
        made_with=GTZAN57.build_reference(SEGMENT_SECONDS) if any(segmented) else GTZAN57.build_reference(),
    )
