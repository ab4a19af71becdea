"""The members' losses against torch's cross entropy, one by one."""

import pytest
import torch
from torch.nn import functional

from genre_classifier.training.engine.objective import (
    Objective,
    Targets,
    compute_loss_gradient,
    compute_row_losses,
)

WEIGHTS = [0.5, 1.0, 3.0]
SMOOTHING = [0.0, 0.2, 0.1]
CLASS_WEIGHTS = [None, WEIGHTS, None]


def rows(n: int = 48, members: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(members, n, 3, generator=generator, dtype=torch.float64),
        torch.randint(0, 3, (members, n), generator=generator),
    )


def objective(members: slice = slice(None), batch_size: int = 16) -> Objective:
    return Objective(3, SMOOTHING[members], CLASS_WEIGHTS[members], batch_size, dtype=torch.float64)


@pytest.mark.parametrize("n_valid", [48, 35])
def test_losses_and_gradients_are_those_of_torchs_cross_entropy(n_valid: int) -> None:
    logits, genres = rows()
    valid = (torch.arange(48) < n_valid).expand(3, -1)
    targets = objective().build_targets(genres, valid)
    losses, gradients = compute_row_losses(logits, targets), compute_loss_gradient(logits, targets)
    for member in range(3):
        weight = CLASS_WEIGHTS[member]
        for start in (0, 16, 32):
            part = slice(start, min(start + 16, n_valid))
            own = logits[member, part].clone().requires_grad_()
            expected = functional.cross_entropy(
                own,
                genres[member, part],
                weight=None if weight is None else torch.tensor(weight, dtype=torch.float64),
                label_smoothing=SMOOTHING[member],
            )
            expected.backward()
            assert losses[member, part].sum().item() == pytest.approx(expected.item(), rel=1e-12)
            torch.testing.assert_close(gradients[member, part], own.grad, rtol=1e-10, atol=1e-14)
        assert losses[member, n_valid:].abs().max() == 0 if n_valid < 48 else True
        assert gradients[member, n_valid:].abs().sum() == 0


def test_members_do_not_depend_on_each_other() -> None:
    _, genres = rows()
    valid = torch.ones(3, 48, dtype=torch.bool)
    together = objective().build_targets(genres, valid)
    for member in range(3):
        own = slice(member, member + 1)
        alone = objective(own).build_targets(genres[own], valid[own])
        for one, all_members in zip(alone, together, strict=True):
            assert torch.equal(one[0], all_members[member])


def test_targets_can_be_mixed() -> None:
    logits, genres = rows(16, members=1)
    own = objective(slice(1, 2))
    valid, other = torch.ones(1, 16, dtype=torch.bool), torch.randperm(16)
    first, second = (own.build_targets(g, valid) for g in (genres, genres[:, other]))
    mixed = Targets(*(0.3 * one + 0.7 * two for one, two in zip(first, second, strict=True)))
    weight = torch.tensor(WEIGHTS, dtype=torch.float64)
    expected = [
        functional.cross_entropy(logits[0], g[0], weight=weight, label_smoothing=0.2).item()
        for g in (genres, genres[:, other])
    ]
    found = compute_row_losses(logits, mixed).sum().item()
    assert found == pytest.approx(0.3 * expected[0] + 0.7 * expected[1], rel=1e-12)
