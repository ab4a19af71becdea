from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from genre_classifier import GenreClassifier
from genre_classifier.training.backprop import autograd_pass, explicit_pass


def network(**changes: Any) -> GenreClassifier:
    torch.manual_seed(0)
    arguments = {"input_dim": 5, "hidden_dims": (9, 7, 4), "num_classes": 3, "dropout": 0.3}
    return GenreClassifier(**(arguments | changes)).train()


@pytest.mark.parametrize("rows", [1, 64])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("hidden_dims", [(6,), (9, 7, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_and_gradients_are_autograds_to_the_last_bit(
    rows: int, dropout: float, hidden_dims: tuple[int, ...], dtype: torch.dtype
) -> None:
    model = network(dropout=dropout, hidden_dims=hidden_dims).to(dtype)
    explicit = explicit_pass(model)
    assert explicit is not None
    batches = [torch.randn(rows, 5, dtype=dtype) for _ in range(2)]
    gradient = torch.randn(rows, 3, dtype=dtype)
    found = []
    for way in (explicit, autograd_pass(model)):
        model.zero_grad()
        torch.manual_seed(7)
        for features in batches:  # the second one's gradients are added to the first one's
            logits, backward = way(features)
            assert not logits.requires_grad
            backward(gradient)
        found.append((logits, [p.grad for p in model.parameters()]))
    (first, ours), (second, autograds) = found
    assert torch.equal(first, second)
    for one, two in zip(ours, autograds, strict=True):
        assert one is not None
        assert two is not None
        assert torch.equal(one, two)
        assert one.is_contiguous()


def test_gradients_agree_with_the_slope_of_the_loss() -> None:
    model = network(dropout=0.0).double()
    features, genres = torch.randn(8, 5, dtype=torch.float64), torch.arange(8) % 3
    explicit = explicit_pass(model)
    assert explicit is not None
    logits, backward = explicit(features)
    backward((torch.softmax(logits, dim=1) - functional.one_hot(genres, 3)) / 8)
    weight = model.network[0].weight
    step = 1e-6
    for place in ((0, 0), (3, 2), (8, 4)):
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[place] += sign * step
                losses.append(functional.cross_entropy(model(features), genres).item())
                weight[place] -= sign * step
        slope = (losses[0] - losses[1]) / (2 * step)
        assert weight.grad is not None
        assert weight.grad[place].item() == pytest.approx(slope, abs=1e-8)


class Subclass(GenreClassifier):
    """Might have a forward of its own."""


def changed(change: str) -> nn.Module:
    model = network()
    if change == "frozen":
        model.network[0].weight.requires_grad_(False)
    elif change == "module hook":
        model.network[3].register_forward_hook(lambda *_: None)
    elif change == "tensor hook":
        model.network[0].bias.register_hook(lambda gradient: gradient)
    elif change == "another layer":
        model.network[1] = nn.Tanh()
    elif change == "torch's dropout":
        model.network[2] = nn.Dropout(0.3)
    elif change == "rare dropout":
        model = network(dropout=1e-4)
    elif change == "half precision":
        model = model.bfloat16()
    elif change == "subclass":
        model = Subclass(5, (9,), 3)
    return model


@pytest.mark.parametrize(
    "change",
    [
        "frozen",
        "module hook",
        "tensor hook",
        "another layer",
        "torch's dropout",
        "rare dropout",
        "half precision",
        "subclass",
    ],
)
def test_whatever_else_a_network_has_is_left_to_autograd(change: str) -> None:
    assert explicit_pass(network()) is not None
    assert explicit_pass(changed(change)) is None
