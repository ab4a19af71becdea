"""The base of all predictors: checked features go in, the documented answer comes out.

Imports neither torch nor scikit-learn: a service that answers from a bundle's weights in numpy needs neither.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Final, NoReturn, NotRequired, TypedDict

import numpy as np

from genre_classifier.bundle.inputs import describe_feature, describe_place, read_row, read_rows
from genre_classifier.errors import FeatureError, TopKError

DEFAULT_GENRES: Final = ("Rock", "Electronic", "Hip-Hop", "Classical", "Jazz", "Folk", "Pop", "Experimental")


class _DefaultTopK(int):
    """The default of `top_k`: three, or all genres if there are fewer than three.

    It is a separate type because an explicit `top_k` above the number of genres is an error, and the default must
    never be one.
    """


DEFAULT_TOP_K: Final = _DefaultTopK(3)


class TopPrediction(TypedDict):
    """One genre and its probability."""

    genre: str
    confidence: float


class Prediction(TypedDict):
    """The documented answer for one row, in built-in Python types."""

    predicted_genre: str
    predicted_index: int
    confidence: float
    top_predictions: list[TopPrediction]
    all_probabilities: NotRequired[dict[str, float]]


def check_genre_names(genre_names: Iterable[str]) -> tuple[str, ...]:
    """Return the names as a tuple. Raises ValueError unless they are two or more different, non-empty strings."""
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


class Predictor(ABC):
    """Checks features, runs a network and builds the answer. A subclass computes the probabilities.

    Attributes
    ----------
    genre_names : tuple of str
        Genre of each of the network's outputs.
    n_features : int or None
        Number of features per row. None if neither network nor scaler knows it.
    feature_names : tuple of str or None
        Name of each feature in the network's order. None if unknown.
    backend : str
        Library that computes: "numpy" for a bundle's network, "torch" for any other, "onnxruntime" for an ONNX file.
    """

    backend: ClassVar[str]

    def __init__(
        self, genre_names: Iterable[str], n_features: int | None, feature_names: Iterable[str] | None
    ) -> None:
        self.genre_names = check_genre_names(genre_names)
        self.n_features = n_features
        self.feature_names = None if feature_names is None else tuple(feature_names)

    @abstractmethod
    def _compute_row_probabilities(self, row: np.ndarray) -> list[float]:
        """Return each genre's probability for one checked row, float64 (feature,). An overflow gives NaN."""

    @abstractmethod
    def _compute_probabilities(self, rows: np.ndarray) -> np.ndarray:
        """Return probabilities, float64 (row, genre), of checked rows, float64 (row, feature)."""

    @abstractmethod
    def _standardise(self, rows: np.ndarray) -> np.ndarray:
        """Return standardised rows, float64 (row, feature)."""

    def predict(self, features: Any, return_probs: bool = False, top_k: int = DEFAULT_TOP_K) -> Prediction:
        """Predict the genre of one row of raw (not standardised) features.

        Parameters
        ----------
        features : Sequence[float], np.ndarray, torch.Tensor, Mapping[str, float], pandas Series or DataFrame
            One row, shape (feature,), in the network's order. If the names are known, also named features in any
            order, or a DataFrame of one row.
        return_probs : bool
            Add the probability of every genre under ``all_probabilities``.
        top_k : int
            Number of genres in ``top_predictions``, from 1 to the number of genres.

        Returns
        -------
        dict
            ``predicted_genre``, ``predicted_index``, ``confidence``, ``top_predictions`` and, with `return_probs`,
            ``all_probabilities``. All values have built-in Python types.

        Raises
        ------
        ValueError
            The features or `top_k` cannot be used. The message says what was expected.
        """
        row = read_row(features, self.n_features, self.feature_names)
        return self.predict_row(row, return_probs, top_k)

    def predict_batch(
        self, features: Any, return_probs: bool = False, top_k: int = DEFAULT_TOP_K
    ) -> list[Prediction]:
        """Predict the genre of many rows in one forward pass.

        Parameters
        ----------
        features : Sequence, np.ndarray, torch.Tensor or pandas DataFrame
            Rows of raw features, shape (row, feature), or a list of rows as for :meth:`predict`.
        return_probs, top_k
            See :meth:`predict`.

        Returns
        -------
        list of dict
            One answer per row, as from :meth:`predict`. Empty without rows.

        Raises
        ------
        ValueError
            A row or `top_k` cannot be used. The message names the row.
        """
        rows = read_rows(features, self.n_features, self.feature_names)
        return self.predict_rows(rows, return_probs, top_k)

    def predict_row(self, row: np.ndarray, return_probs: bool, top_k: int) -> Prediction:
        """Predict a row that :func:`read_row` returned. It is for callers who need the row as well."""
        probabilities = self._compute_row_probabilities(row)
        if not math.isfinite(sum(probabilities)):
            self._refuse_overflow(row, None)
        return self.answer(probabilities, return_probs, top_k)

    def predict_rows(self, rows: np.ndarray, return_probs: bool, top_k: int) -> list[Prediction]:
        """Predict rows that :func:`read_rows` returned. It is for callers who need the rows as well."""
        n_top = self._check_top_k(top_k)
        return self._build_answers(self.predict_probabilities(rows), return_probs, n_top) if len(rows) else []

    def predict_probabilities(self, rows: np.ndarray) -> np.ndarray:
        """Return probabilities, float64 (row, genre), of one or more rows that :func:`read_rows` returned."""
        probabilities = self._compute_probabilities(rows)
        finite = np.isfinite(probabilities).all(axis=1)
        if not finite.all():
            number = int(np.argmin(finite))
            self._refuse_overflow(rows[number], number)
        return probabilities

    def answer(
        self, probabilities: list[float], return_probs: bool = False, top_k: int = DEFAULT_TOP_K
    ) -> Prediction:
        """Return the answer for one probability per genre, of one row or averaged over several by the caller."""
        n_top = self._check_top_k(top_k)
        genres = self.genre_names
        if len(probabilities) != len(genres):
            raise ValueError(f"{len(probabilities)} probabilities; expected {len(genres)}, one per genre")
        # sorted() is stable, also when reversed: of equal probabilities the lower index is first, as in argmax.
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

    def _check_top_k(self, top_k: int) -> int:
        n_genres = len(self.genre_names)
        if top_k is DEFAULT_TOP_K:
            return min(3, n_genres)
        if isinstance(top_k, bool | np.bool_) or not isinstance(top_k, int | np.integer):
            raise TopKError(f"top_k={top_k!r}: expected a whole number from 1 to {n_genres}")
        if not 1 <= top_k <= n_genres:
            raise TopKError(f"top_k={top_k}: expected 1 to {n_genres}, the number of genres")
        return int(top_k)

    def _build_answers(self, probabilities: np.ndarray, return_probs: bool, n_top: int) -> list[Prediction]:
        genres = self.genre_names
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :n_top]  # (row, top)
        confidences = np.take_along_axis(probabilities, order, axis=1)
        # One flat list, cut into rows afterwards, takes half the time of a nested loop.
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

    def _refuse_overflow(self, row: np.ndarray, number: int | None) -> NoReturn:
        """Raise an error that names the feature farthest from the training data: its value made the result overflow."""
        with np.errstate(all="ignore"):
            distance = np.abs(self._standardise(row[np.newaxis])[0])
        feature = int(np.argmax(np.where(np.isnan(distance), np.inf, distance)))
        raise FeatureError(
            f"{describe_place(number)}the network's answer is not a finite number; farthest from what it was trained "
            f"on is {describe_feature(feature, self.feature_names)} = {float(row[feature])!r}, "
            f"{distance[feature]:.3g} standard deviations from the mean",
            row=number,
            feature=feature if self.feature_names is None else self.feature_names[feature],
        )
