"""Check the structure of run.json, metrics.json and sweep.json.

A folder may come from anywhere, so a value may have any type. A shape is a type, a tuple of allowed shapes, `None` for
null, a list of one shape, a `Row` of several shapes, or a mapping of keys to shapes. In a mapping, ``"key?"`` may be
missing and `ANY_KEY` stands for all keys. A key without a shape may have any value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from genre_classifier.config.metrics import METRICS as ALL
from genre_classifier.config.schema import SELECTION_METRICS
from genre_classifier.errors import RunFolderError

ANY_KEY: Final = "*"
LARGEST: Final = 2**63
STATUSES: Final = ("running", "finished", "failed")

_WORDS = {
    str: "a text",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    dict: "a mapping",
}


class Measured:
    """A number that may be NaN or infinite, such as the loss of a diverged network."""


class Row:
    """A list with one value for each shape."""

    def __init__(self, *shapes: Any) -> None:
        self.shapes = shapes


_TEXT = (str, None)
_SETTINGS = {"seed?": (int, None), "data.split.fold?": (int, None), "data.split.folds?": (int, None)}
_COUNTS = ({ANY_KEY: int}, None)
RUN: Final[Mapping[str, Any]] = {
    "status": str,
    "reason?": _TEXT,
    "started?": _TEXT,
    "seed?": (int, None),
    "optimized_metric?": _TEXT,
    "working_folder?": _TEXT,
    "settings?": (_SETTINGS, None),
    "versions?": ({ANY_KEY: (str, None)}, None),
    "data?": (
        {
            "source?": _TEXT,
            "fingerprint?": _TEXT,
            "synthetic?": (bool, None),
            "rows_by_split?": _COUNTS,
            "rows?": (int, None),
            "features?": (int, None),
            "genres?": ([str], None),
            "group_name?": _TEXT,
        },
        None,
    ),
    "split_protocol?": ({"description?": _TEXT, "groups_disjoint?": (bool, None)}, None),
    "seconds?": (float, None),
    "epochs?": (int, None),
    "best_epoch?": (int, None),
    "objective?": (Measured, None),
    "baseline?": ({"name?": _TEXT, "seeded?": (bool, None), "chosen?": (dict, None)}, None),
}
_SPLIT = ({ANY_KEY: (Measured, None)}, None)
_INTERVALS = {
    **{f"{metric.name}?": (Row(float, float), None) for metric in ALL},
    "level?": (float, None),
    "method?": _TEXT,
    "resamples?": (int, None),
    "units?": (int, None),
    "unit?": _TEXT,
}
_BIN = Row(float, float, int, (float, None), (float, None))
_ECE = {"ece": float, "loss": float}
METRICS: Final[Mapping[str, Any]] = {
    "train?": _SPLIT,
    "val?": _SPLIT,
    "test?": _SPLIT,
    "synthetic_data?": (bool, None),
    "genre_names?": ([str], None),
    "split_protocol?": ({"description?": _TEXT, "groups_disjoint?": (bool, None)}, None),
    "confusion?": ({ANY_KEY: ([[int]], None)}, None),
    "intervals?": ({ANY_KEY: (_INTERVALS, None)}, None),
    "reliability?": ({ANY_KEY: ([_BIN], None)}, None),
    "temperature?": (
        {
            "temperature?": (float, None),
            "rows?": (int, None),
            "reason?": _TEXT,
            "test?": ({"before": _ECE, "after": _ECE}, None),
        },
        None,
    ),
    "duplicates?": ({"rows?": _COUNTS}, None),
}
SWEEP: Final[Mapping[str, Any]] = {
    "started?": _TEXT,
    "sweeper?": _TEXT,
    "overrides?": ([str], None),
    "swept?": ({ANY_KEY: str}, None),
    "optimized_metric": str,
    "expected?": (int, None),
    "settings?": (dict, None),
}


def check_run(content: Mapping[str, Any], path: Path) -> None:
    """Raise RunFolderError unless `content` is that of a run.json."""
    check(content, RUN, path)
    if content["status"] not in STATUSES:
        raise RunFolderError(
            f"{path}: status is {content['status']!r:.80}, expected one of {', '.join(STATUSES)}"
        )
    objective = content.get("objective")
    judged = ((content.get("data") or {}).get("rows_by_split") or {}).get("val")
    if objective is not None and not math.isfinite(objective) and (judged or math.isinf(objective)):
        # The objective may be NaN in a run without validation rows.
        raise RunFolderError(f"{path}: objective is {objective}, expected a finite number")


def check_settings(settings: Mapping[str, Any], path: Path) -> None:
    """Raise RunFolderError unless seed and fold, which distinguish replicates, are whole numbers or null."""
    check(settings, _SETTINGS, path)


def check_metrics(content: Mapping[str, Any], path: Path) -> None:
    """Raise RunFolderError unless `content` is that of a metrics.json."""
    check(content, METRICS, path)


def check_sweep(content: Mapping[str, Any], path: Path) -> None:
    """Raise RunFolderError unless `content` is that of a sweep.json."""
    check(content, SWEEP, path)
    if content["optimized_metric"] not in SELECTION_METRICS:
        raise RunFolderError(
            f"{path}: optimized_metric is {content['optimized_metric']!r:.80}, expected one of "
            f"{', '.join(SELECTION_METRICS)}"
        )


def check(value: Any, shape: Any, path: Path, key: str = "") -> None:
    """Raise RunFolderError unless a value has a shape. The message names the file, the key and the value."""
    if isinstance(shape, tuple):
        # Checking the shape of the value's own type lets the message name the inner key.
        fitting = next((one for one in shape if _is_of_kind(value, one)), None)
        if value is None and None in shape:
            return
        if fitting is None:
            raise _build_error(value, shape, path, key)
        check(value, fitting, path, key)
    elif not _is_of_kind(value, shape):
        raise _build_error(value, (shape,), path, key)
    elif isinstance(shape, dict):
        _check_keys(value, shape, path, key)
    elif isinstance(shape, Row):
        if len(value) != len(shape.shapes):
            raise RunFolderError(f"{path}: {key} has {len(value):,} values, expected {len(shape.shapes)}")
        for number, (item, one) in enumerate(zip(value, shape.shapes, strict=True)):
            check(item, one, path, f"{key}[{number}]")
    elif isinstance(shape, list):
        for number, item in enumerate(value):
            check(item, shape[0], path, f"{key}[{number}]")


def _check_keys(value: Mapping[str, Any], shapes: Mapping[str, Any], path: Path, key: str) -> None:
    for name, shape in shapes.items():
        if name == ANY_KEY:
            for inner, item in value.items():
                check(item, shape, path, f"{key}.{inner}".lstrip("."))
        elif (bare_name := name.removesuffix("?")) in value:
            check(value[bare_name], shape, path, f"{key}.{bare_name}".lstrip("."))
        elif bare_name == name:
            raise RunFolderError(f"{path}: there is no {f'{key}.{name}'.lstrip('.')}")


def _is_of_kind(value: Any, shape: Any) -> bool:
    if shape is None:
        return value is None
    if isinstance(shape, Row):
        return isinstance(value, list)
    if isinstance(shape, (dict, list)):
        return isinstance(value, type(shape))
    if shape is Measured:
        return _is_number(value) or isinstance(value, float)
    if shape is float:
        return _is_number(value)
    if shape is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST
    return isinstance(value, shape)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < LARGEST if isinstance(value, int) else math.isfinite(value)


def _build_error(value: Any, shapes: tuple[Any, ...], path: Path, key: str) -> RunFolderError:
    words = dict.fromkeys(
        "a list"
        if isinstance(one, (list, Row))
        else _WORDS.get(dict if isinstance(one, dict) else one, "a number")
        for one in shapes
        if one is not None
    )
    try:
        found = f"{value!r:.80}"
    except ValueError:  # a whole number of thousands of digits
        found = "a number of thousands of digits"
    return RunFolderError(f"{path}: {key or 'its content'} is {found}, expected {' or '.join(words)}")
