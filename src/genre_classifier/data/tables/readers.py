"""CSV, TSV and Parquet files as blocks of rows: a feature's cells as numbers, any other column's as text.

A block is converted before the next one is read, so that a large file needs little more memory than its features.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from genre_classifier.errors import DataError, GenreClassifierError
from genre_classifier.features.names import normalise
from genre_classifier.files.csv_files import restore_cell
from genre_classifier.files.documents import parse_json

BLOCK_BYTES = 8 << 20
BLOCK_ROWS = 8192
SNIFFED_ROWS = 1000
DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
PARQUET_SUFFIXES = {".parquet", ".pq"}
# What to do if the header splits at this character, not at the one that the suffix stands for.
OTHER_DELIMITERS: Final = {
    ",": "rename it to .csv",
    "\t": "rename it to .tsv",
    ";": "save it with commas between the cells, and with points in the numbers",
    "|": "save it with commas between the cells",
}
# Pandas reads these as missing values. Here spaces around them are allowed.
MISSING: Final = frozenset(
    {
        "",
        "#N/A",
        "#N/A N/A",
        "#NA",
        "-1.#IND",
        "-1.#QNAN",
        "-NaN",
        "-nan",
        "1.#IND",
        "1.#QNAN",
        "<NA>",
        "N/A",
        "NA",
    }
    | {"NULL", "NaN", "None", "n/a", "nan", "null"}
)
# A Parquet file of a kilobyte can hold one value a billion times. Measurements take about a byte each.
CELLS_PER_BYTE = 100
PLAUSIBLE_CELLS = 10_000_000
TEXT_BYTES = (
    256 << 20
)  # of a column's texts in one block; a file of a kilobyte can repeat one text a million times
# From these numbers on, each number of the type is whole.
WHOLE_FLOAT16: Final = 2.0**10
WHOLE_FLOAT32: Final = 2.0**23
WHOLE_FLOAT64: Final = 2.0**52


@dataclass(frozen=True)
class Asked:
    """The requested columns, and their names in messages.

    Parameters
    ----------
    file : str
        The setting or option that names the file.
    features : str
        What names the features.
    setting : str, optional
        The setting that chooses other features, if the source has one.
    """

    file: str
    features: str
    setting: str | None = None

    @property
    def otherwise(self) -> str:
        """The end of a message: the advice to choose other features, if the user can."""
        return "" if self.setting is None else f", or name the features with {self.setting}=[...]"


class Reader(Protocol):
    """Reads one file format: the names of the columns, and the rows in blocks.

    Attributes
    ----------
    names : list of str
        As `normalised` returns them.
    index_names : frozenset of str
        The columns that the file says are the index of a data frame.
    rows_expected : int
        About how many rows there are.
    is_typed : bool
        Whether the file itself says of each column whether it holds numbers.
    """

    is_typed: bool
    names: list[str]
    index_names: frozenset[str]
    rows_expected: int

    def is_number(self, name: str) -> bool:
        """Return whether a column seems to hold numbers, before all rows are read."""

    def is_blank(self, name: str) -> bool:
        """Return whether a column seems to be empty, before all rows are read."""

    def describe_cells(self, name: str) -> str:
        """Return what a column without numbers holds instead: a quoted cell, or the type of all cells."""

    def whole_below(self, name: str) -> float:
        """Return the size below which a whole number in this column is exact, not a rounded one."""

    def blocks(self, features: Sequence[str], texts: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the requested columns, each once: features as numbers (null is missing), then unchanged texts."""

    def row_name(self, row: int) -> str:
        """Return a row's name in messages. The argument counts from 0; ``row 2`` is the first below a CSV's header."""


def open_table(path: Path, asked: Asked) -> Reader:
    """Open a file by its suffix.

    Parameters
    ----------
    path : Path
    asked : Asked

    Raises
    ------
    DataError
        The file is missing, empty or no table.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        raise DataError(f"{path} is a folder; {asked.file} must name a file ({_list_suffixes()})")
    if not path.exists():
        raise DataError(f"{path}: there is no such file; check {asked.file}")
    if suffix not in DELIMITERS and suffix not in PARQUET_SUFFIXES:
        raise DataError(
            f"{path}: {suffix or 'no suffix'} is not a kind of table that can be read ({_list_suffixes()})"
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty")
    return ParquetReader(path) if suffix in PARQUET_SUFFIXES else CsvReader(path, DELIMITERS[suffix], asked)


def _list_suffixes() -> str:
    return ", ".join([*DELIMITERS, *sorted(PARQUET_SUFFIXES)])


@contextmanager
def one_error(path: Path, what: str) -> Iterator[None]:
    """Raise one DataError for any exception of a damaged or unusual file; pyarrow documents no list of them."""
    try:
        yield
    except GenreClassifierError:
        raise
    except MemoryError as error:
        raise DataError(f"{path} needs more memory than there is: {_take_first_line(error)}") from error
    except Exception as error:
        raise DataError(f"{path} {what}: {_take_first_line(error)}") from error


class ParquetReader:
    """A Parquet file."""

    is_typed = True

    def __init__(self, path: Path) -> None:
        self.path = path
        with one_error(path, "is not a Parquet file"):
            self.schema = pa_parquet.read_schema(path)
            # A dictionary has each text once, even if the file repeats it.
            texts = [field.name for field in self.schema if _is_string(field.type) or _is_binary(field.type)]
            self.file = pa_parquet.ParquetFile(path, pre_buffer=False, read_dictionary=texts)
            self.own_names = list(self.schema.names)
            self.names = [normalise(name) for name in self.own_names]
            self.rows_expected = self.file.metadata.num_rows
        self.index_names = _find_pandas_index(self.schema.metadata or {})
        cells, size = self.rows_expected * len(self.names), path.stat().st_size
        if cells > max(PLAUSIBLE_CELLS, CELLS_PER_BYTE * size):
            raise DataError(
                f"{path}: {self.rows_expected} rows of {len(self.names)} columns in a file of {size} bytes are no "
                "measurements, but would fill the memory; the file is damaged or made to do so"
            )

    def _type(self, name: str) -> pa.DataType:
        return self.schema.field(self.names.index(name)).type

    def is_number(self, name: str) -> bool:
        kind = self._type(name)
        is_one = (pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal, pa.types.is_null)
        return any(check(kind) for check in is_one)

    def is_blank(self, name: str) -> bool:
        return bool(pa.types.is_null(self._type(name)))

    def describe_cells(self, name: str) -> str:
        return _format_cell(str(self._type(name)), quoted=False)

    def whole_below(self, name: str) -> float:
        kind = self._type(name)
        if not pa.types.is_floating(kind):
            return math.inf
        return {16: WHOLE_FLOAT16, 32: WHOLE_FLOAT32, 64: WHOLE_FLOAT64}[kind.bit_width]

    def blocks(self, features: Sequence[str], texts: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for name in texts:
            if pa.types.is_nested(self._type(name)):
                raise DataError(
                    f"{self.path}: column {name!r} holds {self._type(name)}, not text; name another column"
                )
        own = dict(zip(self.names, self.own_names, strict=True))
        names = [*features, *texts]
        rows = 0
        with one_error(self.path, "is damaged"):
            for batch in self.file.iter_batches(batch_size=BLOCK_ROWS, columns=[own[name] for name in names]):
                columns = [batch.column(batch.schema.get_field_index(own[name])) for name in names]
                cells = [
                    self._text(column, name, rows)
                    for column, name in zip(columns[len(features) :], names[len(features) :], strict=True)
                ]
                yield pa.record_batch([*columns[: len(features)], *cells], names=names)
                rows += batch.num_rows

    def _text(self, column: pa.Array, name: str, rows: int) -> pa.Array:
        """Return the trimmed cells of a text column, with null for blanks. Text in an unknown encoding is an error."""
        if pa.types.is_dictionary(column.type):
            texts = column.dictionary
            if _is_string(texts.type) or _is_binary(texts.type):
                longest = pc.max(pc.binary_length(texts)).as_py() or 0
                if longest * len(column) > TEXT_BYTES:
                    raise DataError(
                        f"{self.path}, column {name!r}: a text of {longest:,} bytes stands in many rows; that is no "
                        "name, but would fill the memory"
                    )
            column = column.dictionary_decode()
        kind = column.type
        if _is_binary(kind):
            column = column.cast(pa.large_binary()).cast(pa.large_string(), safe=False)
        elif not _is_string(kind):
            return column
        elif pa.types.is_string_view(kind):
            column = column.cast(pa.large_string())
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            bad = next(row for row in range(len(column)) if not _is_utf8(column[row]))
            raise DataError(
                f"{self.path}, {self.row_name(rows + bad)}, column {name!r}: the text is not UTF-8, so the file is "
                "damaged or was written with another encoding; write it again"
            ) from error
        return _null_blanks(column)

    def row_name(self, row: int) -> str:
        return f"row {row + 1}"


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    )


def _is_utf8(cell: pa.Scalar) -> bool:
    try:
        cell.as_py()
    except UnicodeDecodeError:
        return False
    return True


def _find_pandas_index(metadata: dict[bytes, bytes]) -> frozenset[str]:
    """Return the columns that are the index according to pandas; none if its metadata is not readable."""
    try:
        columns = parse_json(metadata[b"pandas"], "pandas' metadata", DataError)["index_columns"]
        return frozenset(normalise(name) for name in columns if isinstance(name, str))
    except (DataError, KeyError, TypeError):
        return frozenset()


class CsvReader:
    """A text file with a header, split at one character."""

    is_typed = False

    def __init__(self, path: Path, delimiter: str, asked: Asked) -> None:
        self.path = path
        self.asked = asked
        self.parse = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
        self.index_names = frozenset[str]()
        try:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                rows = csv.reader(stream, delimiter=delimiter)
                header = next(rows, [])
                self.sniffed = list(islice(rows, SNIFFED_ROWS))
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path} is not a text file in UTF-8: {error.reason} at byte {error.start}; save it as CSV in UTF-8"
            ) from error
        except (csv.Error, OSError) as error:
            raise DataError(f"{path} is not a table: {_take_first_line(error)}") from error
        if any("\0" in cell for row in (header, *self.sniffed) for cell in row):
            raise DataError(f"{path} is not a text file: it holds NUL bytes; save it as CSV in UTF-8")
        # A column without a name gets pandas' name, so that two such columns have different names.
        self.names = [
            normalise(restore_cell(name)) or f"Unnamed: {position}" for position, name in enumerate(header)
        ]
        self._cells: dict[str, list[str]] = {}
        self._check_widths()
        self.rows_expected = self._rows_expected()

    def _rows_expected(self) -> int:
        # From the size of the first rows; the matrix grows or is cut where the rest is shorter or longer.
        sniffed = sum(len(cell.encode()) + 1 for row in self.sniffed for cell in row)
        return int(self.path.stat().st_size / max(sniffed, 1) * len(self.sniffed)) + 1

    def _check_widths(self) -> None:
        if len(self.names) < 2:
            header = self.names[0] if self.names else ""
            other = max(OTHER_DELIMITERS, key=header.count)
            split = f"{self.path} is not a table: its first line has {_count_columns(len(self.names))} when split at "
            if other in header:
                raise DataError(
                    f"{split}{self.parse.delimiter!r}, but {_count_columns(header.count(other) + 1)} when split at "
                    f"{other!r}; {OTHER_DELIMITERS[other]}"
                )
            raise DataError(
                f"{split}{self.parse.delimiter!r}; expected a header with a label and features, in {_list_suffixes()} "
                "(.csv is split at commas, .tsv and .txt at tabs)"
            )
        widths = {len(row) for row in self.sniffed if row}
        if widths == {len(self.names) + 1}:
            raise DataError(
                f"{self.path}, row 2 and all that were looked at: {len(self.names) + 1} cells, but the header has "
                f"{len(self.names)}; name the first column in the header if it holds row names (R: col.names=NA), or "
                "remove the delimiter at the end of the rows"
            )
        for number, row in enumerate(self.sniffed):
            self._check_width(number, row)

    def _check_width(self, number: int, row: list[str]) -> None:
        if row and len(row) != len(self.names):
            raise DataError(
                f"{self.path}, row {number + 2}: {len(row)} cells, but the header has {len(self.names)}; "
                "correct the row"
            )

    def _filled(self, name: str) -> list[str]:
        if name not in self._cells:
            position = self.names.index(name)
            cells = (row[position].strip() for row in self.sniffed if row)
            self._cells[name] = [cell for cell in cells if cell not in MISSING]
        return self._cells[name]

    def is_number(self, name: str) -> bool:
        """Most of the filled cells of the first rows are numbers."""
        filled = self._filled(name)
        return not filled or sum(_number(cell) is not None for cell in filled) > len(filled) / 2

    def is_blank(self, name: str) -> bool:
        return bool(self.sniffed) and not self._filled(name)

    def describe_cells(self, name: str) -> str:
        return _format_cell(next(cell for cell in self._filled(name) if _number(cell) is None))

    def whole_below(self, name: str) -> float:
        # A number with a point or exponent may have been a float32.
        return WHOLE_FLOAT32 if any(set(cell) & set(".eE") for cell in self._filled(name)) else math.inf

    def blocks(self, features: Sequence[str], texts: Sequence[str]) -> Iterator[pa.RecordBatch]:
        given = 0
        try:
            for batch in self._stream({name: pa.float64() for name in features}, texts):
                yield batch
                given += batch.num_rows
        except pa.ArrowInvalid:
            # A cell is blank or no number. Arrow does not say which, so each cell is checked.
            rows = 0
            for batch in self._converted(features, texts):
                rows += batch.num_rows
                if rows > given:
                    yield batch.slice(max(0, given - (rows - batch.num_rows)))

    def _stream(self, kinds: dict[str, pa.DataType], texts: Sequence[str]) -> Iterator[pa.RecordBatch]:
        names = [*kinds, *texts]
        with pa_csv.open_csv(
            self.path,
            read_options=pa_csv.ReadOptions(
                block_size=BLOCK_BYTES, column_names=self.names, skip_rows=1, use_threads=True
            ),
            parse_options=self.parse,
            convert_options=pa_csv.ConvertOptions(
                column_types={name: pa.string() for name in texts} | kinds,
                include_columns=names,
                null_values=sorted(MISSING),
                strings_can_be_null=True,
            ),
        ) as stream:
            for batch in stream:
                columns = batch.columns
                yield pa.record_batch(
                    [*columns[: len(kinds)], *map(_restore_originals, columns[len(kinds) :])], names=names
                )

    def _converted(self, features: Sequence[str], texts: Sequence[str]) -> Iterator[pa.RecordBatch]:
        names = [*features, *texts]
        rows = 0
        try:
            for batch in self._stream({name: pa.string() for name in features}, texts):
                columns = batch.columns
                for position, name in enumerate(features):
                    columns[position] = self._numbers(columns[position], name, rows)
                yield pa.record_batch(columns, names=names)
                rows += batch.num_rows
        except pa.ArrowInvalid as error:
            self._explain(names, error)

    def _numbers(self, column: pa.Array, name: str, rows: int) -> pa.Array:
        trimmed = _null_blanks(column)
        try:
            return trimmed.cast(pa.float64())
        except pa.ArrowInvalid:
            numbers = [None if cell is None else _number(cell) for cell in trimmed.to_pylist()]
            for row, (cell, number) in enumerate(zip(trimmed.to_pylist(), numbers, strict=True)):
                if cell is not None and number is None:
                    raise DataError(
                        f"{self.path}, {self.row_name(rows + row)}, column {name!r}: {_format_cell(cell)} is not a "
                        f"number; correct it{self.asked.otherwise}"
                    ) from None
            return pa.array(numbers, pa.float64())

    def _explain(self, names: Sequence[str], error: Exception) -> None:
        """Raise DataError with the row at which arrow stopped."""
        positions = [(self.names.index(name), name) for name in names]
        for number, row in enumerate(self._rows()):
            self._check_width(number, row)
            for position, name in positions:
                if row and not row[position].isascii() and not _can_encode(row[position]):
                    raise DataError(
                        f"{self.path}, row {number + 2}, column {name!r}: the text is not UTF-8; save the file as CSV "
                        "in UTF-8"
                    ) from error
        raise DataError(f"{self.path} is not a table: {_take_first_line(error)}") from error

    def _rows(self) -> Iterator[list[str]]:
        """Yield the rows below the header, also blank lines. Bytes that are no text become surrogates."""
        with self.path.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as stream:
            rows = csv.reader(stream, delimiter=self.parse.delimiter)
            try:
                yield from islice(rows, 1, None)
            except csv.Error as error:
                raise DataError(f"{self.path}, line {rows.line_num}: {_take_first_line(error)}") from error

    def row_name(self, row: int) -> str:
        # Blank lines are no rows of data, but users count them.
        filled = (number for number, cells in enumerate(self._rows(), start=2) if cells)
        return f"row {next(islice(filled, row, None), row + 2)}"


def _null_blanks(column: pa.Array) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(column)
    missing = pa.array(sorted(MISSING), column.type)
    return pc.if_else(pc.is_in(trimmed, value_set=missing), None, trimmed)


def _restore_originals(column: pa.Array) -> pa.Array:
    """Return texts without the apostrophe that protects them from a spreadsheet, and null for blanks."""
    trimmed = _null_blanks(column)
    if not pc.any(pc.starts_with(trimmed, "'")).as_py():
        return trimmed
    return pa.array([cell and restore_cell(cell) for cell in trimmed.to_pylist()], pa.string())


def _number(cell: str) -> float | None:
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _format_cell(cell: str, *, quoted: bool = True) -> str:
    shown = cell if len(cell) <= 60 else f"{cell[:57]}..."
    return repr(shown) if quoted else shown


def _count_columns(number: int) -> str:
    return "1 column" if number == 1 else f"{number} columns"


def _can_encode(cell: str) -> bool:
    try:
        cell.encode()
    except UnicodeEncodeError:
        return False
    return True


def _take_first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
