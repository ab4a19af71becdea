"""Random numbers of the members: each has its own streams, seeded by its seed and epoch.

A member's draws depend only on its seed, the epoch and the step. The other members, the size of a chunk, the number of
processes and the device change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

_DROPOUT, _MIXUP = 1, 2  # streams of one run and epoch


def _open_stream(*key: int) -> np.random.SFC64:
    """Return a generator of random bits for a seed, epoch and stream.

    SFC64 is NumPy's fastest generator. It is twice as fast as torch's.
    """
    return np.random.SFC64(key)


def compute_dropout_threshold(p: float) -> tuple[int, float]:
    """Return the smallest 16-bit draw that keeps an activation, and the scale of the kept ones.

    The probability is rounded to a multiple of 1/65,536. The scale fits the rounded probability.
    """
    dropped = round(p * 2**16)
    return dropped - 2**15, 1.0 / (1.0 - dropped / 2**16)


class DropoutNoise:
    """The factors of dropout for every member and layer: 0, or the scale that makes up for the zeros.

    Each member draws 16 bits per activation on the CPU. This is several times as fast as torch's dropout there.

    Parameters
    ----------
    probabilities : sequence of sequence of float
        By member, then by layer that has dropout.
    widths : sequence of int
        Activations per row of each of these layers.
    batch_size : int
        Rows per mini-batch. A smaller last one takes the first rows.
    """

    def __init__(
        self,
        probabilities: Sequence[Sequence[float]],
        widths: Sequence[int],
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        n_members, sizes = len(probabilities), [batch_size * width for width in widths]
        total = sum(sizes)
        by_layer = [[compute_dropout_threshold(p) for p in own] for own in probabilities]
        self._thresholds = [
            _spread_over_activations([threshold for threshold, _ in own], sizes, np.dtype(np.int16))
            for own in by_layer
        ]
        numpy_dtype = torch.empty(0, dtype=dtype).numpy().dtype
        self._scales = [
            _spread_over_activations([scale for _, scale in own], sizes, numpy_dtype) for own in by_layer
        ]
        self._noise = torch.ones(n_members, total, dtype=dtype, device=device)  # (member, activation)
        self.layers = [
            part.view(n_members, batch_size, width)
            for part, width in zip(self._noise.split(sizes, dim=1), widths, strict=True)
        ]  # (member, row, width) each
        self._kept = np.ones((n_members, total), dtype=bool)
        self._fill = self._fill_on_cpu if self._noise.device.type == "cpu" else self._fill_on_device
        self._dropping = [number for number, own in enumerate(probabilities) if any(own)]
        self._streams = [_open_stream(0)] * n_members

    def start_epoch(self, seeds: Sequence[int], epochs: Sequence[int]) -> None:
        """Begin each member's stream of an epoch."""
        self._streams = [
            _open_stream(seed, epoch, _DROPOUT) for seed, epoch in zip(seeds, epochs, strict=True)
        ]

    def draw(self) -> list[Tensor]:
        """Return the factors of the next step, (member, row, width) by layer; the next call overwrites them."""
        total = self._kept.shape[1]
        for member in self._dropping:
            bits = self._streams[member].random_raw(-(-total // 4)).view(np.int16)[:total]
            np.greater_equal(bits, self._thresholds[member], out=self._kept[member])
        if self._dropping:
            self._fill()
        return self.layers

    def _fill_on_cpu(self) -> None:
        # NumPy converts and multiplies such values several times as fast as torch. A member's values fit in the cache.
        noise = self._noise.numpy()
        for member in self._dropping:
            np.copyto(noise[member], self._kept[member])
            noise[member] *= self._scales[member]

    def _fill_on_device(self) -> None:
        # One byte per activation goes to the device.
        kept = torch.from_numpy(self._kept).to(self._noise.device)
        torch.mul(kept, self._device_scales, out=self._noise)

    @cached_property
    def _device_scales(self) -> Tensor:
        spread = [np.broadcast_to(own, self._kept.shape[1:]) for own in self._scales]
        return torch.from_numpy(np.stack(spread)).to(self._noise.device)


def _spread_over_activations(
    values: Sequence[float], sizes: Sequence[int], dtype: np.dtype[Any]
) -> np.ndarray:
    """Return each layer's value for each of its activations, (activation,). If all layers agree, return one value."""
    agree = len(set(values)) <= 1
    return np.array(values[:1], dtype) if agree else np.repeat(np.array(values, dtype), sizes)


class MixupDraws:
    """The shares and partners of mixup (Zhang et al., 2018) for an epoch of every member.

    Parameters
    ----------
    alphas : sequence of float
        Alpha of each member's Beta distribution, from which the shares are drawn; 0 is no mixup.
    batch_size : int
    """

    def __init__(self, alphas: Sequence[float], batch_size: int) -> None:
        self.alphas = list(alphas)
        self.batch_size = batch_size

    def start_epoch(self, seeds: Sequence[int], epochs: Sequence[int], n_steps: Sequence[int]) -> None:
        """Draw the shares and partners of a whole epoch at once, which is faster than a draw per step."""
        longest = max(n_steps)
        self._shares = torch.ones(len(self.alphas), longest, dtype=torch.float64)
        self._keys = torch.zeros(len(self.alphas), longest, self.batch_size, dtype=torch.float32)
        for member, (alpha, seed, epoch, n) in enumerate(
            zip(self.alphas, seeds, epochs, n_steps, strict=True)
        ):
            if alpha == 0:
                continue
            draws = np.random.Generator(_open_stream(seed, epoch, _MIXUP))
            self._shares[member, :n] = torch.from_numpy(draws.beta(alpha, alpha, n))
            keys = draws.random((n, self.batch_size), dtype=np.float32)
            self._keys[member, :n] = torch.from_numpy(keys)

    def read_step(self, step: int, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return a step's shares and partners: how much of each row stays, and the row it is mixed with.

        Parameters
        ----------
        step : int
            Of the epoch.
        valid : Tensor [shape=(member, row), dtype=bool]
            False for rows that only fill the mini-batch up. They are mixed among themselves.

        Returns
        -------
        share : Tensor [shape=(member,)]
        other : Tensor [shape=(member, row)]
        """
        keys = self._keys[:, step, : valid.shape[1]].to(valid.device)
        other = keys.masked_fill(~valid, 2.0).argsort(dim=1, stable=True)
        return self._shares[:, step].to(valid.device, torch.float32), other
