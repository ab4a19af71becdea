"""A stack against the networks it was made from, one by one, through autograd."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from genre_classifier.network import GenreClassifier
from genre_classifier.training.engine.layers import RefusedError
from genre_classifier.training.engine.stack import Stack
from tests.training.engine.edited import TAKEN


def networks(n: int, kind: type[GenreClassifier] = GenreClassifier, **changes: Any) -> list[GenreClassifier]:
    torch.manual_seed(0)
    arguments = {"input_dim": 7, "hidden_dims": (9, 6, 5), "num_classes": 4, "dropout": 0.0}
    return [kind(**(arguments | changes)) for _ in range(n)]


def copies(originals: list[GenreClassifier]) -> list[GenreClassifier]:
    made = [type(original)(**original.get_config()) for original in originals]
    for copy, original in zip(made, originals, strict=True):
        copy.load_state_dict(original.state_dict())
    return made


def first_weight(network: nn.Module) -> float:
    return next(network.parameters()).detach().flatten()[0].item()


def flat_gradient(network: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


@pytest.mark.parametrize("kind", TAKEN)
@pytest.mark.parametrize("hidden_dims", [(9, 6, 5), (3, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_and_gradients_are_those_of_each_network_alone(
    kind: type[GenreClassifier], hidden_dims: tuple[int, ...], dtype: torch.dtype
) -> None:
    stacked = [network.to(dtype) for network in networks(3, kind, hidden_dims=hidden_dims)]
    alone = [network.to(dtype) for network in copies(stacked)]
    stack = Stack(stacked)
    features, gradient = torch.randn(3, 11, 7, dtype=dtype), torch.randn(3, 11, 4, dtype=dtype)
    logits, inputs = stack.forward(features, [])
    stack.backward(gradient, inputs)
    for member, network in enumerate(alone):
        expected = network(features[member])
        expected.backward(gradient[member])
        torch.testing.assert_close(logits[member], expected, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(stack.gradients[member], flat_gradient(network), atol=1e-5, rtol=1e-5)


def test_a_linear_model_has_one_layer() -> None:
    stack = Stack(networks(2, hidden_dims=()))
    (alone, _) = copies(stack.networks)  # type: ignore[arg-type]
    features, gradient = torch.randn(2, 11, 7), torch.randn(2, 11, 4)
    logits, inputs = stack.forward(features, [])
    stack.backward(gradient, inputs)
    expected = alone(features[0])
    expected.backward(gradient[0])
    torch.testing.assert_close(logits[0], expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(stack.gradients[0], flat_gradient(alone), atol=1e-5, rtol=1e-5)


def test_gradients_agree_with_the_slope_of_the_loss() -> None:
    (network,) = networks(1)
    stack = Stack([network.double()])
    features, genres = torch.randn(1, 8, 7, dtype=torch.float64), torch.arange(8) % 4
    logits, inputs = stack.forward(features, [])
    stack.backward((torch.softmax(logits, dim=2) - functional.one_hot(genres, 4)) / 8, inputs)
    gradients, step = stack.gradients.clone(), 1e-6
    for place in (0, 17, 90, -1):
        losses = []
        for sign in (1, -1):
            stack.parameters[0, place] += sign * step
            losses.append(functional.cross_entropy(stack.logits(features[0])[0], genres).item())
            stack.parameters[0, place] -= sign * step
        assert gradients[0, place].item() == pytest.approx((losses[0] - losses[1]) / (2 * step), abs=1e-8)


def test_dropout_lets_the_gradient_through_where_it_let_the_activation_through() -> None:
    first, second = networks(1, dropout=0.5) + networks(1, dropout=0.0)
    stack = Stack([first, second])
    noise = [torch.randint(0, 2, (2, 500, width)) * 2.0 for width in (9, 6)]
    noise = [torch.stack([own[0], torch.ones_like(own[1])]) for own in noise]
    features, gradient = torch.randn(2, 500, 7), torch.randn(2, 500, 4)
    logits, inputs = stack.forward(features, noise)
    stack.backward(gradient, inputs)
    for member, network in enumerate(copies([first, second])):
        weights = list(network.parameters())
        hidden = features[member]
        for number in range(3):
            hidden = (hidden @ weights[2 * number].T + weights[2 * number + 1]).relu()
            if number < 2:
                hidden = hidden * noise[number][member]
        expected = hidden @ weights[6].T + weights[7]
        expected.backward(gradient[member])
        torch.testing.assert_close(logits[member], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(stack.gradients[member], flat_gradient(network), atol=2e-4, rtol=1e-4)


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


def test_networks_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="the networks have 2 different shapes"):
        Stack([GenreClassifier(), GenreClassifier(hidden_dims=(8,))])
    with pytest.raises(ValueError, match="the networks have 2 different shapes"):
        Stack([networks(1)[0], networks(1, TAKEN[-2])[0]])


def test_a_network_that_the_engine_does_not_know_is_refused() -> None:
    network = GenreClassifier()
    network.network[1] = nn.GELU()
    with pytest.raises(RefusedError, match=r"network\.1 is a GELU"):
        Stack([GenreClassifier(), network])
