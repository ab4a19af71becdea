from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from genre_classifier.files.csv_files import format_csv, guard_cell, read_csv, restore_cell
from tests.hostile import HOSTILE_NAMES

FORMULAS = (
    "=1+1", "=cmd|' /C calc'!A0", "+1+1", "-1-1", "-", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", " -x", "\uff1d1",
    "-2x", "+44 1", "'=1", "''@x", "-0x1F", "--1", "-1.5.2", "-1e",
)  # fmt: skip
NUMBERS = ("-0.5", "+3", "-1e-07", "-.5", "1", "0.25", "-inf", "-nan", "-3.")
PLAIN = (
    "Rock",
    "",
    "'Rock",
    "Rock'n'Roll",
    "a=b",
    "x-y",
    "a,b",
    'say "a"',
    "two\nlines",
    "a\rb",
    " lead",
    "'",
    "1-2",
)


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_written_as_text(text: str) -> None:
    assert guard_cell(text) == f"'{text}"
    assert restore_cell(guard_cell(text)) == text


@pytest.mark.parametrize("text", [*NUMBERS, *PLAIN])
def test_numbers_and_other_texts_stay_as_they_are(text: str) -> None:
    assert guard_cell(text) == text
    assert restore_cell(text) == text


@pytest.mark.parametrize("value", [-0.5, -3, 1e-7, float("-inf"), None, True])
def test_values_that_are_no_text_stay_as_they_are(value: object) -> None:
    assert guard_cell(value) is value


def test_every_text_comes_back_and_no_cell_is_a_formula(tmp_path: Path) -> None:
    texts = [*FORMULAS, *NUMBERS, *PLAIN, *HOSTILE_NAMES]
    path = tmp_path / "table.csv"
    path.write_text(format_csv(["=name", "value"], [[text, -0.5] for text in texts]), "utf-8", newline="")
    header, *rows = read_csv(path)
    assert header == ["=name", "value"]
    assert [row[0] for row in rows] == texts
    with path.open(encoding="utf-8", newline="") as stream:
        for line in csv.reader(stream):
            for found in line:
                assert found.lstrip()[:1] not in {"=", "@"}
                assert not found.startswith(("\t", "\r", "\n"))
                if found.lstrip()[:1] in {"+", "-"}:
                    float(found)


def test_half_a_surrogate_pair_is_escaped() -> None:
    assert format_csv(None, [["\udcff.wav"]]) == "\\udcff.wav\n"


def test_lines_end_alike_and_pandas_reads_them() -> None:
    pd = pytest.importorskip("pandas")
    text = format_csv(["a", "b"], [["x\ry", 1], ["z", -2.5]])
    assert text == 'a,b\n"x\ry",1\nz,-2.5\n'
    assert pd.read_csv(io.StringIO(text))["b"].tolist() == [1, -2.5]
