"""Predict the genre of a song: measure its features window by window, and combine the windows' probabilities.

A song longer than the training clips is cut into windows of that length. The song's probabilities are the arithmetic
mean of its windows' probabilities. Windows of one song are dependent: they share its sound, and may overlap. So the
song's answer must not treat each of them as new evidence, as a product does. A geometric mean has no limit either: one
certain window can outweigh any number of others. In an arithmetic mean of n windows, one window moves a probability by
at most 1/n.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre_classifier.bundle.format import find_feature_set
from genre_classifier.bundle.inputs import read_rows
from genre_classifier.bundle.predictor import DEFAULT_TOP_K, Prediction, Predictor
from genre_classifier.errors import BundleError
from genre_classifier.features.decoding.audio import SHORTEST_SECONDS, Excerpt
from genre_classifier.features.measure import measure_file, require_weights
from genre_classifier.features.sets import CLIP_SECONDS, FEATURE_SETS
from genre_classifier.files.atomic import replacing, write_text
from genre_classifier.files.csv_files import format_csv

log = logging.getLogger(__name__)

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AudioRecipe:
    """How to measure a song for a bundle.

    Parameters
    ----------
    features : str
        Name of the feature set.
    columns : tuple of int
        Which of the set's features the network takes, in its order.
    names : tuple of str
        Their names.
    clip_seconds : float
        Length of the clips that it was trained on.
    """

    features: str
    columns: tuple[int, ...]
    names: tuple[str, ...]
    clip_seconds: float

    @property
    def default_step(self) -> float:
        """Seconds between points of a curve over time. A pretrained network takes about 0.3 s for each."""
        return 5.0 if FEATURE_SETS[self.features].is_pretrained else 1.0

    @property
    def most_points(self) -> int:
        """Points of a curve that somebody waits for: 60, and 20 with a pretrained network."""
        return 20 if FEATURE_SETS[self.features].is_pretrained else 60

    def build_overview(self, seconds: float) -> Excerpt:
        """Return a song of this length in overlapping windows, at most `most_points` where they overlap."""
        step = max(self.default_step, (seconds - self.clip_seconds) / (self.most_points - 1))
        return self.build_sliding_windows(math.ceil(step * 10) / 10)

    @property
    def windows(self) -> Excerpt:
        """A whole song in windows as long as the training clips."""
        return Excerpt(duration=None, window=self.clip_seconds)

    def build_sliding_windows(self, step: float) -> Excerpt:
        """Return a whole song in overlapping windows, `step` seconds apart."""
        return Excerpt(duration=None, window=self.clip_seconds, step=min(step, self.clip_seconds))

    def measure(self, path: Path, excerpt: Excerpt) -> tuple[float, Float64, npt.NDArray[np.float32]]:
        """Return a song's length, its windows' starts in seconds and their features (window, feature)."""
        measured = measure_file(path, self.features, excerpt)
        for note in measured.notes:
            log.warning("%s", note)
        return measured.seconds, measured.starts, measured.features[:, self.columns]


def build_audio_recipe(metadata: Mapping[str, Any], feature_names: Sequence[str] | None) -> AudioRecipe:
    """Return how to measure songs for a bundle.

    Parameters
    ----------
    metadata : Mapping[str, Any]
        Of the bundle.
    feature_names : Sequence[str] or None
        What it was trained on, in order.

    Raises
    ------
    BundleError
        Its features cannot be measured from audio, or were measured differently; the message names them.
    MissingWeightsError
        They come from a pretrained network whose weights are not at hand.
    """
    made_with = find_feature_set(metadata, feature_names)
    if feature_names is None:
        raise BundleError("the bundle does not name its features, so they cannot be measured from audio")
    known = None if made_with is None else FEATURE_SETS.get(made_with.name)
    if made_with is None or known is None or not set(feature_names) <= set(known.features):
        shown = ", ".join(feature_names[:10]) + (" ..." if len(feature_names) > 10 else "")
        raise BundleError(
            f"the bundle was trained on features that cannot be measured from audio: {shown}; those of "
            f"{', '.join(FEATURE_SETS)} can"
        )
    clip_seconds = made_with.parameters.get("clip_seconds")
    if not isinstance(clip_seconds, int | float) or clip_seconds < SHORTEST_SECONDS:
        clip_seconds = CLIP_SECONDS  # and the difference is named
    difference = known.build_reference(clip_seconds).describe_difference(made_with)
    if difference is not None:
        raise BundleError(
            f"the bundle was trained on {known.name} measured differently from here ({difference}); "
            "train on features that this version extracts"
        )
    require_weights(known)
    place = {name: position for position, name in enumerate(known.features)}
    columns = tuple(place[name] for name in feature_names)
    return AudioRecipe(known.name, columns, tuple(feature_names), float(clip_seconds))


@dataclass(frozen=True, eq=False)
class SongPrediction:
    """A network's prediction for a song.

    Parameters
    ----------
    seconds : float
        Length of the song.
    starts : np.ndarray [shape=(window,)]
        Where each window starts, in seconds; silent ones are left out.
    window_seconds : float
        How long a window is; the song may be shorter.
    genre_names : tuple of str
    probabilities : np.ndarray [shape=(window, genre)]
    """

    seconds: float
    starts: Float64
    window_seconds: float
    genre_names: tuple[str, ...]
    probabilities: Float64

    @property
    def average(self) -> Float64:
        """Probabilities of the song, shape (genre,): the mean over its windows."""
        return average_windows(self.probabilities)


def average_windows(probabilities: Float64) -> Float64:
    """Return the probabilities of a song, shape (genre,), from those of its windows, shape (window, genre).

    One of n windows moves a probability by at most 1/n, however certain it is.

    Examples
    --------
    Nine windows give genre B 0.7, one is certain of genre A. The song is B.

    >>> average_windows(np.array([[0.3, 0.7]] * 9 + [[1.0, 0.0]])).round(2).tolist()
    [0.37, 0.63]
    """
    average: Float64 = probabilities.mean(axis=0, dtype=np.float64)
    return average


def predict_song(predictor: Predictor, recipe: AudioRecipe, path: Path, excerpt: Excerpt) -> SongPrediction:
    """Measure a song's windows and predict the genre of each.

    Raises
    ------
    AudioError
        The file cannot be measured.
    """
    seconds, starts, features = recipe.measure(path, excerpt)
    probabilities = predict_windows(predictor, features)
    return SongPrediction(
        seconds, starts, min(recipe.clip_seconds, seconds), predictor.genre_names, probabilities
    )


def predict_windows(predictor: Predictor, features: npt.NDArray[np.float32]) -> Float64:
    """Return probabilities, shape (window, genre), for features, shape (window, feature)."""
    rows = read_rows(features, predictor.n_features, predictor.feature_names)
    return predictor.predict_probabilities(rows)


def build_song_answer(
    predictor: Predictor, song: SongPrediction, return_probs: bool = False, top_k: int = DEFAULT_TOP_K
) -> Prediction:
    """Return the documented answer for a whole song."""
    return predictor.answer(song.average.tolist(), return_probs, top_k)


def write_curve(song: SongPrediction, title: str, csv_path: Path, png_path: Path) -> None:
    """Write a song's genres over time, as numbers and as a picture; each file whole or not at all.

    A row, and a point of the picture, stands at the middle of its window.
    """
    middles = song.starts + song.window_seconds / 2
    rows = []
    for middle, start, row in zip(middles, song.starts, song.probabilities, strict=True):
        times = (middle, start, min(start + song.window_seconds, song.seconds))
        rows.append([*(f"{time:.2f}" for time in times), *(f"{p:.6f}" for p in row)])
    write_text(csv_path, format_csv(["seconds", "start", "end", *song.genre_names], rows))
    _draw(song, middles, title, png_path)


def _draw(song: SongPrediction, middles: Float64, title: str, path: Path) -> None:
    from genre_classifier.evaluation.drawing import render_png
    from genre_classifier.evaluation.figures import draw_over_time

    # A song of one window is a band as wide as the song.
    times = middles if len(middles) > 1 else np.array([0.0, song.seconds])
    rows = song.probabilities if len(middles) > 1 else np.repeat(song.probabilities, 2, axis=0)
    with replacing(path) as temporary:
        temporary.write_bytes(
            render_png(draw_over_time(times, rows, song.genre_names, song.window_seconds, title))
        )
