"""Measure the features of one audio file. Every way of extracting calls this module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre_classifier.errors import AudioError, DataError
from genre_classifier.features.cache import Measured, hash_file
from genre_classifier.features.decoding.audio import Excerpt, Recording, open_audio
from genre_classifier.features.sets import FEATURE_SETS, FeatureSet

Float32 = npt.NDArray[np.float32]

EXTRACTORS = {
    **{
        name: f"genre_classifier.features.spectral.{name}:extract_{name}"
        for name in ("core20", "gtzan57", "fma518")
    },
    **{
        name: f"genre_classifier.features.pretrained.musicnn:extract_{name}"
        for name in ("musicnn50", "musicnn")
    },
}


@dataclass(frozen=True)
class Failure:
    """The reason why a file gave no features.

    Parameters
    ----------
    kind : str
        ``unreadable``, ``silent``, ``too short``, ``mislabelled``, ``out of phase``, ``unsupported`` or ``empty``.
    reason : str
        Names the file and what was found.
    """

    kind: str
    reason: str


@dataclass(frozen=True, eq=False)
class Outcome:
    """The result of a file.

    Parameters
    ----------
    content : str
        SHA-256 of the file; empty if it failed.
    result : Measured or Failure
    """

    content: str
    result: Measured | Failure


def get_extractor(name: str) -> Callable[[Float32], Float32]:
    """Return the function that measures a set's features. It takes samples at the set's sample rate.

    Raises
    ------
    DataError
        There is no such set.
    MissingWeightsError
        The weights of its network are missing.
    """
    if name not in EXTRACTORS:
        raise DataError(f"feature set {name!r} cannot be measured; there are {', '.join(EXTRACTORS)}")
    require_weights(FEATURE_SETS[name])
    module, _, function = EXTRACTORS[name].partition(":")
    found: Callable[[Float32], Float32] = getattr(import_module(module), function)
    return found


def require_weights(feature_set: FeatureSet) -> None:
    """Raise MissingWeightsError if a set needs the weights of a network and they are missing."""
    if feature_set.is_pretrained:
        from genre_classifier.features.pretrained.weights import load_weights

        load_weights()


@cache
def _get_thread_controller() -> Any:
    """Return the object that limits the threads of the loaded libraries."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def measure_file(path: Path, name: str, excerpt: Excerpt) -> Measured:
    """Decode a file and measure a set's features of its clips. Silent clips are skipped.

    Parameters
    ----------
    path : Path
    name : str
        Name of the feature set.
    excerpt : Excerpt
        The part to measure, as one clip or in windows.

    Raises
    ------
    AudioError
        The file cannot be read, has the wrong suffix, is shorter than a second, is silent, or is silent in mono because
        its channels cancel.
    """
    with open_audio(path) as recording:
        return measure_recording(recording, name, excerpt)


def measure_recording(recording: Recording, name: str, excerpt: Excerpt) -> Measured:
    """Measure a set's features of an open recording's clips, as `measure_file` does of a file's."""
    extract, path = get_extractor(name), recording.path
    starts, rows = [], []
    # More threads gain nothing on matrices this small, and would change the last bits from one machine to the next.
    with _get_thread_controller().limit(limits=1, user_api="blas"):
        for clip in recording.read_clips(excerpt, FEATURE_SETS[name].sample_rate):
            if clip.is_silent:
                continue
            try:
                rows.append(extract(clip.samples))
            except DataError as error:
                raise AudioError(f"{path}: {error}", kind="unreadable") from error
            starts.append(clip.start)
    if recording.cancels:
        raise AudioError(
            f"{path}: its channels cancel each other in mono, as one of them is inverted; invert it, or keep one",
            kind="out of phase",
        )
    if not rows:
        raise AudioError(f"{path} is silent", kind="silent")
    notes = tuple(f"{path}: {note}" for note in recording.notes)
    return Measured(recording.seconds, recording.artist, np.array(starts), np.stack(rows), notes)


def try_to_measure(path: Path, name: str, excerpt: Excerpt) -> Outcome:
    """Return a file's features and hash, or the reason for their absence. Nothing is raised."""
    try:
        measured = measure_file(path, name, excerpt)
        return Outcome(hash_file(path), measured)
    except AudioError as error:
        return Outcome("", Failure(error.kind, str(error)))
    except OSError as error:
        return Outcome("", Failure("unreadable", f"{path}: {error.strerror or error}"))
