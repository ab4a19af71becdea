"""Print and log safely: control characters in a name from a file never reach the terminal.

A genre, file name or message may hold escape sequences, carriage returns, letters that are invisible or reverse the
reading direction, and rich's markup. This module escapes each such letter, as ``\\x1b`` or ``\\u202e``, like `repr`.
"""

from __future__ import annotations

import copy
import json
import logging
import re
import sys
import traceback
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console

Kind = Literal["name", "number", "prose"]

LONGEST_NAME = 60
LONGEST_PROSE = 600
LONGEST_LINE = 4000
# Characters kept at the end of a shortened line: a message ends with what to do.
END_KEPT = 500
# Invisible, although Unicode counts them as letters and marks: fillers, joiners, variation selectors beyond emoji's.
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0\U000e0100-\U000e01ef]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def format_name(name: object, longest: int | None = LONGEST_NAME) -> str:
    """Return a name that is safe to show: on one line, with every letter visible, not too long.

    Parameters
    ----------
    name : object
        A genre, path, setting or other value from outside. `str` makes it a text.
    longest : int or None
        Largest number of characters. A longer name is cut and ends in an ellipsis. None keeps all.
    """
    text = str(name)
    # Cut before escaping: a name may be very long.
    if longest is not None and len(text) > longest:
        text = text[:longest]
        return f"{_escape(text)[: longest - 1]}…"
    text = _escape(text)
    return text if longest is None or len(text) <= longest else f"{text[: longest - 1]}…"


def escape_message(text: object) -> str:
    """Return a message of one or more lines that is safe to print or log.

    Line breaks stay. Each line after the first is indented, so a name with a line break cannot look like another
    message. A line that is too long loses its middle.
    """
    first, *others = (_cut(_escape(line)) for line in str(text).split("\n"))
    return "\n".join([first, *(f"  {line}" if line[:1].strip() else line for line in others)])


def escape_lines(text: str) -> str:
    """Return a text with its own layout, such as a traceback: lines unchanged, every letter visible."""
    return "\n".join(map(_escape, text.split("\n")))


def _escape(text: str) -> str:
    if text.isprintable() and not _UNSEEN.search(text):
        return text
    return "".join(letter if _is_seen(letter) else _escape_letter(letter) for letter in text)


def _is_seen(letter: str) -> bool:
    if letter.isprintable():
        return not _UNSEEN.match(letter)
    return unicodedata.category(letter) == "Zs"  # the other spaces, as in Japanese


def _escape_letter(letter: str) -> str:
    if letter in _SHORT:
        return _SHORT[letter]
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _cut(line: str) -> str:
    if len(line) <= LONGEST_LINE:
        return line
    return f"{line[: LONGEST_LINE - END_KEPT]} … {line[-END_KEPT:]}"


def format_json(value: object) -> str:
    """Return a value as indented JSON with every letter visible. Parsing gives the same value."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if text.isprintable():
        return text
    return "\n".join(
        "".join(letter if _is_seen(letter) else json.dumps(letter)[1:-1] for letter in line)
        for line in text.split("\n")
    )


def say(*lines: object, error: bool = False, console: Console | None = None) -> None:
    """Print lines, each on one line of the terminal.

    Parameters
    ----------
    *lines : object
    error : bool
        Print to stderr: for messages that are not the command's result.
    console : rich.console.Console, optional
        Print to this console and not to stdout.
    """
    for line in lines:
        text = format_name(line, LONGEST_LINE)
        if console is not None:
            from rich.text import Text

            console.print(Text(text), soft_wrap=True)
        else:
            print(text, file=sys.stderr if error else sys.stdout, flush=error)


def say_json(value: object) -> None:
    """Print a value as JSON."""
    print(format_json(value))


def say_csv(text: str) -> None:
    """Print CSV from `csv_files` unchanged, as data for another program."""
    sys.stdout.write(text)


def format_error(error: object) -> str:
    """Return an error's message for printing."""
    return f"error: {escape_message(error)}"


def say_error(error: object) -> None:
    """Print an error's message to stderr."""
    print(format_error(error), file=sys.stderr)


def say_table(
    title: str,
    headings: Sequence[tuple[str, Kind]],
    rows: Iterable[Sequence[object]],
    console: Console | None = None,
) -> None:
    """Print a table.

    Parameters
    ----------
    title : str
    headings : sequence of tuple of str
        Each column's name and kind: ``name``, ``number`` (aligned right, never wrapped), or ``prose``, which may be
        longer than a name.
    rows : iterable of sequence of object
        Cells. Their text is never read as markup. A tuple of texts is a cell of several lines.
    console : rich.console.Console, optional
        Print to this console and not to stdout.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(format_name(title, LONGEST_PROSE)), title_justify="left")
    for name, kind in headings:
        number = kind == "number"
        table.add_column(
            Text(format_name(name)),
            justify="right" if number else "left",
            no_wrap=number,
            overflow="fold",
            min_width=None if number else 5,
        )
    kinds = [kind for _, kind in headings]
    for row in rows:
        table.add_row(*(Text(_format_cell(cell, kind)) for cell, kind in zip(row, kinds, strict=True)))
    (console or Console(highlight=False)).print(table)


def get_terminal_width(console: Console | None = None) -> int:
    """Return the number of letters that fit on a line of the terminal."""
    from rich.console import Console

    return (console or Console()).width


def _format_cell(cell: object, kind: Kind) -> str:
    lines = cell if isinstance(cell, tuple) else (cell,)
    return "\n".join(format_name(line, LONGEST_PROSE if kind == "prose" else LONGEST_NAME) for line in lines)


class LogFormatter(logging.Formatter):
    """Formats log records with `escape_message`. A value in a message stays on one line."""

    def format(self, record: logging.LogRecord) -> str:
        safe = copy.copy(record)
        args = record.args
        if isinstance(args, tuple):
            safe.args = tuple(map(_guard_argument, args))
        elif isinstance(args, dict):
            safe.args = {key: _guard_argument(value) for key, value in args.items()}
        safe.msg, safe.args = escape_message(safe.getMessage()), None
        safe.exc_text = None  # another handler's formatter may have stored unescaped text
        return super().format(safe)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return escape_lines(super().formatException(ei))


class _OnOneLine:
    """A text put into a log message by %s or %r."""

    def __init__(self, value: str | PurePath) -> None:
        self._value = value

    def __str__(self) -> str:
        return format_name(self._value, LONGEST_LINE)

    def __repr__(self) -> str:
        return repr(self._value)  # repr escapes invisible letters


def _guard_argument(value: object) -> object:
    return _OnOneLine(value) if isinstance(value, (str, PurePath)) else value


def prepare() -> None:
    """Make Python's own output in this process safe. Call it at the start of a command.

    Letters that the terminal's encoding lacks are escaped and raise no UnicodeEncodeError. Warnings, tracebacks and log
    records without a handler are escaped too.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(LogFormatter("%(levelname)s: %(message)s"))  # as in train and export
    warnings.formatwarning = _format_warning
    sys.excepthook = _show_traceback


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"{format_name(filename, LONGEST_LINE)}:{lineno}: {category.__name__}: {escape_message(message)}\n"


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    text = "".join(traceback.format_exception(kind, error, trace)).rstrip("\n")
    print(escape_lines(text), file=sys.stderr)
