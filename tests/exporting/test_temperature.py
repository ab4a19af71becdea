import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from genre_classifier.errors import ExportError
from genre_classifier.exporting.temperature import fit_temperature


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


def test_probabilities_that_are_right_need_no_temperature() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3)) * 2
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    genres = (rng.random((20_000, 1)) > shares.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    assert fit_temperature(torch.from_numpy(logits), torch.from_numpy(genres)) == pytest.approx(1.0, abs=0.03)


def test_rows_that_determine_no_temperature_are_refused() -> None:
    genres = torch.tensor([0, 1, 2, 0])
    right = torch.eye(3, dtype=torch.float64)[genres] * 4
    with pytest.raises(
        ExportError, match=r"the 4 validation rows do not determine .* all are classified right"
    ):
        fit_temperature(right, genres)
    with pytest.raises(ExportError, match="since the network is no better than chance on them"):
        fit_temperature(-right, genres)
