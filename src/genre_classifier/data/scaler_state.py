"""A StandardScaler as numbers: taken from a fitted scaler, or from its pickle without running it, and back.

The pickle is read as data (see `pickle_data`): what it asks for is compared with the few calls of which a pickled
StandardScaler is made; neither scikit-learn's nor numpy's own code ever sees what the file holds. That also makes the
version that wrote the pickle irrelevant.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from genre_classifier.errors import BundleError
from genre_classifier.files.pickle_data import Call, PickleError, read_pickle

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

PICKLE_PROTOCOL: Final = 4  # the oldest that every supported Python writes by default
MAX_PICKLE_BYTES: Final = 4 * 2**20  # a scaler of 10,000 features takes half a megabyte
MAX_FEATURES: Final = 100_000

_LARGEST: Final = sys.float_info.max
_NUMBER_CODES: Final = frozenset({"f8", "f4", "i8", "i4", "u8", "u4"})


@dataclass(frozen=True)
class ScalerStatistics:
    """The statistics of a fitted StandardScaler.

    Parameters
    ----------
    n_features : int
        Number of features it was fitted on.
    with_mean, with_std : bool
        Whether it subtracts the mean and divides by the scale.
    mean, scale, variance : tuple of float or None
        One value per feature; None if the scaler does not keep it.
    n_samples_seen : int, float, tuple of these, or None
        Rows it was fitted on; one value per feature if rows had missing values.
    feature_names : tuple of str or None
        Names of the columns it was fitted on, where it was fitted on a table.
    """

    n_features: int
    with_mean: bool
    with_std: bool
    mean: tuple[float, ...] | None
    scale: tuple[float, ...] | None
    variance: tuple[float, ...] | None
    n_samples_seen: int | float | tuple[int | float, ...] | None = None
    feature_names: tuple[str, ...] | None = None

    @classmethod
    def of(cls, scaler: Any) -> Self:
        """Return the statistics of a fitted scikit-learn StandardScaler.

        Raises
        ------
        BundleError
            It is something else, not fitted, or its numbers cannot scale anything.
        """
        kind = type(scaler)
        if kind.__name__ != "StandardScaler" or not kind.__module__.startswith("sklearn."):
            raise BundleError(
                f"scaler is a {kind.__name__}; a bundle needs a fitted scikit-learn StandardScaler"
            )
        if not hasattr(scaler, "n_features_in_") or not hasattr(scaler, "scale_"):
            raise BundleError("scaler was never fitted; fit it on the training rows before exporting")
        return cls._from_attributes(vars(scaler), "scaler")

    @classmethod
    def from_metadata(cls, content: Any, where: str) -> Self:
        """Return the statistics that :meth:`to_metadata` wrote; BundleError says what is wrong in `where`."""
        known = {field.name for field in fields(cls)}
        if not isinstance(content, dict) or not known.issuperset(content):
            raise BundleError(f"{where}: scaler is not the statistics of a StandardScaler")
        missing = sorted(known - content.keys())
        if missing:
            raise BundleError(f"{where}: scaler lacks {', '.join(missing)}")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
        }
        statistics = cls(**values)
        statistics._check(where)
        return statistics

    @classmethod
    def from_pickle(cls, content: bytes, where: str) -> Self:
        """Return the statistics in a pickled StandardScaler, running nothing that the pickle asks for.

        Parameters
        ----------
        content : bytes
            The pickle, protocol 2 or later.
        where : str
            The file, for messages.

        Raises
        ------
        BundleError
            The pickle asks for a name that a StandardScaler does not need, or is no StandardScaler.
        """
        return cls._from_attributes(_read_pickle(content, where), where)

    @classmethod
    def _from_attributes(cls, attributes: Mapping[str, Any], where: str) -> Self:
        if "scale_" not in attributes:
            raise BundleError(f"{where}: holds a StandardScaler that was never fitted")
        try:
            samples = attributes.get("n_samples_seen_")
            names = attributes.get("feature_names_in_")
            statistics = cls(
                n_features=_read_whole(
                    attributes.get("n_features_in_", _read_length(attributes.get("scale_")))
                ),
                with_mean=attributes["with_mean"],
                with_std=attributes["with_std"],
                mean=_read_floats(attributes.get("mean_")),
                scale=_read_floats(attributes.get("scale_")),
                variance=_read_floats(attributes.get("var_")),
                n_samples_seen=None if samples is None else _strip_numpy(samples),
                feature_names=None if names is None else tuple(_strip_numpy(names)),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BundleError(f"{where}: not a fitted StandardScaler ({error!r})") from error
        statistics._check(where)
        return statistics

    def to_metadata(self) -> dict[str, Any]:
        """Return plain values for JSON; floats survive the way there and back to the last bit."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    def build(self) -> StandardScaler:
        """Return a StandardScaler of the installed scikit-learn that transforms as the original did."""
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler(with_mean=self.with_mean, with_std=self.with_std)
        scaler.n_features_in_ = self.n_features
        scaler.mean_ = None if self.mean is None else np.array(self.mean)
        scaler.scale_ = None if self.scale is None else np.array(self.scale)
        scaler.var_ = None if self.variance is None else np.array(self.variance)
        samples = self.n_samples_seen
        if samples is not None:
            scaler.n_samples_seen_ = (
                np.array(samples) if isinstance(samples, tuple) else np.asarray(samples)[()]
            )
        if self.feature_names is not None:
            scaler.feature_names_in_ = np.array(self.feature_names, dtype=object)
        return scaler

    def describe_difference(self, other: ScalerStatistics) -> str | None:
        """Return which number of another scaler differs; None if both transform alike."""
        for name in ("n_features", "with_mean", "with_std", "mean", "scale", "variance", "feature_names"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                if isinstance(mine, tuple) and isinstance(theirs, tuple) and len(mine) == len(theirs):
                    position = next(
                        i for i, pair in enumerate(zip(mine, theirs, strict=True)) if pair[0] != pair[1]
                    )
                    return f"{name}[{position}] is {mine[position]!r} and {theirs[position]!r}"
                return f"{name} is {mine!r} and {theirs!r}"
        return None

    def limits(self, n_deviations: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Return lowest and highest value, each (feature,), within `n_deviations` of the mean.

        None if the scaler kept no mean or no spread. A feature that was constant while fitting has no
        spread; its limits leave room for rounding only.
        """
        if self.mean is None or self.variance is None:
            return None
        mean = np.array(self.mean)
        spread = np.sqrt(np.array(self.variance))
        room = np.maximum(n_deviations * spread, 1e-6 * np.maximum(np.abs(mean), 1e-6))
        return mean - room, mean + room

    def _check(self, where: str) -> None:
        if type(self.n_features) is not int or not 1 <= self.n_features <= MAX_FEATURES:
            raise BundleError(
                f"{where}: scaler has n_features={self.n_features!r:.40}, expected 1 to {MAX_FEATURES:,}"
            )
        for name in ("with_mean", "with_std"):
            if type(getattr(self, name)) is not bool:
                raise BundleError(
                    f"{where}: scaler has {name}={getattr(self, name)!r:.40}, expected true or false"
                )
        self._check_samples(where)
        for name, needed, lowest in (
            ("mean", self.with_mean, -_LARGEST),
            ("scale", self.with_std, math.ulp(0.0)),
            ("variance", False, 0.0),
        ):
            self._check_values(name, needed, lowest, where)
        if self.feature_names is not None and (
            not isinstance(self.feature_names, tuple)
            or not _are_strings(self.feature_names)
            or len(self.feature_names) != self.n_features
            or len(set(self.feature_names)) != self.n_features
        ):
            raise BundleError(
                f"{where}: scaler has feature names that are not {self.n_features} different strings"
            )

    def _check_samples(self, where: str) -> None:
        samples = self.n_samples_seen
        counts = samples if isinstance(samples, tuple) else () if samples is None else (samples,)
        fits = not isinstance(samples, tuple) or len(samples) == self.n_features
        if not fits or not all(type(count) in (int, float) and 0 <= count < 2**63 for count in counts):
            raise BundleError(f"{where}: scaler has n_samples_seen that are no numbers of rows")

    def _check_values(self, name: str, needed: bool, lowest: float, where: str) -> None:
        values = getattr(self, name)
        if values is None:
            if needed:
                raise BundleError(f"{where}: scaler has no {name}, which it needs to transform")
            return
        if not isinstance(values, tuple) or len(values) != self.n_features:
            found = len(values) if isinstance(values, tuple) else type(values).__name__
            raise BundleError(f"{where}: scaler has {found} values of {name}, expected {self.n_features}")
        for position, value in enumerate(values):
            # A whole number may be one that no float holds.
            if type(value) not in (float, int) or not lowest <= value <= _LARGEST:
                raise BundleError(
                    f"{where}: scaler has {name}[{position}]={value!r:.40}, which cannot scale a feature"
                )


def _are_strings(values: Sequence[Any]) -> bool:
    return all(type(value) is str for value in values)


def _read_length(values: Any) -> int:
    return 0 if values is None else len(_strip_numpy(values))


def _read_whole(value: Any) -> int:
    number = _strip_numpy(value)
    if type(number) is not int:
        raise ValueError(f"expected a whole number, found {number!r}")
    return number


def _read_floats(values: Any) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in _strip_numpy(values))


def _strip_numpy(value: Any) -> Any:
    """Return a number, or a tuple of the items of a one-dimensional array."""
    if isinstance(value, np.ndarray):
        if value.ndim > 1:
            raise ValueError(f"expected one value per feature, found an array of shape {value.shape}")
        return tuple(value.tolist()) if value.ndim else value.item()
    return value.item() if isinstance(value, np.generic) else value


_SCALERS: Final = ("sklearn.preprocessing._data.StandardScaler", "sklearn.preprocessing.data.StandardScaler")
_DTYPE: Final = "numpy.dtype"
_ENCODED: Final = "_codecs.encode"  # the call that spells bytes in protocol 2
_ARRAYS: Final = tuple(f"{module}.multiarray._reconstruct" for module in ("numpy.core", "numpy._core"))
_BUFFERS: Final = tuple(f"{module}.numeric._frombuffer" for module in ("numpy.core", "numpy._core"))
_NUMBERS: Final = tuple(f"{module}.multiarray.scalar" for module in ("numpy.core", "numpy._core"))
_NAMES: Final = frozenset({*_SCALERS, _DTYPE, "numpy.ndarray", _ENCODED, *_ARRAYS, *_BUFFERS, *_NUMBERS})


def _read_pickle(content: bytes, where: str) -> dict[str, Any]:
    if len(content) > MAX_PICKLE_BYTES:
        raise BundleError(
            f"{where}: {len(content):,} bytes, more than any scaler takes ({MAX_PICKLE_BYTES:,})"
        )
    try:
        scaler = read_pickle(content, _NAMES)
        if not isinstance(scaler, Call) or scaler.name not in _SCALERS or type(scaler.state) is not dict:
            found = scaler.name if isinstance(scaler, Call) else type(scaler).__name__
            raise PickleError(f"not a pickled StandardScaler but a {found}")
        return {key: _read_value(item) for key, item in scaler.state.items() if _is_wanted(key)}
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise BundleError(f"{where}: refused; {error}") from error


def _is_wanted(key: Any) -> bool:
    return isinstance(key, str) and (key in {"with_mean", "with_std"} or key.endswith("_"))


def _read_value(item: Any) -> Any:
    """Return the plain value or numpy array that an attribute of the pickled scaler stands for."""
    if item is None or type(item) in (bool, int, float, str):
        return item
    if isinstance(item, Call) and item.name in _ARRAYS:
        _, shape, dtype, _, content = item.state
        return _build_array(dtype, shape, content)
    if isinstance(item, Call) and item.name in _BUFFERS:
        buffer, dtype, shape = item.arguments[:3]
        return _build_array(dtype, shape, buffer)
    if isinstance(item, Call) and item.name in _NUMBERS:
        dtype, content = item.arguments
        return _build_array(dtype, (), content)
    found = item.name if isinstance(item, Call) else type(item).__name__
    raise ValueError(f"found {found} where a number or an array belongs")


def _build_array(dtype: Any, shape: Any, content: Any) -> np.ndarray:
    if type(shape) is not tuple or len(shape) > 1 or not all(type(size) is int for size in shape):
        raise ValueError("an array that is not one-dimensional")
    code, order = _read_code_and_order(dtype)
    if code in ("O8", "O", "O4"):
        if type(content) is not list or not _are_strings(content) or shape != (len(content),):
            raise ValueError("an array of objects that are not strings")
        return np.array(content, dtype=object)
    if code not in _NUMBER_CODES or order not in ("<", ">", "=", "|"):
        raise ValueError(f"an array of dtype {order!r:.10} {code!r:.10}")
    if isinstance(content, Call) and content.name == _ENCODED:
        text, encoding = content.arguments
        if type(text) is not str or encoding != "latin1":
            raise ValueError("bytes that are not spelled in latin1")
        content = text.encode("latin1")
    if type(content) not in (bytes, bytearray):
        raise ValueError(f"an array whose content is a {type(content).__name__}")
    values = np.frombuffer(content, np.dtype(order + code))
    if len(values) != (shape[0] if shape else 1):
        raise ValueError(f"{len(values)} values in an array of shape {shape!r:.40}")
    return values if shape else values[0]


def _read_code_and_order(dtype: Any) -> tuple[str, str]:
    """Return a pickled dtype's code and byte order."""
    if not isinstance(dtype, Call) or dtype.name != _DTYPE or type(dtype.arguments[0]) is not str:
        raise ValueError("an array without a dtype")
    order = "|" if dtype.state is None else dtype.state[1]
    if type(order) is not str:
        raise ValueError("an array whose dtype has no byte order")
    return dtype.arguments[0], order
