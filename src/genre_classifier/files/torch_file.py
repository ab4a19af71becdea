"""Read files of torch.save without torch: an uncompressed zip with one pickle and the tensors' numbers.

torch's own reader, also with ``weights_only=True``, makes a tensor of any size that the file claims. Here the pickle is
read as data (see `pickle_data`), and a tensor is a view of the numbers that are really in the file. Neither torch nor
anything that the file names is imported.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from genre_classifier.errors import GenreClassifierError
from genre_classifier.files.pickle_data import Call, Name, PickleError, Reference, read_pickle

if TYPE_CHECKING:
    import torch

MAX_BYTES: Final = 2**30
MAX_DIRECTORY_BYTES: Final = 4 * 2**20  # of the zip; an entry takes about 60
MAX_VALUES: Final = 500_000
MAX_DEPTH: Final = 50
MAX_REUSE: Final = (
    4  # how many times the file's size its tensors may have together; two may share their numbers
)

_TENSOR: Final = "torch._utils._rebuild_tensor_v2"
_COUNTER: Final = "collections.Counter"  # in the state of torch's MultiStepLR
_PARAMETER: Final = "torch._utils._rebuild_parameter"
# Kind of number by its name in the file. NumPy has no bfloat16, so its bits are kept.
_KINDS: Final = {
    "torch.FloatStorage": "float32",
    "torch.DoubleStorage": "float64",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
_NAMES: Final = frozenset({*_KINDS, _TENSOR, _PARAMETER, _COUNTER, "collections.OrderedDict"})


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in a file.

    Parameters
    ----------
    kind : str
        torch's name: ``float32``, ``bfloat16`` and so on.
    values : np.ndarray
        A read-only view of its numbers. For bfloat16, their bits as uint16.
    """

    kind: str
    values: np.ndarray

    @property
    def is_floating_point(self) -> bool:
        """Whether it holds real numbers."""
        return "float" in self.kind

    def to_numpy(self) -> np.ndarray:
        """Return its numbers. bfloat16 becomes float32, without loss."""
        if self.kind != "bfloat16":
            return self.values
        return (self.values.astype(np.uint32) << 16).view(np.float32)

    def to_torch(self) -> torch.Tensor:
        """Return a copy as a torch tensor."""
        import torch

        copied = np.ascontiguousarray(self.values).reshape(self.values.shape)
        if self.kind == "bfloat16":
            return torch.from_numpy(copied.view(np.int16).copy()).view(torch.bfloat16)
        return torch.from_numpy(copied.copy())


def read_torch_file(content: bytes, where: str | Path, error: type[GenreClassifierError]) -> Any:
    """Return the content of a file of torch.save: built-in types, and a :class:`StoredTensor` per tensor.

    Parameters
    ----------
    content : bytes
    where : str or Path
        The file, for messages.
    error : type
        What is raised.

    Raises
    ------
    GenreClassifierError
        Of the class `error`: the file is damaged, compressed, claims more than it holds, or holds other objects than
        built-in types and ordinary tensors.
    """
    try:
        prefix, records = _read_records(content)
        if records.get(f"{prefix}byteorder", b"little") != b"little":
            raise PickleError("its numbers have the bytes in another order than this machine's")
        value = read_pickle(records[f"{prefix}data.pkl"], _NAMES, references=True)
        return _Reader(records, f"{prefix}data/", MAX_REUSE * len(content)).restore(value, 0)
    except zipfile.BadZipFile as reason:
        raise error(f"{where}: truncated, or not a file that torch.save writes ({reason})") from reason
    except PickleError as reason:
        raise error(f"{where}: refused; {reason}") from reason


def load_torch_file(content: bytes, where: str | Path, error: type[GenreClassifierError]) -> Any:
    """Return the content of a file of torch.save, with torch's tensors on the CPU (see :func:`read_torch_file`)."""
    return _convert_tensors(read_torch_file(content, where, error), StoredTensor.to_torch)


def check_plain(value: Any, where: str, *, most: int = 1000) -> None:
    """Raise PickleError unless a value consists of at most `most` texts, finite numbers, lists and mappings."""
    left = most
    level = [value]
    while level:
        left -= len(level)
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item
                below += item.values()
            elif isinstance(item, list | tuple):
                below += item
            elif isinstance(item, float) and not math.isfinite(item):
                raise PickleError(f"{where} has the number {item}")
            elif not (item is None or type(item) in (bool, int, float, str)):
                raise PickleError(f"{where} has a {type(item).__name__} in it, where plain values belong")
            if len(below) > left:
                raise PickleError(f"{where} has more than {most:,} values")
        level = below


def _read_records(content: bytes) -> tuple[str, dict[str, bytes]]:
    """Return the common prefix of the archive's records, and the records by name."""
    if len(content) > MAX_BYTES:
        raise PickleError(f"{len(content):,} bytes, more than any such file ({MAX_BYTES:,})")
    if _read_directory_size(content) > MAX_DIRECTORY_BYTES:
        raise PickleError("its table of contents is larger than that of any such file")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise PickleError("holds compressed records, which torch.save never writes")
            if sum(entry.file_size for entry in entries) > len(content):
                raise PickleError("its records claim more bytes than the file has")
            if len(set(names)) != len(names):
                raise PickleError("holds two records of the same name")
            records = {name: archive.read(name) for name in names}
    except PickleError:
        raise
    except Exception as error:  # zipfile raises many kinds for a damaged archive
        raise zipfile.BadZipFile(str(error)) from error
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise zipfile.BadZipFile("there is no data.pkl in it")
    return pickles[0].removesuffix("data.pkl"), records


def _read_directory_size(content: bytes) -> int:
    """Return the size that the archive claims for its table of contents. A reader makes an object per entry."""
    end = content[-22:]
    if len(end) < 22 or end[:4] != b"PK\x05\x06" or end[20:] != b"\0\0":
        raise zipfile.BadZipFile("it does not end as a zip does")
    sizes = [int(struct.unpack_from("<L", end, 12)[0])]
    if content[-42:-38] == b"PK\x06\x07":
        # torch also writes the 64-bit end record, which readers prefer.
        if content[-98:-94] != b"PK\x06\x06":
            raise zipfile.BadZipFile("it does not end as a zip does")
        sizes.append(int(struct.unpack_from("<Q", content, len(content) - 98 + 40)[0]))
    return max(sizes)


@dataclass
class _Reader:
    records: dict[str, bytes]
    folder: str
    bytes_left: int
    values_left: int = MAX_VALUES

    def restore(self, value: Any, depth: int) -> Any:
        """Return a value of the pickle, with its calls replaced by tensors."""
        self.values_left -= 1
        if depth > MAX_DEPTH or self.values_left < 0:
            raise PickleError(f"more than {MAX_VALUES:,} values, or nested more than {MAX_DEPTH} deep")
        kind = type(value)
        if kind is dict:
            return {key: self.restore(item, depth + 1) for key, item in value.items()}
        if kind in (list, tuple):
            return kind(self.restore(item, depth + 1) for item in value)
        if value is None or kind in (bool, int, float, str):
            return value
        if isinstance(value, Call) and value.name == _PARAMETER and value.arguments:
            value = value.arguments[0]
        if isinstance(value, Call) and value.name == _TENSOR:
            return self._read_tensor(value.arguments)
        if (
            isinstance(value, Call)
            and value.name == _COUNTER
            and [type(a) for a in value.arguments] == [dict]
        ):
            return Counter(self.restore(value.arguments[0], depth + 1))
        names = {Call: "name", Name: "path"}
        found = getattr(value, names[kind]) if kind in names else kind.__name__
        raise PickleError(f"found {found} where a plain value or a tensor belongs")

    def _read_tensor(self, arguments: tuple[Any, ...]) -> StoredTensor:
        if len(arguments) < 4 or not all(type(part) is tuple and len(part) <= 8 for part in arguments[2:4]):
            raise PickleError("a tensor without storage and shape")
        reference, offset, shape, strides = arguments[:4]
        if not all(type(number) is int and 0 <= number < 2**40 for number in (offset, *shape, *strides)):
            raise PickleError("a tensor whose shape is not made of whole numbers")
        kind, numbers = self._read_storage(reference)
        count = math.prod(shape)
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=False))
        if len(shape) != len(strides) or count > len(numbers) or (count and last >= len(numbers)):
            raise PickleError(
                f"a tensor of shape {shape}, where the file has {len(numbers):,} numbers: it claims more than it holds"
            )
        self.bytes_left -= count * numbers.itemsize
        if self.bytes_left < 0:
            raise PickleError("its tensors claim many times the bytes that the file has")
        if not count:
            if math.prod(filter(None, shape)) >= 2**40:
                raise PickleError(f"a tensor of shape {shape}")
            return StoredTensor(kind, np.zeros(shape, numbers.dtype))
        steps = tuple(stride * numbers.itemsize for stride in strides)
        view = np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps, writeable=False)
        return StoredTensor(kind, view)

    def _read_storage(self, reference: Any) -> tuple[str, np.ndarray]:
        """Return a record's kind of numbers, and all its numbers."""
        key = reference.key if isinstance(reference, Reference) else None
        if type(key) is not tuple or len(key) != 5 or key[0] != "storage" or not isinstance(key[1], Name):
            raise PickleError("a tensor without storage")
        _, name, record, _, count = key
        kind = _KINDS.get(name.path)
        content = self.records.get(f"{self.folder}{record}") if type(record) is str else None
        if kind is None or content is None or type(count) is not int:
            raise PickleError("a tensor whose storage is not in the file")
        dtype = np.dtype("uint16" if kind == "bfloat16" else kind)
        if len(content) != count * dtype.itemsize:
            raise PickleError(
                f"a tensor of {count:,} numbers, where the file has {len(content):,} bytes for them"
            )
        if kind == "bool" and content.strip(b"\0\1"):
            raise PickleError("truth values that are neither true nor false")
        return kind, np.frombuffer(content, dtype)


def _convert_tensors(value: Any, convert: Callable[[StoredTensor], Any]) -> Any:
    if isinstance(value, StoredTensor):
        return convert(value)
    if isinstance(value, Counter):
        return value
    if isinstance(value, dict):
        return {key: _convert_tensors(item, convert) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_convert_tensors(item, convert) for item in value)
    return value
