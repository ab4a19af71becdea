"""Measure each file as it is and after each change, and predict all of it, as a song's genre is predicted."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre_classifier.bundle.predictor import Predictor
from genre_classifier.bundle.songs import AudioRecipe, average_windows, predict_windows
from genre_classifier.errors import AudioError, DataError
from genre_classifier.features.cache import hash_file
from genre_classifier.features.decoding.audio import Excerpt, open_audio, open_content, require_audio
from genre_classifier.features.discovery import AudioFile
from genre_classifier.features.measure import Failure, measure_file, measure_recording
from genre_classifier.features.workers import run_in_processes
from genre_classifier.machine.processors import count_usable_cores
from genre_classifier.reporting.robustness.changes import CHANGES, Sound

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

LONGEST_SECONDS = 300.0  # measured of a file, which is held in memory several times over


@dataclass(frozen=True, eq=False)
class Variants:
    """Features of a recording as it is and after each change.

    Parameters
    ----------
    original : np.ndarray [shape=(window, feature)]
    changed : dict of str to np.ndarray [shape=(window, feature)] or Failure
        By the change's name.
    clipped : tuple of str
        Which changes have cut off peaks.
    notes : tuple of str
        What is odd about the file.
    """

    original: Float32
    changed: dict[str, Float32 | Failure]
    clipped: tuple[str, ...]
    notes: tuple[str, ...]


def measure_variants(
    path: Path, features: str, excerpt: Excerpt, changes: Sequence[str]
) -> Variants | Failure:
    """Measure a file as it is and after each change. Nothing is raised.

    Parameters
    ----------
    path : Path
    features : str
        Name of the feature set.
    excerpt : Excerpt
        The windows.
    changes : sequence of str
        Names in `CHANGES`.
    """
    try:
        measured = measure_file(path, features, excerpt)
        sound = decode(path)
        seed = int(hash_file(path)[:16], 16)
    except AudioError as error:
        return Failure(error.kind, str(error))
    except OSError as error:
        return Failure("unreadable", f"{path}: {error.strerror or error}")
    changed: dict[str, Float32 | Failure] = {}
    clipped = []
    for name in changes:
        try:
            other = CHANGES[name].apply(sound, seed)
            with open_content(_encode_whole(other), f"{path} ({name})") as recording:
                changed[name] = measure_recording(recording, features, excerpt).features
        except AudioError as error:
            changed[name] = Failure(error.kind, str(error))
            continue
        if other.is_clipped:
            clipped.append(name)
    return Variants(measured.features, changed, tuple(clipped), measured.notes)


def decode(path: Path) -> Sound:
    """Return a file's first five minutes as mono samples at its own sample rate.

    Raises AudioError as :func:`measure_file` does.
    """
    with open_audio(path) as recording:
        [clip] = recording.read_clips(Excerpt(duration=LONGEST_SECONDS), recording.rate)
        return Sound(clip.samples, recording.rate)


def _encode_whole(sound: Sound) -> bytes:
    """Return a sound as the content of a file that holds every bit of it, of any length."""
    import soundfile

    content = io.BytesIO()
    soundfile.write(content, sound.samples, sound.rate, format="W64", subtype="FLOAT")
    return content.getvalue()


@dataclass(frozen=True, eq=False)
class Song:
    """A file's predictions.

    Parameters
    ----------
    file : AudioFile
    original : np.ndarray [shape=(genre,)]
        Probabilities of the file as it is.
    changed : dict of str to np.ndarray [shape=(genre,)] or Failure
        By change.
    clipped : tuple of str
        Which changes have cut off peaks.
    """

    file: AudioFile
    original: Float64
    changed: dict[str, Float64 | Failure]
    clipped: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Robustness:
    """The result of a check.

    Parameters
    ----------
    songs : list of Song
        In the order of the files.
    genre_names : tuple of str
    changes : tuple of str
        Which changes were made.
    impossible : dict of str to str
        Of the others, why they cannot be made here.
    failures : list of Failure
        Of the files that could not be measured.
    notes : list of str
        What is odd about the others.
    """

    songs: list[Song]
    genre_names: tuple[str, ...]
    changes: tuple[str, ...]
    impossible: dict[str, str]
    failures: list[Failure]
    notes: list[str]


def check_robustness(
    predictor: Predictor, recipe: AudioRecipe, files: Sequence[AudioFile], jobs: int | None = None
) -> Robustness:
    """Predict the genre of each file's first five minutes, as they are and after each change.

    Parameters
    ----------
    predictor : Predictor
    recipe : AudioRecipe
        How songs are measured for it.
    files : sequence of AudioFile
    jobs : int, optional
        Processes that measure; one for each core if it is not given.

    Raises
    ------
    AudioError
        No file can be measured.
    DataError
        `jobs` is below 1.
    """
    if jobs is not None and jobs < 1:
        raise DataError(f"jobs={jobs}: expected at least 1")
    require_audio()
    obstacles = {
        name: change.find_obstacle() for name, change in CHANGES.items() if change.find_obstacle is not None
    }
    impossible = {name: reason for name, reason in obstacles.items() if reason is not None}
    changes = tuple(name for name in CHANGES if name not in impossible)
    results: dict[int, Song | Failure] = {}
    notes: dict[int, tuple[str, ...]] = {}
    for position, variants in _measure_all(files, recipe, changes, jobs):
        if isinstance(variants, Failure):
            results[position] = variants
        else:
            results[position] = _predict_all(files[position], variants, predictor, recipe)
            notes[position] = variants.notes
    ordered = [results[position] for position in sorted(results)]
    failures = [result for result in ordered if isinstance(result, Failure)]
    songs = [result for result in ordered if isinstance(result, Song)]
    if not songs:
        kinds = Counter(failure.kind for failure in failures)
        counted = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
        raise AudioError(
            f"none of {len(files)} files could be measured ({counted}): {failures[0].reason}",
            kind=failures[0].kind,
        )
    told = [note for position in sorted(notes) for note in notes[position]]
    return Robustness(songs, predictor.genre_names, changes, impossible, failures, told)


def _measure_all(
    files: Sequence[AudioFile], recipe: AudioRecipe, changes: tuple[str, ...], jobs: int | None
) -> Iterator[tuple[int, Variants | Failure]]:
    """Yield each file's position and features as they come. Show progress where there is a terminal."""
    from tqdm import tqdm

    places = [position for position, file in enumerate(files) if file.problem is None]
    yield from ((i, file.problem) for i, file in enumerate(files) if file.problem is not None)
    paths = [files[place].path for place in places]
    windows = replace(recipe.windows, duration=LONGEST_SECONDS)
    job = partial(measure_variants, features=recipe.features, excerpt=windows, changes=changes)
    processes = min(jobs or count_usable_cores(), len(paths))
    results = (
        run_in_processes(job, paths, processes, lambda failure: failure)
        if processes > 1
        else ((number, job(path)) for number, path in enumerate(paths))
    )
    with closing(results), tqdm(results, recipe.features, len(paths), unit="file", disable=None) as bar:
        for number, variants in bar:
            yield places[number], variants


def _predict_all(file: AudioFile, variants: Variants, predictor: Predictor, recipe: AudioRecipe) -> Song:
    def probabilities(features: Float32) -> Float64:
        return average_windows(predict_windows(predictor, features[:, recipe.columns]))

    changed = {
        name: found if isinstance(found, Failure) else probabilities(found)
        for name, found in variants.changed.items()
    }
    return Song(file, probabilities(variants.original), changed, variants.clipped)
