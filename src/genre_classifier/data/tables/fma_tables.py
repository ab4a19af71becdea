"""FMA's tables as published: features.csv with three header rows and tracks.csv with two, each with an index row.

What both together say of a track is kept as one Parquet file beside them, since reading a gigabyte of text takes longer
than training on it.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from genre_classifier.commands import format_command
from genre_classifier.data.download import Archive
from genre_classifier.errors import DataError
from genre_classifier.features.sets import FMA518
from genre_classifier.files.atomic import replacing

log = logging.getLogger(__name__)

ARCHIVE = Archive(
    url="https://os.unil.cloud.switch.ch/fma/fma_metadata.zip",
    sha1="f0df49ffe5f2a6008d7dc83c6915b31835dfe733",
    megabytes=342,
    members=("features.csv", "tracks.csv"),
)
FEATURE_HEADER = ("feature", "statistics", "number")
TRACK_COLUMNS = {
    "split": ("set", "split"),
    "subset": ("set", "subset"),
    "genre": ("track", "genre_top"),
    "artist": ("artist", "id"),
    "album": ("album", "id"),
}
INDEX = "track_id"
CACHE = "genre_classifier_fma.parquet"
CACHE_VERSION = 1
BLOCK_BYTES = 16 << 20


def cache_tables(folder: Path) -> Path:
    """Return a Parquet file of both tables. It is made if it is missing or older than the tables.

    Its columns are track_id, split, subset, genre, artist, album and the 518 features.

    Raises
    ------
    DataError
        A table is missing (the message says where it is published), damaged or laid out otherwise.
    """
    paths = [folder / name for name in ARCHIVE.members]
    for path in paths:
        if not path.is_file():
            raise DataError(
                f"{path}: there is no such file; it is in {ARCHIVE.name} ({ARCHIVE.megabytes} MiB), published at "
                f"{ARCHIVE.url} with SHA-1 {ARCHIVE.sha1}; fetch it with: "
                f"{format_command('genre-classifier', 'download', 'fma', folder)}"
            )
    stamp = json.dumps(
        {"version": CACHE_VERSION, **{p.name: [p.stat().st_size, p.stat().st_mtime_ns] for p in paths}}
    )
    cache = folder / CACHE
    if _stamp_of(cache) != stamp:
        log.info("%s: reading the tables once and keeping them in %s", folder, cache)
        try:
            with replacing(cache) as temporary:
                _write(temporary, read_tracks(paths[1]), paths[0], stamp)
        except OSError as error:
            raise DataError(
                f"{cache} cannot be written ({error.strerror or error}); copy {' and '.join(ARCHIVE.members)} to a "
                "folder of yours with room for it"
            ) from error
    return cache


def _stamp_of(cache: Path) -> str | None:
    try:
        metadata = pa_parquet.read_schema(cache).metadata or {}
        return metadata[b"made_from"].decode()
    except (OSError, KeyError, ValueError, pa.ArrowException):
        return None  # missing, damaged, or another file


def read_tracks(path: Path) -> pa.Table:
    """Return track_id, split, subset, genre, artist and album of tracks.csv, in its order."""
    names = _read_header(path, 2)
    flat = [".".join(name) for name in names]
    for name in TRACK_COLUMNS.values():
        if name not in names:
            raise DataError(
                f"{path}: there is no column {name} in its two header rows; is it FMA's tracks.csv?"
            )
    flat[0] = INDEX
    wanted = {column: ".".join(name) for column, name in TRACK_COLUMNS.items()}
    blocks = _read_blocks(
        path, flat, 3, {INDEX: pa.int64(), **{name: pa.string() for name in wanted.values()}}, quoted=True
    )
    table = pa.Table.from_batches(list(blocks))
    return pa.table({INDEX: table[INDEX], **{column: table[name] for column, name in wanted.items()}})


def _write(path: Path, tracks: pa.Table, features: Path, stamp: str) -> None:
    """Join the two tables by track, a block of rows at a time."""
    names = ["_".join(name) for name in _read_header(features, 3)]
    names[0] = INDEX
    _check_features(features, names)
    place = {track: row for row, track in enumerate(tracks[INDEX].to_pylist())}
    columns = [*TRACK_COLUMNS, *FMA518.features]
    schema = pa.schema(
        [
            (INDEX, pa.int64()),
            *((name, pa.string() if name in TRACK_COLUMNS else pa.float32()) for name in columns),
        ],
        metadata={"made_from": stamp},
    )
    unknown = 0
    kinds = {INDEX: pa.int64(), **{name: pa.float32() for name in FMA518.features}}
    with pa_parquet.ParquetWriter(
        path, schema, compression="lz4", use_dictionary=list(TRACK_COLUMNS)
    ) as writer:
        for batch in _read_blocks(features, names, 4, kinds, quoted=False):
            rows = np.array([place.get(track, -1) for track in batch[INDEX].to_pylist()], dtype=np.int64)
            unknown += int((rows < 0).sum())
            known = pa.table(batch).filter(pa.array(rows >= 0))
            said = tracks.take(pa.array(rows[rows >= 0]))
            arrays = [known[INDEX], *((said if name in TRACK_COLUMNS else known)[name] for name in columns)]
            writer.write_table(pa.table(arrays, schema=schema))
    pa.default_memory_pool().release_unused()
    if unknown:
        log.warning("%s: %d tracks are not in tracks.csv and are left out", features, unknown)


def _check_features(path: Path, names: list[str]) -> None:
    missing = [name for name in FMA518.features if name not in set(names)]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of FMA's {len(FMA518.features)} features are missing, such as {missing[0]!r}; is "
            "it FMA's features.csv?"
        )


def _read_header(path: Path, n_rows: int) -> list[tuple[str, ...]]:
    """Return each column's names in the header rows; DataError unless the index row follows them."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = [row for row, _ in zip(csv.reader(stream), range(n_rows + 1), strict=False)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a text file in UTF-8: {error}") from error
    widths = {len(row) for row in rows}
    if len(rows) <= n_rows or len(widths) != 1 or rows[n_rows][0] != INDEX:
        raise DataError(
            f"{path}: expected {n_rows} header rows and a row that begins with {INDEX}, as FMA publishes it; do not "
            "open and save it with a spreadsheet"
        )
    names = list(zip(*rows[:n_rows], strict=True))
    repeated = [a for a, b in pairwise(sorted(names)) if a == b]
    if repeated:
        raise DataError(f"{path}: column {repeated[0]} appears twice")
    return names


def _read_blocks(
    path: Path, names: list[str], n_skipped: int, kinds: dict[str, pa.DataType], quoted: bool
) -> Iterator[pa.RecordBatch]:
    parse = pa_csv.ParseOptions(newlines_in_values=quoted, quote_char='"' if quoted else False)
    try:
        with pa_csv.open_csv(
            path,
            read_options=pa_csv.ReadOptions(column_names=names, skip_rows=n_skipped, block_size=BLOCK_BYTES),
            parse_options=parse,
            convert_options=pa_csv.ConvertOptions(
                column_types=kinds,
                include_columns=list(kinds),
                strings_can_be_null=True,
                null_values=["", "nan", "NaN"],
            ),
        ) as stream:
            yield from stream
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is damaged: {str(error).splitlines()[0]}; download it again") from error
