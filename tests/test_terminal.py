"""What is printed or logged is text: no letter of it reaches the terminal as a command, or hides."""

from __future__ import annotations

import ast
import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from genre_classifier.terminal import (
    LONGEST_LINE,
    LONGEST_NAME,
    LogFormatter,
    escape_lines,
    escape_message,
    format_json,
    format_name,
    say,
    say_error,
    say_table,
)
from tests.conftest import ROOT
from tests.hostile import HOSTILE_NAMES, is_safe


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_is_shown_on_one_line_of_visible_letters(name: str) -> None:
    text = format_name(name)
    assert is_safe(text)
    assert "\n" not in text
    assert 0 < len(text) <= LONGEST_NAME


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Rock", "Rock"),
        ("ジャズ\u3000日本", "ジャズ\u3000日本"),
        ("Café é", "Café é"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\r\n\tb", "a\\r\\n\\tb"),
        ("\u202eabc", "\\u202eabc"),
        ("a\u200bb\ufeff", "a\\u200bb\\ufeff"),
        ("\x9b2J", "\\x9b2J"),
        ("\udcff", "\\udcff"),
        ("a\u3164", "a\\u3164"),
        ("\U000e0041", "\\U000e0041"),
        ("[bold]x[/]", "[bold]x[/]"),
        (Path("a\x07b"), "a\\x07b"),
    ],
)
def test_letters_that_are_no_text_are_escaped(name: object, expected: str) -> None:
    assert format_name(name) == expected


def test_a_long_name_is_cut_and_a_long_message_keeps_what_it_ends_with() -> None:
    assert format_name("x" * 10_000) == "x" * (LONGEST_NAME - 1) + "…"
    assert len(format_name("\x1b" * 10_000)) <= LONGEST_NAME
    message = escape_message("found " + "x" * 10_000 + "; rename it")
    assert message.startswith("found xxx")
    assert message.endswith("xxx; rename it")
    assert len(message) < LONGEST_LINE + 10
    assert escape_message("y" * 500) == "y" * 500


def test_a_line_break_in_a_message_cannot_begin_another_message() -> None:
    assert escape_message("bad name 'a\nerror: all is lost'") == "bad name 'a\n  error: all is lost'"
    assert escape_message("two problems:\n  - one\n  - two") == "two problems:\n  - one\n  - two"


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_whatever_is_printed_is_safe(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"genre {name}", name)
    say(name, error=True)
    say_error(f"genre {name!s}")
    say_table(name, [(name, "name"), ("n", "number"), (name, "prose")], [(name, 1, name)])
    printed = capsys.readouterr()
    assert is_safe(printed.out)
    assert is_safe(printed.err)
    assert len(printed.out.splitlines()) < 40


@pytest.mark.parametrize(
    "name", ["[/rock]", "[unknown]", "[bold]Rock", ":guitar:", "[link=http://x]y[/link]"]
)
def test_markup_and_emoji_names_are_shown_as_they_are(name: str) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=100, force_terminal=True, color_system=None)
    say_table(name, [(name, "name")], [(name,)], console)
    say(name, console=console)
    assert stream.getvalue().count(name) == 4


def test_json_is_safe_and_parses_to_the_same() -> None:
    value = {name: [name, 1.5, None] for name in HOSTILE_NAMES}
    text = format_json(value)
    assert is_safe(text)
    assert json.loads(text) == value
    assert format_json({"genre": "Café"}) == '{\n  "genre": "Café"\n}'


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_log_lines_are_safe_whichever_way_a_name_comes_into_them(name: str) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogFormatter("%(levelname)s: %(message)s"))
    logger = logging.getLogger("tests.terminal")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        logger.warning("genre %r or %s in %s", name, name, Path(name.replace("\x00", "")))
        logger.warning("%(name)s", {"name": name})
        logger.error(f"genre {name}")
        logger.error("%s", ValueError(name))
        try:
            raise ValueError(name)
        except ValueError:
            logger.exception("it failed")
    finally:
        logger.removeHandler(handler)
    assert is_safe(stream.getvalue())
    begun = [line for line in stream.getvalue().splitlines() if line.startswith(("WARNING:", "ERROR:"))]
    assert len(begun) == 5, "a name has begun a record"


def test_a_quoted_name_is_escaped_once() -> None:
    record = logging.LogRecord(
        "x", logging.INFO, "", 0, "%s and %r, %-6s|%d", ("a\x1b", "b\x1b", "c", 3), None
    )
    assert LogFormatter().format(record) == "a\\x1b and 'b\\x1b', c     |3"


def test_a_terminal_without_the_letters_does_not_stop_a_command(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "genre_classifier", "verify", str(tmp_path / "ジャズ" / "\x1b[2Jbundle")],
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr.startswith(b"error: ")
    assert b"\x1b" not in run.stderr


def test_arguments_repeated_by_the_parser_are_safe(capsys: pytest.CaptureFixture[str]) -> None:
    from genre_classifier.cli.main import main

    for arguments in (
        ["verify", "a", "\x1b[2Jb"],
        ["report", "x", "--map", "\x1b]0;t\x07"],
        ["\x9b31m"],
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert is_safe(capsys.readouterr().err)


def test_a_traceback_is_safe(tmp_path: Path) -> None:
    script = tmp_path / "raises.py"
    script.write_text(
        "from genre_classifier.terminal import prepare\nimport logging\nimport warnings\nprepare()\n"
        "logging.getLogger('any').warning('row %s', 'l\x1b[2J')\n"
        "warnings.warn('w\\x1b[2J')\nraise RuntimeError('e\\x9b\\u202e')\n"
    )
    run = subprocess.run(
        [sys.executable, str(script)],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert is_safe(run.stderr)
    assert run.stderr.startswith("WARNING: row l\\x1b[2J\n")
    assert "w\\x1b[2J" in run.stderr
    assert "RuntimeError: e\\x9b\\u202e" in run.stderr
    assert escape_lines("a\n\x1bb") == "a\n\\x1bb"


# Where text leaves the program: nothing else prints, or writes CSV.
DOORS = {"terminal.py", "csv_files.py"}
CSV_READERS = {"fma_tables.py", "readers.py", "discovery.py"}  # of tables that others have written


def _calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize(
    "path",
    sorted(path for part in ("src", "app") for path in (ROOT / part).rglob("*.py") if path.name not in DOORS),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_nothing_else_prints_or_writes_csv(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for name, call in _calls(tree):
        where = f"{path.name}:{call.lineno}: {name}"
        assert name not in {"print", "tqdm.write", "sys.stdout.write", "sys.stderr.write"}, where
        assert name not in {"csv.writer", "csv.DictWriter"}, where
        assert not name.endswith((".to_csv", "console.print")), where
        if name.startswith("csv."):
            assert path.name in CSV_READERS, where
        if name in {"sys.exit", "SystemExit"} and call.args:
            exits = call.args[0]
            assert (
                isinstance(exits, ast.Constant | ast.Name | ast.BinOp)
                or "format_error" in ast.unparse(exits)
                or (ast.unparse(exits) == "main()")
            ), where
    imported = {
        node.module or "" if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    if path.name not in {"make.py"}:  # whose bar has no text from outside
        assert not {name for name in imported if name.startswith("rich.") and name != "rich.console"}
