from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torchmetrics.functional import classification as tm

from genre_classifier import GenreClassifier
from genre_classifier.evaluation.metrics import compute_row_sums, compute_scores, evaluate, score


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
def test_every_metric_agrees_with_scikit_learn(n_genres: int, skewed: bool) -> None:
    rng = np.random.default_rng(n_genres)
    weights = np.arange(1, n_genres + 1, dtype=float) ** (2 if skewed else 0)
    truth = rng.choice(n_genres, size=400, p=weights / weights.sum())
    logits = rng.normal(size=(400, n_genres)) + 1.5 * np.eye(n_genres)[truth]
    scores = score(torch.tensor(logits), torch.tensor(truth))
    exact = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predicted = exact.argmax(axis=1)
    labels = list(range(n_genres))
    top3 = np.mean([t in row for t, row in zip(truth, np.argsort(-exact)[:, :3], strict=True)])
    expected = {
        "loss": sk.log_loss(truth, exact, labels=labels),
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


def test_a_genre_without_rows_does_not_lower_the_macro_f1() -> None:
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    logits = torch.tensor(np.eye(3)[predicted] * 5)
    scores = score(logits, torch.tensor(truth))
    assert scores.values["f1_macro"] == pytest.approx(sk.f1_score(truth, predicted, average="macro"))


def members(n_rows: int, n_genres: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, n_rows, n_genres, generator=generator)
    return logits, torch.randint(0, n_genres, (3, n_rows), generator=generator)


@pytest.mark.parametrize(("n_rows", "n_genres"), [(200, 8), (7, 8), (50, 2), (1, 3), (5000, 4)])
def test_each_member_has_the_metrics_of_torchmetrics(n_rows: int, n_genres: int) -> None:
    logits, genres = members(n_rows, n_genres)
    found = compute_scores(compute_row_sums(logits, genres), n_genres)
    for member, scores in enumerate(found):
        own, truth = logits[member].softmax(dim=1), genres[member]
        top = {"num_classes": n_genres, "top_k": min(3, n_genres), "average": "micro"}
        expected = {
            "accuracy": tm.multiclass_accuracy(own, truth, n_genres, average="micro"),
            "f1": tm.multiclass_f1_score(own, truth, n_genres, average="weighted"),
            "f1_macro": tm.multiclass_f1_score(own, truth, n_genres, average="macro"),
            "top3": tm.multiclass_accuracy(own, truth, **top),
            "ece": tm.multiclass_calibration_error(own, truth, n_genres, n_bins=15),
        }
        for name, value in expected.items():
            assert scores.values[name] == pytest.approx(float(value), abs=2e-6), name


def test_equally_probable_genres_rank_in_their_order() -> None:
    # Were ties right, a network that always says the same would be right about every row's three genres.
    genres = torch.arange(8)
    found = score(torch.zeros(8, 8), genres)
    assert (found.values["accuracy"], found.values["top3"]) == (1 / 8, 3 / 8)


def test_padding_rows_do_not_count() -> None:
    logits, genres = members(40, 5)
    logits[1, 30] = float("nan")
    valid = torch.arange(40)[None, :] < torch.tensor([40, 25, 1])[:, None]
    found = compute_scores(compute_row_sums(logits, genres, valid), 5)
    for member, n_rows in enumerate((40, 25, 1)):
        alone = score(logits[member, :n_rows], genres[member, :n_rows])
        counted = found[member].values.keys() - {"loss", "ece"}
        for name, value in alone.values.items():
            # Where a row stands decides how its float32 logarithm is rounded, by less than 2^-23 of its value.
            tolerance = 1e-9 if name in counted else 4 * 2**-23
            assert found[member].values[name] == pytest.approx(value, abs=tolerance), name
        torch.testing.assert_close(found[member].f1_per_genre, alone.f1_per_genre)


def test_the_sums_of_several_processes_can_be_added() -> None:
    logits, genres = members(40, 5)
    parts = [compute_row_sums(logits[:1, part], genres[:1, part]) for part in (slice(0, 25), slice(25, 40))]
    (found,) = compute_scores(parts[0] + parts[1], 5)
    assert found.values == pytest.approx(score(logits[0], genres[0]).values, abs=1e-9)


def test_a_confidence_of_one_is_in_the_last_bin() -> None:
    logits = torch.tensor([[900.0, 0.0], [900.0, 0.0]])
    assert score(logits, torch.tensor([0, 1])).values["ece"] == pytest.approx(0.5)


def test_evaluate_gives_the_mean_cross_entropy_and_leaves_the_mode() -> None:
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
