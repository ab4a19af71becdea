from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from genre_classifier import GenreClassifier
from genre_classifier.evaluation.metrics import GenreMetrics, evaluate


def expected_calibration_error(probabilities: np.ndarray, truth: np.ndarray, bins: int = 15) -> float:
    """Naeini et al. (2015), bin by bin."""
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    edges = np.linspace(0, 1, bins + 1)
    total = 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(
                (predicted[inside] == truth[inside]).mean() - confidence[inside].mean()
            )
    return total


@pytest.mark.parametrize("n_genres", [2, 3, 8])
@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("block", [4096, 150])
def test_every_metric_agrees_with_scikit_learn(
    n_genres: int, skewed: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genre_classifier.evaluation.metrics.BLOCK_ROWS", block)
    rng = np.random.default_rng(n_genres)
    weights = np.arange(1, n_genres + 1, dtype=float) ** (2 if skewed else 0)
    truth = rng.choice(n_genres, size=400, p=weights / weights.sum())
    logits = rng.normal(size=(400, n_genres)) + 1.5 * np.eye(n_genres)[truth]
    scores = GenreMetrics(n_genres)(torch.tensor(logits), torch.tensor(truth))
    exact = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predicted = exact.argmax(axis=1)
    labels = list(range(n_genres))
    top3 = np.mean([t in row for t, row in zip(truth, np.argsort(-exact)[:, :3], strict=True)])
    expected = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "f1": sk.f1_score(truth, predicted, average="weighted"),
        "f1_macro": sk.f1_score(truth, predicted, average="macro"),
        "top3": top3,
        "ece": expected_calibration_error(exact, truth),
    }
    assert set(scores.values) == set(expected)
    for name, value in expected.items():
        assert scores.values[name] == pytest.approx(value, abs=1e-5), name
    np.testing.assert_allclose(
        scores.f1_per_genre.numpy(), sk.f1_score(truth, predicted, average=None, labels=labels), atol=1e-6
    )


def test_a_genre_that_is_nowhere_does_not_pull_the_macro_f1_down() -> None:
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    logits = torch.tensor(np.eye(3)[predicted] * 5)
    scores = GenreMetrics(3)(logits, torch.tensor(truth))
    assert scores.values["f1_macro"] == pytest.approx(sk.f1_score(truth, predicted, average="macro"))


def test_scores_of_one_epoch_do_not_leak_into_the_next() -> None:
    metrics = GenreMetrics(3)
    right = torch.eye(3) * 9
    metrics(right, torch.tensor([1, 2, 0]))
    assert metrics(right, torch.tensor([0, 1, 2])).values["accuracy"] == 1.0


def test_evaluate_gives_the_mean_cross_entropy_and_leaves_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genre_classifier.evaluation.metrics.BLOCK_ROWS", 20)
    torch.manual_seed(0)
    model = GenreClassifier(input_dim=4, num_classes=3, dropout=0.5).train()
    x, y = torch.randn(50, 4), torch.randint(0, 3, (50,))
    result = evaluate(model, x, y)
    logits = model.eval()(x).detach().numpy().astype(np.float64)
    exact = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert result.loss == pytest.approx(sk.log_loss(y.numpy(), exact, labels=[0, 1, 2]), abs=1e-6)
    np.testing.assert_allclose(result.probabilities.numpy(), exact, atol=1e-6)
    np.testing.assert_array_equal(
        result.confusion.numpy(), sk.confusion_matrix(y.numpy(), exact.argmax(axis=1), labels=[0, 1, 2])
    )
    assert evaluate(model.train(), x, y).loss == result.loss
    assert model.training
