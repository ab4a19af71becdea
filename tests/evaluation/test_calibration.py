import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from genre_classifier.errors import CalibrationError
from genre_classifier.evaluation.calibration import fit_temperature, measure_temperature_effect


def nll(temperature: float, logits: np.ndarray, genres: np.ndarray) -> float:
    scaled = logits / temperature
    log_total = np.logaddexp.reduce(scaled, axis=1)
    return float(np.mean(log_total - scaled[np.arange(len(genres)), genres]))


@pytest.mark.parametrize("sharpness", [0.05, 0.5, 1.0, 3.0, 20.0])
def test_the_temperature_is_the_one_that_scipy_finds(sharpness: float) -> None:
    rng = np.random.default_rng(3)
    genres = rng.integers(0, 5, size=400)
    logits = rng.normal(size=(400, 5)) + 2.0 * np.eye(5)[genres]
    logits = logits * sharpness + 1e3 * rng.normal(size=(400, 1))
    expected = minimize_scalar(
        lambda x: nll(np.exp(x), logits, genres), bounds=(-6, 6), method="bounded", options={"xatol": 1e-10}
    )
    found = fit_temperature(torch.from_numpy(logits), torch.from_numpy(genres))
    assert found == pytest.approx(np.exp(expected.x), rel=1e-5)
    assert nll(found, logits, genres) <= expected.fun + 1e-12


def test_calibrated_probabilities_need_no_temperature() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3)) * 2
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    genres = (rng.random((20_000, 1)) > shares.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    assert fit_temperature(torch.from_numpy(logits), torch.from_numpy(genres)) == pytest.approx(1.0, abs=0.03)


def test_rows_that_determine_no_temperature_are_refused() -> None:
    genres = torch.tensor([0, 1, 2, 0])
    right = torch.eye(3, dtype=torch.float64)[genres] * 4
    with pytest.raises(
        CalibrationError, match=r"the 4 validation rows do not determine .* all are classified right"
    ):
        fit_temperature(right, genres)
    with pytest.raises(CalibrationError, match="since the network is no better than chance on them"):
        fit_temperature(-right, genres)


def test_the_effect_on_test_rows_uses_a_temperature_from_validation_rows_only() -> None:
    rng = np.random.default_rng(1)
    genres = torch.from_numpy(rng.integers(0, 4, size=600))
    logits = torch.from_numpy(rng.normal(size=(600, 4))) * 6 + 6 * torch.eye(4, dtype=torch.float64)[genres]
    found = measure_temperature_effect(logits[:300], genres[:300], logits[300:], genres[300:])
    assert found["temperature"] == fit_temperature(logits[:300], genres[:300])
    before = torch.nn.functional.cross_entropy(logits[300:], genres[300:])
    after = torch.nn.functional.cross_entropy(logits[300:] / found["temperature"], genres[300:])
    assert found["test"]["before"]["loss"] == pytest.approx(float(before))
    assert found["test"]["after"]["loss"] == pytest.approx(float(after))
    assert found["test"]["after"]["ece"] < found["test"]["before"]["ece"]


def test_without_a_temperature_the_effect_says_why() -> None:
    genres = torch.tensor([0, 1, 2, 0])
    right = torch.eye(3, dtype=torch.float64)[genres] * 4
    found = measure_temperature_effect(right, genres, right, genres)
    assert found["temperature"] is None
    assert "all are classified right" in found["reason"]
    assert "test" not in found
