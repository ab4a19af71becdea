from collections.abc import Callable

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from genre_classifier.config.settings import flatten, list_overrides
from genre_classifier.sweeps.composing import SweepConfigLoader, compose_as_the_first_trial
from genre_classifier.sweeps.start import find_problems_of_every_trial
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def hydra() -> Hydra:
    GlobalHydra.instance().clear()
    initialize_config_dir(str(ROOT / "conf"), version_base="1.3", job_name="train")
    found = GlobalHydra.instance().hydra
    assert found is not None
    return found


@pytest.fixture(scope="module")
def master(hydra: Hydra) -> DictConfig:
    return hydra.config_loader.load_configuration(
        "train", ["trainer.max_epochs=3", "hydra.sweep.dir=somewhere"], RunMode.MULTIRUN
    )


JOBS = [
    ["model.dropout=0.1", "seed=1", "hydra.sweep.subdir='0'"],
    ["model.dropout=0.2", "seed=1", "hydra.sweep.subdir='1'"],
    ["model.dropout=0.2", "seed=2", "hydra.sweep.subdir='x y'"],
    ["model.hidden_dims=[8,4]", "optimizer.lr=1e-3"],
    ["model.hidden_dims=[8]", "optimizer.lr=1e-2"],
    ["optimizer=adamw", "optimizer.lr=1e-2"],
    ["optimizer=sgd", "optimizer.lr=1e-2"],
    ["optimizer=sgd", "optimizer.lr=1e-1"],
    ["callbacks.early_stopping={patience: 3}"],
    ["callbacks.early_stopping={min_delta: 0.1}"],
    ["scheduler=cosine", "trainer.max_epochs=7"],
]


def test_a_jobs_configuration_is_the_one_that_hydra_composes(hydra: Hydra, master: DictConfig) -> None:
    quick = SweepConfigLoader(hydra.config_loader)
    for job in JOBS:
        expected = hydra.config_loader.load_sweep_config(master, job)
        found = quick.load_sweep_config(master, job)
        assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(expected), job
        assert OmegaConf.get_type(found, "model") is OmegaConf.get_type(expected, "model")


def test_a_job_can_be_changed_without_changing_the_next(hydra: Hydra, master: DictConfig) -> None:
    quick = SweepConfigLoader(hydra.config_loader)
    for number, job in enumerate(JOBS[:3]):
        found = quick.load_sweep_config(master, job)
        found.model.dropout = 0.9
        again = quick.load_sweep_config(master, job)
        assert again.model.dropout == (0.1, 0.2, 0.2)[number]


def test_a_wrong_value_is_refused_as_hydra_refuses_it(hydra: Hydra, master: DictConfig) -> None:
    quick = SweepConfigLoader(hydra.config_loader)
    quick.load_sweep_config(master, ["model.dropout=0.1"])
    with pytest.raises(HydraException, match=r"Error merging override model.dropout=abc"):
        quick.load_sweep_config(master, ["model.dropout=abc"])


@pytest.fixture
def as_the_first_trial(hydra: Hydra, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DictConfig]:
    """A function that composes a multirun as a whole."""
    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", ConfigLoaderImpl.load_configuration)
    compose_as_the_first_trial()

    def go(*overrides: str) -> DictConfig:
        return hydra.config_loader.load_configuration("train", list(overrides), RunMode.MULTIRUN)

    return go


@pytest.mark.parametrize(
    ("overrides", "first"),
    [
        (["data=table", "data.path=a.csv,b.csv"], {"data.path": "a.csv"}),
        (["data=gtzan,table", "data.path=a.csv"], {"data.source": "gtzan", "data.path": "a.csv"}),
        (["data=table,gtzan", "data.path='a b.csv','c,d.csv'"], {"data.path": "a b.csv"}),
        (["data=table", "data.path=a", "data.label=choice(genre,style)"], {"data.label": "genre"}),
        (["data.split.files.test=a.txt,b.txt"], {"data.split.files.test": "a.txt"}),
        (["data.split.files={test:a.txt},{test:b.txt}"], {"data.split.files.test": "a.txt"}),
        (["data/split=given,auto", "data.split.column=side"], {"data.split.method": "given"}),
        (["scheduler=cosine,plateau", "scheduler.eta_min=0.1"], {"scheduler.eta_min": 0.1}),
        (["model.hidden_dims=[8],[16,8]", "seed=range(3,9)"], {"model.hidden_dims": [8], "seed": 3}),
        (["optimizer.lr=interval(0.1,0.2)"], {"optimizer.lr": 1e-3}),
        (["callbacks.ema=null", "model.dropout=0.1"], {"callbacks.ema": None}),
        (["seed=${trainer.max_epochs}", "trainer.max_epochs=2,3"], {"trainer.max_epochs": 2}),
    ],
)
def test_a_sweep_over_any_setting_is_composed_as_its_first_trial(
    overrides: list[str], first: dict[str, object], as_the_first_trial: Callable[..., DictConfig]
) -> None:
    composed = as_the_first_trial(*overrides)
    for key, value in first.items():
        assert flatten(OmegaConf.to_container(composed, resolve=False, enum_to_str=True))[key] == value
    assert list_overrides(composed.hydra.overrides.task) == overrides, "the sweeper still sweeps them"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["data=table", "data.path=a.csv,b.csv"], []),
        (["data=table,demo", "data.path=a.csv"], []),
        (["data=table", "seed=1,2"], ["data.path has no value"]),
        (
            ["model.dropout=2,0.1", "optimizer.lr=0"],
            ["model.dropout=2.0: expected", "optimizer.lr=0.0: expected"],
        ),
        (["data.split.train=0.9,0.7"], []),
        (["data.split.train=0.9", "seed=1,2"], ["data.split.train=0.9, val=0.15 and test=0.15 add up to"]),
        (["data.split.folds=3", "data.split.fold=0,1,2"], []),
        (["data.split.method=given", "data.split.files.test=a.txt,b.txt"], []),
    ],
)
def test_what_is_wrong_with_every_trial_is_known_before_the_first(
    overrides: list[str], told: list[str], as_the_first_trial: Callable[..., DictConfig]
) -> None:
    found = find_problems_of_every_trial(as_the_first_trial(*overrides))
    assert len(found) == len(told)
    for problem, text in zip(found, told, strict=True):
        assert problem.message.startswith(text)


def test_settings_that_the_searchs_file_sweeps_need_no_value(
    as_the_first_trial: Callable[..., DictConfig],
) -> None:
    config = as_the_first_trial("data=table")
    assert [problem.keys for problem in find_problems_of_every_trial(config)] == [("data.path",)]
    config.hydra.sweeper.params = {"data.path": "a.csv,b.csv"}
    assert find_problems_of_every_trial(config) == []


def test_sweeping_hydras_own_settings_is_refused(as_the_first_trial: Callable[..., DictConfig]) -> None:
    with pytest.raises(HydraException, match="Sweeping over Hydra's configuration is not supported"):
        as_the_first_trial("hydra.sweep.dir=a,b")
