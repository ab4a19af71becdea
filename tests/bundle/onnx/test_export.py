from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn

from genre_classifier import GenreClassifier, ModelWrapper
from genre_classifier.bundle.format import read_bundle, wrap_bundle
from genre_classifier.bundle.inference import fold_temperature
from genre_classifier.bundle.onnx.export import build_onnx
from genre_classifier.bundle.writing import write_bundle
from genre_classifier.data.scaler_state import ScalerStatistics
from genre_classifier.errors import BundleError, FeatureError, MissingExtraError
from tests.example_models import FEATURES, GENRES, make_model, make_rows, make_scaler, reference_probabilities

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")

from genre_classifier.bundle.onnx.inference import OnnxPredictor  # noqa: E402

ROWS = make_rows()
MODEL = make_model()
SCALER = make_scaler(ROWS)
STATISTICS = ScalerStatistics.of(SCALER)
CONTENT = build_onnx(MODEL, STATISTICS, genre_names=GENRES, feature_names=FEATURES)
PREDICTOR = OnnxPredictor(CONTENT, STATISTICS, GENRES, FEATURES)


def test_a_caller_who_knows_only_the_inputs_name_gets_the_probabilities():
    session = onnxruntime.InferenceSession(CONTENT, providers=["CPUExecutionProvider"])
    assert [(value.name, value.type, value.shape) for value in session.get_inputs()] == [
        ("features", "tensor(float)", ["batch", 20])
    ]
    rounded = ROWS.astype(np.float32)
    expected = reference_probabilities(MODEL, SCALER, rounded)
    for rows in (rounded, rounded[:1]):
        (found,) = session.run(None, {"features": rows})
        assert found.dtype == np.float32
        assert np.abs(found - expected[: len(rows)]).max() < 1e-6


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1e3, 1e5, 1e6])
def test_a_mean_far_above_the_spread_costs_no_precision(ratio):
    rows = np.random.default_rng(3).normal(size=(300, 20)) + ratio
    scaler = make_scaler(rows)
    statistics = ScalerStatistics.of(scaler)
    content = build_onnx(MODEL, statistics, genre_names=GENRES)
    predictor = OnnxPredictor(content, statistics, GENRES)
    expected = reference_probabilities(MODEL, scaler, rows)
    assert np.abs(predictor._compute_probabilities(rows) - expected).max() < 1e-6
    single = np.array([predictor._compute_row_probabilities(row) for row in rows])
    assert np.abs(single - expected).max() < 1e-6
    # And a caller who gives float32 only gets the answer for just that float32.
    rounded = rows.astype(np.float32)
    (found,) = predictor._session.run(["probabilities"], {"features": rounded})
    assert np.abs(found - reference_probabilities(MODEL, scaler, rounded)).max() < 1e-6


@pytest.mark.parametrize(
    "scaler",
    [
        StandardScaler(with_mean=False).fit(ROWS),
        StandardScaler(with_std=False).fit(ROWS),
        StandardScaler(with_mean=False, with_std=False).fit(ROWS),
    ],
)
def test_a_scaler_without_mean_or_scale_is_exported_as_such(scaler):
    statistics = ScalerStatistics.of(scaler)
    rows = (ROWS - ROWS.mean(0)) / ROWS.std(0)
    predictor = OnnxPredictor(build_onnx(MODEL, statistics, genre_names=GENRES), statistics, GENRES)
    expected = ModelWrapper(MODEL, scaler, GENRES)._compute_probabilities(rows)
    assert np.abs(predictor._compute_probabilities(rows) - expected).max() < 1e-6


def test_without_a_scaler_the_features_go_straight_in():
    rows = np.random.default_rng(0).normal(size=(10, 20)).astype(np.float32)
    session = onnxruntime.InferenceSession(build_onnx(MODEL, None, genre_names=GENRES))
    (found,) = session.run(None, {"features": rows})
    assert np.abs(found - reference_probabilities(MODEL, None, rows)).max() < 1e-6


def test_the_answer_is_modelwrappers():
    wrapper = ModelWrapper(MODEL, SCALER, GENRES, feature_names=FEATURES)
    for row in ROWS[:20]:
        expected = wrapper.predict(row, return_probs=True, top_k=8)
        found = PREDICTOR.predict(row.tolist(), return_probs=True, top_k=8)
        assert found.keys() == expected.keys()
        assert found["predicted_index"] == expected["predicted_index"]
        assert found["all_probabilities"] == pytest.approx(expected["all_probabilities"], abs=1e-6)
        assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]
    batch = PREDICTOR.predict_batch(ROWS)
    assert [a["predicted_index"] for a in batch] == [
        a["predicted_index"] for a in wrapper.predict_batch(ROWS)
    ]
    with pytest.raises(FeatureError, match=r"feature 0 \('mfcc_1'\) is nan"):
        PREDICTOR.predict([float("nan")] + [0.0] * 19)
    with pytest.raises(FeatureError, match=r"\('mfcc_3'\) = 1e\+300, .* standard deviations"):
        PREDICTOR.predict([0.0, 0.0, 1e300] + [0.0] * 17)


def test_the_file_describes_itself():
    properties = {
        entry.key: json.loads(entry.value) for entry in onnx.load_from_string(CONTENT).metadata_props
    }
    assert properties == {"genre_names": GENRES, "feature_names": list(FEATURES)}


@pytest.mark.parametrize("temperature", [0.5, 1.7])
def test_a_temperature_divides_the_logits(temperature):
    with torch.no_grad():
        rows = torch.tensor(SCALER.transform(ROWS), dtype=torch.float32)
        expected = torch.softmax(MODEL(rows).double() / temperature, dim=1).numpy()
        folded = torch.softmax(fold_temperature(MODEL, temperature)(rows), dim=1).numpy()
    assert np.abs(folded - expected).max() < 1e-6
    content = build_onnx(MODEL, STATISTICS, genre_names=GENRES, temperature=temperature)
    found = OnnxPredictor(content, STATISTICS, GENRES)._compute_probabilities(ROWS)
    assert np.abs(found - expected).max() < 1e-6


def test_folding_leaves_the_model_alone():
    before = MODEL.network[8].weight.clone()
    fold_temperature(MODEL, 3.0)
    assert torch.equal(MODEL.network[8].weight, before)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf"), True])
def test_an_invalid_temperature_is_refused(temperature):
    with pytest.raises(ValueError, match=r"temperature=.*: expected a positive number"):
        fold_temperature(MODEL, temperature)


def test_what_onnx_cannot_express_is_refused():
    other = nn.Sequential(nn.Linear(20, 8), nn.Tanh())
    with pytest.raises(ValueError, match="does not end with a linear layer"):
        fold_temperature(other, 2.0)
    with pytest.raises(BundleError, match="Sequential is not a chain of linear layers and ReLU"):
        build_onnx(other, STATISTICS, genre_names=GENRES)
    tiny = ScalerStatistics.of(StandardScaler().fit(ROWS * 1e-50))
    with pytest.raises(BundleError, match="does not fit into float32"):
        build_onnx(MODEL, tiny, genre_names=GENRES)


def test_a_bundle_carries_it_beside_the_three_files(tmp_path):
    paths = write_bundle(MODEL, SCALER, GENRES, {}, tmp_path)
    assert paths["onnx"] == tmp_path / "genre_classifier_production.onnx"
    found = read_bundle(tmp_path)
    assert found.metadata["sha256"].keys() == {"model", "scaler", "onnx", "metadata"}
    answers = OnnxPredictor(found.onnx_file, found.scaler, found.genre_names)._compute_probabilities(ROWS)
    assert np.abs(answers - wrap_bundle(found, GenreClassifier)._compute_probabilities(ROWS)).max() < 1e-6


def test_without_the_package_onnx_the_bundle_has_none_and_asking_for_it_says_why(
    tmp_path, monkeypatch, caplog
):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr("genre_classifier.bundle.onnx.export.is_available", lambda: False)
    with caplog.at_level(logging.INFO):
        assert "onnx" not in write_bundle(MODEL, SCALER, GENRES, {}, tmp_path)
    assert "no ONNX file: onnx is not installed" in caplog.text
    with pytest.raises(MissingExtraError, match=r"not installed; run in .*-e '\.\[onnx\]'"):
        write_bundle(MODEL, SCALER, GENRES, {}, tmp_path, onnx=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"content": b"not onnx"}, r"not one that this program writes: is no ONNX file, or damaged"),
        ({"genre_names": GENRES[:7]}, r"size of probabilities: 8, expected 7"),
        (
            {"scaler": ScalerStatistics.of(make_scaler(make_rows(n_features=5)))},
            r"size of features: 20, expected 5",
        ),
    ],
)
def test_a_file_that_is_not_as_documented_is_refused(arguments, message):
    call = {"content": CONTENT, "scaler": STATISTICS, "genre_names": GENRES} | arguments
    with pytest.raises(BundleError, match=message):
        OnnxPredictor(**call)
