"""What people's tables look like, and what is left of them after an accident."""

import gzip
import random
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genre_classifier.data.tables.columns import Columns, read_columns
from genre_classifier.data.tables.readers import MISSING, Asked, open_table
from genre_classifier.errors import DataError
from genre_classifier.features.output import read_feature_set

N = 40
RNG = np.random.default_rng(0)
COLUMNS: dict[str, Any] = {
    "genre": ["a", "b"] * (N // 2),
    "artist": [f"x{row // 2}" for row in range(N)],
    "f0": RNG.normal(size=N),
    "f1": RNG.normal(size=N),
}
TEXT = pd.DataFrame(COLUMNS).to_csv(index=False)
LONG = TEXT + "".join(f"a,x{row},{row % 7},2.5\n" for row in range(2000))
LAST = 2 + N + 2000  # the row below LONG


def columns_of(path: Path, features: list[str] | None = None) -> Columns:
    return read_columns(path, {"data.label": "genre", "data.group": "artist"}, features)


def written(folder: Path, **columns: Any) -> Path:
    pq.write_table(pa.table({**COLUMNS, **columns}), folder / "m.parquet")
    return folder / "m.parquet"


@pytest.mark.parametrize("cell", [*sorted(MISSING), "   ", "\t", " NA ", "  nan"])
@pytest.mark.parametrize("small_blocks", [False, True])
def test_a_blank_cell_is_a_missing_value(
    tmp_path: Path, cell: str, small_blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small_blocks:
        monkeypatch.setattr("genre_classifier.data.tables.readers.BLOCK_BYTES", 500)
    (tmp_path / "m.csv").write_text(TEXT + f"a,y,{cell}, 1.5 \nb,{cell},-2,3\n")
    found = columns_of(tmp_path / "m.csv")
    assert found.feature_names == ["f0", "f1"]
    np.testing.assert_array_equal(found.features[-2:], np.array([[np.nan, 1.5], [-2, 3]], np.float32))
    np.testing.assert_array_equal(found.features[:-2, 0], COLUMNS["f0"].astype(np.float32))
    assert found.texts["data.group"][-2:] == ["y", None]


@pytest.mark.parametrize("cell", ["+1.5", "1.5e0", "15E-1", " 1.5", "1.50"])
def test_whatever_reads_as_a_number_is_one(tmp_path: Path, cell: str) -> None:
    (tmp_path / "m.csv").write_text(TEXT + f"a,y, ,{cell}\n")
    assert columns_of(tmp_path / "m.csv").features[-1, 1] == 1.5


@pytest.mark.parametrize("commas", [",", ",,,", ", ,", ",NA,"])
def test_empty_columns_are_left_out_with_a_warning(
    tmp_path: Path, commas: str, caplog: pytest.LogCaptureFixture
) -> None:
    header, *rows = TEXT.splitlines()
    lines = [header + "," * commas.count(","), *(row + commas for row in rows)]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    found = columns_of(tmp_path / "m.csv")
    assert found.feature_names == ["f0", "f1"]
    np.testing.assert_array_equal(found.features[:, 1], COLUMNS["f1"].astype(np.float32))
    assert "empty in every row and so left out of the features: Unnamed: 4" in caplog.text


@pytest.mark.parametrize("empty", [pa.nulls(N), pa.nulls(N, pa.float64()), np.full(N, np.nan)])
def test_empty_columns_of_parquet_are_left_out(
    tmp_path: Path, empty: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, e=empty, z=COLUMNS["f0"])
    found = columns_of(path)
    assert found.feature_names == ["f0", "f1", "z"]
    np.testing.assert_array_equal(found.features[:, 2], COLUMNS["f0"].astype(np.float32))
    assert "empty in every row and so left out of the features: e" in caplog.text
    with pytest.raises(
        DataError, match=r"column 'e' \(data.features\) is empty in every row; fill it in, or name"
    ):
        columns_of(path, ["f0", "e"])


def test_rows_are_counted_as_a_person_counts_them(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('genre,artist,f0,f1\na,"two\nlines",1,2\n\n\nb,y,3,4\n')
    found = columns_of(tmp_path / "m.csv")
    assert [found.row_name(row) for row in range(2)] == ["row 2", "row 5"]


@pytest.mark.parametrize(
    "columns",
    [
        {"f1": pa.array([Decimal(row % 5) for row in range(N)])},
        {"f1": pa.array([Decimal(row % 5) for row in range(N)], pa.decimal256(60, 3))},
        {"f1": pa.array([row % 5 for row in range(N)], pa.uint8())},
        {"f1": pa.array(np.array([row % 5 for row in range(N)], np.float16))},
        {"genre": pa.array(COLUMNS["genre"]).dictionary_encode(), "f1": [row % 5 for row in range(N)]},
        {"genre": pa.array([b"a", b"b"] * (N // 2)), "f1": [row % 5 for row in range(N)]},
        {"genre": pa.array([" a", "b "] * (N // 2), pa.large_string()), "f1": [row % 5 for row in range(N)]},
        {"genre": pa.array(COLUMNS["genre"], pa.string_view()), "f1": [row % 5 for row in range(N)]},
    ],
)
def test_any_kind_of_number_or_text_is_read(tmp_path: Path, columns: dict[str, Any]) -> None:
    found = columns_of(written(tmp_path, **columns))
    np.testing.assert_array_equal(found.features[:, 1], np.arange(N) % 5)
    assert found.texts["data.label"] == COLUMNS["genre"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([date(2000, 1, 1)] * N),
        pa.array([True, False] * (N // 2)),
        pa.array([{"f0": 1.0}] * N),
        pa.array([[1.0]] * N),
        pa.array(["1.0"] * N),
    ],
)
def test_what_is_no_number_is_no_feature(
    tmp_path: Path, column: pa.Array, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, x=column)
    assert columns_of(path).feature_names == ["f0", "f1"]
    assert "not numeric and so not used as features: x (" in caplog.text
    with pytest.raises(DataError, match=r"column 'x' \(data.features\) does not hold numbers"):
        columns_of(path, ["f0", "x"])


def _broken_text(last: bytes = b"\xff") -> pa.Array:
    """Return a text column whose last cell is no UTF-8, as a damaged page leaves it."""
    return pa.StringArray.from_buffers(N, *pa.array([b"a"] * (N - 1) + [last]).buffers()[1:])


@pytest.mark.parametrize(
    "column",
    [
        _broken_text(),
        pa.array([b"a"] * (N - 1) + [b"\xff"]),
        _broken_text(b"\xed\xa0\x80").dictionary_encode(),
    ],
)
def test_damaged_text_in_parquet_is_one_error(tmp_path: Path, column: pa.Array) -> None:
    with pytest.raises(DataError, match=r"m.parquet, row 40, column 'genre': the text is not UTF-8"):
        columns_of(written(tmp_path, genre=column))
    assert columns_of(written(tmp_path, unused=column)).feature_names == ["f0", "f1"]


def test_a_small_file_of_very_many_rows_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genre_classifier.data.tables.readers.PLAUSIBLE_CELLS", 1000)
    rows = 500_000
    columns = {"genre": pa.repeat("a", rows), "artist": pa.repeat("x", rows), "f0": pa.repeat(1.0, rows)}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    with pytest.raises(
        DataError, match=r"500000 rows of 3 columns in a file of \d+ bytes are no measurements"
    ):
        columns_of(tmp_path / "m.parquet")


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(), pa.large_string()])
@pytest.mark.parametrize("with_dictionary", [True, False])
def test_a_long_text_that_a_small_file_repeats_is_refused(
    tmp_path: Path, kind: pa.DataType, with_dictionary: bool
) -> None:
    """A few kilobytes stand for 1.5 GB."""
    text, rows = pa.array(["r" * 300_000], kind), 5_000
    once = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), text)
    table = pa.table({"genre": once, "f0": np.arange(rows) % 7.0})
    options = {"use_dictionary": ["genre"]} if with_dictionary else {"use_dictionary": False}
    pq.write_table(table, tmp_path / "m.parquet", compression="zstd", store_schema=False, **options)
    reader = open_table(tmp_path / "m.parquet", Asked("data.path", "data.features"))
    with pytest.raises(DataError, match="column 'genre': a text of 300,000 bytes stands in many rows"):
        list(reader.blocks(["f0"], ["genre"]))


def test_a_label_of_lists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"column 'genre' holds list<.*>, not text"):
        columns_of(written(tmp_path, genre=[["a"], ["b"]] * (N // 2)))


def test_pandas_metadata_that_is_none_is_passed_over(tmp_path: Path) -> None:
    for metadata in (b"", b"[1]", b'{"index_columns": 3}', b'{"index_columns": [{}]}', b"[" * 100_000):
        pq.write_table(
            pa.table(COLUMNS).replace_schema_metadata({b"pandas": metadata}), tmp_path / "m.parquet"
        )
        assert columns_of(tmp_path / "m.parquet").feature_names == ["f0", "f1"]


def test_a_damaged_parquet_file_is_one_error_or_a_table(tmp_path: Path) -> None:
    whole = written(tmp_path).read_bytes()
    path = tmp_path / "damaged.parquet"
    chance = random.Random(0)
    messages, tables = [], 0
    for number in range(300):
        damaged = bytearray(whole[: chance.randrange(len(whole))] if number % 10 == 0 else whole)
        for _ in range(chance.choice([1, 2, 20])):
            if damaged:
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            columns_of(path)
            tables += 1
        except DataError as error:
            messages.append(str(error))
    assert tables
    assert len(messages) > 100
    assert all(message.startswith(str(path)) and "\n" not in message for message in messages)


TEXTS: dict[str, tuple[bytes, str]] = {
    "UTF-16": (TEXT.encode("utf-16"), "is not a text file in UTF-8: .* save it as CSV in UTF-8"),
    "UTF-16 without a mark": (TEXT.encode("utf-16-le"), "it holds NUL bytes; save it as CSV in UTF-8"),
    "Latin-1": (TEXT.replace("x3", "é").encode("latin-1"), "is not a text file in UTF-8"),
    "Latin-1 late": (
        f"{LONG}b,é,1,2\n".encode("latin-1"),
        f"row {LAST}, column 'artist': the text is not UTF-8",
    ),
    "gzip": (gzip.compress(TEXT.encode()), "is not a text file in UTF-8"),
    "semicolons": (
        TEXT.replace(",", ";").encode(),
        "its first line has 1 column when split at ',', but 4 columns when split at ';'; save it with commas",
    ),
    "tabs": (TEXT.replace(",", "\t").encode(), r"but 4 columns when split at '\\t'; rename it to .tsv"),
    "one column": (TEXT.replace(",", "").encode(), "has 1 column when split at ','; expected a header with"),
    "decimal commas": (
        b'genre,artist,f0,f1\na,x,"1,5","-2,25"\nb,y,"2,0","0,5"\n',
        r"not numeric: f0 \('1,5'\), f1 \('-2,25'\); write numbers with a point and without commas",
    ),
    "commas between thousands": (
        b'genre,artist,f0,f1\na,x,"1,234.5","12,345,678"\n',
        r"f0 \('1,234.5'\), f1 \('12,345,678'\); write numbers with a point and without commas",
    ),
    "words with commas": (b'genre,artist,f0\na,x,"1,x"\nb,y,"2,y"\n', r"f0 \('1,x'\)$"),
    "blank lines": (b"\n\n\n", "is not a table: its first line has 0 columns when split at ','; expected"),
    "two columns of one name": (TEXT.replace("f1", " f0").encode(), "column 'f0' appears 2 times"),
    "too few cells": (f"{LONG}b,y,1\n".encode(), f"row {LAST}: 3 cells, but the header has 4"),
    "a comma at the end of each row only": (
        TEXT.replace("\n", ",\n").replace(",\n", "\n", 1).encode(),
        "row 2 and all that were looked at: 5 cells, .* or remove the delimiter at the end of the rows",
    ),
    "R's row names without a header": (
        TEXT.replace("\n", "\n1,").removesuffix("1,").encode(),
        "row 2 and all that were looked at: 5 cells, .* name the first column in the header",
    ),
    "an open quote": (f'{LONG}b,"y,1,2\n'.encode(), f"row {LAST}: 2 cells"),
    "an open quote and much text": (f'{TEXT}b,"y,1,2\n{LONG * 5}'.encode(), "field larger than field limit"),
    "text among numbers": (
        f"{LONG}b,y,1,loud\n".encode(),
        f"row {LAST}, column 'f1': 'loud' is not a number; correct",
    ),
    "text among numbers and blanks": (
        f"{LONG}b,y, ,l\n".encode(),
        f"row {LAST}, column 'f1': 'l' is not a number",
    ),
    "NUL among numbers": (f"{LONG}b,y,1,\0\n".encode(), f"row {LAST}, column 'f1': .* is not a number"),
    "a long cell among numbers": (
        f"{LONG}b,y,1,{'z' * 999}\n".encode(),
        f"row {LAST}, column 'f1': 'z+\\.\\.\\.'",
    ),
}


@pytest.mark.parametrize("kind", list(TEXTS))
def test_an_odd_text_file_is_one_error_that_says_where(tmp_path: Path, kind: str) -> None:
    content, message = TEXTS[kind]
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        columns_of(tmp_path / "m.csv")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(
    "error", [MemoryError("malloc"), pa.ArrowKeyError("x"), OSError(5, "I/O"), OverflowError(), KeyError()]
)
def test_whatever_the_parquet_library_raises_is_one_error(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    path = written(tmp_path)
    for name in ("ParquetFile", "ParquetFile.iter_batches"):
        with monkeypatch.context() as patch:
            patch.setattr(f"pyarrow.parquet.{name}", fail)
            with pytest.raises(
                DataError, match=r"m.parquet (is not a Parquet file|is damaged|needs more memory)"
            ):
                columns_of(path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[1]",
        '"x"',
        "{",
        '{"feature_set": "x", "feature_set_version": 1e999, "feature_set_parameters": "{}"}',
    ]
    + [
        f'{{"feature_set": "x", "feature_set_version": 1, "feature_set_parameters": {value}}}'
        for value in ("1", '"1"', f'"{"[" * 100_000}"')
    ],
)
def test_a_file_beside_the_table_that_is_damaged_is_one_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.csv").write_text(TEXT)
    (tmp_path / "m.csv.json").write_text(text)
    with pytest.raises(
        DataError,
        match=r"m.csv(.json: cannot be read as JSON|.json is not a JSON object|: its metadata does not say how)",
    ):
        read_feature_set(tmp_path / "m.csv")
