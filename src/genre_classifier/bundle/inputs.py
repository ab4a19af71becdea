"""Check the features given for a prediction, and convert them to an array in the network's order.

A row is a list, an array, a tensor, a mapping or Series by name, or a table of one row. Many rows are a table, array,
tensor or list of rows. `read_row` checks each value. Arrays and lists that are valid as a whole skip it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from numbers import Real
from typing import Any, Final

import numpy as np

from genre_classifier.errors import FeatureError

_PLAIN_NUMBERS: Final = frozenset({float, int})


def read_row(
    features: Any, n_features: int | None, feature_names: Sequence[str] | None, row: int | None = None
) -> np.ndarray:
    """Return one row of features as float64 (feature,), in the network's order.

    Parameters
    ----------
    features : Sequence[float], np.ndarray, torch.Tensor, Mapping[str, float], pandas Series or DataFrame
    n_features : int or None
        The network's number of features. None if it is unknown.
    feature_names : Sequence[str] or None
        The features' names in the network's order. None if unknown.
    row : int or None
        The row's number in a batch, for messages.

    Raises
    ------
    FeatureError
        The features are not one row of `n_features` finite numbers, or have other names than `feature_names`. The
        message names row, feature and value.
    """
    is_list = type(features) is list or type(features) is tuple
    values: Sequence[Any] = features if is_list else _read_values(features, n_features, feature_names, row)
    _check_width(len(values), n_features, row)
    if _PLAIN_NUMBERS.issuperset(map(type, values)):  # the fast path
        try:
            if math.isfinite(sum(values)):
                return np.array(values, dtype=np.float64)
        except OverflowError:  # a whole number beyond float64; the loop below names it
            pass
    for position, value in enumerate(values):
        if (fault := find_fault(value, _describe_value)) is not None:
            expected, found = fault
            raise FeatureError(
                f"{describe_place(row)}{describe_feature(position, feature_names)} is {found}; expected {expected}",
                row=row,
                feature=position if feature_names is None else feature_names[position],
            )
    return np.array([float(value) for value in values])


def read_rows(features: Any, n_features: int | None, feature_names: Sequence[str] | None) -> np.ndarray:
    """Return rows of features as float64 (row, feature), in the network's order.

    Parameters
    ----------
    features : Sequence, np.ndarray, torch.Tensor or pandas DataFrame
        Rows, shape (row, feature), or a list of rows as for :func:`read_row`.
    n_features, feature_names
        See :func:`read_row`.

    Raises
    ------
    FeatureError
        See :func:`read_row`.
    """
    rows = features if isinstance(features, Mapping) else _unwrap(features, feature_names)
    if isinstance(rows, np.ndarray) and rows.shape[:1] != (0,):
        if rows.ndim != 2:
            wanted = "any" if n_features is None else n_features
            raise FeatureError(
                f"features: expected an array of shape (rows, {wanted}), found shape {rows.shape}"
            )
        _check_width(rows.shape[1], n_features, None)
    elif isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        raise FeatureError(
            f"features: expected a list of rows or an array (row, feature), found {_describe_type(rows)}"
        )
    else:
        rows = list(rows)
    if not len(rows):
        return np.empty((0, n_features or 0))
    array = rows if isinstance(rows, np.ndarray) else _convert_lists(rows, n_features)
    if array is not None and np.isfinite(array).all():
        return array
    converted = [read_row(row, n_features, feature_names, number) for number, row in enumerate(rows)]
    widths = {len(row) for row in converted}
    if len(widths) > 1:  # only if the model's number of features is unknown
        raise FeatureError(f"features: rows of different lengths, {', '.join(map(str, sorted(widths)))}")
    return np.stack(converted)


def find_fault(value: Any, describe: Callable[[Any], str]) -> tuple[str, str] | None:
    """Return the expected and the found value of a feature as texts, or None if it is a finite number.

    Parameters
    ----------
    value : Any
    describe : callable
        Describes a value that is not a number, for the caller's messages.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        return "a number", describe(value)
    try:
        number = float(value)
    except OverflowError:
        return "a finite number", "a whole number beyond the range of float64"
    return None if math.isfinite(number) else ("a finite number", repr(number))


def describe_feature(position: int, feature_names: Sequence[str] | None) -> str:
    """Return the description of the feature at `position` for a message."""
    return f"feature {position}" + ("" if feature_names is None else f" ({feature_names[position]!r})")


def describe_place(row: int | None) -> str:
    """Return the start of a message about a row of a batch, or about the only row (None)."""
    return "features: " if row is None else f"row {row}: "


def _read_values(
    features: Any, n_features: int | None, feature_names: Sequence[str] | None, row: int | None
) -> Sequence[Any]:
    """Return the values of one row in the network's order. The row is not a list."""
    if isinstance(features, Mapping):
        return [features[name] for name in _check_names(list(features), feature_names, row)]
    values = _unwrap(features, feature_names, row, is_row=True)
    if hasattr(features, "columns") and hasattr(features, "to_numpy"):
        if len(values) != 1:
            raise FeatureError(
                f"{describe_place(row)}expected a table of one row, found {len(values)} rows", row=row
            )
        values = values[0]
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            wanted = "(features,)" if n_features is None else f"({n_features},)"
            raise FeatureError(
                f"{describe_place(row)}expected one row of shape {wanted}, found an array of shape {values.shape}",
                row=row,
            )
        return values.tolist()
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        wanted = "a list of numbers" if n_features is None else f"{n_features} numbers"
        raise FeatureError(
            f"{describe_place(row)}expected {wanted}, found {_describe_value(values)}", row=row
        )
    return list(values)


def _unwrap(
    features: Any, feature_names: Sequence[str] | None, row: int | None = None, *, is_row: bool = False
) -> Any:
    """Return the content of a tensor, array, Series or table as float64, or as lists if it holds other values.

    Named features are put in order. Other inputs are returned unchanged.
    """
    if hasattr(features, "detach"):
        features = features.detach().cpu()
        try:
            features = features.numpy()
        except TypeError:  # numpy has no bfloat16 and similar types
            features = features.double().numpy()
    elif hasattr(features, "to_numpy"):
        labels = list(getattr(features, "columns", getattr(features, "index", ()) if is_row else ()))
        if any(isinstance(label, str) for label in labels):
            features = features[_check_names(labels, feature_names, row)]
        features = features.to_numpy()
    if not isinstance(features, np.ndarray):
        return features
    if features.dtype.kind == "O":
        return features.tolist()
    if features.dtype.kind not in "fiu":
        raise FeatureError(
            f"{describe_place(row)}expected numbers, found an array of dtype {features.dtype}", row=row
        )
    if isinstance(features, np.ma.MaskedArray) and np.ma.is_masked(features):
        raise FeatureError(f"{describe_place(row)}expected numbers, found masked (missing) values", row=row)
    with np.errstate(over="ignore"):  # a long double beyond float64 becomes infinite, which is refused
        return np.asarray(features, dtype=np.float64)


def _convert_lists(rows: list[Any], n_features: int | None) -> np.ndarray | None:
    """Convert equally long lists of Python numbers to float64 (row, feature). Returns None for other rows."""
    if not {list, tuple}.issuperset(map(type, rows)) or {*map(len, rows)} != {n_features or len(rows[0])}:
        return None
    if not rows[0] or not _PLAIN_NUMBERS.issuperset(map(type, chain.from_iterable(rows))):
        return None
    try:
        return np.array(rows, dtype=np.float64)
    except OverflowError:  # a whole number beyond float64
        return None


def _check_width(found: int, n_features: int | None, row: int | None) -> None:
    if found != n_features and (n_features is not None or not found):
        wanted = "at least one feature" if n_features is None else f"{n_features} features"
        raise FeatureError(f"{describe_place(row)}expected {wanted}, found {found}", row=row)


def _check_names(found: list[Any], feature_names: Sequence[str] | None, row: int | None) -> list[str]:
    """Return the network's names. Raises FeatureError unless `found` holds exactly these, once each."""
    if feature_names is None:
        raise FeatureError(
            f"{describe_place(row)}found named features, but this model does not know its features' names; give the "
            "values as a list in the order of training, or the names as feature_names",
            row=row,
        )
    known, present = set(feature_names), set(found)
    if len(found) > len(present):
        repeated = sorted({repr(name) for name in found if found.count(name) > 1})
        raise FeatureError(f"{describe_place(row)}{', '.join(repeated)} stands more than once", row=row)
    unknown = [name for name in found if name not in known]
    missing = [name for name in feature_names if name not in present]
    if unknown or missing:
        named = (("unknown", unknown), ("missing", missing))
        listed = [f"{fault} feature {', '.join(map(repr, names[:10]))}" for fault, names in named if names]
        blamed = (unknown or missing)[0]
        raise FeatureError(
            f"{describe_place(row)}{'; '.join(listed)}; expected exactly the {len(feature_names)} names of the model",
            row=row,
            feature=blamed if isinstance(blamed, str) else None,
        )
    return list(feature_names)


def _describe_value(value: Any) -> str:
    """Return the name of a value's type, and the value, shortened if it is long."""
    shown = "" if value is None else f" {value!r}"
    return _describe_type(value) + (shown if len(shown) <= 41 else f"{shown[:38]}...")


def _describe_type(value: Any) -> str:
    """Return the name of a value's type for a message."""
    if value is None:
        return "None"
    kind = type(value).__name__
    return {"str": "the string", "bool": "the boolean", "bool_": "the boolean"}.get(kind, f"a {kind}")
