"""Write and read tables of extracted features: id, path, genre, group, the features, and the feature set."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genre_classifier.errors import DataError
from genre_classifier.features.sets import FeatureSetReference
from genre_classifier.files.atomic import replacing, write_text
from genre_classifier.files.csv_files import format_csv, guard_cell
from genre_classifier.files.documents import parse_json, read_json

if TYPE_CHECKING:
    import pyarrow as pa

    from genre_classifier.features.discovery import AudioFile
    from genre_classifier.features.extract import Extraction
    from genre_classifier.features.measure import Failure

FORMAT_VERSION = 1
SUFFIXES = (".parquet", ".csv")
_KEYS = ("feature_set", "feature_set_version", "feature_set_parameters")


def check_output(path: Path) -> None:
    """Raise DataError unless a table can be written to this path."""
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{path}: {path.suffix or 'no suffix'} is not a kind of table; expected .parquet or .csv"
        )
    if path.is_dir():
        raise DataError(f"{path} is a folder; name the table to be written")


def write_extraction(extraction: Extraction, path: Path) -> Path | None:
    """Write a table in one step. Return the path of the table of errors, if there is one.

    Parameters
    ----------
    extraction : Extraction
    path : Path
        A ``.parquet`` file has the feature set in its metadata. A ``.csv`` file has it in PATH.json.
    """
    check_output(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    table = _build_table(extraction, for_csv=path.suffix.lower() == ".csv")
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        with replacing(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")
    else:
        import pyarrow.csv as pa_csv

        how = json.dumps(_build_metadata(extraction.made_with), indent=2) + "\n"
        with replacing(_get_sidecar(path)) as sidecar, replacing(path) as temporary:
            sidecar.write_text(how, encoding="utf-8")
            pa_csv.write_csv(table, temporary)
    return write_errors(extraction.failures, path)


def read_feature_set(path: Path) -> FeatureSetReference | None:
    """Return the feature set that a table records, with version and parameters, or None.

    Raises
    ------
    DataError
        The record is damaged.
    """
    if path.suffix.lower() in {".parquet", ".pq"}:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            raw = pq.read_schema(path).metadata or {}
        except (pa.ArrowException, OSError, ValueError):
            return None  # reading the rows reports the error
        found = {
            key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in raw.items()
        }
    elif _get_sidecar(path).is_file():
        sidecar = _get_sidecar(path)
        try:
            found = read_json(sidecar, DataError)
        except DataError as error:
            raise DataError(f"{error}; remove it or extract again") from error
        if not isinstance(found, dict):
            raise DataError(f"{sidecar} is not a JSON object; remove it or extract again")
    else:
        return None
    if not all(key in found for key in _KEYS):
        return None
    try:
        return FeatureSetReference.from_dict(
            {
                "name": found["feature_set"],
                "version": found["feature_set_version"],
                "parameters": parse_json(str(found["feature_set_parameters"]), path, DataError),
            }
        )
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"{path}: its metadata does not say how the features were made: {error}") from error


def _get_sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _build_metadata(reference: FeatureSetReference) -> dict[str, str]:
    return {
        "format_version": str(FORMAT_VERSION),
        "feature_set": reference.name,
        "feature_set_version": str(reference.version),
        "feature_set_parameters": json.dumps(dict(reference.parameters)),
    }


def _build_table(extraction: Extraction, *, for_csv: bool) -> pa.Table:
    import pyarrow as pa

    rows = list(extraction.list_rows())
    columns: dict[str, list[str | None]] = {
        "id": [name for _, name, _ in rows],
        "path": [os.fsencode(file.path).decode("utf-8", "backslashreplace") for file, _, _ in rows],
        "genre": [file.genre for file, _, _ in rows],
        "group": [group for _, _, group in rows],
    }
    if for_csv:
        columns = {name: list(map(guard_cell, values)) for name, values in columns.items()}
    arrays = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    features = extraction.features
    for position, name in enumerate(extraction.feature_names):
        arrays[name] = pa.array(features[:, position])
    return pa.table(arrays).replace_schema_metadata(_build_metadata(extraction.made_with))


def write_errors(failures: Sequence[tuple[AudioFile, Failure]], path: Path) -> Path | None:
    """Write the table of errors beside the table PATH. Without errors, remove that of an earlier run."""
    errors = path.with_name(f"{path.stem}.errors.csv")
    if not failures:
        errors.unlink(missing_ok=True)
        return None
    errors.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        (os.fsencode(file.path).decode("utf-8", "backslashreplace"), failure.kind, failure.reason)
        for file, failure in failures
    ]
    write_text(errors, format_csv(["path", "kind", "reason"], rows))
    return errors
