"""The subcommand ``genre-classifier extract``. Imports nothing heavy before it runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from genre_classifier.errors import DataError, GenreClassifierError
from genre_classifier.features.sets import CLIP_SECONDS, FEATURE_SETS
from genre_classifier.terminal import say

if TYPE_CHECKING:
    from genre_classifier.features.discovery import AudioFile
    from genre_classifier.features.extract import Extraction, Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument(
        "folder", nargs="?", type=Path, help="FOLDER/GENRE/[ARTIST/]FILE in any format that libsndfile reads"
    )
    parser.add_argument("output", type=Path, help="the table to write: .parquet or .csv")
    parser.add_argument(
        "--files", metavar="LIST", type=Path, help="a CSV file with the column path, and id, genre, group"
    )
    parser.add_argument(
        "--features", metavar="SET", default="core20", help=f"{', '.join(FEATURE_SETS)}; default core20"
    )
    parser.add_argument("--jobs", metavar="N", type=int, help="processes, default one for each core")
    parser.add_argument(
        "--offset", metavar="SECONDS", type=float, default=0.0, help="where in each file to start, default 0"
    )
    parser.add_argument(
        "--duration",
        metavar="SECONDS",
        type=float,
        help=f"how much of each file to take, default {CLIP_SECONDS:g}; with --windows all of it",
    )
    parser.add_argument(
        "--windows", metavar="SECONDS", type=float, help="cut each file into rows of so many seconds"
    )
    parser.add_argument("--strict", action="store_true", help="a file that cannot be measured is an error")
    parser.add_argument(
        "--cache",
        metavar="FILE",
        type=Path,
        help="where measured files are kept, default in the user's cache folder",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="measure on a Ray cluster, which must see the files under the same paths",
    )


def run(options: argparse.Namespace) -> None:
    """Run the subcommand. It writes the table and prints a summary of the files."""
    from genre_classifier.features.discovery import describe_failures
    from genre_classifier.features.extract import NothingMeasuredError, extract
    from genre_classifier.features.output import check_output, write_errors, write_extraction

    check_output(options.output)
    settings = _read_settings(options)
    files = _find_files(options)
    try:
        extraction = extract(files, settings)
    except KeyboardInterrupt:
        raise GenreClassifierError(
            "interrupted; the same command goes on with the files that are left"
        ) from None
    except NothingMeasuredError as error:
        raise DataError(f"{error}; {write_errors(error.failures, options.output)} lists all files") from error
    try:
        errors = write_extraction(extraction, options.output)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"{options.output} cannot be written: {reason}; make room or name another table and start again: what was "
            "measured is kept in the cache"
        ) from error
    say(f"{options.output}: {_format_summary(extraction)}")
    if errors is not None:
        say(f"{errors}: {len(extraction.failures)} files skipped ({_count_failures(extraction)})", error=True)
        say(describe_failures(extraction.failures), error=True)
    nobodies = extraction.count_nobodies()
    if nobodies:
        names = ", ".join(repr(name) for name, _ in nobodies.most_common(5))
        say(f"{nobodies.total()} files are by {names}, which is no artist", error=True)


def _read_settings(options: argparse.Namespace) -> Settings:
    from genre_classifier.features.decoding.audio import Excerpt
    from genre_classifier.features.extract import Settings

    duration = options.duration
    if duration is None and options.windows is None:
        duration = CLIP_SECONDS
    return Settings(
        features=options.features,
        excerpt=Excerpt(offset=options.offset, duration=duration, window=options.windows),
        jobs=options.jobs,
        cache=options.cache,
        ray=options.ray,
        strict=options.strict,
    )


def _find_files(options: argparse.Namespace) -> list[AudioFile]:
    from genre_classifier.features.discovery import read_list, scan

    if (options.folder is None) == (options.files is None):
        raise DataError("name the files to measure: give either FOLDER or --files LIST")
    if options.files is not None:
        return read_list(options.files)
    collection = scan(options.folder)
    if collection.n_others:
        say(f"{options.folder}: {collection.describe_others()}", error=True)
    return collection.files


def _format_summary(extraction: Extraction) -> str:
    made_with, n_files = extraction.made_with, len(extraction.files)
    n_rows = sum(len(measured.starts) for measured in extraction.measured)
    text = f"{n_rows} rows of {made_with.name}, version {made_with.version}, from {n_files} files"
    n_new = n_files - extraction.n_known
    if extraction.n_known:
        text += f", {extraction.n_known} of them measured before"
    if n_new:
        text += f", {n_new / extraction.seconds:.1f} files per second"
    return text


def _count_failures(extraction: Extraction) -> str:
    kinds = [failure.kind for _, failure in extraction.failures]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
