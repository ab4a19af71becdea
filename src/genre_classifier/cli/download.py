"""The subcommand ``genre-classifier download``. Imports nothing heavy before it runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from genre_classifier.errors import DataError
from genre_classifier.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument(
        "what",
        choices=["musicnn", "fma"],
        help="musicnn: the weights of a pretrained music tagger, 28 MiB, into the user's cache folder; "
        "fma: the Free Music Archive dataset's tables, 342 MiB, into FOLDER",
    )
    parser.add_argument("folder", nargs="?", type=Path, help="where to put the tables")
    parser.add_argument("--url", help="fma: a mirror of the archive; its checksum stays the published one")
    parser.add_argument(
        "--wheel",
        type=Path,
        metavar="FILE",
        help="musicnn: the package's wheel, for a machine without network",
    )


def run(options: argparse.Namespace) -> None:
    """Run the subcommand. It prints which files are there now."""
    if options.what == "musicnn":
        _refuse(options, "folder", "url")
        _fetch_weights(options.wheel)
    else:
        _refuse(options, "wheel")
        if options.folder is None:
            raise DataError("FOLDER is missing: where should the tables of fma go?")
        _fetch_tables(options.folder, options.url)


def _refuse(options: argparse.Namespace, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if value is not None:
            shown = value if name == "folder" else f"--{name} {value}"
            raise DataError(f"download {options.what} takes no {name}; found {shown}")


def _fetch_weights(wheel: Path | None) -> None:
    from genre_classifier.features.pretrained.weights import fetch_weights

    say(f"{fetch_weights(wheel)}: the weights of musicnn, for the feature sets musicnn50 and musicnn")


def _fetch_tables(folder: Path, url: str | None) -> None:
    from genre_classifier.data.download import fetch
    from genre_classifier.data.tables.fma_tables import ARCHIVE

    for path in fetch(ARCHIVE, folder, url=url):
        say(path)
