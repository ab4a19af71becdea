"""Read the ONNX graph that this project writes, as data. Every other graph is refused.

An ONNX file is a program. With loops and generated constants, a file of a kilobyte can run for ever or use all memory.
So no runtime gets a file that this module has not read. It reads the file's messages (protobuf: numbered fields, each a
whole number or bytes) and accepts only the messages that `export` writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np

from genre_classifier.bundle.chain import Layer

INPUT: Final = "features"
REMAINDER: Final = "features_remainder"  # the rest of the features after rounding to float32
OUTPUT: Final = "probabilities"
OPSET: Final = 17
IR_VERSION: Final = 8  # of ONNX 1.12, so that runtimes since 2022 load the file
MAX_LAYERS: Final = 1000
_MAX_FIELDS: Final = 50_000
_FLOAT: Final = 1  # TensorProto.FLOAT
_INT_ATTRIBUTE: Final = 2  # AttributeProto.INT
_OPERATORS: Final = ("Sub", "Add", "Gemm", "Relu", "Softmax")

# The allowed fields of each message, by their number in onnx.proto.
_FIELDS: Final[dict[str, dict[int, str]]] = {
    "model": {1: "ir_version", 2: "producer_name", 7: "graph", 8: "opset_import", 14: "metadata_props"},
    "graph": {1: "node", 2: "name", 5: "initializer", 11: "input", 12: "output"},
    "node": {1: "input", 2: "output", 4: "op_type", 5: "attribute"},
    "attribute": {1: "name", 3: "i", 20: "type"},
    "tensor": {1: "dims", 2: "data_type", 8: "name", 9: "raw_data"},
    "value_info": {1: "name", 2: "type"},
    "type": {1: "tensor_type"},
    "tensor_type": {1: "elem_type", 2: "shape"},
    "shape": {1: "dim"},
    "dim": {1: "dim_value", 2: "dim_param"},
    "opset": {1: "domain", 2: "version"},
    "property": {1: "key", 2: "value"},
}
# Names of fields in other graphs, for the error message.
_OTHERS: Final[dict[str, dict[int, str]]] = {
    "model": {20: "training_info", 25: "functions"},
    "graph": {13: "value_info", 15: "sparse_initializer"},
    "node": {3: "name", 7: "domain"},
    "attribute": {2: "f", 4: "s", 5: "t", 6: "g (a graph)", 7: "floats", 8: "ints", 11: "graphs"},
    "tensor": {4: "float_data", 6: "string_data", 13: "external_data", 14: "data_location"},
    "type": {4: "sequence_type", 5: "map_type", 8: "sparse_tensor_type", 9: "optional_type"},
}


class OnnxGraphError(ValueError):
    """A file is not the ONNX graph that this project writes."""


@dataclass(frozen=True, eq=False)
class OnnxGraph:
    """The computation of an ONNX file of this project.

    Parameters
    ----------
    mean_high, mean_low : np.ndarray [shape=(feature,), dtype=float32]
        Their sum is subtracted from the features.
    layers : tuple of Layer
        float32. The scaler's division is folded into the first layer.
    """

    mean_high: np.ndarray
    mean_low: np.ndarray
    layers: tuple[Layer, ...]

    def describe_difference(self, other: OnnxGraph) -> str | None:
        """Return a text with the first difference from another graph, or None if both compute exactly the same."""
        if len(self.layers) != len(other.layers):
            return f"{len(self.layers)} layers, not {len(other.layers)}"
        pairs = [("mean_high", self.mean_high, other.mean_high), ("mean_low", self.mean_low, other.mean_low)]
        for position, (mine, theirs) in enumerate(zip(self.layers, other.layers, strict=True)):
            if mine.is_rectified != theirs.is_rectified:
                return f"layer_{position} has ReLU in one of them only"
            pairs += [(f"layer_{position}_weight", mine.weight, theirs.weight)]
            pairs += [(f"layer_{position}_bias", _list_or_empty(mine.bias), _list_or_empty(theirs.bias))]
        return next((name for name, mine, theirs in pairs if not np.array_equal(mine, theirs)), None)


def read_graph(content: bytes, n_features: int, n_genres: int) -> OnnxGraph:
    """Return the computation of an ONNX file that `export` wrote.

    Parameters
    ----------
    content : bytes
    n_features, n_genres : int
        The numbers of inputs and outputs that it must have.

    Raises
    ------
    OnnxGraphError
        The file is another graph. The message names the operator, field or shape.
    """
    return _GraphReader(n_features, n_genres).read(content)


def _list_or_empty(bias: np.ndarray | None) -> np.ndarray:
    return np.empty(0, np.float32) if bias is None else bias


class _GraphReader:
    def __init__(self, n_features: int, n_genres: int) -> None:
        self.n_features = n_features
        self.n_genres = n_genres
        self.fields_left = _MAX_FIELDS

    def read(self, content: bytes) -> OnnxGraph:
        model = self._read_message("model", content)
        self._expect("ir_version", _read_one(model, "ir_version"), IR_VERSION)
        (opset,) = (self._read_message("opset", item) for item in _read_list(model, "opset_import", 1))
        self._expect("opset domain", opset.get("domain", [b""]), [b""])
        self._expect("opset version", _read_one(opset, "version"), OPSET)
        for item in model.get("metadata_props", []):
            self._read_message("property", item)
        graph = self._read_message("graph", _read_one(model, "graph"))
        nodes = [self._read_node(item) for item in _read_list(graph, "node")]
        if len(nodes) > 2 * MAX_LAYERS:
            raise OnnxGraphError(f"has {len(nodes):,} operators")
        constants = self._read_constants(_read_list(graph, "initializer"))
        for key, names in (("input", [INPUT, REMAINDER]), ("output", [OUTPUT])):
            found = [self._read_value_info(item) for item in _read_list(graph, key)]
            self._expect(f"graph {key}s", [name for name, _ in found], names)
            for name, size in found:
                self._expect(f"size of {name}", size, self.n_genres if name == OUTPUT else self.n_features)
        return self._read_chain(nodes, constants)

    def _read_chain(
        self, nodes: list[tuple[str, list[str], list[str], dict[str, int]]], constants: dict[str, np.ndarray]
    ) -> OnnxGraph:
        """Return the layers of the nodes. Their order and names must be those that `export` writes."""
        layers: list[Layer] = []
        value = "difference"
        start: list[tuple[str, list[str], list[str], dict[str, int]]] = [
            ("Sub", [INPUT, "mean_high"], ["difference_high"], {}),
            ("Sub", [REMAINDER, "mean_low"], ["difference_low"], {}),
            ("Add", ["difference_high", "difference_low"], [value], {}),
        ]
        self._expect("first operators", nodes[:3], start)
        used: dict[str, tuple[int, ...]] = {
            REMAINDER: (1, self.n_features),
            "mean_high": (1, self.n_features),
            "mean_low": (1, self.n_features),
        }
        width = self.n_features
        rest = nodes[3:-1]
        while rest:
            name = f"layer_{len(layers)}"
            kind, inputs, outputs, attributes = rest.pop(0)
            with_bias = len(inputs) == 3
            wanted = [value, f"{name}_weight", *([f"{name}_bias"] if with_bias else [])]
            self._expect(f"operator of {name}", (kind, inputs, outputs), ("Gemm", wanted, [name]))
            self._expect(f"attributes of {name}", attributes, {"transB": 1})
            weight = constants.get(f"{name}_weight", np.empty(0))
            if weight.ndim != 2 or weight.shape[1] != width or not weight.shape[0]:
                raise OnnxGraphError(f"{name}_weight has shape {weight.shape}, expected (outputs, {width})")
            value, width = name, weight.shape[0]
            used[f"{name}_weight"] = weight.shape
            if with_bias:
                used[f"{name}_bias"] = (width,)
            rectified = bool(rest) and rest[0][0] == "Relu"
            if rectified:
                value = f"{name}_rectified"
                self._expect(f"ReLU of {name}", rest.pop(0), ("Relu", [name], [value], {}))
            layers.append(Layer(weight, constants.get(f"{name}_bias") if with_bias else None, rectified))
        self._expect("last operator", nodes[-1], ("Softmax", [value], [OUTPUT], {"axis": 1}))
        self._expect("outputs of the last layer", width, self.n_genres)
        self._expect("constants", {name: array.shape for name, array in constants.items()}, used)
        if constants[REMAINDER].any():
            raise OnnxGraphError(f"{REMAINDER} is not 0 by default")
        return OnnxGraph(constants["mean_high"][0], constants["mean_low"][0], tuple(layers))

    def _read_node(self, content: bytes) -> tuple[str, list[str], list[str], dict[str, int]]:
        node = self._read_message("node", content, named_first=True)
        attributes = {}
        for item in node.get("attribute", []):
            attribute = self._read_message("attribute", item)
            self._expect("type of an attribute", _read_one(attribute, "type"), _INT_ATTRIBUTE)
            attributes[_read_text(_read_one(attribute, "name"))] = _read_one(attribute, "i")
        names = [[_read_text(name) for name in node.get(key, [])] for key in ("input", "output")]
        return _read_text(_read_one(node, "op_type")), names[0], names[1], attributes

    def _read_constants(self, items: list[bytes]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for item in items:
            tensor = self._read_message("tensor", item)
            name = _read_text(_read_one(tensor, "name"))
            self._expect(f"data type of {name:.40}", _read_one(tensor, "data_type"), _FLOAT)
            shape = tuple(islice(self._read_dims(tensor.get("dims", [])), 3))
            raw = _read_one(tensor, "raw_data")
            if not isinstance(raw, bytes) or len(shape) > 2 or math.prod(shape) * 4 != len(raw) or not raw:
                raise OnnxGraphError(f"{name:.40} has shape {shape!r:.80}, which its numbers have not")
            if name in found:
                raise OnnxGraphError(f"has {name:.40} twice")
            found[name] = np.frombuffer(raw, "<f4").reshape(shape)
            if not np.isfinite(found[name]).all():
                raise OnnxGraphError(f"{name:.40} has values that are not finite")
        return found

    def _read_dims(self, items: list[Any]) -> Iterator[int]:
        for item in items:
            if isinstance(item, int):
                yield item
            else:  # packed: all dimensions in one field
                position = 0
                while position < len(item):
                    size, position = _read_varint(item, position)
                    yield size

    def _read_value_info(self, content: bytes) -> tuple[str, Any]:
        """Return the name and the second size of an input or output. It must be float32 with two axes."""
        info = self._read_message("value_info", content)
        name = _read_text(_read_one(info, "name"))
        tensor = self._read_message(
            "tensor_type", _read_one(self._read_message("type", _read_one(info, "type")), "tensor_type")
        )
        self._expect(f"data type of {name:.40}", _read_one(tensor, "elem_type"), _FLOAT)
        shape = self._read_message("shape", _read_one(tensor, "shape"))
        first, second = (self._read_message("dim", item) for item in _read_list(shape, "dim", 2))
        self._expect(f"first axis of {name:.40}", list(first), ["dim_param"])
        return name, _read_one(second, "dim_value")

    def _read_message(self, kind: str, content: Any, *, named_first: bool = False) -> dict[str, list[Any]]:
        """Return the fields of a message by name. Each is a list, because a field may occur several times."""
        if not isinstance(content, bytes):
            raise OnnxGraphError(f"a {kind} is a number")
        fields = list(self._read_fields(content))
        known = _FIELDS[kind]
        if named_first:  # refuse an unknown operator by its name, before its other fields
            for number, value in fields:
                if known.get(number) == "op_type" and _read_text(value) not in _OPERATORS:
                    raise OnnxGraphError(
                        f"has the operator {_read_text(value):.40}; expected {', '.join(_OPERATORS)} only"
                    )
        found: dict[str, list[Any]] = {}
        for number, value in fields:
            if number not in known:
                name = _OTHERS.get(kind, {}).get(number, f"number {number}")
                raise OnnxGraphError(f"a {kind} has the field {name}, which ours has not")
            found.setdefault(known[number], []).append(value)
        return found

    def _read_fields(self, content: bytes) -> Iterator[tuple[int, Any]]:
        position = 0
        while position < len(content):
            self.fields_left -= 1
            if self.fields_left < 0:
                raise OnnxGraphError(f"has more than {_MAX_FIELDS:,} fields")
            key, position = _read_varint(content, position)
            number, wire = key >> 3, key & 7
            if wire == 0:
                value, position = _read_varint(content, position)
                yield number, value
                continue
            if wire == 2:
                size, position = _read_varint(content, position)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
            else:
                raise OnnxGraphError("is no ONNX file, or damaged")
            if size > len(content) - position:
                raise OnnxGraphError("is truncated")
            yield number, content[position : position + size]
            position += size

    def _expect(self, what: str, found: Any, wanted: Any) -> None:
        if found != wanted:
            raise OnnxGraphError(f"{what}: {found!r:.120}, expected {wanted!r:.120}")


def _read_varint(content: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(content):
            raise OnnxGraphError("is truncated")
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise OnnxGraphError("is no ONNX file, or damaged")


def _read_one(message: Mapping[str, list[Any]], key: str) -> Any:
    found = message.get(key, [])
    if len(found) != 1:
        raise OnnxGraphError(f"has {len(found)} of {key}, expected one")
    return found[0]


def _read_list(message: Mapping[str, list[Any]], key: str, count: int | None = None) -> list[Any]:
    found = message.get(key, [])
    if not found or (count is not None and len(found) != count):
        raise OnnxGraphError(f"has {len(found)} of {key}, expected {count or 'some'}")
    return found


def _read_text(value: Any) -> str:
    if not isinstance(value, bytes):
        raise OnnxGraphError("has a number where a name belongs")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise OnnxGraphError(f"has a name that is no text ({error})") from error
