"""The base of all predictors: it takes a caller's features and returns the documented answer.

Imports neither torch nor scikit-learn, so that a service which answers from a bundle's weights in numpy pays for
neither.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from numbers import Real
from typing import Any, ClassVar, Final, NoReturn, NotRequired, TypedDict

import numpy as np

from genre_classifier.errors import FeatureError

DEFAULT_GENRES: Final = ("Rock", "Electronic", "Hip-Hop", "Classical", "Jazz", "Folk", "Pop", "Experimental")

_PLAIN_NUMBERS: Final = frozenset({float, int})
_BOOLEANS: Final = (bool, np.bool_)
_WHOLE_NUMBERS: Final = (int, np.integer)


class _DefaultTopK(int):
    """The default of `top_k`: three, or all genres if there are fewer than three.

    A separate type, because a caller who asks for three of two genres gets an error, and a caller who asks for
    nothing must still get an answer.
    """


DEFAULT_TOP_K: Final = _DefaultTopK(3)


class TopPrediction(TypedDict):
    """One genre and its probability."""

    genre: str
    confidence: float


class Prediction(TypedDict):
    """The documented answer for one row, in Python's own types."""

    predicted_genre: str
    predicted_index: int
    confidence: float
    top_predictions: list[TopPrediction]
    all_probabilities: NotRequired[dict[str, float]]


def check_genre_names(genre_names: Iterable[str]) -> tuple[str, ...]:
    """Return the names as a tuple; ValueError unless they are two or more different, non-empty strings."""
    if isinstance(genre_names, str):
        raise ValueError(f"genre_names={genre_names!r}: expected a list of names, found one string")
    names = tuple(genre_names)
    for position, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise ValueError(f"genre_names[{position}]={name!r}: expected a non-empty string")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"genre_names: {', '.join(map(repr, repeated))} repeated; every genre needs its own name"
        )
    if len(names) < 2:
        raise ValueError(f"genre_names={list(names)}: expected at least two genres")
    return names


def describe_feature(position: int, feature_names: Sequence[str] | None) -> str:
    """Return how a message calls the feature at `position`."""
    return (
        f"feature {position}"
        if feature_names is None
        else f"feature {position} ({feature_names[position]!r})"
    )


class Predictor(ABC):
    """Checks features, runs a network and makes the answer. A subclass computes the probabilities.

    Attributes
    ----------
    genre_names : tuple of str
        Genre of each of the network's outputs.
    n_features : int or None
        Numbers in a row; None where neither network nor scaler says.
    feature_names : tuple of str or None
        Name of each feature in the network's order; None where unknown.
    backend : str
        What computes: "numpy" for a bundle's own network, "torch" for any other, "onnxruntime" for an ONNX file.
    """

    backend: ClassVar[str]
    genre_names: tuple[str, ...]
    n_features: int | None
    feature_names: tuple[str, ...] | None

    @abstractmethod
    def _row_probabilities(self, row: np.ndarray) -> list[float]:
        """Return a probability for each genre of one checked row, float64 (feature,); NaN for an overflow."""

    @abstractmethod
    def _probabilities(self, rows: np.ndarray) -> np.ndarray:
        """Return probabilities, float64 (row, genre), of checked rows, float64 (row, feature)."""

    @abstractmethod
    def _standardised(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows, float64 (row, feature), as the network sees them."""

    def predict(self, features: Any, return_probs: bool = False, top_k: int = DEFAULT_TOP_K) -> Prediction:
        """Predict the genre of one row of raw (not standardised) features.

        Parameters
        ----------
        features : Sequence[float], np.ndarray, torch.Tensor, Mapping[str, float], pandas Series or DataFrame
            One row, shape (feature,), in the network's order; or named features in any order where the names
            are known; or a DataFrame of one row.
        return_probs : bool
            Add the probability of every genre under ``all_probabilities``.
        top_k : int
            Number of genres in ``top_predictions``, from 1 to the number of genres.

        Returns
        -------
        dict
            ``predicted_genre``, ``predicted_index``, ``confidence``, ``top_predictions`` and, when asked for,
            ``all_probabilities``. Plain Python values.

        Raises
        ------
        ValueError
            The features or `top_k` cannot be used; the message says what was expected.
        """
        n_top = self._check_top_k(top_k)
        row = as_row(features, self.n_features, self.feature_names)
        return self._predict_row(row, return_probs, n_top)

    def predict_checked(self, row: np.ndarray, return_probs: bool, top_k: int) -> Prediction:
        """Predict one row that :func:`as_row` returned; for a caller who needs the row as well."""
        return self._predict_row(row, return_probs, self._check_top_k(top_k))

    def predict_checked_batch(self, rows: np.ndarray, return_probs: bool, top_k: int) -> list[Prediction]:
        """Predict rows that :func:`as_rows` returned; for a caller who needs the rows as well."""
        return self._predict_rows(rows, return_probs, self._check_top_k(top_k))

    def answer(
        self, probabilities: Sequence[float], return_probs: bool = False, top_k: int = DEFAULT_TOP_K
    ) -> Prediction:
        """Return the answer for one probability per genre, which the caller combined from several rows."""
        n_top = self._check_top_k(top_k)
        if len(probabilities) != len(self.genre_names):
            raise ValueError(
                f"{len(probabilities)} probabilities; expected {len(self.genre_names)}, one per genre"
            )
        return self._answer([float(p) for p in probabilities], return_probs, n_top)

    def _predict_row(self, row: np.ndarray, return_probs: bool, n_top: int) -> Prediction:
        probabilities = self._row_probabilities(row)
        if not math.isfinite(sum(probabilities)):
            self._refuse_overflow(row[np.newaxis], 0, is_batch=False)
        return self._answer(probabilities, return_probs, n_top)

    def predict_batch(
        self, features: Any, return_probs: bool = False, top_k: int = DEFAULT_TOP_K
    ) -> list[Prediction]:
        """Predict the genre of many rows in one forward pass.

        Parameters
        ----------
        features : Sequence, np.ndarray, torch.Tensor or pandas DataFrame
            Rows of raw features, shape (row, feature), or a list of what :meth:`predict` takes.
        return_probs, top_k
            As in :meth:`predict`.

        Returns
        -------
        list of dict
            One answer a row, as :meth:`predict` gives it; empty where no row was given.

        Raises
        ------
        ValueError
            A row or `top_k` cannot be used; the message names the row.
        """
        n_top = self._check_top_k(top_k)
        return self._predict_rows(as_rows(features, self.n_features, self.feature_names), return_probs, n_top)

    def _predict_rows(self, rows: np.ndarray, return_probs: bool, n_top: int) -> list[Prediction]:
        if not len(rows):
            return []
        probabilities = self._probabilities(rows)
        finite = np.isfinite(probabilities).all(axis=1)
        if not finite.all():
            self._refuse_overflow(rows, int(np.argmin(finite)), is_batch=True)
        return self._answers(probabilities, return_probs, n_top)

    def _check_top_k(self, top_k: int) -> int:
        n_genres = len(self.genre_names)
        if top_k is DEFAULT_TOP_K:
            return min(3, n_genres)
        if isinstance(top_k, _BOOLEANS) or not isinstance(top_k, _WHOLE_NUMBERS):
            raise ValueError(f"top_k={top_k!r}: expected a whole number from 1 to {n_genres}")
        if not 1 <= top_k <= n_genres:
            raise ValueError(f"top_k={top_k}: expected 1 to {n_genres}, the number of genres")
        return int(top_k)

    def _answer(self, probabilities: list[float], return_probs: bool, n_top: int) -> Prediction:
        genres = self.genre_names
        # sorted() is stable, reversed or not: of equal probabilities the lower index is first, as in argmax.
        order = sorted(range(len(probabilities)), key=probabilities.__getitem__, reverse=True)[:n_top]
        best = order[0]
        answer: Prediction = {
            "predicted_genre": genres[best],
            "predicted_index": best,
            "confidence": probabilities[best],
            "top_predictions": [{"genre": genres[i], "confidence": probabilities[i]} for i in order],
        }
        if return_probs:
            answer["all_probabilities"] = dict(zip(genres, probabilities, strict=True))
        return answer

    def _answers(self, probabilities: np.ndarray, return_probs: bool, n_top: int) -> list[Prediction]:
        genres = self.genre_names
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :n_top]  # (row, top)
        confidences = np.take_along_axis(probabilities, order, axis=1)
        # One flat list of entries, cut into rows afterwards: half the time of a nested loop.
        entries: list[TopPrediction] = [
            {"genre": genres[i], "confidence": p}
            for i, p in zip(order.ravel().tolist(), confidences.ravel().tolist(), strict=True)
        ]
        answers: list[Prediction] = [
            {
                "predicted_genre": genres[best],
                "predicted_index": best,
                "confidence": confidence,
                "top_predictions": entries[start : start + n_top],
            }
            for best, confidence, start in zip(
                order[:, 0].tolist(),
                confidences[:, 0].tolist(),
                range(0, len(entries), n_top),
                strict=True,
            )
        ]
        if return_probs:
            for answer, values in zip(answers, probabilities.tolist(), strict=True):
                answer["all_probabilities"] = dict(zip(genres, values, strict=True))
        return answers

    def _refuse_overflow(self, rows: np.ndarray, row: int, *, is_batch: bool) -> NoReturn:
        """Raise an error that names the feature farthest from the training data: its value made the result overflow."""
        with np.errstate(all="ignore"):
            distance = np.abs(self._standardised(rows[row : row + 1])[0])
        feature = int(np.argmax(np.where(np.isnan(distance), np.inf, distance)))
        named = feature if self.feature_names is None else self.feature_names[feature]
        raise FeatureError(
            f"{_place(row if is_batch else None)}the network's answer is not a finite number; farthest from "
            f"what it was trained on is {describe_feature(feature, self.feature_names)} = "
            f"{float(rows[row, feature])!r}, {distance[feature]:.3g} standard deviations from the mean",
            row=row if is_batch else None,
            feature=named,
        )


def as_row(features: Any, n_features: int | None, feature_names: Sequence[str] | None) -> np.ndarray:
    """Return one row of features as float64 (feature,), in the network's order.

    Raises
    ------
    FeatureError
        Not one row of `n_features` finite numbers, or names other than `feature_names`.
    """
    return _as_row(features, n_features, feature_names, None)


def as_rows(features: Any, n_features: int | None, feature_names: Sequence[str] | None) -> np.ndarray:
    """Return rows of features as float64 (row, feature), in the network's order.

    Raises
    ------
    FeatureError
        A row is not `n_features` finite numbers, or has names other than `feature_names`.
    """
    if _is_frame(features):
        return _frame_rows(features, n_features, feature_names)
    if hasattr(features, "detach"):
        features = _array_of_tensor(features)
    if isinstance(features, np.ndarray) and features.dtype.kind != "O":
        return _array_rows(features, n_features, feature_names)
    if isinstance(features, str | bytes | Mapping) or not isinstance(features, Iterable):
        raise FeatureError(
            f"features: expected a list of rows or an array (row, feature), found {_kind(features)}"
        )
    rows = list(features)
    plain = _plain_rows(rows, n_features, feature_names)
    if plain is not None:
        return plain
    if not rows:
        return np.empty((0, n_features or 0))
    converted = [_as_row(row, n_features, feature_names, number) for number, row in enumerate(rows)]
    widths = {len(row) for row in converted}
    if len(widths) > 1:  # only where the model does not say how many it wants
        raise FeatureError(f"features: rows of different lengths, {', '.join(map(str, sorted(widths)))}")
    return np.stack(converted)


def _as_row(
    features: Any, n_features: int | None, feature_names: Sequence[str] | None, row: int | None
) -> np.ndarray:
    # The first branch is the hot path: a list of plain numbers.
    if (type(features) is list or type(features) is tuple) and _PLAIN_NUMBERS.issuperset(map(type, features)):
        try:
            values = np.array(features, dtype=np.float64)
            is_finite = math.isfinite(sum(features))
        except OverflowError:  # a whole number beyond float64
            values = _numbers(features, feature_names, row)
            is_finite = False
    else:
        values = _unusual_row(features, n_features, feature_names, row)
        is_finite = False
    if n_features is not None and len(values) != n_features:
        raise FeatureError(_width_message(row, n_features, len(values)), row=row)
    if not len(values):
        raise FeatureError(f"{_place(row)}expected at least one feature, found none", row=row)
    if not is_finite:  # or not known to be
        _check_finite(values, feature_names, row)
    return values


def _unusual_row(
    features: Any, n_features: int | None, feature_names: Sequence[str] | None, row: int | None
) -> np.ndarray:
    """Return float64 (feature,) of everything but a list of plain numbers."""
    if isinstance(features, Mapping):
        return _numbers(_in_order(features, feature_names, row), feature_names, row)
    if _is_frame(features):
        rows = _frame_rows(features, n_features, feature_names)
        if len(rows) != 1:
            raise FeatureError(f"{_place(row)}expected a table of one row, found {len(rows)} rows", row=row)
        return rows[0]
    if hasattr(features, "detach"):
        features = _array_of_tensor(features)
    elif hasattr(features, "to_numpy"):
        labels = list(getattr(features, "index", ()))
        if labels and all(isinstance(label, str) for label in labels):
            return _numbers(_in_order(_pairs(labels, features, row), feature_names, row), feature_names, row)
        features = features.to_numpy()
    if isinstance(features, np.ndarray):
        if features.ndim != 1:
            raise FeatureError(_rank_message(row, n_features, features.shape), row=row)
        if features.dtype.kind != "O":
            return _array_numbers(features, row)
        features = features.tolist()
    if isinstance(features, str | bytes) or not isinstance(features, Iterable):
        raise FeatureError(
            f"{_place(row)}expected {_wanted(n_features)}, found {_kind(features)} {_shown(features)}",
            row=row,
        )
    return _numbers(list(features), feature_names, row)


def _plain_rows(rows: list, n_features: int | None, feature_names: Sequence[str] | None) -> np.ndarray | None:
    """Return float64 (row, feature) of equally long lists of plain numbers; None of anything else."""
    if not rows or not {list, tuple}.issuperset(map(type, rows)) or len(set(map(len, rows))) != 1:
        return None
    if not rows[0] or (n_features is not None and len(rows[0]) != n_features):
        return None
    if not _PLAIN_NUMBERS.issuperset(map(type, chain.from_iterable(rows))):
        return None
    try:
        values = np.array(rows, dtype=np.float64)
    except OverflowError:
        return None
    return _finite_rows(values, feature_names)


def _array_rows(array: np.ndarray, n_features: int | None, feature_names: Sequence[str] | None) -> np.ndarray:
    if array.ndim != 2:
        if array.shape == (0,):
            return np.empty((0, n_features or 0))
        wanted = "any" if n_features is None else n_features
        raise FeatureError(
            f"features: expected an array of shape (rows, {wanted}), found shape {array.shape}"
        )
    if n_features is not None and array.shape[1] != n_features:
        raise FeatureError(_width_message(None, n_features, array.shape[1]))
    return _finite_rows(_array_numbers(array, None), feature_names)


def _finite_rows(values: np.ndarray, feature_names: Sequence[str] | None) -> np.ndarray:
    finite = np.isfinite(values)
    if not finite.all():
        row = int(np.argmin(finite.all(axis=1)))
        _check_finite(values[row], feature_names, row)
    return values


def _frame_rows(frame: Any, n_features: int | None, feature_names: Sequence[str] | None) -> np.ndarray:
    columns = list(frame.columns)
    if any(isinstance(column, str) for column in columns):
        repeated = sorted({str(column) for column in columns if columns.count(column) > 1})
        if repeated:
            raise FeatureError(f"features: column {', '.join(map(repr, repeated))} stands more than once")
        frame = frame[_ordered_names(columns, feature_names, None)]
    array = frame.to_numpy()
    if array.dtype.kind != "O":
        return _array_rows(array, n_features, feature_names)
    if not len(array):
        return np.empty((0, n_features or 0))
    return np.stack(
        [_as_row(row, n_features, feature_names, number) for number, row in enumerate(array.tolist())]
    )


def _is_frame(features: Any) -> bool:
    return (
        hasattr(features, "columns") and hasattr(features, "to_numpy") and not isinstance(features, Mapping)
    )


def _array_of_tensor(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    try:
        return tensor.numpy()
    except TypeError:  # bfloat16 and the like have no numpy counterpart
        return tensor.double().numpy()


def _pairs(labels: list[str], series: Any, row: int | None) -> dict[str, Any]:
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise FeatureError(f"{_place(row)}{', '.join(map(repr, repeated))} stands more than once", row=row)
    return dict(zip(labels, series.to_numpy().tolist(), strict=True))


def _in_order(named: Mapping[Any, Any], feature_names: Sequence[str] | None, row: int | None) -> list:
    return [named[name] for name in _ordered_names(list(named), feature_names, row)]


def _ordered_names(found: list, feature_names: Sequence[str] | None, row: int | None) -> list[str]:
    """Return the model's names; FeatureError unless `found` holds exactly these."""
    if feature_names is None:
        raise FeatureError(
            f"{_place(row)}found named features, but this model does not know its features' names; give the "
            "values as a list in the order of training, or the names as feature_names",
            row=row,
        )
    known = set(feature_names)
    present = set(found)
    unknown = [name for name in found if name not in known]
    missing = [name for name in feature_names if name not in present]
    if unknown or missing:
        parts = []
        if unknown:
            parts.append(f"unknown feature {', '.join(repr(name) for name in unknown[:10])}")
        if missing:
            parts.append(f"missing feature {', '.join(repr(name) for name in missing[:10])}")
        blamed = (unknown or missing)[0]
        raise FeatureError(
            f"{_place(row)}{'; '.join(parts)}; expected exactly the {len(feature_names)} names of the model",
            row=row,
            feature=blamed if isinstance(blamed, str) else None,
        )
    return list(feature_names)


def _array_numbers(array: np.ndarray, row: int | None) -> np.ndarray:
    """Return float64 of an array of real numbers; refuse every other dtype, and masked values."""
    if array.dtype.kind not in "fiu":
        raise FeatureError(f"{_place(row)}expected numbers, found an array of dtype {array.dtype}", row=row)
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise FeatureError(f"{_place(row)}expected numbers, found masked (missing) values", row=row)
    with np.errstate(
        over="ignore"
    ):  # a long double above float64's range becomes infinite and is refused as such
        return np.asarray(array, dtype=np.float64)


def _numbers(values: Sequence[Any], feature_names: Sequence[str] | None, row: int | None) -> np.ndarray:
    """Return float64 (feature,) of single values, each checked."""
    numbers = np.empty(len(values))
    for position, value in enumerate(values):
        if isinstance(value, _BOOLEANS) or not isinstance(value, Real):
            _refuse_value(position, value, feature_names, row)
        try:
            numbers[position] = float(value)
        except OverflowError:
            _refuse_value(position, value, feature_names, row)
    return numbers


def _check_finite(values: np.ndarray, feature_names: Sequence[str] | None, row: int | None) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        position = int(np.argmin(finite))
        _refuse_value(position, float(values[position]), feature_names, row)


def _refuse_value(
    position: int, value: Any, feature_names: Sequence[str] | None, row: int | None
) -> NoReturn:
    named = feature_names is not None and position < len(feature_names)
    described = describe_feature(position, feature_names if named else None)
    if isinstance(value, float) and not math.isfinite(value):
        found, expected = repr(value), "a finite number"
    elif isinstance(value, int) and not isinstance(value, bool):
        found, expected = "a whole number beyond the range of float64", "a finite number"
    else:
        found, expected = f"{_kind(value)} {_shown(value)}", "a number"
    raise FeatureError(
        f"{_place(row)}{described} is {found}; expected {expected}",
        row=row,
        feature=feature_names[position] if named and feature_names is not None else position,
    )


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    return {"str": "the string", "bool": "the boolean", "bool_": "the boolean"}.get(
        type(value).__name__, f"a {type(value).__name__}"
    )


def _shown(value: Any) -> str:
    if value is None:
        return ""
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def _place(row: int | None) -> str:
    return "features: " if row is None else f"row {row}: "


def _wanted(n_features: int | None) -> str:
    return "a list of numbers" if n_features is None else f"{n_features} numbers"


def _width_message(row: int | None, n_features: int, found: int) -> str:
    return f"{_place(row)}expected {n_features} features, found {found}"


def _rank_message(row: int | None, n_features: int | None, shape: tuple[int, ...]) -> str:
    wanted = "(features,)" if n_features is None else f"({n_features},)"
    return f"{_place(row)}expected one row of shape {wanted}, found an array of shape {shape}"
