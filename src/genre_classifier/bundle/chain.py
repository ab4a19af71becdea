"""Compute the forward pass of a chain of linear layers and ReLU in numpy, without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from genre_classifier.bundle.predictor import Predictor
from genre_classifier.data.scaler_state import ScalerStatistics

SLICE = 256  # rows per pass: activations stay in the processor's cache


class Layer(NamedTuple):
    """A linear layer.

    Parameters
    ----------
    weight : np.ndarray [shape=(output, input)]
    bias : np.ndarray [shape=(output,)] or None
    is_rectified : bool
        Whether ReLU follows.
    """

    weight: np.ndarray
    bias: np.ndarray | None
    is_rectified: bool


def compute_logits(layers: Sequence[Layer], standardised: np.ndarray) -> np.ndarray:
    """Return logits (genre,) of one standardised row (feature,), or (row, genre) of (row, feature)."""
    hidden = standardised.astype(layers[0].weight.dtype)
    for weight, bias, is_rectified in layers:
        hidden = weight.dot(hidden) if hidden.ndim == 1 else hidden @ weight.T
        if bias is not None:
            hidden += bias
        if is_rectified:
            np.maximum(hidden, 0, out=hidden)
    return hidden


def compute_softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities, float64 (row, genre), of logits (row, genre)."""
    exponentials = logits.astype(np.float64)
    exponentials -= exponentials.max(axis=1, keepdims=True)
    np.exp(exponentials, out=exponentials)
    exponentials /= exponentials.sum(axis=1, keepdims=True)
    return exponentials


def compute_softmax_of_row(logits: list[float]) -> list[float]:
    """Return the probabilities of one row's logits."""
    peak = max(logits)
    exponentials = [math.exp(logit - peak) for logit in logits]
    total = sum(exponentials)
    return [value / total for value in exponentials]


class ChainPredictor(Predictor):
    """Gives the answers of ModelWrapper from a bundle's weights, without torch or scikit-learn.

    Parameters
    ----------
    layers : sequence of Layer
        float32, from standardised features to logits.
    scaler : ScalerStatistics
        Applied to the features first, in float64.
    genre_names : Sequence[str]
        Genre of each output.
    feature_names : Sequence[str] or None
        Names in the order of training, for named features.

    Raises
    ------
    ValueError
        The layers do not fit the scaler or the genres.
    """

    backend = "numpy"

    def __init__(
        self,
        layers: Sequence[Layer],
        scaler: ScalerStatistics,
        genre_names: Sequence[str],
        feature_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(genre_names, scaler.n_features, feature_names)
        self.scaler = scaler
        widths = layers[0].weight.shape[1], layers[-1].weight.shape[0]
        if widths != (self.n_features, len(self.genre_names)):
            raise ValueError(
                f"the network takes {widths[0]} features and has {widths[1]} outputs; the scaler takes "
                f"{self.n_features}, and there are {len(self.genre_names)} genres"
            )
        self._layers = list(layers)
        self._mean = np.array(scaler.mean) if scaler.with_mean else np.zeros(scaler.n_features)
        self._scale = np.array(scaler.scale) if scaler.with_std else np.ones(scaler.n_features)

    def _standardise(self, rows: np.ndarray) -> np.ndarray:
        return (rows - self._mean) / self._scale

    def _compute_row_probabilities(self, row: np.ndarray) -> list[float]:
        with np.errstate(all="ignore"):  # an overflow becomes NaN, which the caller refuses
            logits = compute_logits(self._layers, self._standardise(row))
        return compute_softmax_of_row(logits.tolist())

    def _compute_probabilities(self, rows: np.ndarray) -> np.ndarray:
        probabilities = np.empty((len(rows), len(self.genre_names)))
        with np.errstate(all="ignore"):
            for start in range(0, len(rows), SLICE):
                block = slice(start, start + SLICE)
                probabilities[block] = compute_softmax(
                    compute_logits(self._layers, self._standardise(rows[block]))
                )
        return probabilities
