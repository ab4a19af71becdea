"""A stack against the networks it was made from, one by one, through autograd."""

import pytest
import torch
from torch import Tensor

from genre_classifier.network import GenreClassifier
from genre_classifier.sweeps.stack import Stack


def networks(n: int, **arguments: object) -> list[GenreClassifier]:
    torch.manual_seed(0)
    return [GenreClassifier(input_dim=7, hidden_dims=(9, 6, 5), num_classes=4, **arguments) for _ in range(n)]  # type: ignore[arg-type]


def copies(originals: list[GenreClassifier]) -> list[GenreClassifier]:
    made = networks(len(originals), dropout=0.0)
    for copy, original in zip(made, originals, strict=True):
        copy.load_state_dict(original.state_dict())
    return made


def first_weight(network: GenreClassifier) -> float:
    return next(network.parameters()).detach().flatten()[0].item()


def flat_gradient(network: GenreClassifier) -> Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


def test_logits_and_gradients_are_those_of_each_network_alone() -> None:
    stacked = networks(3, dropout=0.0)
    alone = copies(stacked)
    stack = Stack(stacked)
    features, gradient = torch.randn(3, 11, 7), torch.randn(3, 11, 4)
    logits, inputs = stack.forward(features)
    stack.backward(gradient, inputs)
    for member, network in enumerate(alone):
        expected = network(features[member])
        expected.backward(gradient[member])
        torch.testing.assert_close(logits[member], expected, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(stack.gradients[member], flat_gradient(network), atol=1e-5, rtol=1e-5)


def test_dropout_lets_the_gradient_through_where_it_let_the_activation_through() -> None:
    stack = Stack([*networks(1, dropout=0.5), *networks(1, dropout=0.0)])
    features = torch.randn(2, 5000, 7)
    torch.manual_seed(3)
    _, inputs = stack.forward(features)
    # As autograd finds them with the same noise.
    torch.manual_seed(3)
    weights = [p.detach().clone().requires_grad_() for p in stack.networks[0].parameters()]
    hidden = features[0]
    noises = [(inputs[number][0] != 0).float() * 2.0 for number in (1, 2)]
    for number in range(3):
        hidden = (hidden @ weights[2 * number].T + weights[2 * number + 1]).relu()
        if number < 2:
            hidden = hidden * noises[number]
    logits = hidden @ weights[6].T + weights[7]
    gradient = torch.randn(2, 5000, 4)
    logits.backward(gradient[0])
    stack.backward(gradient, inputs)
    expected = torch.cat([w.grad.flatten() for w in weights if w.grad is not None])
    torch.testing.assert_close(stack.gradients[0], expected, atol=2e-3, rtol=1e-4)
    kept = (inputs[1][0] != 0).float().mean() / (inputs[1][1] != 0).float().mean()
    assert 0.4 < kept < 0.6


def test_networks_hold_the_stacks_weights_and_keep_their_own_when_they_leave() -> None:
    stacked = networks(3)
    stack = Stack(stacked)
    stack.parameters[1].fill_(0.25)
    assert first_weight(stacked[1]) == 0.25
    stack.keep([0, 2])
    stack.parameters.fill_(9.0)
    assert first_weight(stacked[1]) == 0.25
    assert first_weight(stacked[2]) == 9.0
    assert len(stack) == 2


def test_clipping_is_torchs_for_each_member() -> None:
    stack = Stack(networks(3))
    raw = torch.randn_like(stack.gradients)
    stack.gradients.copy_(raw)
    infinity = float("inf")
    stack.clip(torch.tensor([[0.5], [infinity], [1e6]]), None)
    for member, limit in enumerate((0.5, None, 1e6)):
        expected = torch.nn.Parameter(torch.zeros_like(raw[member]))
        expected.grad = raw[member].clone()
        if limit is not None:
            torch.nn.utils.clip_grad_norm_([expected], limit)
        torch.testing.assert_close(stack.gradients[member], expected.grad)
    stack.gradients.copy_(raw)
    stack.clip(None, torch.tensor([[0.1], [infinity], [0.3]]))
    torch.testing.assert_close(stack.gradients[0], raw[0].clamp(-0.1, 0.1))
    torch.testing.assert_close(stack.gradients[1], raw[1])


def test_networks_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="the networks have 2 different shapes"):
        Stack([GenreClassifier(), GenreClassifier(hidden_dims=(8,))])
