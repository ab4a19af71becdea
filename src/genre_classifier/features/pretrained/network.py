"""The network MSD-musicnn in NumPy: from log-mel patches to the probabilities of tags.

Pons and Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging", ISMIR late-breaking 2019.
Axes are always (patch, time, channel). NumPy's matrix products are as fast here as onnxruntime's convolutions, and
neither torch nor onnxruntime has to be installed or started.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Float32 = npt.NDArray[np.float32]

EPSILON = 1e-3  # of batch normalization


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution over time and bands, ReLU, batch normalization, and the maximum over bands.

    What follows the products of a filter is monotone: it rises where the batch normalization's scale is positive, and
    falls where it is negative. So the maximum over bands is taken first, of the products or of their negatives, and
    the rest is computed once instead of once per band.

    Parameters
    ----------
    kernel : np.ndarray [shape=(time, band, filter)]
        Its sign is turned where the scale is negative.
    sign, bias, scale, shift : np.ndarray [shape=(filter,)]
    """

    kernel: Float32
    sign: Float32
    bias: Float32
    scale: Float32
    shift: Float32

    def __call__(self, x: Float32) -> Float32:
        """Return shape (patch, time, filter) of `x`, shape (patch, time, band). Time is padded to the same length."""
        length, bands, n_filters = self.kernel.shape
        n_patches, n_frames, n_bands = x.shape
        before = (length - 1) // 2  # the odd one of an even length stands at the end
        padded = np.pad(x, ((0, 0), (before, length - 1 - before), (0, 0)))
        windows = sliding_window_view(
            padded, (length, bands), axis=(1, 2)
        )  # (patch, time, place, length, bands)
        kernel = self.kernel.reshape(length * bands, n_filters)
        at_place = np.empty((n_patches, n_frames, length, bands), np.float32)
        products = np.empty((n_patches * n_frames, n_filters), np.float32)
        largest = np.full_like(products, -np.inf)
        for place in range(n_bands - bands + 1):
            at_place[...] = windows[:, :, place]
            np.matmul(at_place.reshape(-1, length * bands), kernel, out=products)
            np.maximum(largest, products, out=largest)
        largest *= self.sign
        activated: Float32 = np.maximum(largest + self.bias, 0) * self.scale + self.shift
        return activated.reshape(n_patches, n_frames, n_filters)


class MusicnnNetwork:
    """The network, made from its variables.

    Parameters
    ----------
    weights : Mapping[str, np.ndarray]
        From :func:`genre_classifier.features.pretrained.weights.load_weights`.
    """

    def __init__(self, weights: Mapping[str, Float32]) -> None:
        self._input = _normalization(weights, 0)
        # 38 and 67 bands by 7 frames; 128, 64 and 32 frames of one band.
        self._front = [_convolution(weights, number) for number in range(5)]
        # 7 frames of all channels.
        self._middle = [_convolution(weights, number) for number in range(5, 8)]
        self._pooled = _normalization(weights, 9)
        self._penultimate = _normalization(weights, 10)
        self._dense = (weights["dense/kernel"], weights["dense/bias"])
        self._tags = (weights["dense_1/kernel"], weights["dense_1/bias"])

    def __call__(self, patches: Float32) -> tuple[Float32, Float32]:
        """Return the tags' probabilities and the penultimate layer of log-mel patches.

        Parameters
        ----------
        patches : np.ndarray [shape=(patch, time, mel band), dtype=float32]

        Returns
        -------
        tags : np.ndarray [shape=(patch, 50)]
        penultimate : np.ndarray [shape=(patch, 200)]
        """
        x = _affine(patches, self._input)
        front = np.concatenate([convolution(x) for convolution in self._front], axis=2)  # (patch, time, 561)
        first, second, third = self._middle
        residual_1 = first(front)
        residual_2 = second(residual_1) + residual_1
        residual_3 = third(residual_2) + residual_2
        channels = np.concatenate([front, residual_1, residual_2, residual_3], axis=2)  # (patch, time, 753)
        # Each channel's maximum and mean stand side by side.
        pooled = np.stack([channels.max(axis=1), channels.mean(axis=1)], axis=2).reshape(len(patches), -1)
        hidden = np.maximum(_affine(pooled, self._pooled) @ self._dense[0] + self._dense[1], 0)
        penultimate = _affine(hidden, self._penultimate)
        logits = penultimate @ self._tags[0] + self._tags[1]
        return _sigmoid(logits), penultimate


def _normalization(weights: Mapping[str, Any], number: int) -> tuple[Float32, Float32]:
    """Return scale and shift of a batch normalization."""
    layer = f"batch_normalization_{number}" if number else "batch_normalization"
    beta, gamma, mean, variance = (
        weights[f"{layer}/{name}"].astype(np.float64)
        for name in ("beta", "gamma", "moving_mean", "moving_variance")
    )
    scale = gamma / np.sqrt(variance + EPSILON)
    return scale.astype(np.float32), (beta - mean * scale).astype(np.float32)


def _convolution(weights: Mapping[str, Float32], number: int) -> Convolution:
    layer = f"conv2d_{number}" if number else "conv2d"
    scale, shift = _normalization(weights, number + 1)
    sign = np.where(scale < 0, np.float32(-1), np.float32(1))
    return Convolution(
        weights[f"{layer}/kernel"][:, :, 0] * sign, sign, weights[f"{layer}/bias"], scale, shift
    )


def _affine(x: Float32, normalization: tuple[Float32, Float32]) -> Float32:
    scale, shift = normalization
    return x * scale + shift


def _sigmoid(logits: Float32) -> Float32:
    with np.errstate(over="ignore"):  # of exp, where the answer is 0
        probabilities: Float32 = np.reciprocal(1 + np.exp(-logits))
    return probabilities
