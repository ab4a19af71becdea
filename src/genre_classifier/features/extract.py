"""Extraction: a folder or list of audio files to one table of features, continued where it was interrupted."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre_classifier.errors import AudioError, DataError
from genre_classifier.features.audio import Excerpt, require_audio
from genre_classifier.features.cache import FeatureCache, Measured, Stamp, default_cache, recipe_of
from genre_classifier.features.discovery import AudioFile
from genre_classifier.features.measure import Failure, Outcome, extractor
from genre_classifier.features.sets import FEATURE_SETS, FeatureSet, FeatureSetReference
from genre_classifier.features.workers import (
    Outcomes,
    in_processes,
    in_ray,
    in_this_process,
)
from genre_classifier.processors import usable_cores

log = logging.getLogger(__name__)

BATCH_FILES = 64
BATCH_SECONDS = 2.0


@dataclass(frozen=True)
class Settings:
    """How files are measured, and where.

    Parameters
    ----------
    features : str
        Name of the feature set.
    excerpt : Excerpt
        Which part of each file.
    jobs : int or None
        Processes; None takes one for each core.
    cache : Path or None
        Where measured files are kept; None is the user's cache folder.
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
        """The set of that name; DataError where there is none."""
        if self.features not in FEATURE_SETS:
            raise DataError(f"feature set {self.features!r} is unknown; there are {', '.join(FEATURE_SETS)}")
        return FEATURE_SETS[self.features]

    @property
    def made_with(self) -> FeatureSetReference:
        """What a table says of its features when they were made so."""
        return self.feature_set.reference(self.excerpt.clip_seconds)


@dataclass(frozen=True, eq=False)
class Extraction:
    """What the files gave.

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
        a group, the file is one.
        """
        windowed = any(len(measured.starts) > 1 for measured in self.measured)
        for file, measured in zip(self.files, self.measured, strict=True):
            group = file.group or measured.artist or (file.id if windowed else None)
            for start in measured.starts:
                yield file, f"{file.id}@{start:g}" if windowed else file.id, group


def extract(files: Sequence[AudioFile], settings: Settings) -> Extraction:
    """Measure files; what was measured before, of the same content and in the same way, is not read again.

    Results are kept in batches, so that an extraction that is killed goes on where it was when started anew.

    Parameters
    ----------
    files : sequence of AudioFile
        From :func:`genre_classifier.features.discovery.find_audio` or ``read_list``.
    settings : Settings

    Raises
    ------
    DataError
        `settings` names no feature set, or no file could be measured.
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
    with FeatureCache(settings.cache or default_cache(), recipe_of(made_with, settings.excerpt)) as cache:
        stamps = _look_up(files, cache, results)
        n_known = sum(isinstance(result, Measured) for result in results.values())
        if stamps:
            started = time.perf_counter()
            _measure_rest(files, stamps, settings, cache, results)
        _refuse_failures(results, settings.strict)
    kept = [position for position in range(len(files)) if isinstance(results[position], Measured)]
    failures = [(files[i], result) for i, result in sorted(results.items()) if isinstance(result, Failure)]
    return Extraction(
        files=[files[position] for position in kept],
        measured=[result for i in kept if isinstance(result := results[i], Measured)],
        failures=failures,
        made_with=made_with,
        feature_names=settings.feature_set.features,
        n_known=n_known,
        seconds=time.perf_counter() - started,
    )


def _look_up(
    files: Sequence[AudioFile], cache: FeatureCache, results: dict[int, Measured | Failure]
) -> dict[int, Stamp]:
    """Fill in what is known; return the stamps of the files that are to be measured."""
    stamps = {}
    for position, file in enumerate(files):
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
    jobs = min(settings.jobs or usable_cores(), len(paths))
    if settings.ray is not None:
        return in_ray(paths, settings.features, settings.excerpt, settings.ray)
    if jobs == 1:
        return in_this_process(paths, settings.features, settings.excerpt)
    return in_processes(paths, settings.features, settings.excerpt, jobs)


def _refuse_failures(results: dict[int, Measured | Failure], strict: bool) -> None:
    failures = [result for _, result in sorted(results.items()) if isinstance(result, Failure)]
    if failures and strict:
        raise AudioError(failures[0].reason, kind=failures[0].kind)
    if failures and len(failures) == len(results):
        more = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
        raise AudioError(f"no file could be measured: {failures[0].reason}{more}", kind=failures[0].kind)
    for failure in failures:
        log.debug("%s: %s", failure.kind, failure.reason)
