"""Random numbers that depend on nothing but their key."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Stream:
    """A stream of random numbers named by a key, the same on every machine and in every order of use.

    Only the raw bits of PCG64, which NumPy promises to keep, are used; NumPy's own distributions may change.

    Parameters
    ----------
    *key : str or int
        Parts of the stream's name, such as seed, genre, artist, track and purpose.

    Examples
    --------
    >>> Stream(1, "rock", 3).uniform(0, 1) == Stream(1, "rock", 3).uniform(0, 1)
    True
    """

    def __init__(self, *key: str | int) -> None:
        digest = sha256("\x1f".join(str(part) for part in key).encode()).digest()
        self._bits = np.random.PCG64(int.from_bytes(digest[:16], "big"))

    def array(self, n: int) -> np.ndarray:
        """Return `n` numbers uniform in [0, 1)."""
        raw: np.ndarray = np.atleast_1d(self._bits.random_raw(n))
        return (raw >> np.uint64(11)) * 2.0**-53

    def noise(self, n: int) -> np.ndarray:
        """Return `n` samples of white noise, uniform in [-1, 1)."""
        return 2.0 * self.array(n) - 1.0

    def uniform(self, low: float, high: float) -> float:
        """Return one number uniform in [low, high)."""
        return low + (high - low) * float(self.array(1)[0])

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.uniform(0.0, 1.0) < probability

    def integer(self, low: int, high: int) -> int:
        """Return one integer in [low, high], both included."""
        return low + int(self.uniform(0.0, 1.0) * (high - low + 1))

    def choose(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """Return one of the options, with equal chances or in proportion to the weights."""
        if weights is None:
            return options[self.integer(0, len(options) - 1)]
        threshold = self.uniform(0.0, float(sum(weights)))
        for option, weight in zip(options, weights, strict=True):
            threshold -= weight
            if threshold < 0:
                return option
        return options[-1]
