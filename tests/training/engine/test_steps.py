"""The engine against a plain loop in torch, and members against the same members alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from genre_classifier.network import GenreClassifier
from genre_classifier.training.engine.steps import Engine, Learner
from tests.training.engine.edited import TAKEN

N_ROWS, BATCH, EPOCHS = 90, 16, 5  # the last mini-batch has 10 rows
Make = Callable[[Any], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, fused=True),
}
LOSSES: list[dict[str, Any]] = [
    {},
    {"label_smoothing": 0.1, "clip_norm": 0.5},
    {"class_weights": [0.5, 1.0, 3.0], "clip_value": 0.01},
]
GENERATOR = torch.Generator().manual_seed(0)
FEATURES = torch.randn(N_ROWS, 5, generator=GENERATOR)
GENRES = torch.randint(0, 3, (N_ROWS,), generator=GENERATOR)


def network(
    seed: int, kind: type[GenreClassifier] = GenreClassifier, dropout: float = 0.0
) -> GenreClassifier:
    torch.manual_seed(seed)
    return kind(input_dim=5, hidden_dims=(9, 7, 4), num_classes=3, dropout=dropout)


def learner(seed: int, optimizer: str = "adam", dropout: float = 0.3, **changes: Any) -> Learner:
    made = network(seed, dropout=dropout)
    return Learner(made, OPTIMIZERS[optimizer](made.parameters()), 3, seed, **changes)


def train(learners: list[Learner], chunk: int = 100, epochs: int = EPOCHS) -> Tensor:
    """Return the members' weights, (member, parameter)."""
    engine, k = Engine(learners, BATCH), len(learners)
    features = functional.pad(FEATURES, (0, 0, 0, 6)).expand(k, -1, -1)
    genres, valid = functional.pad(GENRES, (0, 6)).expand(k, -1), (torch.arange(96) < N_ROWS).expand(k, -1)
    for epoch in range(epochs):
        engine.start_epoch([epoch] * k, [6] * k)
        for start in range(0, 6, chunk):
            rows = slice(start * BATCH, (start + chunk) * BATCH)
            batches = features[:, rows].split(BATCH, dim=1)
            engine.run(batches, genres[:, rows], valid[:, rows], lambda members: None)
        engine.finish_epoch()
    return engine.stack.parameters.clone()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", TAKEN)
def test_weights_after_five_epochs_are_autograds(
    optimizer: str, loss: dict[str, Any], kind: type[GenreClassifier]
) -> None:
    ours, theirs = network(1, kind), network(1, kind)
    train([Learner(ours, OPTIMIZERS[optimizer](ours.parameters()), 3, 1, **loss)])
    moves = OPTIMIZERS[optimizer](theirs.parameters())
    weights = loss.get("class_weights")
    for _ in range(EPOCHS):
        for features, genres in zip(FEATURES.split(BATCH), GENRES.split(BATCH), strict=True):
            moves.zero_grad()
            functional.cross_entropy(
                theirs(features),
                genres,
                weight=None if weights is None else torch.tensor(weights),
                label_smoothing=loss.get("label_smoothing", 0.0),
            ).backward()
            if "clip_norm" in loss:
                nn.utils.clip_grad_norm_(theirs.parameters(), loss["clip_norm"])
            if "clip_value" in loss:
                nn.utils.clip_grad_value_(theirs.parameters(), loss["clip_value"])
            moves.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def own(number: int) -> dict[str, Any]:
    """Return what sets a member apart, with dropout and mixup on."""
    return {
        "seed": number,
        "dropout": (0.3, 0.5, 0.0, 0.1)[number % 4],
        "mixup": (0.4, 0.0)[number % 2],
    } | LOSSES[number % 3]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_who_else_is_in_a_stack_changes_no_member(optimizer: str) -> None:
    together = train([learner(optimizer=optimizer, **own(number)) for number in range(7)])
    for places in ([0], [3], [5, 1], [6, 2, 4]):
        apart = train([learner(optimizer=optimizer, **own(place)) for place in places])
        torch.testing.assert_close(apart, together[places], atol=1e-6, rtol=0)


@pytest.mark.parametrize("chunk", [1, 4])
def test_the_size_of_a_chunk_changes_nothing(chunk: int) -> None:
    expected = train([learner(optimizer="adam", **own(number)) for number in range(3)])
    found = train([learner(optimizer="adam", **own(number)) for number in range(3)], chunk=chunk)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_dropout_and_mixup_change_the_weights() -> None:
    plain, dropped, mixed = (
        train([learner(1, **changes)])
        for changes in ({"dropout": 0.0}, {"dropout": 0.3}, {"dropout": 0.0, "mixup": 0.4})
    )
    assert (plain - dropped).abs().max() > 1e-3
    assert (plain - mixed).abs().max() > 1e-3


def test_a_members_epoch_may_have_fewer_steps() -> None:
    learners = [learner(1), learner(2)]
    engine = Engine(learners, BATCH)
    before = engine.stack.parameters.clone()
    engine.start_epoch([0, 0], [2, 1])
    made: list[list[int]] = []
    features, genres = FEATURES[:32].expand(2, -1, -1), GENRES[:32].expand(2, -1)
    valid = torch.tensor([[True] * 32, [True] * 16 + [False] * 16])
    engine.run(features.split(BATCH, dim=1), genres, valid, made.append)
    assert made == [[0, 1], [0]]
    trained = engine.finish_epoch()
    assert trained.valid.sum(dim=1).tolist() == [32, 16]
    alone = Engine([learner(2)], BATCH)
    alone.start_epoch([0], [1])
    alone.run([FEATURES[None, :16]], GENRES[None, :16], valid[1:, :16], made.append)
    torch.testing.assert_close(engine.stack.parameters[1], alone.stack.parameters[0], atol=1e-6, rtol=0)
    assert trained.loss[1].item() == pytest.approx(alone.finish_epoch().loss[0].item(), abs=1e-6)
    assert not torch.equal(before[0], engine.stack.parameters[0])


def test_the_loss_of_an_epoch_counts_each_row_with_the_loss_of_its_mini_batch() -> None:
    frozen = network(1)
    engine = Engine([Learner(frozen, torch.optim.SGD(frozen.parameters(), lr=0.0), 3, 1)], BATCH)
    engine.start_epoch([0], [6])
    valid = torch.arange(96)[None] < N_ROWS
    batches = functional.pad(FEATURES, (0, 0, 0, 6))[None].split(BATCH, dim=1)
    engine.run(batches, functional.pad(GENRES, (0, 6))[None], valid, lambda members: None)
    expected = functional.cross_entropy(frozen(FEATURES), GENRES).item()
    assert engine.finish_epoch().loss[0].item() == pytest.approx(expected, rel=1e-6)
