"""Write and read CSV files that are safe to open in a spreadsheet.

A text that starts like a formula (``=1+1``, ``@SUM(...)``, ``-2+cmd``) gets an apostrophe before it, as OWASP's page on
CSV injection advises. Numbers stay numbers. A text that already starts with such apostrophes gets one more, so reading
restores exactly what was written. Other programs read such a text with its apostrophe. Parquet, where a command offers
it, keeps every text unchanged.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from genre_classifier.files.documents import opened

# The characters that start a formula in some spreadsheet, also after blanks and in full-width East Asian form.
_FORMULA = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")
_ESCAPED = re.compile(rf"'{_FORMULA.pattern}")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-](?:inf|nan)", re.ASCII)


def guard_cell(value: Any) -> Any:
    """Return a value for a CSV cell. A text that starts like a formula gets an apostrophe."""
    if not isinstance(value, str) or (value.isascii() and value[:1].isalnum()):
        return value
    # Half a surrogate pair stands for a byte of a file name that is not UTF-8. UTF-8 cannot encode it.
    text = value.encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def restore_cell(text: str) -> str:
    """Return the text that `guard_cell` was given."""
    return text[1:] if _ESCAPED.match(text) else text


def format_csv(header: Sequence[str] | None, rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as CSV.

    Parameters
    ----------
    header : sequence of str or None
        None leaves it out.
    rows : iterable of sequence
    """
    lines = _Lines()
    # Python 3.11 quotes a carriage return only if lines end with one.
    writer = csv.writer(lines, lineterminator="\r\n")
    if header is not None:
        writer.writerow(map(guard_cell, header))
    writer.writerows(map(guard_cell, row) for row in rows)
    return "".join(lines)


class _Lines(list[str]):
    def write(self, line: str) -> None:
        self.append(f"{line.removesuffix(chr(13) + chr(10))}\n")


def read_csv(path: Path) -> Iterator[list[str]]:
    """Yield the rows of a CSV file written by `format_csv`, the header first, each cell as it was.

    Raises
    ------
    OSError, ValueError, csv.Error
        The file cannot be read, is not UTF-8, or is not CSV.
    """
    with opened(path) as file, io.TextIOWrapper(file, encoding="utf-8", newline="") as stream:
        for row in csv.reader(stream):
            yield list(map(restore_cell, row))
