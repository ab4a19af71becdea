"""The subcommand ``genre-classifier robustness``. Imports nothing heavy before it runs."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from genre_classifier.cli.predict import find_recipe
from genre_classifier.errors import DataError, GenreClassifierError
from genre_classifier.terminal import say, say_table

if TYPE_CHECKING:
    from genre_classifier.bundle.format import Bundle
    from genre_classifier.bundle.predictor import Predictor
    from genre_classifier.features.discovery import AudioFile
    from genre_classifier.reporting.robustness.check import Robustness
    from genre_classifier.reporting.robustness.table import Row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("bundle", metavar="BUNDLE", help="FOLDER/NAME")
    parser.add_argument(
        "folder",
        type=Path,
        metavar="MUSIC",
        help="a folder of audio files; in MUSIC/GENRE/FILE their genres are known",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table to a file as well")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw it: .png or .svg")
    parser.add_argument("--jobs", metavar="N", type=int, help="processes, default one for each core")


def run(options: argparse.Namespace, bundle: Bundle, predictor: Predictor) -> None:
    """Run the subcommand. It prints a line for each change, and names the files that cannot be measured."""
    from genre_classifier.reporting.robustness.check import check_robustness
    from genre_classifier.reporting.robustness.table import summarize, write_csv, write_figure

    recipe = find_recipe(bundle, predictor)
    files = _find_files(options.folder)
    _check_targets(options)
    try:
        found = check_robustness(predictor, recipe, files, options.jobs)
    except KeyboardInterrupt:
        raise GenreClassifierError("interrupted; nothing was written") from None
    say(*found.notes, *(failure.reason for failure in found.failures), error=True)
    rows = summarize(found)
    n = len(found.songs)
    name = f"{bundle.name}, {recipe.features}, {n} clip{'s' if n != 1 else ''}"
    _show(rows, f"{name}: does the same clip keep its genre?")
    say(*_describe_exceptions(rows, found))
    if options.csv is not None:
        write_csv(rows, options.csv)
        say(options.csv)
    if options.figure is not None:
        write_figure(rows, name, options.figure)
        say(options.figure)
    if found.failures:
        say(f"{len(found.failures)} of {len(files)} files could not be measured", error=True)


def _find_files(folder: Path) -> list[AudioFile]:
    from genre_classifier.features.discovery import scan

    if folder.is_file():
        raise DataError(f"{folder} is a file; expected a folder with audio files")
    return scan(folder).files


def _check_targets(options: argparse.Namespace) -> None:
    """Raise DataError unless the files that are asked for can be written, before anything is measured."""
    from genre_classifier.reporting.robustness.table import PICTURES

    figure = options.figure
    if figure is not None and figure.suffix.lower() not in PICTURES:
        raise DataError(
            f"--figure {figure}: {figure.suffix or 'no suffix'} is not a kind of picture; expected .png or .svg"
        )
    for option, path in (("--csv", options.csv), ("--figure", figure)):
        if path is None:
            continue
        if path.is_dir():
            raise DataError(f"{option} {path} is a folder; name the file to be written")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path.parent).close()
        except OSError as error:
            raise DataError(
                f"{option} {path} cannot be written: {error.strerror}; name another file"
            ) from error


def _show(rows: list[Row], title: str) -> None:
    labelled = any(row.n_labelled for row in rows)
    columns = ["clips", "genre changed", "confidence", *(["accuracy"] if labelled else [])]
    say_table(
        title,
        [("change", "name"), *((name, "number") for name in columns)],
        [_format_row(row)[: len(columns) + 1] for row in rows],
    )


def _format_row(row: Row) -> list[str]:
    if row.share_changed is None or row.interval is None:
        return [row.change, "0", "", "", ""]
    low, high = row.interval
    known = row.accuracy_before is not None
    return [
        row.change,
        str(row.n_clips),
        f"{row.share_changed:.3f} [{low:.3f}, {high:.3f}]",
        f"{row.confidence_change:+.3f}",
        f"{row.accuracy_before:.2f} to {row.accuracy_after:.2f}" if known else "",
    ]


def _describe_exceptions(rows: list[Row], found: Robustness) -> Iterator[str]:
    yield "genre changed: share of the clips, with its 95 % interval (Wilson's)"
    yield "confidence: mean change of the probability of the genre that a clip had before"
    for row in rows:
        if row.n_clipped:
            yield f"{row.change}: {row.n_clipped} of {row.n_clips} clips are cut off at full scale"
        if row.left_out:
            kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(row.left_out.items()))
            yield f"{row.change}: left out {kinds}"
    for change, reason in found.impossible.items():
        yield f"{change}: left out, {reason}"
