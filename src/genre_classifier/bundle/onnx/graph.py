"""Read the ONNX graph that this project writes, as data. Every other graph is refused.

An ONNX file is a program: with loops and generated constants a kilobyte of it runs for ever or takes any memory. So no
runtime is given a file. This module reads the file's messages (protobuf: numbered fields, each a whole number or bytes)
and knows those of which `export` makes its graph, and no others.
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
REMAINDER: Final = "features_remainder"  # what rounding to float32 cut off the features
OUTPUT: Final = "probabilities"
OPSET: Final = 17
IR_VERSION: Final = 8  # of ONNX 1.12, so that a runtime of 2022 loads what is written today
MAX_LAYERS: Final = 1000
_MAX_FIELDS: Final = 50_000
_FLOAT: Final = 1  # TensorProto.FLOAT
_INT_ATTRIBUTE: Final = 2  # AttributeProto.INT
_OPERATORS: Final = ("Sub", "Add", "Gemm", "Relu", "Softmax")

# Of each message the fields that the graph has, by their number in onnx.proto.
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
# Fields that other graphs have, for the message.
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
        Whose sum is subtracted from the features.
    layers : tuple of Layer
        float32, the scaler's division folded into the first.
    """

    mean_high: np.ndarray
    mean_low: np.ndarray
    layers: tuple[Layer, ...]

    def difference(self, other: OnnxGraph) -> str | None:
        """Return the first difference from another graph; None if both compute exactly the same."""
        if len(self.layers) != len(other.layers):
            return f"{len(self.layers)} layers, not {len(other.layers)}"
        pairs = [("mean_high", self.mean_high, other.mean_high), ("mean_low", self.mean_low, other.mean_low)]
        for position, (mine, theirs) in enumerate(zip(self.layers, other.layers, strict=True)):
            if mine.is_rectified != theirs.is_rectified:
                return f"layer_{position} has ReLU in one of them only"
            pairs += [(f"layer_{position}_weight", mine.weight, theirs.weight)]
            pairs += [(f"layer_{position}_bias", _or_empty(mine.bias), _or_empty(theirs.bias))]
        return next((name for name, mine, theirs in pairs if not np.array_equal(mine, theirs)), None)


def read_graph(content: bytes, n_features: int, n_genres: int) -> OnnxGraph:
    """Return what an ONNX file computes, if it is one that `export` writes.

    Parameters
    ----------
    content : bytes
    n_features, n_genres : int
        What it must take and give.

    Raises
    ------
    OnnxGraphError
        It is anything else; the message names the operator, field or shape.
    """
    return _GraphReader(n_features, n_genres).read(content)


def _or_empty(bias: np.ndarray | None) -> np.ndarray:
    return np.empty(0, np.float32) if bias is None else bias


class _GraphReader:
    def __init__(self, n_features: int, n_genres: int) -> None:
        self.n_features = n_features
        self.n_genres = n_genres
        self.fields_left = _MAX_FIELDS

    def read(self, content: bytes) -> OnnxGraph:
        model = self._message("model", content)
        self._expect("ir_version", _one(model, "ir_version"), IR_VERSION)
        (opset,) = (self._message("opset", item) for item in _list(model, "opset_import", 1))
        self._expect("opset domain", opset.get("domain", [b""]), [b""])
        self._expect("opset version", _one(opset, "version"), OPSET)
        for item in model.get("metadata_props", []):
            self._message("property", item)
        graph = self._message("graph", _one(model, "graph"))
        nodes = [self._node(item) for item in _list(graph, "node")]
        if len(nodes) > 2 * MAX_LAYERS:
            raise OnnxGraphError(f"has {len(nodes):,} operators")
        constants = self._constants(_list(graph, "initializer"))
        for key, names in (("input", [INPUT, REMAINDER]), ("output", [OUTPUT])):
            found = [self._value_info(item) for item in _list(graph, key)]
            self._expect(f"graph {key}s", [name for name, _ in found], names)
            for name, size in found:
                self._expect(f"size of {name}", size, self.n_genres if name == OUTPUT else self.n_features)
        return self._chain(nodes, constants)

    def _chain(
        self, nodes: list[tuple[str, list[str], list[str], dict[str, int]]], constants: dict[str, np.ndarray]
    ) -> OnnxGraph:
        """Return the layers of nodes that are, in this order and with these names, those of our graph."""
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

    def _node(self, content: bytes) -> tuple[str, list[str], list[str], dict[str, int]]:
        node = self._message("node", content, named_first=True)
        attributes = {}
        for item in node.get("attribute", []):
            attribute = self._message("attribute", item)
            self._expect("type of an attribute", _one(attribute, "type"), _INT_ATTRIBUTE)
            attributes[_text(_one(attribute, "name"))] = _one(attribute, "i")
        names = [[_text(name) for name in node.get(key, [])] for key in ("input", "output")]
        return _text(_one(node, "op_type")), names[0], names[1], attributes

    def _constants(self, items: list[bytes]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for item in items:
            tensor = self._message("tensor", item)
            name = _text(_one(tensor, "name"))
            self._expect(f"data type of {name:.40}", _one(tensor, "data_type"), _FLOAT)
            shape = tuple(islice(self._dims(tensor.get("dims", [])), 3))
            raw = _one(tensor, "raw_data")
            if not isinstance(raw, bytes) or len(shape) > 2 or math.prod(shape) * 4 != len(raw) or not raw:
                raise OnnxGraphError(f"{name:.40} has shape {shape!r:.80}, which its numbers have not")
            if name in found:
                raise OnnxGraphError(f"has {name:.40} twice")
            found[name] = np.frombuffer(raw, "<f4").reshape(shape)
            if not np.isfinite(found[name]).all():
                raise OnnxGraphError(f"{name:.40} has values that are not finite")
        return found

    def _dims(self, items: list[Any]) -> Iterator[int]:
        for item in items:
            if isinstance(item, int):
                yield item
            else:  # packed: all of them in one field
                position = 0
                while position < len(item):
                    size, position = _varint(item, position)
                    yield size

    def _value_info(self, content: bytes) -> tuple[str, Any]:
        """Return the name and the second size of an input or output, float32 of two axes, the first of any size."""
        info = self._message("value_info", content)
        name = _text(_one(info, "name"))
        tensor = self._message("tensor_type", _one(self._message("type", _one(info, "type")), "tensor_type"))
        self._expect(f"data type of {name:.40}", _one(tensor, "elem_type"), _FLOAT)
        shape = self._message("shape", _one(tensor, "shape"))
        first, second = (self._message("dim", item) for item in _list(shape, "dim", 2))
        self._expect(f"first axis of {name:.40}", list(first), ["dim_param"])
        return name, _one(second, "dim_value")

    def _message(self, kind: str, content: Any, *, named_first: bool = False) -> dict[str, list[Any]]:
        """Return the fields of a message by name; each is a list, as a field may stand several times."""
        if not isinstance(content, bytes):
            raise OnnxGraphError(f"a {kind} is a number")
        fields = list(self._fields(content))
        known = _FIELDS[kind]
        if named_first:  # an operator that we do not write is refused by its name, whatever else it brings
            for number, value in fields:
                if known.get(number) == "op_type" and _text(value) not in _OPERATORS:
                    raise OnnxGraphError(
                        f"has the operator {_text(value):.40}; expected {', '.join(_OPERATORS)} only"
                    )
        found: dict[str, list[Any]] = {}
        for number, value in fields:
            if number not in known:
                name = _OTHERS.get(kind, {}).get(number, f"number {number}")
                raise OnnxGraphError(f"a {kind} has the field {name}, which ours has not")
            found.setdefault(known[number], []).append(value)
        return found

    def _fields(self, content: bytes) -> Iterator[tuple[int, Any]]:
        position = 0
        while position < len(content):
            self.fields_left -= 1
            if self.fields_left < 0:
                raise OnnxGraphError(f"has more than {_MAX_FIELDS:,} fields")
            key, position = _varint(content, position)
            number, wire = key >> 3, key & 7
            if wire == 0:
                value, position = _varint(content, position)
                yield number, value
                continue
            if wire == 2:
                size, position = _varint(content, position)
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


def _varint(content: bytes, position: int) -> tuple[int, int]:
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


def _one(message: Mapping[str, list[Any]], key: str) -> Any:
    found = message.get(key, [])
    if len(found) != 1:
        raise OnnxGraphError(f"has {len(found)} of {key}, expected one")
    return found[0]


def _list(message: Mapping[str, list[Any]], key: str, count: int | None = None) -> list[Any]:
    found = message.get(key, [])
    if not found or (count is not None and len(found) != count):
        raise OnnxGraphError(f"has {len(found)} of {key}, expected {count or 'some'}")
    return found


def _text(value: Any) -> str:
    if not isinstance(value, bytes):
        raise OnnxGraphError("has a number where a name belongs")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise OnnxGraphError(f"has a name that is no text ({error})") from error
