"""A StandardScaler as plain numbers: from a fitted one, back into one, and from a pickle without running it.

A pickle is a program. Here it is executed over a closed set of recording classes that stand for the few names
a pickled StandardScaler refers to; neither scikit-learn's nor numpy's own code ever sees what the file holds.
That also makes the version that wrote the pickle irrelevant.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from genre_classifier.errors import BundleError

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

PICKLE_PROTOCOL: Final = 4  # the oldest that every supported Python writes by default
MAX_PICKLE_BYTES: Final = 4 * 2**20  # a scaler of 10,000 features takes half a megabyte

_OPCODES: Final = frozenset(
    """
    PROTO FRAME STOP MARK GLOBAL STACK_GLOBAL REDUCE BUILD NEWOBJ
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS
    NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT
    BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    BINPUT LONG_BINPUT BINGET LONG_BINGET MEMOIZE
    """.split()  # noqa: SIM905
)
_NUMBER_CODES: Final = frozenset({"f8", "f4", "i8", "i4", "u8", "u4"})


@dataclass(frozen=True)
class ScalerStatistics:
    """What a fitted StandardScaler knows.

    Parameters
    ----------
    n_features : int
        Number of features it was fitted on.
    with_mean, with_std : bool
        Whether it subtracts the mean and divides by the scale.
    mean, scale, variance : tuple of float or None
        One value a feature; None where the scaler does not keep it.
    n_samples_seen : int, float, tuple of these, or None
        Rows it was fitted on; one value a feature where rows had missing values.
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
                n_features=_whole(attributes.get("n_features_in_", _length(attributes.get("scale_")))),
                with_mean=attributes["with_mean"],
                with_std=attributes["with_std"],
                mean=_floats(attributes.get("mean_")),
                scale=_floats(attributes.get("scale_")),
                variance=_floats(attributes.get("var_")),
                n_samples_seen=None if samples is None else _plain(samples),
                feature_names=None if names is None else tuple(_plain(names)),
            )
        except (KeyError, TypeError, ValueError) as error:
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

    def difference(self, other: ScalerStatistics) -> str | None:
        """Say which number of another scaler differs; None where both transform alike."""
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

        None where the scaler kept no mean or no spread. A feature that was constant while fitting has no
        spread; its limits leave room for rounding only.
        """
        if self.mean is None or self.variance is None:
            return None
        mean = np.array(self.mean)
        spread = np.sqrt(np.array(self.variance))
        room = np.maximum(n_deviations * spread, 1e-6 * np.maximum(np.abs(mean), 1e-6))
        return mean - room, mean + room

    def _check(self, where: str) -> None:
        if type(self.n_features) is not int or self.n_features < 1:
            raise BundleError(f"{where}: scaler has n_features={self.n_features!r}, expected 1 or more")
        for name in ("with_mean", "with_std"):
            if type(getattr(self, name)) is not bool:
                raise BundleError(
                    f"{where}: scaler has {name}={getattr(self, name)!r}, expected true or false"
                )
        for name, needed, lowest in (
            ("mean", self.with_mean, -math.inf),
            ("scale", self.with_std, math.ulp(0.0)),
            ("variance", False, 0.0),
        ):
            self._check_values(name, needed, lowest, where)
        if self.feature_names is not None and (
            not _are_strings(self.feature_names)
            or len(self.feature_names) != self.n_features
            or len(set(self.feature_names)) != self.n_features
        ):
            raise BundleError(
                f"{where}: scaler has feature names that are not {self.n_features} different strings"
            )

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
            if type(value) not in (float, int) or not math.isfinite(value) or value < lowest:
                raise BundleError(
                    f"{where}: scaler has {name}[{position}]={value!r}, which cannot scale a feature"
                )


def _are_strings(values: Sequence[Any]) -> bool:
    return all(type(value) is str for value in values)


def _length(values: Any) -> int:
    return 0 if values is None else len(_plain(values))


def _whole(value: Any) -> int:
    plain = _plain(value)
    if type(plain) is not int:
        raise ValueError(f"expected a whole number, found {plain!r}")
    return plain


def _floats(values: Any) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in _plain(values))


def _plain(value: Any) -> Any:
    """Return a number, or a tuple of the items of a one-dimensional array."""
    if isinstance(value, np.ndarray):
        if value.ndim > 1:
            raise ValueError(f"expected one value a feature, found an array of shape {value.shape}")
        return tuple(value.tolist()) if value.ndim else value.item()
    return value.item() if isinstance(value, np.generic) else value


class _Scaler:
    """Stands for StandardScaler in a pickle."""

    attributes: dict[str, Any] | None = None

    def __setstate__(self, state: Any) -> None:
        self.attributes = state


class _Dtype:
    """Stands for numpy.dtype in a pickle."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code
        self.order: Any = "|"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]


class _Array:
    """Stands for an array in a pickle, made by numpy's _reconstruct and filled by its state."""

    state: Any = None

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _BufferArray:
    """Stands for an array in a pickle of protocol 5, made by numpy's _frombuffer."""

    def __init__(self, buffer: Any, dtype: Any, shape: Any, *_: Any) -> None:
        self.state = (1, shape, dtype, False, buffer)


class _Scalar:
    """Stands for a numpy scalar in a pickle."""

    def __init__(self, dtype: Any, content: Any) -> None:
        self.state = (1, (), dtype, False, content)


class _Encoded:
    """Stands for the call that spells bytes in protocol 2."""

    def __init__(self, text: Any, encoding: Any) -> None:
        if encoding != "latin1":
            raise ValueError(f"bytes spelled in {encoding!r}")
        self.content = text.encode("latin1")


_MODULES: Final[dict[str, dict[str, type]]] = {
    "sklearn.preprocessing._data": {"StandardScaler": _Scaler},
    "sklearn.preprocessing.data": {"StandardScaler": _Scaler},
    "numpy": {"dtype": _Dtype, "ndarray": _Array},
    "numpy.core.multiarray": {"_reconstruct": _Array, "scalar": _Scalar},
    "numpy._core.multiarray": {"_reconstruct": _Array, "scalar": _Scalar},
    "numpy.core.numeric": {"_frombuffer": _BufferArray},
    "numpy._core.numeric": {"_frombuffer": _BufferArray},
    "_codecs": {"encode": _Encoded},
}


class _ClosedUnpickler(pickle.Unpickler):
    """An unpickler whose every name is one of the recording classes above."""

    def __init__(self, file: io.BytesIO, where: str) -> None:
        super().__init__(file)
        self._where = where
        # Fresh subclasses for each file: whatever a pickle sets on one is gone with it.
        self._names = {
            (module, name): type(stand_in.__name__, (stand_in,), {})
            for module, names in _MODULES.items()
            for name, stand_in in names.items()
        }

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name; refuse every other one."""
        try:
            return self._names[module, name]
        except (KeyError, TypeError):
            raise _asks_for(f"{module}.{name}", self._where) from None

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to objects outside the pickle."""
        raise _asks_for(f"the persistent object {pid!r}", self._where)


def _asks_for(name: str, where: str) -> BundleError:
    return BundleError(f"{where}: refused; the pickle asks for {name}, which a StandardScaler does not need")


def _read_pickle(content: bytes, where: str) -> dict[str, Any]:
    _check_opcodes(content, where)
    try:
        scaler = _ClosedUnpickler(io.BytesIO(content), where).load()
        if not isinstance(scaler, _Scaler) or not isinstance(scaler.attributes, dict):
            raise BundleError(
                f"{where}: not a pickled StandardScaler but a {type(scaler).__name__.lstrip('_')}"
            )
        return {key: _value(item) for key, item in scaler.attributes.items() if _is_wanted(key)}
    except BundleError:
        raise
    except (Exception, RecursionError, MemoryError) as error:
        raise BundleError(f"{where}: not a readable pickle of a StandardScaler ({error!r})") from error


def _check_opcodes(content: bytes, where: str) -> None:
    """Refuse what a scaler's pickle never contains before the unpickler sees it.

    Reading through the opcodes also proves that every announced length is there: the unpickler itself makes
    room for what a length or a memo number announces, however large.
    """
    if len(content) > MAX_PICKLE_BYTES:
        raise BundleError(
            f"{where}: {len(content):,} bytes, more than any scaler takes ({MAX_PICKLE_BYTES:,})"
        )
    end = -1
    try:
        for opcode, argument, position in pickletools.genops(content):
            if opcode.name == "INST":
                raise _asks_for(str(argument).replace(" ", "."), where)
            if opcode.name not in _OPCODES:
                raise BundleError(
                    f"{where}: refused; the pickle uses {opcode.name}, which no pickled StandardScaler of "
                    "protocol 2 or later does"
                )
            if opcode.name == "LONG_BINPUT" and int(argument or 0) > len(content):
                raise BundleError(f"{where}: refused; the pickle numbers {argument:,} objects")
            end = 0 if position is None else position
    except BundleError:
        raise
    except Exception as error:
        raise BundleError(f"{where}: truncated or not a pickle ({error})") from error
    if end + 1 != len(content):
        raise BundleError(f"{where}: {len(content) - end - 1} bytes follow the end of the pickle")


def _is_wanted(key: Any) -> bool:
    return isinstance(key, str) and (key in {"with_mean", "with_std"} or key.endswith("_"))


def _value(item: Any) -> Any:
    """Return the plain value or numpy array that a recorded item stands for."""
    if isinstance(item, _Array | _BufferArray | _Scalar):
        _, shape, dtype, _, content = item.state
        if isinstance(content, _Encoded):
            content = content.content
        return _array(dtype, shape, content)
    if item is None or type(item) in (bool, int, float, str):
        return item
    raise ValueError(f"found {type(item).__name__.lstrip('_')} where a number or an array belongs")


def _array(dtype: Any, shape: Any, content: Any) -> np.ndarray:
    if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple) or len(shape) > 1:
        raise ValueError("an array that is not one-dimensional")
    if dtype.code in ("O8", "O", "O4"):
        if type(content) is not list or not _are_strings(content) or shape != (len(content),):
            raise ValueError("an array of objects that are not strings")
        return np.array(content, dtype=object)
    if dtype.code not in _NUMBER_CODES or dtype.order not in ("<", ">", "=", "|"):
        raise ValueError(f"an array of dtype {dtype.order!r} {dtype.code!r}")
    if type(content) not in (bytes, bytearray):
        raise ValueError(f"an array whose content is a {type(content).__name__}")
    values = np.frombuffer(content, np.dtype(dtype.order + dtype.code))
    if len(values) != (shape[0] if shape else 1):
        raise ValueError(f"{len(values)} values in an array of shape {shape}")
    return values if shape else values[0]
