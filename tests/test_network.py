import numpy as np
import pytest
import torch

from genre_classifier import GenreClassifier
from genre_classifier.network import Dropout, dropout_noise


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


def test_dropout_stands_after_every_hidden_layer_but_the_last() -> None:
    kinds = [type(layer).__name__ for layer in GenreClassifier().network]
    assert kinds == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Linear"]


def test_predict_proba_ignores_dropout_and_keeps_the_mode() -> None:
    model = GenreClassifier(dropout=0.9).train()
    x = torch.randn(4, 20)
    assert torch.equal(model.predict_proba(x), model.predict_proba(x))
    assert model.training


def test_config_round_trip_gives_plain_values() -> None:
    model = GenreClassifier(input_dim=57, hidden_dims=(9, 8), num_classes=10, dropout=0.1)
    config = model.get_config()
    assert config == {"input_dim": 57, "hidden_dims": [9, 8], "num_classes": 10, "dropout": 0.1}
    again = GenreClassifier.from_config(config)
    assert [p.shape for p in again.parameters()] == [p.shape for p in model.parameters()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_dim": 0}, "input_dim=0"),
        ({"hidden_dims": ()}, r"hidden_dims=\[\]"),
        ({"hidden_dims": (4, 0)}, r"hidden_dims=\[4, 0\]"),
        ({"num_classes": 1}, "num_classes=1"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"dropout": -0.1}, "dropout=-0.1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GenreClassifier(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("p", [2**-8, 0.1, 0.3, 0.5, 0.9, 1 - 2**-8])
def test_dropout_drops_the_asked_share_independently_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(1)
    n = 1_000_000
    noise = dropout_noise((n,), p)
    kept = (noise > 0).double()
    deviation = (p * (1 - p) / n) ** 0.5
    assert abs(kept.mean().item() - (1 - p)) < 5 * deviation
    assert noise.unique().numel() == 2
    assert noise.max().item() == pytest.approx(1 / (1 - p), rel=2**-8)
    centred = kept - kept.mean()
    for lag in (1, 2, 3, 4, 8, 128):  # four values share one draw of the generator
        correlation = (centred[lag:] * centred[:-lag]).mean() / centred.square().mean()
        assert abs(correlation.item()) < 5 / n**0.5
    again = (dropout_noise((n,), p) > 0).double()
    correlation = (centred * (again - again.mean())).mean() / centred.square().mean()
    assert abs(correlation.item()) < 5 / n**0.5


def test_dropout_follows_torchs_seed_and_stops_gradients_where_it_drops() -> None:
    layer = Dropout(0.3)
    x = torch.randn(33, 7, requires_grad=True)
    torch.manual_seed(4)
    first = layer(x)
    first.sum().backward()
    torch.manual_seed(4)
    assert torch.equal(layer(x), first)
    assert not torch.equal(layer(x), first)
    assert torch.equal(x.grad, dropout_noise_of(first, x))


def dropout_noise_of(dropped: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    scale = 1 / (1 - round(0.3 * 2**16) / 2**16)
    return torch.where(dropped == 0, 0.0, torch.tensor(scale, dtype=x.dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dropout_keeps_the_precision_and_is_off_outside_training(dtype: torch.dtype) -> None:
    x = torch.ones(50, 4, dtype=dtype)
    layer = Dropout(0.5)
    assert layer(x).dtype is dtype
    assert layer(x).unique().tolist() == [0.0, 2.0]
    assert torch.equal(layer.eval()(x), x)


@pytest.mark.parametrize("p", [0.0, 1e-4, 1 - 1e-4])
def test_a_probability_that_16_bits_would_miss_is_left_to_torch(p: float) -> None:
    x = torch.ones(1000)
    torch.manual_seed(0)
    ours = Dropout(p)(x)
    torch.manual_seed(0)
    assert torch.equal(ours, torch.nn.Dropout(p)(x))
