from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genre_classifier.config.checks import to_train_config
from genre_classifier.config.schema import TrainConfig
from genre_classifier.sweeps.stacked.grouping import find_unstackable_setting, group_trials
from genre_classifier.sweeps.stacked.networks import NetworkQuestions
from tests.conftest import composed

BASE = to_train_config(composed("run_dir=x"))
SGD = to_train_config(composed("run_dir=x", "optimizer=sgd"))


def trial(width: int, batch_size: int, sgd: bool, dropout: float, fold: int | None) -> TrainConfig:
    base = SGD if sgd else BASE
    split = replace(base.data.split, folds=None if fold is None else 5, fold=fold)
    return replace(
        base,
        model=replace(base.model, hidden_dims=[width], dropout=dropout),
        data=replace(base.data, batch_size=batch_size, split=split),
    )


TRIALS = st.lists(
    st.builds(
        trial,
        width=st.sampled_from([8, 16]),
        batch_size=st.sampled_from([32, 64]),
        sgd=st.booleans(),
        dropout=st.sampled_from([0.0, 0.3]),
        fold=st.sampled_from([None, 0, 4]),
    ),
    max_size=40,
)


@given(trials=TRIALS, max_members=st.integers(1, 20), n_jobs=st.integers(1, 4))
def test_every_trial_is_in_one_group_and_a_group_has_one_shape(
    trials: list[TrainConfig], max_members: int, n_jobs: int
) -> None:
    groups = group_trials(trials, max_members, n_jobs)
    assert sorted(place for part in groups for place in part.places) == list(range(len(trials)))
    for part in groups:
        assert 1 <= len(part.places) <= max_members
        assert list(part.places) == sorted(part.places)
        shapes = {
            (tuple(trials[p].model.hidden_dims), trials[p].data.batch_size, trials[p].optimizer._target_)
            for p in part.places
        }
        assert len(shapes) == 1


def test_a_large_group_is_divided_evenly_for_all_jobs() -> None:
    assert [len(part.places) for part in group_trials([BASE] * 64, 64, 2)] == [32, 32]
    assert [len(part.places) for part in group_trials([BASE] * 65, 32, 2)] == [22, 22, 21]


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("trainer.precision=bf16-mixed", "trainer.precision=bf16-mixed"),
        ("trainer.precision=64-true", "trainer.precision=64-true"),
        ("trainer.devices=2", "trainer.devices=2"),
        ("trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches=2"),
        ("trainer.limit_train_batches=3", "trainer.limit_train_batches=3"),
        ("trainer.overfit_batches=1", "trainer.overfit_batches=1"),
        ("trainer.max_time='00:00:10:00'", "trainer.max_time=00:00:10:00"),
        ("trainer.detect_anomaly=true", "trainer.detect_anomaly=true"),
        ("trainer.profiler=simple", "trainer.profiler=simple"),
        ("optimizer._target_=torch.optim.NAdam", "optimizer._target_=torch.optim.NAdam"),
    ],
)
def test_what_a_stack_cannot_do_is_named(override: str, reason: str) -> None:
    assert find_unstackable_setting(to_train_config(composed("run_dir=x", override))) == reason
    assert find_unstackable_setting(BASE) is None


def test_the_engine_is_asked_which_networks_a_stack_takes() -> None:
    changes = [
        {"_target_": "genre_classifier.network.GenreClassifier"},
        {"_target_": "tests.training.engine.edited.Same", "hidden_dims": []},
        {"_target_": "tests.training.engine.edited.Branch"},
        {"_target_": "tests.sweeps.poison.Killed"},
        {"_target_": "tests.sweeps.poison.Refusing"},
        {"_target_": "genre_classifier.network.GenreClassifier", "dropout": 0.001},
        {"_target_": "genre_classifier.network.GenreClassifier"},
    ]
    trials = [replace(BASE, model=replace(BASE.model, **change)) for change in changes]
    reasons = NetworkQuestions().find_refusals(trials)
    assert reasons[0] is reasons[1] is reasons[6] is None
    expected = {
        2: "no chain of layers",
        3: "SIGKILL",
        4: "is not to my taste",
        5: "drops with probability 0.001",
    }
    for place, reason in expected.items():
        assert reason in str(reasons[place])
