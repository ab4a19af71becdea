"""Columns of a CSV, TSV or Parquet file: features as float32, everything else as text, a block of rows at a time.

A block is converted before the next one is read, so that a large file needs little more memory than its features.
"""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from genre_classifier.csv_files import original
from genre_classifier.data.table import Float32
from genre_classifier.errors import DataError

log = logging.getLogger(__name__)

BLOCK_BYTES = 8 << 20
BLOCK_ROWS = 8192
SNIFFED_ROWS = 1000
DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
PARQUET_SUFFIXES = {".parquet", ".pq"}
NULLS = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]


@dataclass(frozen=True)
class Columns:
    """A file's columns.

    Parameters
    ----------
    features : np.ndarray [shape=(row, feature), dtype=float32]
        An empty cell is NaN.
    feature_names : list of str
    texts : dict of str to list
        The columns asked for by name, one value or None a row.
    first_row : int
        What a person calls the first row of data: 2 below a CSV header, 1 in Parquet.
    """

    features: Float32
    feature_names: list[str]
    texts: dict[str, list[Any]]
    first_row: int


def read_columns(path: Path, texts: dict[str, str], features: Sequence[str] | None = None) -> Columns:
    """Read a table.

    Parameters
    ----------
    path : Path
        ``.csv``, ``.tsv``, ``.txt`` (tabs), ``.parquet`` or ``.pq``.
    texts : dict of str to str
        The configuration key and the column it names, for each column to read as text, as in
        ``{"data.label": "genre"}``.
    features : sequence of str, optional
        The feature columns; all remaining numeric columns if not given.

    Raises
    ------
    DataError
        The file is missing, empty or no table, a column is missing or repeated, or a feature is not a number.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise DataError(f"{path}: there is no such file; check data.path")
    if path.is_dir():
        raise DataError(f"{path} is a folder; data.path must name a file ({_suffixes()})")
    if suffix not in DELIMITERS and suffix not in PARQUET_SUFFIXES:
        raise DataError(
            f"{path}: {suffix or 'no suffix'} is not a kind of table that can be read ({_suffixes()})"
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty")
    reader: _Parquet | _Csv = _Parquet(path) if suffix in PARQUET_SUFFIXES else _Csv(path, DELIMITERS[suffix])
    _check_header(path, reader.names, texts, features)
    wanted = _choose_features(path, reader, set(texts.values()), features)
    text_names = list(dict.fromkeys(texts.values()))
    matrix, columns = _convert(reader, wanted, text_names)
    return Columns(matrix, wanted, columns, reader.first_row)


def _suffixes() -> str:
    return ", ".join([*DELIMITERS, *sorted(PARQUET_SUFFIXES)])


class _Parquet:
    first_row = 1

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.file = pa_parquet.ParquetFile(path, pre_buffer=False)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path} is not a Parquet file: {_first_line(error)}") from error
        self.schema = self.file.schema_arrow  # made anew at every asking
        self.names = list(self.schema.names)
        self.rows_expected = self.file.metadata.num_rows

    def is_number(self, name: str) -> bool:
        kind = self.schema.field(name).type
        return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)

    def blocks(self, features: Sequence[str], texts: Sequence[str]) -> Iterator[pa.RecordBatch]:
        names = list(dict.fromkeys([*features, *texts]))
        try:
            yield from self.file.iter_batches(batch_size=BLOCK_ROWS, columns=names)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{self.path} is damaged: {_first_line(error)}") from error


class _Csv:
    first_row = 2

    def __init__(self, path: Path, delimiter: str) -> None:
        self.path = path
        self.parse = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
        try:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                rows = csv.reader(stream, delimiter=delimiter)
                self.names = [original(name.strip()) for name in next(rows, [])]
                self.sniffed = [row for row, _ in zip(rows, range(SNIFFED_ROWS), strict=False)]
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path} is not a text file in UTF-8: {error.reason} at byte {error.start}"
            ) from error
        except csv.Error as error:
            raise DataError(f"{path} is not a table: {error}") from error
        self._check_widths()
        self.rows_expected = self._rows_expected()

    def _rows_expected(self) -> int:
        # From the size of the first rows; the matrix grows or is cut where the rest is shorter or longer.
        sniffed = sum(len(cell.encode()) + 1 for row in self.sniffed for cell in row)
        return int(self.path.stat().st_size / max(sniffed, 1) * len(self.sniffed)) + 1

    def _check_widths(self) -> None:
        if len(self.names) < 2:
            raise DataError(
                f"{self.path} is not a table: its first line has {len(self.names)} column(s) when split at "
                f"{self.parse.delimiter!r}; expected a header with a label and features"
            )
        for number, row in enumerate(self.sniffed, start=self.first_row):
            if row and len(row) != len(self.names):
                raise DataError(
                    f"{self.path}, row {number}: {len(row)} cells, but the header has {len(self.names)}; "
                    "correct the row"
                )

    def is_number(self, name: str) -> bool:
        """Most of the filled cells of the first rows are numbers."""
        position = self.names.index(name)
        cells = [row[position].strip() for row in self.sniffed if row]
        filled = [cell for cell in cells if cell not in NULLS]
        return not filled or sum(map(_reads_as_number, filled)) > len(filled) / 2

    def blocks(self, features: Sequence[str], texts: Sequence[str]) -> Iterator[pa.RecordBatch]:
        kinds = {name: pa.string() for name in texts} | {name: pa.float32() for name in features}
        try:
            with pa_csv.open_csv(
                self.path,
                read_options=pa_csv.ReadOptions(
                    block_size=BLOCK_BYTES, column_names=self.names, skip_rows=1, use_threads=True
                ),
                parse_options=self.parse,
                convert_options=pa_csv.ConvertOptions(
                    column_types=kinds,
                    include_columns=list(dict.fromkeys([*features, *texts])),
                    null_values=NULLS,
                    strings_can_be_null=True,
                ),
            ) as stream:
                yield from stream
        except pa.ArrowInvalid as error:
            self._explain(features, error)

    def _explain(self, features: Sequence[str], error: Exception) -> None:
        # Arrow's message has no row, so the first cell that is no number is looked for again, slowly.
        with self.path.open(encoding="utf-8-sig", newline="", errors="replace") as stream:
            rows = csv.reader(stream, delimiter=self.parse.delimiter)
            next(rows)
            positions = [(self.names.index(name), name) for name in features]
            for number, row in enumerate(rows, start=self.first_row):
                if row and len(row) != len(self.names):
                    raise DataError(
                        f"{self.path}, row {number}: {len(row)} cells, but the header has {len(self.names)}; "
                        "correct the row"
                    ) from error
                for position, name in positions:
                    if row and (cell := row[position].strip()) not in NULLS and not _reads_as_number(cell):
                        raise DataError(
                            f"{self.path}, row {number}, column {name!r}: {cell!r} is not a number; correct it, "
                            "or name the feature columns with data.features=[...]"
                        ) from error
        raise DataError(f"{self.path} is not a table: {_first_line(error)}") from error


def _reads_as_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _check_header(
    path: Path, names: list[str], texts: dict[str, str], features: Sequence[str] | None
) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(
            f"{path}: column {repeated[0]!r} appears {Counter(names)[repeated[0]]} times; rename or remove"
        )
    for key, name in texts.items():
        if name not in names:
            raise DataError(f"{path}: there is no column {name!r} ({key}={name}); it has {_listed(names)}")
    for name in features or ():
        if name not in names:
            raise DataError(f"{path}: there is no column {name!r} (data.features); it has {_listed(names)}")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:30])
    return shown + (f" and {len(names) - 30} more" if len(names) > 30 else "")


def _choose_features(
    path: Path, reader: _Parquet | _Csv, taken: set[str], features: Sequence[str] | None
) -> list[str]:
    if features is not None:
        if not features:
            raise DataError("data.features=[] selects nothing; name one or more columns, or null for all")
        repeated = [name for name, count in Counter(features).items() if count > 1]
        if repeated:
            raise DataError(f"data.features names {repeated[0]!r} twice")
        used = [name for name in features if name in taken]
        if used:
            raise DataError(f"data.features names {used[0]!r}, which is the label, group, id or split column")
        not_numeric = [
            name for name in features if isinstance(reader, _Parquet) and not reader.is_number(name)
        ]
        if not_numeric:
            raise DataError(f"{path}: column {not_numeric[0]!r} (data.features) does not hold numbers")
        return list(features)
    rest = [name for name in reader.names if name not in taken]
    numeric = [name for name in rest if reader.is_number(name)]
    ignored = [name for name in rest if name not in numeric]
    if ignored:
        log.warning("%s: not numeric and so not used as features: %s", path, _listed(ignored))
    if not numeric:
        raise DataError(f"{path}: no numeric column is left to be a feature; it has {_listed(reader.names)}")
    return numeric


def _convert(
    reader: _Parquet | _Csv, features: list[str], texts: list[str]
) -> tuple[Float32, dict[str, list[Any]]]:
    matrix = np.empty((reader.rows_expected, len(features)), dtype=np.float32)
    columns: dict[str, list[Any]] = {name: [] for name in texts}
    filled = 0
    for batch in reader.blocks(features, texts):
        end = filled + batch.num_rows
        if end > len(matrix):
            # In place, so that growing never holds the table twice.
            matrix.resize((max(end, len(matrix) * 5 // 4), len(features)), refcheck=False)
        for position, name in enumerate(features):
            values = batch.column(batch.schema.get_field_index(name))
            if pa.types.is_decimal(values.type):
                values = values.cast(pa.float64())
            with np.errstate(over="ignore"):  # a number too large becomes infinity, which the table refuses
                matrix[filled:end, position] = values.to_numpy(zero_copy_only=False)
        for name in texts:
            found = batch.column(batch.schema.get_field_index(name)).to_pylist()
            if isinstance(reader, _Csv):  # it may be a table that this project wrote
                found = [cell and original(cell) for cell in found]
            columns[name].extend(found)
        filled = end
        del batch, values
        pa.default_memory_pool().release_unused()
    matrix.resize((filled, len(features)), refcheck=False)
    return matrix, columns
