from unittest.mock import MagicMock as Mock

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from genre_classifier.data.scaler_state import ScalerStatistics
from genre_classifier.errors import ConfigError
from genre_classifier.training.engine.noise import MixupDraws
from genre_classifier.training.lit_module import GenreLitModule, build_network

NETWORK = {
    "_target_": "genre_classifier.network.GenreClassifier",
    "input_dim": 4,
    "hidden_dims": [8],
    "num_classes": 3,
    "dropout": 0.0,
}
SCALER = ScalerStatistics.of(
    StandardScaler().fit(np.random.default_rng(0).normal(size=(10, 4)))
).to_metadata()


def module(**changes: object) -> GenreLitModule:
    torch.manual_seed(0)
    settings = {
        "network": NETWORK,
        "genre_names": ["a", "b", "c"],
        "feature_names": ["w", "x", "y", "z"],
        "scaler": SCALER,
        "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3},
    }
    return GenreLitModule(**(settings | changes))  # type: ignore[arg-type]


def batch(n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 4, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def log_softmax(logits: torch.Tensor) -> np.ndarray:
    exact = logits.detach().numpy().astype(np.float64)
    return exact - np.log(np.exp(exact).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 3.0]])
def test_the_training_loss_is_the_smoothed_and_weighted_cross_entropy(
    smoothing: float, weights: list[float] | None
) -> None:
    """As torch documents it: smoothed terms carry each class's weight; the mean divides by the true classes'."""
    made = module(label_smoothing=smoothing, class_weights=weights)
    x, y = batch()
    log_p = log_softmax(made(x))
    w = np.array(weights or [1.0, 1.0, 1.0])
    rows = np.arange(len(y))
    total = (1 - smoothing) * -(w[y] * log_p[rows, y]).sum() + smoothing / 3 * -(w * log_p).sum()
    assert made.training_step((x, y), 0).item() == pytest.approx(total / w[y].sum(), rel=1e-5)


def test_the_validation_loss_is_the_mean_over_rows_of_all_mini_batches() -> None:
    made, (x, y) = module(), batch()
    made.trainer = Mock(world_size=1, current_epoch=0)
    made.validation_step((x[:30], y[:30]), 0)
    made.validation_step((x[30:], y[30:]), 1)
    expected = -log_softmax(made(x))[np.arange(len(y)), y].mean()
    assert made._finish_split("val")["val/loss"] == pytest.approx(expected, rel=1e-5)


def test_mixup_mixes_pairs_of_rows_and_their_losses_by_one_share() -> None:
    """The same rows and shares as in the engine."""
    made = module(mixup=0.4)
    x, y = batch()
    trainer = Mock(train_dataloader=Mock(batch_size=40, __len__=lambda _: 3), current_epoch=2, global_rank=0)
    made.trainer = trainer
    made.on_train_epoch_start()
    loss = made.training_step((x, y), 1)
    draws = MixupDraws([0.4], 40)
    draws.start_epoch([42], [2], [3])
    shares, others = draws.read_step(1, torch.ones(1, 40, dtype=torch.bool))
    share, other = float(shares[0]), others[0]
    log_p = log_softmax(made(share * x + (1 - share) * x[other]))
    rows = np.arange(len(y))
    expected = -(share * log_p[rows, y] + (1 - share) * log_p[rows, y[other]]).mean()
    assert 0.0 < share < 1.0
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_model_that_does_not_take_its_arguments_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"model: hidden_dims=\[0\]"):
        build_network(NETWORK | {"hidden_dims": [0]})
    with pytest.raises(ConfigError, match=r"model: .*unexpected keyword argument 'depth'"):
        build_network(NETWORK | {"depth": 3})
    with pytest.raises(
        ConfigError, match=r"_target_=torch.optim.Adam: expected a class derived from torch.nn"
    ):
        build_network(NETWORK | {"_target_": "torch.optim.Adam"})


def test_hyperparameters_are_built_in_values() -> None:
    def plain(value: object) -> bool:
        if isinstance(value, dict):
            return all(isinstance(k, str) and plain(v) for k, v in value.items())
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or type(value) in {str, int, float, bool}

    made = module(scheduler=None, class_weights=[1.0, 2.0, 3.0])
    assert all(plain(value) for value in dict(made.hparams).values())
