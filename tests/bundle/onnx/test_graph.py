"""The ONNX file is a program: only the one graph that this project writes is let in, and it is never run unread."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_classifier.bundle.format import make_predictor, read_bundle, verify_bundle
from genre_classifier.bundle.inference import ModelWrapper
from genre_classifier.bundle.onnx.graph import OnnxGraphError, read_graph
from genre_classifier.bundle.writing import write_bundle
from genre_classifier.data.scaler_state import ScalerStatistics
from genre_classifier.errors import BundleError
from genre_classifier.network import GenreClassifier
from tests.example_models import GENRES, make_rows, make_scaler

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from genre_classifier.bundle.onnx.export import build_graph, build_onnx  # noqa: E402

ROWS = make_rows()
SCALER = make_scaler(ROWS)
STATISTICS = ScalerStatistics.of(SCALER)
MODEL = GenreClassifier().eval()
CONTENT = build_onnx(MODEL, STATISTICS, genre_names=GENRES, feature_names=[f"f{i}" for i in range(20)])
ROOT = Path(__file__).parents[2]


def test_our_own_graph_is_read_to_the_last_bit() -> None:
    found = read_graph(CONTENT, 20, 8)
    assert found.describe_difference(build_graph(MODEL, STATISTICS)) is None
    assert build_graph(MODEL, STATISTICS).describe_difference(found) is None
    assert [layer.weight.shape for layer in found.layers] == [(128, 20), (64, 128), (32, 64), (8, 32)]
    assert [layer.is_rectified for layer in found.layers] == [True, True, True, False]


@pytest.mark.parametrize("hidden", [(3,), (1, 1), (16,) * 12])
def test_every_shape_of_our_graph_is_read(hidden: tuple[int, ...]) -> None:
    model = GenreClassifier(input_dim=5, hidden_dims=hidden, num_classes=3).eval()
    graph = read_graph(build_onnx(model, None, genre_names=GENRES[:3]), 5, 3)
    assert graph.describe_difference(build_graph(model, None)) is None
    other = GenreClassifier(input_dim=5, hidden_dims=hidden, num_classes=3).eval()
    assert graph.describe_difference(build_graph(other, None)) == "layer_0_weight"


def edited(change: Callable[[Any], None]) -> bytes:
    model = onnx.load_model_from_string(CONTENT)
    change(model)
    return bytes(model.SerializeToString())


def with_packed_shape(axes: bytes) -> bytes:
    """Return our graph with one more constant, whose sizes stand in one field."""

    def field(number: int, content: bytes) -> bytes:
        size, rest = bytearray(), len(content)
        while rest >= 0x80:
            size.append(rest & 0x7F | 0x80)
            rest >>= 7
        return bytes([number << 3 | 2, *size, rest]) + content

    model = onnx.load_model_from_string(CONTENT)
    tensor = field(1, axes) + b"\x10\x01" + field(8, b"x") + field(9, b"1234")
    graph = model.graph.SerializeToString() + field(5, tensor)
    model.ClearField("graph")
    return bytes(model.SerializeToString() + field(7, graph))


def add_node(
    operator: str, inputs: list[str], outputs: list[str], **attributes: Any
) -> Callable[[Any], None]:
    return lambda model: model.graph.node.append(helper.make_node(operator, inputs, outputs, **attributes))


def body_without_end() -> Any:
    """The body of a Loop whose condition is always true."""
    values = [
        helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", 7), ("go", 9), ("on", 9))
    ]
    return helper.make_graph([helper.make_node("Identity", ["go"], ["on"])], "body", values[:2], values[2:])


def set_initializer(name: str, value: np.ndarray) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
        tensor.CopyFrom(numpy_helper.from_array(value, name))

    return change


def of_initializer(name: str, act: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda model: next(act(tensor) for tensor in model.graph.initializer if tensor.name == name)


def external(tensor: Any) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def huge(tensor: Any) -> None:
    del tensor.dims[:]
    tensor.dims.extend([2**40, 2**20])


def empty(tensor: Any) -> None:
    del tensor.dims[:]
    tensor.dims.extend([0, 2**62])
    tensor.raw_data = b""


def operator_of(position: int, name: str) -> Callable[[Any], None]:
    return lambda model: setattr(model.graph.node[position], "op_type", name)


def fill(model: Any) -> None:
    """Make the weights by ConstantOfShape: a kilobyte that takes gigabytes."""
    shape = numpy_helper.from_array(np.array([40_000, 40_000]), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["shape"], ["filled"]))


def with_function(model: Any) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    model.functions.append(
        helper.make_function("d", "F", ["x"], ["y"], [node], [helper.make_opsetid("", 17)])
    )


HOSTILE: dict[str, tuple[bytes, str]] = {
    "Loop": (edited(add_node("Loop", ["", "go"], ["out"], body=body_without_end())), "the operator Loop"),
    "If": (
        edited(
            add_node("If", ["go"], ["out"], then_branch=body_without_end(), else_branch=body_without_end())
        ),
        "the operator If",
    ),
    "Scan": (
        edited(add_node("Scan", ["x"], ["y"], body=body_without_end(), num_scan_inputs=1)),
        "the operator Scan",
    ),
    "ConstantOfShape": (edited(fill), "the operator ConstantOfShape"),
    "an operator in place of ours": (edited(operator_of(0, "Expand")), "the operator Expand"),
    "ours in another place": (edited(operator_of(0, "Add")), "first operators"),
    "an unknown operator": (edited(operator_of(3, "Nonsense")), "the operator Nonsense"),
    "one operator more": (
        edited(add_node("Relu", ["probabilities"], ["more"])),
        "operator of layer_4|last operator",
    ),
    "an operator of another domain": (
        edited(lambda model: setattr(model.graph.node[0], "domain", "com.evil")),
        "a node has the field domain",
    ),
    "a graph in an attribute": (
        edited(
            lambda model: model.graph.node[3].attribute.append(
                helper.make_attribute("body", body_without_end())
            )
        ),
        r"an? attribute has the field g \(a graph\)",
    ),
    "another attribute": (
        edited(lambda model: model.graph.node[3].attribute.append(helper.make_attribute("alpha", 2.0))),
        "an? attribute has the field f",
    ),
    "the other axis": (
        edited(lambda model: setattr(model.graph.node[-1].attribute[0], "i", 0)),
        "last operator",
    ),
    "external data": (
        edited(of_initializer("layer_0_weight", external)),
        "a tensor has the field external_data",
    ),
    "huge dimensions": (
        edited(of_initializer("layer_0_weight", huge)),
        r"has shape \(1099511627776, 1048576\)",
    ),
    "text for numbers": (
        edited(set_initializer("layer_0_bias", np.array(["x"] * 128, dtype=object))),
        "a tensor has the field string_data",
    ),
    "float64": (
        edited(set_initializer("layer_0_bias", np.zeros(128))),
        "data type of layer_0_bias: 11, expected 1",
    ),
    "another shape": (
        edited(set_initializer("layer_1_weight", np.zeros((64, 127), np.float32))),
        r"layer_1_weight has shape \(64, 127\), expected \(outputs, 128\)",
    ),
    "a bias of another shape": (
        edited(set_initializer("layer_1_bias", np.zeros(63, np.float32))),
        "constants",
    ),
    "NaN": (
        edited(set_initializer("mean_low", np.full((1, 20), np.nan, np.float32))),
        "mean_low has values that are",
    ),
    "a remainder that is not 0": (
        edited(set_initializer("features_remainder", np.ones((1, 20), np.float32))),
        "features_remainder is not 0",
    ),
    "a constant more": (
        edited(
            lambda model: model.graph.initializer.append(
                numpy_helper.from_array(np.zeros(9, np.float32), "x")
            )
        ),
        "constants",
    ),
    "a constant twice": (
        edited(lambda model: model.graph.initializer.append(model.graph.initializer[0])),
        "features_remainder twice",
    ),
    "a sparse constant": (
        edited(lambda model: model.graph.sparse_initializer.add()),
        "a graph has the field sparse_initializer",
    ),
    "a function": (edited(with_function), "a model has the field functions"),
    "training": (edited(lambda model: model.training_info.add()), "a model has the field training_info"),
    "another input": (edited(lambda model: setattr(model.graph.input[0], "name", "x")), "graph inputs"),
    "one output more": (
        edited(lambda model: model.graph.output.append(model.graph.output[0])),
        "graph outputs",
    ),
    "another opset": (
        edited(lambda model: setattr(model.opset_import[0], "version", 18)),
        "opset version: 18",
    ),
    "another domain's opset": (
        edited(lambda model: model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))),
        "has 2 of opset_import",
    ),
    "a shape of millions of axes": (with_packed_shape(b"\x7f" * 5_000_000), "has shape"),
    "an empty shape": (edited(of_initializer("mean_low", empty)), "has shape"),
    "many fields": (b"\x08\x08" * 60_000, "more than 50,000 fields"),
    "nothing": (b"", "has 0 of ir_version"),
    "no protobuf": (b"not onnx at all", "is no ONNX file|is truncated|has the field|a graph is a number"),
    "cut off": (CONTENT[:-5], "is truncated"),
    "cut in the middle": (CONTENT[:1000], "is truncated"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_every_other_graph_is_refused_by_what_it_holds(name: str) -> None:
    content, message = HOSTILE[name]
    with pytest.raises(OnnxGraphError, match=message) as caught:
        read_graph(content, 20, 8)
    assert len(str(caught.value)) < 400


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_graph_is_refused_or_of_the_same_shape(data: st.DataObject) -> None:
    small = build_onnx(
        GenreClassifier(input_dim=2, hidden_dims=(2,), num_classes=2).eval(), None, genre_names=GENRES[:2]
    )
    content = bytearray(small)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read_graph(bytes(content), 2, 2)
    except OnnxGraphError:
        return
    assert [layer.weight.shape for layer in found.layers] == [(2, 2), (2, 2)]


def replace_onnx(folder: Path, content: bytes) -> None:
    """Put another ONNX file into a bundle, with a metadata file that agrees."""
    from genre_classifier.bundle.format import compute_metadata_digest, compute_sha256

    (folder / "genre_classifier_production.onnx").unlink()
    (folder / "genre_classifier_production.onnx").write_bytes(content)
    path = folder / "genre_classifier_production_metadata.json"
    metadata = json.loads(path.read_text())
    metadata["sha256"]["onnx"] = compute_sha256(content)
    metadata["sha256"]["metadata"] = compute_metadata_digest(metadata)
    path.unlink()
    path.write_text(json.dumps(metadata))
    for name in ("genre_classifier_production.pt", "genre_classifier_production_scaler.pkl"):
        saved = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / name).write_bytes(saved)


@pytest.mark.parametrize("name", ["Loop", "ConstantOfShape", "huge dimensions", "external data"])
def test_no_command_runs_a_foreign_graph(tmp_path: Path, name: str) -> None:
    write_bundle(MODEL, SCALER, GENRES, {}, tmp_path)
    replace_onnx(tmp_path, HOSTILE[name][0])
    code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
from genre_classifier.bundle.format import make_predictor, read_bundle, verify_bundle
from genre_classifier.errors import BundleError
try:
    bundle = read_bundle(sys.argv[1])
    make_predictor(bundle)
    verify_bundle(bundle)
except BundleError as error:
    print(error)
"""
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert "genre_classifier_production.onnx: not an ONNX graph of this program: it " in done.stdout


def test_a_graph_of_ours_with_other_weights_is_found_by_verify(tmp_path: Path) -> None:
    write_bundle(MODEL, SCALER, GENRES, {}, tmp_path)
    assert dict(verify_bundle(read_bundle(tmp_path)))["onnx"].endswith("exactly the weights of the network")
    weight = read_graph(CONTENT, 20, 8).layers[2].weight.copy()
    weight[3, 5] = np.nextafter(weight[3, 5], np.float32(9))
    replace_onnx(tmp_path, edited(set_initializer("layer_2_weight", weight)))
    bundle = read_bundle(tmp_path)
    with pytest.raises(BundleError, match=r"\.onnx: not the network in .*\.pt: layer_2_weight differs"):
        verify_bundle(bundle)
    # Nobody is answered by that file, so that nobody is answered wrongly.
    expected = ModelWrapper(MODEL, SCALER, GENRES)._compute_probabilities(ROWS)
    assert np.abs(make_predictor(bundle)._compute_probabilities(ROWS) - expected).max() < 1e-6


def test_predicting_imports_no_runtime(tmp_path: Path) -> None:
    write_bundle(MODEL, SCALER, GENRES, {}, tmp_path)
    code = """
import sys
from genre_classifier.bundle.format import make_predictor, read_bundle
make_predictor(read_bundle(sys.argv[1])).predict([0.0] * 20)
print({"onnxruntime", "onnx", "torch", "sklearn", "pandas", "scipy"} & set(sys.modules))
"""
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
