import pytest
import torch
from torch import nn

from genre_classifier.network import GenreClassifier
from genre_classifier.training.engine.layers import RefusedError, find_refusal, read_blocks
from genre_classifier.training.engine.stack import Stack
from tests.training.engine.edited import REFUSED, TAKEN, edit

ARGUMENTS = {"input_dim": 5, "hidden_dims": (9, 7, 4), "num_classes": 3, "dropout": 0.3}


def network(kind: type[GenreClassifier] = GenreClassifier) -> GenreClassifier:
    torch.manual_seed(0)
    return kind(**ARGUMENTS).train()  # type: ignore[arg-type]


@pytest.mark.parametrize("change", REFUSED)
def test_whatever_the_engine_does_not_know_is_refused_by_its_name(change: str) -> None:
    model = edit(change, network())
    with pytest.raises(RefusedError, match=REFUSED[change]):
        read_blocks(model)


@pytest.mark.parametrize("kind", TAKEN)
def test_the_forward_pass_is_read_in_its_order(kind: type[GenreClassifier]) -> None:
    model = network(kind)
    assert find_refusal(model) is None
    assert all(module.training for module in model.modules()), "reading changes no mode"
    stack = Stack([model])
    features = torch.randn(6, 5)
    torch.testing.assert_close(stack.logits(features)[0], model.eval()(features), atol=1e-6, rtol=1e-6)


def test_dropout_relu_and_widths_are_those_of_the_layers() -> None:
    blocks = read_blocks(network())
    assert [(b.linear.out_features, b.relu, b.dropout) for b in blocks] == [
        (9, True, 0.3),
        (7, True, 0.3),
        (4, True, 0.0),
        (3, False, 0.0),
    ]


def test_a_linear_model_is_one_layer() -> None:
    (block,) = read_blocks(GenreClassifier(hidden_dims=()))
    assert not block.relu


def test_a_hook_for_all_modules_is_refused() -> None:
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert find_refusal(network()) == "a hook is registered for all modules"
    finally:
        handle.remove()
    assert find_refusal(network()) is None


def test_reading_changes_no_random_numbers() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    read_blocks(GenreClassifier.from_config(network().get_config()))
    torch.manual_seed(3)
    assert torch.equal(torch.get_rng_state(), before)
