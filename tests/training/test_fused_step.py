from collections.abc import Callable
from typing import Any

import pytest
import torch

from genre_classifier.training.fused_step import step_function

Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(*shape, generator=generator)) for shape in ((7, 5), (5,), (3, 7))]


def trajectory(make: Make, direct: bool, missing_at: int | None = None) -> list[torch.Tensor]:
    """Ten steps with given gradients, a moving learning rate, and at times a parameter without gradient."""
    weights = parameters()
    optimizer = make(weights)
    step = step_function(optimizer) if direct else optimizer.step
    generator = torch.Generator().manual_seed(1)
    for number in range(10):
        optimizer.param_groups[0]["lr"] = 0.1 / (number + 1)
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        if number == missing_at:
            weights[1].grad = None
        step()
    state = [value for entry in optimizer.state.values() for value in entry.values()]
    return [*(weight.detach() for weight in weights), *(value for value in state if value is not None)]


OPTIMIZERS: dict[str, Make] = {
    "adam": lambda p: torch.optim.Adam(p, fused=True, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, fused=True, weight_decay=0.1),
    "sgd nesterov": lambda p: torch.optim.SGD(p, fused=True, momentum=0.9, nesterov=True, weight_decay=0.1),
    "sgd momentum": lambda p: torch.optim.SGD(p, fused=True, momentum=0.5, dampening=0.1),
    "sgd": lambda p: torch.optim.SGD(p, fused=True),
    "not fused": lambda p: torch.optim.Adam(p),
    "amsgrad": lambda p: torch.optim.Adam(p, fused=True, amsgrad=True),
    "another": lambda p: torch.optim.RMSprop(p),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("missing_at", [None, 0, 4])
def test_the_step_is_the_optimizers_own_to_the_last_bit(name: str, missing_at: int | None) -> None:
    if name.startswith("sgd ") and missing_at == 0:
        pytest.skip("torch's own fused SGD fails where a parameter gets its momentum later than another")
    own = trajectory(OPTIMIZERS[name], direct=False, missing_at=missing_at)
    direct = trajectory(OPTIMIZERS[name], direct=True, missing_at=missing_at)
    assert len(own) == len(direct)
    for one, two in zip(own, direct, strict=True):
        assert torch.equal(one, two)


def test_a_hook_of_the_optimizer_is_called_at_every_step() -> None:
    weights = parameters()
    optimizer = torch.optim.Adam(weights, fused=True)
    calls: list[Any] = []
    optimizer.register_step_post_hook(lambda *_: calls.append(None))
    step = step_function(optimizer)
    for _ in range(3):
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        step()
    assert len(calls) == 3
