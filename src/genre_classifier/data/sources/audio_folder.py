"""Read a folder of audio files, FOLDER/GENRE/[ARTIST/]FILE, or a list of files. Each file is measured once."""

from __future__ import annotations

import logging

from genre_classifier.config.schema import AudioFolderConfig
from genre_classifier.data.table import FeatureTable, Source, build_table
from genre_classifier.errors import DataError
from genre_classifier.features.decoding.audio import Excerpt
from genre_classifier.features.discovery import (
    AudioFile,
    describe_failures,
    find_audio,
    read_list,
    select_one_per_kind,
)
from genre_classifier.features.extract import Extraction, Settings, extract
from genre_classifier.features.sets import CLIP_SECONDS
from genre_classifier.files.home import expand_home

log = logging.getLogger(__name__)

SOURCE = Source(
    name="audio_folder",
    origin="audio files of the user's own, measured by this package",
    licence="as their owners say",
    citation="as their owners say",
)


def read(config: AudioFolderConfig) -> FeatureTable:
    """Measure the new files, and make a table of all files.

    Raises
    ------
    DataError
        There are no files, one has no genre, none of a genre can be measured, or, with ``strict``, one cannot.
    """
    if config.split.column is not None:
        raise DataError(f"data.split.column={config.split.column}: a folder of audio has no split column")
    path = expand_home(config.path)
    files = read_list(path) if path.suffix.lower() == ".csv" else find_audio(path)
    without = next((file for file in files if file.genre is None and file.problem is None), None)
    if without is not None:
        raise DataError(
            f"{without.path} has no genre; put it into {path}/GENRE/, or name one in a list of files"
        )
    extraction = extract(files, _build_settings(config))
    if extraction.failures:
        log.warning(
            "%s: %s; genre-classifier extract lists them all", path, describe_failures(extraction.failures)
        )
        for failure in select_one_per_kind(extraction.failures):
            log.warning("left out, %s: %s", failure.kind, failure.reason)
    rows = list(extraction.list_rows())
    groups, group_name = _read_groups(rows, extraction)
    return build_table(
        features=extraction.features,
        labels=[file.genre for file, _, _ in rows],
        feature_names=extraction.feature_names,
        ids=[name for _, name, _ in rows],
        groups=groups,
        group_name=group_name,
        source=SOURCE,
        where=str(path),
        nan=config.nan,
        row_name=lambda row: f"{rows[row][1]!r}",
        made_with=extraction.made_with,
    )


def _build_settings(config: AudioFolderConfig) -> Settings:
    duration = config.duration
    if duration is None and config.windows is None:
        duration = CLIP_SECONDS
    return Settings(
        features=config.features.value,
        excerpt=Excerpt(config.offset, duration, config.windows),
        jobs=config.jobs,
        cache=None if config.cache is None else expand_home(config.cache),
        strict=config.strict,
    )


def _read_groups(
    rows: list[tuple[AudioFile, str, str | None]], extraction: Extraction
) -> tuple[list[str] | None, str | None]:
    """Return each row's group, and the kind of group. A file without a group is a separate group."""
    pairs = zip(extraction.files, extraction.measured, strict=True)
    named = [extraction.find_artist(file, measured) is not None for file, measured in pairs]
    nobodies = extraction.count_nobodies()
    if nobodies:
        names = ", ".join(repr(name) for name, _ in nobodies.most_common(5))
        log.warning(
            "%d of %d files are by %s, which is no artist; each of them is a separate group",
            nobodies.total(),
            len(named),
            names,
        )
    if not any(named):
        windowed = any(group is not None for *_, group in rows)
        return ([group or file.id for file, _, group in rows], "track") if windowed else (None, None)
    without = named.count(False) - nobodies.total()
    if without:
        log.warning(
            "%d of %d files have neither an artist's folder nor an artist tag; each counts as a separate artist",
            without,
            len(named),
        )
    return [group or file.id for file, _, group in rows], "artist"
