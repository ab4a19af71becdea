"""Print and log safely: control characters in a name from a file never reach the terminal.

A genre, file name or message may hold escape sequences, carriage returns, letters that reverse the reading direction or
cannot be seen, and rich's markup. Here each such letter is written out, as ``\\x1b`` or ``\\u202e``, as `repr` would.
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
# Of a line that is cut, so much is kept of its end, where a message says what to do.
END_KEPT = 500
# Unseen although Unicode counts them among letters and marks: fillers, joiners, selectors of variants beyond emoji's.
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0\U000e0100-\U000e01ef]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def shown(name: object, longest: int | None = LONGEST_NAME) -> str:
    """Return a name as it may be shown: on one line, every letter visible, not too long.

    Parameters
    ----------
    name : object
        A genre, path, setting or whatever else comes from outside; `str` makes it a text.
    longest : int or None
        The most characters; what is longer ends in an ellipsis. None keeps all.
    """
    text = str(name)
    # What is cut off is not looked at; a name may be very long.
    if longest is not None and len(text) > longest:
        text = text[:longest]
        return f"{_visible(text)[: longest - 1]}…"
    text = _visible(text)
    return text if longest is None or len(text) <= longest else f"{text[: longest - 1]}…"


def printable(text: object) -> str:
    """Return a message of one or more lines as it may be printed or logged.

    Its line breaks stay, but each line that follows one is indented, so that a name with a line break cannot pass for
    another message. A line that is too long loses its middle.
    """
    first, *others = (_cut(_visible(line)) for line in str(text).split("\n"))
    return "\n".join([first, *(f"  {line}" if line[:1].strip() else line for line in others)])


def visible_lines(text: str) -> str:
    """Return a text that someone else has laid out, such as a traceback: its letters visible, its lines as they are."""
    return "\n".join(map(_visible, text.split("\n")))


def _visible(text: str) -> str:
    if text.isprintable() and not _UNSEEN.search(text):
        return text
    return "".join(letter if _is_seen(letter) else _written_out(letter) for letter in text)


def _is_seen(letter: str) -> bool:
    if letter.isprintable():
        return not _UNSEEN.match(letter)
    return unicodedata.category(letter) == "Zs"  # the other spaces, as in Japanese


def _written_out(letter: str) -> str:
    if letter in _SHORT:
        return _SHORT[letter]
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _cut(line: str) -> str:
    if len(line) <= LONGEST_LINE:
        return line
    return f"{line[: LONGEST_LINE - END_KEPT]} … {line[-END_KEPT:]}"


def json_text(value: object) -> str:
    """Return a value as JSON for people and programs: indented, every letter visible, the same value when parsed."""
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
        To stderr: for what is not the command's result.
    console : rich.console.Console, optional
        Where to, in place of stdout.
    """
    for line in lines:
        text = shown(line, LONGEST_LINE)
        if console is not None:
            from rich.text import Text

            console.print(Text(text), soft_wrap=True)
        else:
            print(text, file=sys.stderr if error else sys.stdout, flush=error)


def say_json(value: object) -> None:
    """Print a value as JSON."""
    print(json_text(value))


def say_csv(text: str) -> None:
    """Print CSV from `csv_files` unchanged, as data for another program."""
    sys.stdout.write(text)


def error_text(error: object) -> str:
    """Return an error's message as it is printed."""
    return f"error: {printable(error)}"


def say_error(error: object) -> None:
    """Print an error's message to stderr."""
    print(error_text(error), file=sys.stderr)


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
        Each column's name, and its kind: ``name``, ``number`` (on the right, never folded), or ``prose``, which may be
        longer than a name.
    rows : iterable of sequence of object
        Cells, whose text is shown as it is, never as markup. A line break within a cell stays where the cell is a
        tuple of texts, one per line.
    console : rich.console.Console, optional
        Where to, in place of stdout.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(shown(title, LONGEST_PROSE)), title_justify="left")
    for name, kind in headings:
        number = kind == "number"
        table.add_column(
            Text(shown(name)),
            justify="right" if number else "left",
            no_wrap=number,
            overflow="fold",
            min_width=None if number else 5,
        )
    kinds = [kind for _, kind in headings]
    for row in rows:
        table.add_row(*(Text(_cell(cell, kind)) for cell, kind in zip(row, kinds, strict=True)))
    (console or Console(highlight=False)).print(table)


def terminal_width(console: Console | None = None) -> int:
    """Return how many letters a line of the terminal holds."""
    from rich.console import Console

    return (console or Console()).width


def _cell(cell: object, kind: Kind) -> str:
    lines = cell if isinstance(cell, tuple) else (cell,)
    return "\n".join(shown(line, LONGEST_PROSE if kind == "prose" else LONGEST_NAME) for line in lines)


class LogFormatter(logging.Formatter):
    """Formats log records as `printable` text. A value in a message stays on one line."""

    def format(self, record: logging.LogRecord) -> str:
        safe = copy.copy(record)
        args = record.args
        if isinstance(args, tuple):
            safe.args = tuple(map(_argument, args))
        elif isinstance(args, dict):
            safe.args = {key: _argument(value) for key, value in args.items()}
        safe.msg, safe.args = printable(safe.getMessage()), None
        safe.exc_text = None  # another handler's formatter may have left it there as it was
        return super().format(safe)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return visible_lines(super().formatException(ei))


class _OnOneLine:
    """A text put into a log message by %s or %r."""

    def __init__(self, value: str | PurePath) -> None:
        self._value = value

    def __str__(self) -> str:
        return shown(self._value, LONGEST_LINE)

    def __repr__(self) -> str:
        return repr(self._value)  # which writes out what is no letter itself


def _argument(value: object) -> object:
    return _OnOneLine(value) if isinstance(value, (str, PurePath)) else value


def prepare() -> None:
    """Make Python's own output in this process safe too. Call it at the start of a command.

    Letters that a terminal has no code for are written out in place of a UnicodeEncodeError, and warnings, tracebacks
    and log records without a handler are escaped.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(LogFormatter())
    warnings.formatwarning = _format_warning
    sys.excepthook = _show_traceback


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"{shown(filename, LONGEST_LINE)}:{lineno}: {category.__name__}: {printable(message)}\n"


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    text = "".join(traceback.format_exception(kind, error, trace)).rstrip("\n")
    print(visible_lines(text), file=sys.stderr)
