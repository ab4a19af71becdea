"""What makes every trial of a sweep fail is told before the first one starts, and nothing else is."""

from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from genre_classifier.data import sources
from genre_classifier.errors import DataError, GenreClassifierError, SplitError
from genre_classifier.sweeps import data_check
from genre_classifier.sweeps.composing import SweepConfigLoader, compose_as_the_first_trial
from genre_classifier.sweeps.start import _find_swept
from tests.conftest import ROOT, rows_of_music, write_csv


@pytest.fixture(scope="module")
def hydra() -> Hydra:
    GlobalHydra.instance().clear()
    initialize_config_dir(str(ROOT / "conf"), version_base="1.3", job_name="train")
    found = GlobalHydra.instance().hydra
    assert found is not None
    return found


def check(hydra: Hydra, *overrides: str, launcher: str | None = None) -> None:
    compose_as_the_first_trial()
    config = hydra.config_loader.load_configuration("train", list(overrides), RunMode.MULTIRUN)
    if launcher is not None:
        config.hydra.launcher._target_ = launcher
    data_check.check_data(config, _find_swept(config), SweepConfigLoader(hydra.config_loader))


@pytest.fixture
def few_artists(tmp_path: Path) -> Path:
    """Twelve artists, four per genre: too few for thirteen folds, enough for three."""
    header, rows = rows_of_music(n_artists=4)
    return write_csv(tmp_path / "few.csv", header, rows)


COLUMNS = ("data=table", "data.label=genre", "data.group=artist", "data.id=track")


@pytest.mark.parametrize(
    ("overrides", "kind", "message"),
    [
        (["data.path=nowhere.csv", "seed=range(0,160)"], DataError, "^nowhere.csv: there is no such file"),
        (["data.path=nowhere.csv,neither.csv"], DataError, "^nowhere.csv: there is no such file"),
        (["data.path={few}", "data.label=a,b", "seed=1,2"], DataError, "there is no column 'a'"),
        (
            ["data.path={few}", "data.split.folds=13", "data.split.fold=0,1,2,3,4", "seed=range(0,32)"],
            SplitError,
            "fold",
        ),
        (["data.path={few}", "data.split.files.test=x.txt,y.txt", "seed=1,2"], DataError, "x.txt"),
    ],
)
def test_a_problem_of_every_trial_is_reported_once(
    overrides: list[str], kind: type[GenreClassifierError], message: str, hydra: Hydra, few_artists: Path
) -> None:
    with pytest.raises(kind, match=message):
        check(hydra, *COLUMNS, *(text.format(few=few_artists) for text in overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.path={few}", "seed=range(0,160)"],
        ["data.path=nowhere.csv,{few}", "seed=1,2"],
        ["data.path={few}", "data.split.folds=13,3", "data.split.fold=0,1"],
        ["data.path={few}", "data.label=a,genre"],
        ["data.path=nowhere.csv", "optimizer.lr=interval(0.1,0.2)"],
    ],
)
def test_a_problem_of_some_trials_is_left_to_the_trials(
    overrides: list[str], hydra: Hydra, few_artists: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = sources.read
    monkeypatch.setattr(data_check, "read", lambda config: (read.append(config.path), original(config))[1])
    check(hydra, *COLUMNS, *(text.format(few=few_artists) for text in overrides))
    assert read.count(str(few_artists)) <= 2, "at most once for each way to read it"


def test_a_launcher_of_other_machines_is_left_alone(hydra: Hydra) -> None:
    words = [*COLUMNS, "data.path=nowhere.csv", "seed=1,2"]
    check(hydra, *words, launcher="hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher")
    stacked = [*words, "hydra/launcher=stacked"]
    check(hydra, *stacked, "hydra.launcher.backend=ray")
    for backend in ([], ["hydra.launcher.backend=local"]):
        with pytest.raises(DataError):
            check(hydra, *stacked, *backend)
    with pytest.raises(DataError):
        check(hydra, *words, launcher="hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher")
