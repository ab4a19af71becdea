import numpy as np
import pytest
import torch
from torch.nn import functional

from genre_classifier.training.objective import (
    Targets,
    loss,
    loss_gradient,
    mixup,
    row_losses,
    summed_loss,
    target_table,
    targets_of,
)

WEIGHTS = [0.5, 1.0, 3.0]


def rows(n: int = 40, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(n, 3, generator=generator, dtype=dtype),
        torch.randint(0, 3, (n,), generator=generator),
    )


def targets(genres: torch.Tensor, size: int, smoothing: float, weights: list[float] | None) -> Targets:
    table = target_table(3, label_smoothing=smoothing, class_weights=weights, dtype=torch.float64)
    return targets_of(
        table, genres, size, None if weights is None else torch.tensor(weights, dtype=torch.float64)
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_loss_and_gradient_are_those_of_torchs_cross_entropy(
    smoothing: float, weights: list[float] | None
) -> None:
    logits, genres = rows()
    expected_logits = logits.clone().requires_grad_()
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    expected = functional.cross_entropy(expected_logits, genres, weight=weight, label_smoothing=smoothing)
    expected.backward()

    made = targets(genres, len(genres), smoothing, weights)
    ours = logits.clone().requires_grad_()
    value = loss(ours, made)
    value.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(ours.grad, expected_logits.grad, rtol=1e-10, atol=1e-14)
    assert torch.equal(ours.grad, loss_gradient(logits, made))


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    logits, genres = rows(5)
    made = targets(genres, 5, 0.1, WEIGHTS)
    assert torch.autograd.gradcheck(lambda x: loss(x, made), (logits.requires_grad_(),))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("n", [1, 16, 17, 48])
def test_targets_of_many_mini_batches_are_those_of_each(n: int, weights: list[float] | None) -> None:
    _, genres = rows(n)
    together = targets(genres, 16, 0.1, weights)
    for start in range(0, n, 16):
        part = genres[start : start + 16]
        for whole, alone in zip(together, targets(part, len(part), 0.1, weights), strict=True):
            assert torch.equal(whole[start : start + 16], alone)


def test_the_summed_loss_counts_each_row_with_the_loss_of_its_mini_batch() -> None:
    logits, genres = rows(40)
    weight = torch.tensor(WEIGHTS, dtype=torch.float64)
    parts = zip(logits.split(16), genres.split(16), strict=True)
    expected = sum(len(y) * functional.cross_entropy(x, y, weight=weight).item() for x, y in parts)
    assert summed_loss(logits, targets(genres, 16, 0.0, WEIGHTS), 16).item() == pytest.approx(expected)


def test_several_members_can_share_a_call() -> None:
    logits, genres = rows()
    made = targets(genres, 40, 0.1, None)
    stacked = Targets(*(torch.stack([part, part]) for part in made))
    both = torch.stack([logits, 2 * logits])
    for member, alone in enumerate((logits, 2 * logits)):
        assert torch.equal(loss_gradient(both, stacked)[member], loss_gradient(alone, made))
        torch.testing.assert_close(row_losses(both, stacked)[member], row_losses(alone, made))


def test_mixup_mixes_rows_and_losses_by_one_share() -> None:
    logits, genres = rows()
    features = torch.arange(40.0)[:, None]
    torch.manual_seed(3)
    mixed, made, share, other = mixup(features, targets(genres, 40, 0.1, None), 0.4)
    assert 0.0 < share < 1.0
    assert sorted(other.tolist()) == list(range(40))
    np.testing.assert_allclose(mixed[:, 0], share * features[:, 0] + (1 - share) * other, rtol=1e-6)
    expected = share * functional.cross_entropy(logits, genres, label_smoothing=0.1)
    expected = expected + (1 - share) * functional.cross_entropy(logits, genres[other], label_smoothing=0.1)
    assert loss(logits, made).item() == pytest.approx(expected.item(), rel=1e-6)


def test_half_precision_logits_have_their_loss_in_single_precision() -> None:
    logits, genres = rows(dtype=torch.bfloat16)
    made = targets_of(target_table(3), genres, 40)
    ours = logits.clone().requires_grad_()
    value = loss(ours, made)
    value.backward()
    assert value.dtype is torch.float32
    assert value.item() == pytest.approx(functional.cross_entropy(logits.float(), genres).item(), rel=1e-6)
    assert ours.grad is not None
    assert ours.grad.dtype is torch.bfloat16
