"""The members' steps against torch's own optimizers, one by one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from genre_classifier.training.engine.layers import RefusedError
from genre_classifier.training.engine.update import Updates

SHAPES = ((7, 5), (5,), (3, 7))
SIZE = 35 + 5 + 21
Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "adam": lambda p: torch.optim.Adam(p, fused=True, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-3),
    "adam, not fused": lambda p: torch.optim.Adam(p),
    "adamw": lambda p: torch.optim.AdamW(p, fused=True, weight_decay=0.1),
    "sgd nesterov": lambda p: torch.optim.SGD(p, fused=True, momentum=0.9, nesterov=True, weight_decay=0.1),
    "sgd momentum": lambda p: torch.optim.SGD(p, momentum=0.5),
    "sgd": lambda p: torch.optim.SGD(p, fused=True),
}


def parameters(row: torch.Tensor) -> list[nn.Parameter]:
    parts = row.split([35, 5, 21])
    return [nn.Parameter(part.view(shape)) for part, shape in zip(parts, SHAPES, strict=True)]


def own_step(weights: list[nn.Parameter], optimizer: torch.optim.Optimizer, row: torch.Tensor) -> None:
    for weight, part in zip(weights, row.split([35, 5, 21]), strict=True):
        weight.grad = part.view(weight.shape).clone()
    optimizer.step()


@pytest.mark.parametrize(
    "names", [["adam", "adamw", "adam", "adam, not fused"], ["sgd nesterov", "sgd momentum"]]
)
@pytest.mark.parametrize("resumed_after", [0, 3])
def test_a_members_step_is_its_own_optimizers(names: list[str], resumed_after: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(len(names), SIZE, generator=generator)
    gradients = torch.zeros_like(rows)
    alone = [parameters(row.clone()) for row in rows]
    theirs = [OPTIMIZERS[name](weights) for name, weights in zip(names, alone, strict=True)]
    for _ in range(resumed_after):
        for weights, optimizer in zip(alone, theirs, strict=True):
            own_step(weights, optimizer, torch.randn(SIZE, generator=generator))
    for row, weights in zip(rows, alone, strict=True):
        row.copy_(torch.cat([weight.detach().flatten() for weight in weights]))
    stacked = [parameters(row) for row in rows]
    ours = [OPTIMIZERS[name](weights) for name, weights in zip(names, stacked, strict=True)]
    for mine, optimizer in zip(ours, theirs, strict=True):
        if resumed_after:
            mine.load_state_dict(optimizer.state_dict())
    updates = Updates(ours, stacked, rows, gradients)
    for step in range(6):
        active = [member for member in range(len(names)) if step < 4 or member != 1]
        for optimizer in (*ours, *theirs):
            optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
        gradients.copy_(torch.randn(rows.shape, generator=generator))
        updates.make(active)
        for member in active:
            own_step(alone[member], theirs[member], gradients[member])
    updates.finish_chunk()
    for member, (mine, optimizer) in enumerate(zip(ours, theirs, strict=True)):
        expected = torch.cat([weight.detach().flatten() for weight in alone[member]])
        torch.testing.assert_close(rows[member], expected, rtol=1e-6, atol=1e-7)
        found, state = mine.state_dict()["state"], optimizer.state_dict()["state"]
        assert found.keys() == state.keys()
        for number, entry in state.items():
            assert found[number].keys() == entry.keys()
            for name, value in entry.items():
                torch.testing.assert_close(found[number][name], value, rtol=1e-6, atol=1e-7)


def test_sgd_without_momentum_moves_as_torchs() -> None:
    rows, gradients = torch.zeros(1, SIZE), torch.ones(1, SIZE)
    weights = parameters(rows[0])
    Updates([OPTIMIZERS["sgd"](weights)], [weights], rows, gradients).make([0])
    torch.testing.assert_close(rows, torch.full_like(rows, -1e-3))


def test_saved_steps_are_tensors_of_their_own(tmp_path: Any) -> None:
    """Torch's own optimizer counts each of them, so they must not share memory once they are read."""
    rows = torch.zeros(1, SIZE)
    weights = parameters(rows[0])
    optimizer = OPTIMIZERS["adam"](weights)
    updates = Updates([optimizer], [weights], rows, torch.ones_like(rows))
    updates.make([0])
    updates.finish_chunk()
    torch.save(optimizer.state_dict(), tmp_path / "state")
    again = parameters(torch.zeros(SIZE))
    resumed = OPTIMIZERS["adam"](again)
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    own_step(again, resumed, torch.ones(SIZE))
    assert [float(entry["step"]) for entry in resumed.state_dict()["state"].values()] == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: torch.optim.RMSprop(p), "the optimizer is torch.optim.rmsprop.RMSprop"),
        (lambda p: torch.optim.Adam(p, amsgrad=True), "amsgrad=True"),
        (lambda p: torch.optim.Adam(p, decoupled_weight_decay=True), "decoupled_weight_decay=True"),
        (lambda p: torch.optim.SGD(p, maximize=True), "maximize=True"),
        (lambda p: torch.optim.SGD(p, momentum=0.5, dampening=0.1), "dampening=0.1"),
        (lambda p: torch.optim.Adam([{"params": p[:1]}, {"params": p[1:]}]), "several groups"),
    ],
)
def test_an_optimizer_that_the_engine_does_not_know_is_refused(make: Make, reason: str) -> None:
    rows = torch.zeros(1, SIZE)
    weights = parameters(rows[0])
    with pytest.raises(RefusedError, match=reason):
        Updates([make(weights)], [weights], rows, torch.zeros_like(rows))


def test_an_optimizer_with_a_hook_is_refused() -> None:
    rows = torch.zeros(1, SIZE)
    weights = parameters(rows[0])
    optimizer = OPTIMIZERS["adam"](weights)
    optimizer.register_step_post_hook(lambda *_: None)
    with pytest.raises(RefusedError, match="the optimizer has a hook"):
        Updates([optimizer], [weights], rows, torch.zeros_like(rows))
