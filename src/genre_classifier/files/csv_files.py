"""Write and read CSV files. A spreadsheet that opens one calculates nothing.

A text that starts as a formula does (``=1+1``, ``@SUM(...)``, ``-2+cmd``) gets an apostrophe before it, as OWASP's page
on CSV injection has it; numbers stay numbers. A text that has such apostrophes already gets one more, so that reading
takes away exactly what writing has put there. Other programs read such a text with its apostrophe: whoever needs every
text as it is takes Parquet where a command offers it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from genre_classifier.files.documents import opened

# What starts a formula in some spreadsheet, also after blanks and in the full width of East Asian letters.
_FORMULA = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")
_ESCAPED = re.compile(rf"'{_FORMULA.pattern}")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-](?:inf|nan)", re.ASCII)


def cell(value: Any) -> Any:
    """Return a value as it is written into a cell: a text guarded, anything else as it is."""
    if not isinstance(value, str):
        return value
    # UTF-8 has no half of a surrogate pair, which stands for a byte of a file name that is no UTF-8.
    text = value.encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def original(text: str) -> str:
    """Return the text that `cell` guarded."""
    return text[1:] if _ESCAPED.match(text) else text


def csv_text(header: Sequence[str] | None, rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as CSV.

    Parameters
    ----------
    header : sequence of str or None
        None leaves it out.
    rows : iterable of sequence
    """
    lines = _Lines()
    # Python 3.11 quotes a carriage return only where lines end with one.
    writer = csv.writer(lines, lineterminator="\r\n")
    if header is not None:
        writer.writerow(map(cell, header))
    writer.writerows(map(cell, row) for row in rows)
    return "".join(lines)


class _Lines(list[str]):
    def write(self, line: str) -> None:
        self.append(f"{line.removesuffix(chr(13) + chr(10))}\n")


def read_csv(path: Path) -> Iterator[list[str]]:
    """Yield the rows of a CSV file that `csv_text` has made, the header first, each cell as it was.

    Raises
    ------
    OSError, ValueError, csv.Error
        The file cannot be read, is not UTF-8, or is not CSV.
    """
    with opened(path) as file, io.TextIOWrapper(file, encoding="utf-8", newline="") as stream:
        for row in csv.reader(stream):
            yield list(map(original, row))
