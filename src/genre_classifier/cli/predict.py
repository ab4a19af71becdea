"""``genre-classifier predict SONG...``: genres of audio files. Imports nothing heavy before it runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from genre_classifier.errors import AudioError, BundleError, DataError
from genre_classifier.terminal import format_name, say, say_error

if TYPE_CHECKING:
    from genre_classifier.bundle.format import Bundle
    from genre_classifier.bundle.predictor import Predictor
    from genre_classifier.bundle.songs import AudioRecipe, SongPrediction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that are about audio files."""
    parser.add_argument(
        "songs", nargs="*", type=Path, metavar="SONG", help="audio files in any format that libsndfile reads"
    )
    parser.add_argument(
        "--over-time",
        action="store_true",
        help="write SONG.genres.csv and SONG.genres.png, a curve over the song",
    )
    parser.add_argument(
        "--step",
        metavar="SECONDS",
        type=float,
        help="between points of the curve, default 1, or 5 with pretrained features",
    )
    parser.add_argument(
        "--output", metavar="FOLDER", type=Path, default=Path(), help="where to write curves, default here"
    )


def run(options: argparse.Namespace, bundle: Bundle, predictor: Predictor, top_k: int) -> None:
    """Print each song's genres. A song that cannot be measured gets a message, and the command fails at its end."""
    recipe = find_recipe(bundle, predictor)
    failed = 0
    for path in options.songs:
        try:
            say(*_predict_song(options, predictor, recipe, path, top_k))
        except AudioError as error:
            say_error(error)
            failed += 1
    if failed:
        raise DataError(f"{failed} of {len(options.songs)} songs could not be measured")


def find_recipe(bundle: Bundle, predictor: Predictor) -> AudioRecipe:
    """Return how to measure songs for a bundle. Raises BundleError, with its name, if they cannot be measured."""
    from genre_classifier.bundle.songs import build_audio_recipe

    try:
        return build_audio_recipe(bundle.metadata, predictor.feature_names)
    except BundleError as error:
        raise BundleError(f"{bundle.folder / bundle.name}: {error}") from error


def _predict_song(
    options: argparse.Namespace, predictor: Predictor, recipe: AudioRecipe, path: Path, top_k: int
) -> Iterator[str]:
    from genre_classifier.bundle.songs import build_song_answer, predict_song

    song = predict_song(predictor, recipe, path, recipe.windows)
    answer = build_song_answer(predictor, song, top_k=top_k)
    tops = ", ".join(
        f"{format_name(top['genre'])} {top['confidence']:.3f}" for top in answer["top_predictions"]
    )
    yield f"{path}: {tops}  ({_format_length(song)})"
    if options.over_time:
        yield from _write_curve(options, predictor, recipe, path)


def _format_length(song: SongPrediction) -> str:
    minutes, seconds = divmod(round(song.seconds), 60)
    windows = f"{len(song.starts)} window" + ("s" if len(song.starts) != 1 else "")
    return f"{minutes}:{seconds:02d}, {windows} of {song.window_seconds:g} s"


def _write_curve(
    options: argparse.Namespace, predictor: Predictor, recipe: AudioRecipe, path: Path
) -> Iterator[str]:
    from genre_classifier.bundle.songs import predict_song, write_curve

    step = recipe.default_step if options.step is None else options.step
    song = predict_song(predictor, recipe, path, recipe.build_sliding_windows(step))
    options.output.mkdir(parents=True, exist_ok=True)
    targets = [options.output / f"{path.name}.genres.{suffix}" for suffix in ("csv", "png")]
    write_curve(song, path.name, *targets)
    yield from map(str, targets)
