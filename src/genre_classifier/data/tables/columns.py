"""Columns of a CSV, TSV or Parquet file, for training and prediction alike: features as float32, others as text."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from genre_classifier.data.tables.readers import Asked, Reader, one_error, open_table
from genre_classifier.data.tables.row_numbers import Order, is_saved_index
from genre_classifier.data.values import Float32, divide_rows
from genre_classifier.errors import DataError
from genre_classifier.features.names import normalise

log = logging.getLogger(__name__)

SETTINGS: Final = Asked("data.path", "data.features", "data.features")
# The most values to reserve before reading. A file may give a false number of rows.
LARGEST_START = 1 << 26
# A decimal comma, or commas between thousands, in a quoted cell.
NUMBER_WITH_COMMA: Final = re.compile(r"'[+-]?\d+,\d+(,\d{3})*(\.\d+)?'")


@dataclass(frozen=True)
class Columns:
    """A file's columns.

    Parameters
    ----------
    features : np.ndarray [shape=(row, feature), dtype=float32]
        A missing cell is NaN.
    feature_names : list of str
    texts : dict of str to list
        The other columns that were asked for, by the key that asked: one value or None for each row.
    row_name : callable
        What a person calls a row, counted from 0: ``row 2`` is the first below a CSV's header.
    """

    features: Float32
    feature_names: list[str]
    texts: dict[str, list[Any]]
    row_name: Callable[[int], str]


def read_columns(
    path: Path,
    texts: Mapping[str, str],
    features: Sequence[str] | None = None,
    *,
    asked: Asked = SETTINGS,
    optional: Collection[str] = (),
) -> Columns:
    """Read a table.

    Parameters
    ----------
    path : Path
        ``.csv``, ``.tsv``, ``.txt`` (tabs), ``.parquet`` or ``.pq``.
    texts : mapping of str to str
        The key that asks for a column and the column's name, for each column to read as text, as in
        ``{"data.label": "genre"}``.
    features : sequence of str, optional
        The feature columns; all remaining numeric columns if not given, but for row numbers and empty columns.
    asked : Asked, optional
        Who asks, for messages.
    optional : collection of str
        The keys of `texts` whose column may be missing.

    Raises
    ------
    DataError
        The file is missing, empty or no table, a column is missing, repeated or empty, or a feature is not a number.
    """
    reader = open_table(path, asked)
    texts = {key: normalise(name) for key, name in texts.items()}
    texts = {key: name for key, name in texts.items() if key not in optional or name in reader.names}
    _check_header(path, reader.names, texts)
    if features is None:
        wanted = _find_numeric_columns(path, reader, set(texts.values()), asked)
    else:
        wanted = _check_given_columns(
            path, reader, set(texts.values()), [normalise(name) for name in features], asked
        )
    orders = [Order(name, reader.whole_below(name)) for name in wanted]
    matrix, columns = _convert(path, reader, orders, list(dict.fromkeys(texts.values())))
    if len(matrix):
        matrix, orders = _look_over(path, matrix, orders, reader, asked, given=features is not None)
    return Columns(
        matrix,
        [order.name for order in orders],
        {key: columns[name] for key, name in texts.items()},
        reader.row_name,
    )


def _check_header(path: Path, names: list[str], texts: Mapping[str, str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(
            f"{path}: column {repeated[0]!r} appears {Counter(names)[repeated[0]]} times; rename or remove"
        )
    for key, name in texts.items():
        if name not in names:
            said = f"{key}={name}" if key.startswith("data.") else key
            raise DataError(f"{path}: there is no column {name!r} ({said}); it has {_list_names(names)}")


def _list_names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:30])
    return shown + (f" and {len(names) - 30} more" if len(names) > 30 else "")


def _check_given_columns(
    path: Path, reader: Reader, taken: set[str], features: list[str], asked: Asked
) -> list[str]:
    if not features:
        raise DataError(f"{asked.features}=[] selects nothing; name one or more columns, or null for all")
    repeated = [name for name, count in Counter(features).items() if count > 1]
    if repeated:
        raise DataError(f"{asked.features} names {repeated[0]!r} twice")
    missing = [name for name in features if name not in reader.names]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(
            f"{path}: there is no column {missing[0]!r}{others} ({asked.features}); it has {_list_names(reader.names)}"
        )
    used = [name for name in features if name in taken]
    if used:
        raise DataError(f"{asked.features} names {used[0]!r}, which is the label, group, id or split column")
    not_numeric = [name for name in features if reader.is_typed and not reader.is_number(name)]
    if not_numeric:
        raise DataError(f"{path}: column {not_numeric[0]!r} ({asked.features}) does not hold numbers")
    return features


def _find_numeric_columns(path: Path, reader: Reader, taken: set[str], asked: Asked) -> list[str]:
    rest = [name for name in reader.names if name not in taken]
    index = [name for name in rest if _is_index(name, reader) and not reader.is_blank(name)]
    numeric = [name for name in rest if name not in index and reader.is_number(name)]
    ignored = [name for name in rest if name not in index and name not in numeric]
    if index:
        _warn_of_index(path, index, asked)
    cells = [reader.describe_cells(name) for name in ignored]
    described = _list_names([f"{name} ({cell})" for name, cell in zip(ignored, cells, strict=True)])
    if any(map(NUMBER_WITH_COMMA.fullmatch, cells)):
        described += "; write numbers with a point and without commas"
    if ignored and not numeric:
        raise DataError(f"{path}: no column is left to be a feature; not numeric: {described}")
    if not numeric:
        raise DataError(f"{path}: no column is left to be a feature; it has {_list_names(reader.names)}")
    if ignored:
        log.warning("%s: not numeric and so not used as features: %s", path, described)
    return numeric


def _is_index(name: str, reader: Reader) -> bool:
    return name in reader.index_names or is_saved_index(name)


def _warn_of_index(path: Path, names: Sequence[str], asked: Asked) -> None:
    log.warning(
        "%s: left out of the features, as the index or row numbers that were saved with the table: %s%s",
        path,
        ", ".join(map(repr, names)),
        "" if asked.setting is None else f" (to use them, name the features with {asked.setting}=[...])",
    )


def _look_over(
    path: Path, matrix: Float32, orders: list[Order], reader: Reader, asked: Asked, *, given: bool
) -> tuple[Float32, list[Order]]:
    """Leave out empty columns and saved indexes unless they were asked for, and warn of columns like row numbers."""
    empty = [order.name for order in orders if order.is_empty]
    index = [
        order.name
        for order in orders
        if not order.is_empty and (order.is_index or _is_index(order.name, reader))
    ]
    if empty and given:
        raise DataError(
            f"{path}: column {empty[0]!r} ({asked.features}) is empty in every row; fill it in{asked.otherwise}"
        )
    if empty:
        log.warning("%s: empty in every row and so left out of the features: %s", path, _list_names(empty))
    if index and given:
        log.warning(
            "%s: %s of %s looks like an index or row numbers that were saved with the table: they tell where a row "
            "stood in a file, nothing of its music",
            path,
            ", ".join(map(repr, index)),
            asked.features,
        )
    elif index:
        _warn_of_index(path, index, asked)
    left_out = set() if given else {*empty, *index}
    kept = [position for position, order in enumerate(orders) if order.name not in left_out]
    if not kept:
        raise DataError(f"{path}: no column is left to be a feature; it has {_list_names(reader.names)}")
    _warn_of_order(path, [orders[position] for position in kept if orders[position].name not in index], asked)
    return _keep_columns(matrix, kept), [orders[position] for position in kept]


def _warn_of_order(path: Path, orders: Sequence[Order], asked: Asked) -> None:
    found = [(order.name, finding) for order in orders if (finding := order.finding())]
    if not found:
        return
    log.warning(
        "%s: these features may be row numbers or ids, by which a model knows rows and not music: %s%s; if so, %s",
        path,
        "; ".join(f"{name!r} {finding}" for name, finding in found[:10]),
        f"; and {len(found) - 10} more columns" if len(found) > 10 else "",
        "the table is not what it should be"
        if asked.setting is None
        else f"remove the column{asked.otherwise}",
    )


def _keep_columns(matrix: Float32, kept: list[int]) -> Float32:
    """Return these columns. They are moved in place, so that memory never holds the table twice."""
    if len(kept) == matrix.shape[1]:
        return matrix
    flat = matrix.reshape(-1)
    filled = 0
    for block in divide_rows(*matrix.shape):
        values = matrix[block][:, kept].ravel()
        flat[filled : filled + len(values)] = values
        filled += len(values)
    rows = len(matrix)
    del flat
    matrix.resize((rows, len(kept)), refcheck=False)
    return matrix


def _convert(
    path: Path, reader: Reader, orders: list[Order], texts: list[str]
) -> tuple[Float32, dict[str, list[Any]]]:
    features = [order.name for order in orders]
    start = min(reader.rows_expected, LARGEST_START // len(features))
    matrix = np.empty((start, len(features)), dtype=np.float32)
    columns: dict[str, list[Any]] = {name: [] for name in texts}
    filled = 0
    for batch in reader.blocks(features, texts):
        end = filled + batch.num_rows
        if end > len(matrix):
            # In place, so that growing never holds the table twice.
            matrix.resize((max(end, len(matrix) * 5 // 4), len(features)), refcheck=False)
        for position, order in enumerate(orders):
            with one_error(path, "is damaged"):
                values = batch.column(position).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
            order.add(values)
            with np.errstate(over="ignore"):  # a number too large becomes infinity, which the table refuses
                matrix[filled:end, position] = values
        with one_error(path, "is damaged"):
            for position, name in enumerate(texts, start=len(orders)):
                columns[name].extend(batch.column(position).to_pylist())
        filled = end
        del batch, values
        pa.default_memory_pool().release_unused()
    matrix.resize((filled, len(features)), refcheck=False)
    return matrix, columns
