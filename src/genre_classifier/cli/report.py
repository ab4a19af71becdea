"""The subcommand ``genre-classifier report``. Imports nothing heavy before it runs."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genre_classifier.terminal import LogFormatter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of a run or sweep")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="where to write it, default report.html in the folder"
    )
    parser.add_argument(
        "--no-rows",
        action="store_true",
        help="leave out what needs the run's data: importance of features, map, training the grouped number",
    )
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="CLASS",
        help="dotted path of one of your classes that the run's files may name, such as my_package.MyNetwork",
    )
    parser.add_argument(
        "--map", choices=["pca", "tsne"], default="pca", help="of the last hidden layer, default pca"
    )


def run(options: argparse.Namespace) -> None:
    """Run the subcommand. It writes the report and prints where it is."""
    from genre_classifier.class_names import allow
    from genre_classifier.reporting.report import write_report
    from genre_classifier.runs.folder import shorten_path
    from genre_classifier.terminal import say

    allow(options.allow)
    with _messages_shown():
        path, view = write_report(
            options.folder, options.out, with_rows=not options.no_rows, method=options.map
        )
    for warning in view.warnings:
        say(f"note: {warning}", error=True)
    say(shorten_path(path))


@contextmanager
def _messages_shown() -> Iterator[None]:
    """Show the report's progress without Lightning's messages."""
    own, lightning = (logging.getLogger(name) for name in ("genre_classifier.reporting", "lightning"))
    levels = own.level, lightning.level
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter())
    own.addHandler(handler)
    own.setLevel(logging.INFO)
    lightning.setLevel(logging.WARNING)
    try:
        yield
    finally:
        own.removeHandler(handler)
        own.setLevel(levels[0])
        lightning.setLevel(levels[1])
