"""Extract a table of features from a folder or list of audio files. An interrupted extraction can continue."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre_classifier.errors import AudioError, DataError
from genre_classifier.features.artists import is_nobody
from genre_classifier.features.cache import FeatureCache, Measured, Stamp, default_cache, recipe_of
from genre_classifier.features.decoding.audio import Excerpt, require_audio
from genre_classifier.features.discovery import AudioFile, left_out, one_of_each_kind
from genre_classifier.features.measure import Failure, Outcome, extractor
from genre_classifier.features.sets import FEATURE_SETS, FeatureSet, FeatureSetReference
from genre_classifier.features.workers import (
    Outcomes,
    in_processes,
    in_ray,
    in_this_process,
)
from genre_classifier.machine.processors import count_usable_cores

log = logging.getLogger(__name__)

BATCH_FILES = 64
BATCH_SECONDS = 2.0
SHOWN_NOTES = 5


class NothingMeasuredError(AudioError):
    """No file, or no file of a genre, gave features.

    Parameters
    ----------
    message : str
    kind : str
        As of :class:`genre_classifier.errors.AudioError`, of the first failure.
    failures : list of (AudioFile, Failure)
        All of them.
    """

    def __init__(self, message: str, *, kind: str, failures: list[tuple[AudioFile, Failure]]) -> None:
        super().__init__(message, kind=kind)
        self.failures = failures


@dataclass(frozen=True)
class Settings:
    """The settings of an extraction.

    Parameters
    ----------
    features : str
        Name of the feature set.
    excerpt : Excerpt
        Which part of each file.
    jobs : int or None
        Processes; None takes one for each core.
    cache : Path or None
        Where measured files are kept; None is the user's cache folder, or a temporary one where that cannot be written.
    ray : str or None
        Address of a Ray cluster that measures in place of this machine.
    strict : bool
        Whether a file that gives nothing is an error.
    progress : bool
        Whether to show a progress bar, where there is a terminal.
    """

    features: str = "core20"
    excerpt: Excerpt = field(default_factory=Excerpt)
    jobs: int | None = None
    cache: Path | None = None
    ray: str | None = None
    strict: bool = False
    progress: bool = True

    @property
    def feature_set(self) -> FeatureSet:
        """The feature set of that name. Raises DataError if there is none."""
        if self.features not in FEATURE_SETS:
            raise DataError(f"feature set {self.features!r} is unknown; there are {', '.join(FEATURE_SETS)}")
        return FEATURE_SETS[self.features]

    @property
    def made_with(self) -> FeatureSetReference:
        """What a table says of its features when they were made so."""
        return self.feature_set.reference(self.excerpt.clip_seconds)


@dataclass(frozen=True, eq=False)
class Extraction:
    """The results of an extraction.

    Parameters
    ----------
    files : list of AudioFile
        Those that were measured, in the order given.
    measured : list of Measured
        One for each of them.
    failures : list of (AudioFile, Failure)
        The others.
    made_with : FeatureSetReference
    feature_names : tuple of str
    n_known : int
        How many of them had been measured before.
    seconds : float
        What measuring the others took.
    """

    files: list[AudioFile]
    measured: list[Measured]
    failures: list[tuple[AudioFile, Failure]]
    made_with: FeatureSetReference
    feature_names: tuple[str, ...]
    n_known: int
    seconds: float

    @property
    def features(self) -> npt.NDArray[np.float32]:
        """All clips' features, shape (row, feature)."""
        if not self.measured:
            return np.empty((0, len(self.feature_names)), np.float32)
        return np.concatenate([measured.features for measured in self.measured])

    def rows(self) -> Iterator[tuple[AudioFile, str, str | None]]:
        """Yield file, id and group of each row of `features`.

        A file's windows are named by where they start. They stay together: where neither folder nor tag nor list gives
        a group, the file is one. A file whose artist is nobody, such as 'Various Artists', is one as well.
        """
        windowed = any(len(measured.starts) > 1 for measured in self.measured)
        for file, measured in zip(self.files, self.measured, strict=True):
            artist = self.artist(file, measured)
            alone = windowed or (artist is None and (file.group or measured.artist) is not None)
            group = artist or (file.id if alone else None)
            for start in measured.starts:
                yield file, f"{file.id}@{start:g}" if windowed else file.id, group

    @staticmethod
    def artist(file: AudioFile, measured: Measured) -> str | None:
        """Return who a file is by: what folder or list says, or else its tag; None if these name nobody."""
        return next((name for name in (file.group, measured.artist) if not is_nobody(name)), None)

    def nobodies(self) -> Counter[str]:
        """Return which names of nobody stand for an artist, each with its number of files."""
        pairs = zip(self.files, self.measured, strict=True)
        named = [(file.group or measured.artist, self.artist(file, measured)) for file, measured in pairs]
        return Counter(name for name, artist in named if name and artist is None)


def extract(files: Sequence[AudioFile], settings: Settings) -> Extraction:
    """Measure files. A file with known content that was measured in the same way is not measured again.

    Results are kept in batches. So a killed extraction continues where it was when it is started again.

    Parameters
    ----------
    files : sequence of AudioFile
        From :func:`genre_classifier.features.discovery.find_audio` or ``read_list``.
    settings : Settings

    Raises
    ------
    DataError
        `settings` names no feature set.
    NothingMeasuredError
        No file could be measured, or none of a genre.
    AudioError
        With ``settings.strict``, of the first file that gives nothing.
    MissingExtraError
        A library that is needed is not installed.
    """
    if settings.jobs is not None and settings.jobs < 1:
        raise DataError(f"jobs={settings.jobs}: expected at least 1")
    made_with = settings.made_with
    require_audio()
    extractor(settings.features)
    results: dict[int, Measured | Failure] = {}
    started = time.perf_counter()
    recipe = recipe_of(made_with, settings.excerpt)
    with FeatureCache(settings.cache or default_cache(), recipe, len(settings.feature_set.features)) as cache:
        stamps = _look_up(files, cache, results)
        if cache.damaged:
            log.warning(
                "%s: %d entries are damaged, and their files are measured again (%s)",
                cache.path,
                len(cache.damaged),
                cache.damaged[0],
            )
        n_known = sum(isinstance(result, Measured) for result in results.values())
        if stamps:
            started = time.perf_counter()
            _measure_rest(files, stamps, settings, cache, results)
    failures = [(files[i], result) for i, result in sorted(results.items()) if isinstance(result, Failure)]
    measured = {i: result for i, result in sorted(results.items()) if isinstance(result, Measured)}
    _refuse_failures(failures, [files[i] for i in measured], settings.strict)
    _tell_notes(list(measured.values()))
    return Extraction(
        files=[files[i] for i in measured],
        measured=list(measured.values()),
        failures=failures,
        made_with=made_with,
        feature_names=settings.feature_set.features,
        n_known=n_known,
        seconds=time.perf_counter() - started,
    )


def _look_up(
    files: Sequence[AudioFile], cache: FeatureCache, results: dict[int, Measured | Failure]
) -> dict[int, Stamp]:
    """Fill in the known results. Return the stamps of the files that must be measured."""
    stamps = {}
    for position, file in enumerate(files):
        if file.problem is not None:
            results[position] = file.problem
            continue
        try:
            stamp = Stamp.of(file.path)
            known = cache.find(file.path, stamp)
        except OSError as error:
            results[position] = Failure("unreadable", f"{file.path}: {error.strerror or error}")
            continue
        if known is None:
            stamps[position] = stamp
        else:
            results[position] = known
    return stamps


def _measure_rest(
    files: Sequence[AudioFile],
    stamps: dict[int, Stamp],
    settings: Settings,
    cache: FeatureCache,
    results: dict[int, Measured | Failure],
) -> None:
    positions = list(stamps)
    batch: list[tuple[Stamp, str, Measured]] = []
    written = time.monotonic()
    try:
        for number, outcome in _with_progress(files, positions, settings, len(results)):
            position = positions[number]
            results[position] = outcome.result
            if isinstance(outcome.result, Measured):
                batch.append((stamps[position], outcome.content, outcome.result))
            elif settings.strict:
                break
            if len(batch) >= BATCH_FILES or time.monotonic() - written > BATCH_SECONDS:
                cache.add(batch)
                batch, written = [], time.monotonic()
    finally:
        cache.add(batch)


def _with_progress(
    files: Sequence[AudioFile], positions: list[int], settings: Settings, n_done: int
) -> Iterator[tuple[int, Outcome]]:
    from tqdm import tqdm

    outcomes = _outcomes([files[position].path for position in positions], settings)
    bar = tqdm(
        outcomes,
        desc=settings.features,
        total=len(positions) + n_done,
        initial=n_done,
        unit="file",
        disable=None if settings.progress else True,
    )
    try:
        yield from bar
    finally:
        bar.close()
        outcomes.close()


def _outcomes(paths: list[Path], settings: Settings) -> Outcomes:
    jobs = min(settings.jobs or count_usable_cores(), len(paths))
    if settings.ray is not None:
        return in_ray(paths, settings.features, settings.excerpt, settings.ray)
    if jobs == 1:
        return in_this_process(paths, settings.features, settings.excerpt)
    return in_processes(paths, settings.features, settings.excerpt, jobs)


def _refuse_failures(failures: list[tuple[AudioFile, Failure]], kept: list[AudioFile], strict: bool) -> None:
    """Raise what :func:`extract` says of files that gave nothing."""
    if not failures:
        return
    first = failures[0][1]
    if strict:
        raise AudioError(first.reason, kind=first.kind)
    if not kept:
        more = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
        message = f"no file could be measured: {first.reason}{more}"
        raise NothingMeasuredError(message, kind=first.kind, failures=failures)
    for _, failure in failures:
        log.debug("%s: %s", failure.kind, failure.reason)
    lost = defaultdict(list)
    for file, failure in failures:
        if file.genre is not None:
            lost[file.genre].append((file, failure))
    for genre in {file.genre for file in kept if file.genre is not None}:
        lost.pop(genre, None)
    if lost:
        which = f"genre{'s' if len(lost) > 1 else ''} {', '.join(repr(genre) for genre in lost)}"
        of_lost = [pair for of_genre in lost.values() for pair in of_genre]
        reasons = "; ".join(failure.reason for failure in one_of_each_kind(of_lost))
        raise NothingMeasuredError(
            f"nothing is left of {which}: {left_out(of_lost)}; {reasons}; repair or convert the files, or take the "
            "genre away",
            kind=first.kind,
            failures=failures,
        )


def _tell_notes(measured: list[Measured]) -> None:
    notes = [note for result in measured for note in result.notes]
    for note in notes[:SHOWN_NOTES]:
        log.warning("%s; it was measured all the same", note)
    if len(notes) > SHOWN_NOTES:
        log.warning("and %d more such files", len(notes) - SHOWN_NOTES)
