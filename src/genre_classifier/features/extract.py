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
from genre_classifier.features.cache import FeatureCache, Measured, Stamp, describe_recipe, find_default_cache
from genre_classifier.features.decoding.audio import Excerpt, require_audio
from genre_classifier.features.discovery import AudioFile, describe_failures, select_one_per_kind
from genre_classifier.features.measure import Failure, Outcome, get_extractor
from genre_classifier.features.sets import FEATURE_SETS, FeatureSet, FeatureSetReference
from genre_classifier.features.workers import (
    Outcomes,
    measure_here,
    measure_in_processes,
    measure_in_ray,
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
        Kind of the first failure, as in :class:`genre_classifier.errors.AudioError`.
    failures : list of (AudioFile, Failure)
        All files without features.
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
        The part of each file to measure.
    jobs : int or None
        Number of processes; None starts one per core.
    cache : Path or None
        Database of measured files. None is the one in the user's cache folder, or in a temporary folder if the user's
        cannot be written.
    ray : str or None
        Address of a Ray cluster. It measures the files instead of this machine.
    strict : bool
        Whether a file without features is an error.
    progress : bool
        Whether to show a progress bar on a terminal.
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
        """The feature set. Raises DataError if `features` names none."""
        if self.features not in FEATURE_SETS:
            raise DataError(f"feature set {self.features!r} is unknown; there are {', '.join(FEATURE_SETS)}")
        return FEATURE_SETS[self.features]

    @property
    def made_with(self) -> FeatureSetReference:
        """The feature set with version and parameters, as a table records it."""
        return self.feature_set.build_reference(self.excerpt.clip_seconds)


@dataclass(frozen=True, eq=False)
class Extraction:
    """The results of an extraction.

    Parameters
    ----------
    files : list of AudioFile
        The measured files, in the given order.
    measured : list of Measured
        The result of each of these files.
    failures : list of (AudioFile, Failure)
        The other files.
    made_with : FeatureSetReference
    feature_names : tuple of str
    n_known : int
        Number of files that were measured before.
    seconds : float
        Time for measuring the other files.
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

    def list_rows(self) -> Iterator[tuple[AudioFile, str, str | None]]:
        """Yield file, id and group of each row of `features`.

        A window's id has its start in seconds. Windows of a file stay together: if neither folder nor tag nor list
        gives a group, the file is the group. It is also the group if the artist is nobody, such as 'Various Artists'.
        """
        windowed = any(len(measured.starts) > 1 for measured in self.measured)
        for file, measured in zip(self.files, self.measured, strict=True):
            artist = self.find_artist(file, measured)
            alone = windowed or (artist is None and (file.group or measured.artist) is not None)
            group = artist or (file.id if alone else None)
            for start in measured.starts:
                yield file, f"{file.id}@{start:g}" if windowed else file.id, group

    @staticmethod
    def find_artist(file: AudioFile, measured: Measured) -> str | None:
        """Return the artist from folder or list, else from the tag. None if these name nobody."""
        return next((name for name in (file.group, measured.artist) if not is_nobody(name)), None)

    def count_nobodies(self) -> Counter[str]:
        """Return the placeholder names found where an artist belongs, each with its number of files."""
        pairs = zip(self.files, self.measured, strict=True)
        named = [
            (file.group or measured.artist, self.find_artist(file, measured)) for file, measured in pairs
        ]
        return Counter(name for name, artist in named if name and artist is None)


def extract(files: Sequence[AudioFile], settings: Settings) -> Extraction:
    """Measure files. A cached file with the same content and way of measuring is not measured again.

    Results are cached in batches, so a killed extraction continues when it is started again.

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
        No file could be measured, or no file of a genre.
    AudioError
        With ``settings.strict``, for the first file without features.
    MissingExtraError
        A required library is not installed.
    """
    if settings.jobs is not None and settings.jobs < 1:
        raise DataError(f"jobs={settings.jobs}: expected at least 1")
    made_with = settings.made_with
    require_audio()
    get_extractor(settings.features)
    results: dict[int, Measured | Failure] = {}
    started = time.perf_counter()
    recipe = describe_recipe(made_with, settings.excerpt)
    with FeatureCache(
        settings.cache or find_default_cache(), recipe, len(settings.feature_set.features)
    ) as cache:
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
    _log_notes(list(measured.values()))
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
            stamp = Stamp.read(file.path)
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
        for number, outcome in _show_progress(files, positions, settings, len(results)):
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


def _show_progress(
    files: Sequence[AudioFile], positions: list[int], settings: Settings, n_done: int
) -> Iterator[tuple[int, Outcome]]:
    from tqdm import tqdm

    outcomes = _start_measuring([files[position].path for position in positions], settings)
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


def _start_measuring(paths: list[Path], settings: Settings) -> Outcomes:
    jobs = min(settings.jobs or count_usable_cores(), len(paths))
    if settings.ray is not None:
        return measure_in_ray(paths, settings.features, settings.excerpt, settings.ray)
    if jobs == 1:
        return measure_here(paths, settings.features, settings.excerpt)
    return measure_in_processes(paths, settings.features, settings.excerpt, jobs)


def _refuse_failures(failures: list[tuple[AudioFile, Failure]], kept: list[AudioFile], strict: bool) -> None:
    """Raise the errors of :func:`extract` about files without features."""
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
        reasons = "; ".join(failure.reason for failure in select_one_per_kind(of_lost))
        raise NothingMeasuredError(
            f"nothing is left of {which}: {describe_failures(of_lost)}; {reasons}; repair or convert the files, or "
            "take the genre away",
            kind=first.kind,
            failures=failures,
        )


def _log_notes(measured: list[Measured]) -> None:
    notes = [note for result in measured for note in result.notes]
    for note in notes[:SHOWN_NOTES]:
        log.warning("%s; it was measured all the same", note)
    if len(notes) > SHOWN_NOTES:
        log.warning("and %d more such files", len(notes) - SHOWN_NOTES)
