import numpy as np
import pytest
import torch

from genre_classifier import GenreClassifier


def test_parameter_counts_and_state_dict_keys_are_the_production_ones() -> None:
    def count(model: GenreClassifier) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    assert count(GenreClassifier()) == 13_288
    assert count(GenreClassifier(input_dim=57)) == 18_024
    assert list(GenreClassifier().state_dict()) == [
        f"network.{layer}.{kind}" for layer in (0, 3, 6, 8) for kind in ("weight", "bias")
    ]


def test_forward_is_the_chain_of_affine_maps_and_relu_in_float64() -> None:
    torch.manual_seed(0)
    model = GenreClassifier(input_dim=5, hidden_dims=(7, 6, 4), num_classes=3).eval()
    x = torch.randn(11, 5)
    value = x.numpy().astype(np.float64)
    weights = [p.detach().numpy().astype(np.float64) for p in model.parameters()]
    for layer in range(4):
        value = value @ weights[2 * layer].T + weights[2 * layer + 1]
        if layer < 3:
            value = np.maximum(value, 0)
    np.testing.assert_allclose(model(x).detach().numpy(), value, atol=1e-5)
    probabilities = np.exp(value) / np.exp(value).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(x).numpy(), probabilities, atol=1e-6)
    assert model.predict(x).tolist() == value.argmax(axis=1).tolist()


def test_without_hidden_layers_it_is_a_linear_model() -> None:
    model = GenreClassifier(input_dim=5, hidden_dims=[], num_classes=3)
    assert list(model.state_dict()) == ["network.0.weight", "network.0.bias"]
    assert model.get_config()["hidden_dims"] == []
    x, (weight, bias) = torch.randn(4, 5), model.parameters()
    torch.testing.assert_close(model(x), x @ weight.T + bias)


def test_dropout_stands_after_every_hidden_layer_but_the_last() -> None:
    kinds = [type(layer).__name__ for layer in GenreClassifier().network]
    assert kinds == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Linear"]


def test_predict_proba_ignores_dropout_and_keeps_the_mode() -> None:
    model = GenreClassifier(dropout=0.9).train()
    x = torch.randn(4, 20)
    assert torch.equal(model.predict_proba(x), model.predict_proba(x))
    assert model.training


def test_config_round_trip_gives_built_in_values() -> None:
    model = GenreClassifier(input_dim=57, hidden_dims=(9, 8), num_classes=10, dropout=0.1)
    config = model.get_config()
    assert config == {"input_dim": 57, "hidden_dims": [9, 8], "num_classes": 10, "dropout": 0.1}
    again = GenreClassifier.from_config(config)
    assert [p.shape for p in again.parameters()] == [p.shape for p in model.parameters()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_dim": 0}, "input_dim=0"),
        ({"hidden_dims": (4, 0)}, r"hidden_dims=\[4, 0\]"),
        ({"num_classes": 1}, "num_classes=1"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"dropout": -0.1}, "dropout=-0.1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GenreClassifier(**arguments)  # type: ignore[arg-type]
