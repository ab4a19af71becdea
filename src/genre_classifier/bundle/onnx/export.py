"""Export a network with its scaler and softmax as one ONNX graph.

The graph takes raw features and returns probabilities. Its input `features` is float32, as callers of ONNX expect.
float32 is too coarse for a feature whose mean is 1e5 times its spread. The second, optional input `features_remainder`
is therefore the rest after rounding to float32. Without it, the graph answers for the rounded value.

The scaler takes three additions. The graph holds the mean as the sum of two float32 numbers. The error of
(features - mean_high) + (features_remainder - mean_low) is a few roundings of the difference, also for a large mean:
float32 subtraction rounds its result, not its operands. The division is folded into the first layer's weights in
float64. The mean is not folded into the bias, because weight * mean can be as large as mean / spread. Rounding it to
float32 gives an error of 0.08 in the first layer if that ratio is 1e5.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from genre_classifier.bundle.chain import Layer
from genre_classifier.bundle.inference import fold_temperature, list_linear_steps
from genre_classifier.bundle.onnx.graph import INPUT, IR_VERSION, OPSET, OUTPUT, REMAINDER, OnnxGraph
from genre_classifier.commands import advise_to_install
from genre_classifier.data.scaler_state import ScalerStatistics
from genre_classifier.errors import BundleError, MissingExtraError

if TYPE_CHECKING:
    import onnx


def is_available() -> bool:
    """Return whether the packages for an ONNX export are installed."""
    return find_spec("onnx") is not None and find_spec("onnxruntime") is not None


def can_export(model: nn.Module) -> bool:
    """Return whether a model is a chain of linear layers and ReLU. Only these can be exported."""
    return list_linear_steps(model) is not None


def build_onnx(
    model: nn.Module,
    scaler: ScalerStatistics | None,
    *,
    genre_names: Sequence[str],
    feature_names: Sequence[str] | None = None,
    temperature: float = 1.0,
) -> bytes:
    """Return an ONNX file that gives a model's probabilities for raw features.

    Parameters
    ----------
    model : nn.Module
        A chain of linear layers and ReLU.
    scaler : ScalerStatistics or None
        Applied to the features first.
    genre_names : Sequence[str]
        Genre of each output, kept in the file's metadata.
    feature_names : Sequence[str] or None
        Name of each input, kept in the file's metadata.
    temperature : float
        Divisor of the logits. Keep 1 for a model with a folded temperature.

    Returns
    -------
    bytes
        Content of the file: input ``features`` float32 (batch, feature), optional input
        ``features_remainder`` of the same shape, output ``probabilities`` float32 (batch, genre).

    Raises
    ------
    MissingExtraError
        The package onnx is not installed.
    BundleError
        The model is not a chain of linear layers and ReLU.
    """
    try:
        from onnx import checker, helper
    except ImportError as error:
        raise MissingExtraError(
            f"writing ONNX needs the package onnx, which is not installed; {advise_to_install('onnx')}"
        ) from error
    if temperature != 1.0:
        model = fold_temperature(model, temperature)
    content = helper.make_model(
        _convert_to_onnx(build_graph(model, scaler), len(genre_names)),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="genre_classifier",
    )
    described: dict[str, Any] = {"genre_names": list(genre_names)}
    if feature_names is not None:
        described["feature_names"] = list(feature_names)
    helper.set_model_props(content, {key: json.dumps(value) for key, value in described.items()})
    checker.check_model(content, full_check=True)
    return content.SerializeToString()


def _convert_to_onnx(computed: OnnxGraph, n_genres: int) -> onnx.GraphProto:
    from onnx import TensorProto, helper, numpy_helper

    n_features = len(computed.mean_high)
    constants = {
        REMAINDER: np.zeros((1, n_features), np.float32),
        "mean_high": computed.mean_high[np.newaxis],
        "mean_low": computed.mean_low[np.newaxis],
    }
    nodes = [
        helper.make_node("Sub", [INPUT, "mean_high"], ["difference_high"]),
        helper.make_node("Sub", [REMAINDER, "mean_low"], ["difference_low"]),
        helper.make_node("Add", ["difference_high", "difference_low"], ["difference"]),
    ]
    value = "difference"
    for position, (weight, bias, is_rectified) in enumerate(computed.layers):
        result = f"layer_{position}"
        inputs = [value, f"{result}_weight"]
        constants[inputs[1]] = weight  # (output, input), as in torch
        if bias is not None:
            inputs.append(f"{result}_bias")
            constants[inputs[2]] = bias
        nodes.append(helper.make_node("Gemm", inputs, [result], transB=1))
        value = result
        if is_rectified:
            value = f"{result}_rectified"
            nodes.append(helper.make_node("Relu", [result], [value]))
    nodes.append(helper.make_node("Softmax", [value], [OUTPUT], axis=1))
    shapes: dict[str, list[str | int | None]] = {
        INPUT: ["batch", n_features],
        REMAINDER: ["remainders", n_features],
        OUTPUT: ["batch", n_genres],
    }
    described = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, s) for name, s in shapes.items()
    }
    return helper.make_graph(
        nodes,
        "genre_classifier",
        inputs=[described[INPUT], described[REMAINDER]],
        outputs=[described[OUTPUT]],
        initializer=[numpy_helper.from_array(array, name) for name, array in constants.items()],
    )


def build_graph(model: nn.Module, scaler: ScalerStatistics | None) -> OnnxGraph:
    """Return the computation of a model and its scaler as in the ONNX file, with the same bits.

    Raises
    ------
    BundleError
        The model is not a chain of linear layers and ReLU, or does not fit into float32 with its scaler.
    """
    steps = list_linear_steps(model)
    if steps is None:
        raise BundleError(
            f"{type(model).__name__} is not a chain of linear layers and ReLU; export with onnx=false"
        )
    layers: list[Layer] = []
    for step, following in pairwise([*steps, None]):
        if not isinstance(step, nn.Linear):
            continue
        weight = step.weight.detach().double().cpu().numpy()
        if not layers and scaler is not None and scaler.with_std:
            weight = weight / np.array(scaler.scale)
        bias = None if step.bias is None else step.bias.detach().float().cpu().numpy()
        with np.errstate(over="ignore"):
            rounded = weight.astype(np.float32)
        if not np.isfinite(rounded).all():
            raise BundleError(
                "the network with its scaler does not fit into float32, which ONNX computes with: a weight "
                "divided by a feature's spread is too large; export with onnx=false"
            )
        layers.append(Layer(rounded, bias, isinstance(following, nn.ReLU)))
    n_features = layers[0].weight.shape[1]
    mean = np.zeros(n_features) if scaler is None or not scaler.with_mean else np.array(scaler.mean)
    high = mean.astype(np.float32)
    return OnnxGraph(high, (mean - high).astype(np.float32), tuple(layers))
