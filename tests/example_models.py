"""Small trained-looking models that the tests of inference, bundles and the service share."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

from genre_classifier.bundle.predictor import DEFAULT_GENRES
from genre_classifier.features.sets import CORE20
from genre_classifier.network import GenreClassifier

GENRES = list(DEFAULT_GENRES)
FEATURES = CORE20.features
METRICS = {"test_accuracy": 0.81, "test_f1": 0.8}


def make_rows(n_rows: int = 200, n_features: int = 20, seed: int = 0) -> np.ndarray:
    """Return features (row, feature) whose columns differ in mean and spread, as audio features do."""
    generator = np.random.default_rng(seed)
    mean = generator.normal(scale=100.0, size=n_features)
    spread = np.exp(generator.normal(size=n_features))
    return generator.normal(size=(n_rows, n_features)) * spread + mean


def make_model(n_features: int = 20, n_genres: int = 8, seed: int = 0) -> GenreClassifier:
    """Return a network whose logits are a few units apart, so that its answers are not all alike."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GenreClassifier(input_dim=n_features, num_classes=n_genres)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 2.0
    return model.eval()


def make_scaler(rows: np.ndarray) -> StandardScaler:
    """Return a scaler fitted on the rows."""
    return StandardScaler().fit(rows)


def reference_probabilities(
    model: GenreClassifier, scaler: StandardScaler | None, rows: np.ndarray
) -> np.ndarray:
    """Return probabilities (row, genre) computed in float64 throughout, from the layers' own numbers."""
    hidden = np.asarray(rows, dtype=np.float64)
    if scaler is not None:
        hidden = (hidden - scaler.mean_) / scaler.scale_
    linears = [layer for layer in model.network if isinstance(layer, torch.nn.Linear)]
    for position, linear in enumerate(linears):
        hidden = hidden @ linear.weight.detach().double().numpy().T + linear.bias.detach().double().numpy()
        if position < len(linears) - 1:
            hidden = np.maximum(hidden, 0.0)
    exponentials = np.exp(hidden - hidden.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
