import pytest
import torch
from torch import Tensor

from genre_classifier.evaluation.member_metrics import member_scores
from genre_classifier.evaluation.metrics import GenreMetrics


def rows(n_members: int, n_rows: int, n_genres: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n_members, n_rows, n_genres, generator=generator)
    return logits, torch.randint(0, n_genres, (n_members, n_rows), generator=generator)


@pytest.mark.parametrize(("n_rows", "n_genres"), [(200, 8), (7, 8), (50, 2), (1, 3), (5000, 4)])
def test_each_member_has_the_metrics_of_torchmetrics(n_rows: int, n_genres: int) -> None:
    logits, genres = rows(4, n_rows, n_genres)
    logits[3] *= 100  # confidences of exactly 1
    found = member_scores(logits, genres, torch.ones_like(genres, dtype=torch.bool))
    for member in range(4):
        expected = GenreMetrics(n_genres)(logits[member], genres[member])
        for name, value in expected.values.items():
            assert float(found.values[name][member]) == pytest.approx(value, abs=2e-6), name
        torch.testing.assert_close(found.f1_per_genre[member], expected.f1_per_genre, atol=1e-6, rtol=0)


def test_rows_that_fill_up_count_for_nothing() -> None:
    logits, genres = rows(3, 40, 5)
    valid = torch.arange(40)[None, :] < torch.tensor([40, 25, 1])[:, None]
    found = member_scores(logits, genres, valid)
    for member, n_rows in enumerate((40, 25, 1)):
        expected = GenreMetrics(5)(logits[member, :n_rows], genres[member, :n_rows])
        for name, value in expected.values.items():
            assert float(found.values[name][member]) == pytest.approx(value, abs=2e-6), name
