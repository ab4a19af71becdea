import math
from pathlib import Path

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.trial import TrialState

from genre_classifier.errors import RunFolderError
from genre_classifier.runs.sweep_folder import SweepFolder
from genre_classifier.sweeps.optuna_study import ResumableTPE, reopen_study

optuna.logging.set_verbosity(optuna.logging.WARNING)


def sampler(seed: int = 3) -> ResumableTPE:
    return ResumableTPE(seed=seed, n_startup_trials=3)


def study_in(folder: Path, seed: int = 3) -> optuna.Study:
    return optuna.create_study(
        study_name="sweep", storage=f"sqlite:///{folder}/study.db", sampler=sampler(seed), load_if_exists=True
    )


def asked(study: optuna.Study) -> tuple[optuna.Trial, float, str]:
    trial = study.ask()
    return trial, trial.suggest_float("x", 1e-3, 10.0, log=True), trial.suggest_categorical("c", ["a", "b"])


def run(study: optuna.Study, n: int) -> None:
    for _ in range(n):
        trial, x, c = asked(study)
        study.tell(trial, (x - 2.0) ** 2 + (c == "a"))


def settings(folder: Path, n_trials: int) -> OmegaConf:
    return OmegaConf.create(
        {"storage": f"sqlite:///{folder}/study.db", "study_name": "sweep", "n_trials": n_trials}
    )


def values(study: optuna.Study) -> list[tuple[dict[str, object], float | None]]:
    return [(trial.params, trial.value) for trial in study.trials]


def test_a_study_that_was_stopped_anywhere_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    run(study_in(whole), 12)
    study = study_in(cut)
    run(study, 7)
    trial = study.ask()
    trial.suggest_float("x", 1e-3, 10.0, log=True)  # killed between two values of a trial
    left = reopen_study(SweepFolder(cut), settings(cut, 12))
    assert left == 5
    run(study_in(cut), left)
    assert values(study_in(cut)) == values(study_in(whole))


def test_a_failed_trial_is_asked_for_again_with_its_values(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    run(study, 2)
    trial, x, c = asked(study)
    study.tell(trial, None, state=TrialState.FAIL)
    assert reopen_study(SweepFolder(tmp_path), settings(tmp_path, 4)) == 2
    _, again_x, again_c = asked(study_in(tmp_path))
    assert (again_x, again_c) == (x, c)


def test_the_search_learns_from_finished_trials(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    run(study, 30)
    late = [trial.params["x"] for trial in study.trials[-8:]]
    early = [trial.params["x"] for trial in study.trials[:8]]
    assert sum(abs(x - 2.0) for x in late) < sum(abs(x - 2.0) for x in early)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_batch_of_trials_learns_and_spreads_out(direction: str) -> None:
    """Each trial of a batch gets its values before any of them has ended."""
    study = optuna.create_study(sampler=sampler(), direction=direction)
    sign = 1 if direction == "minimize" else -1
    batches = []
    for _ in range(6):
        batch = [asked(study) for _ in range(8)]
        for trial, x, c in batch:
            study.tell(trial, sign * ((math.log10(x) + 2.0) ** 2 + (c == "a")))
        batches.append([(math.log10(x), c) for _, x, c in batch])
    misses = [sum((x + 2.0) ** 2 + (c == "a") for x, c in batch) / 8 for batch in batches]
    assert max(misses[-2:]) < misses[0] / 2
    for batch in batches[1:]:
        places = sorted(x for x, _ in batch)
        assert places[-1] - places[0] > 0.3


def test_the_search_does_not_depend_on_the_direction() -> None:
    drawn = []
    for direction, sign in (("minimize", 1), ("maximize", -1)):
        study = optuna.create_study(sampler=sampler(), direction=direction)
        for _ in range(4):
            batch = [asked(study) for _ in range(4)]
            for trial, x, c in batch:
                study.tell(trial, sign * ((x - 2.0) ** 2 + (c == "a")))
        drawn.append([trial.params for trial in study.trials])
    assert drawn[0] == drawn[1]


def test_another_seed_is_another_search(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    run(study_in(first, 3), 2)
    run(study_in(second, 4), 2)
    assert values(study_in(first)) != values(study_in(second))


def test_a_missing_or_damaged_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"there is no study.db, the study to go on with"):
        reopen_study(SweepFolder(tmp_path), settings(tmp_path, 4))
    (tmp_path / "study.db").write_bytes(b"not a database" * 100)
    with pytest.raises(RunFolderError, match=r"study.db: the study cannot be continued \(.*not a database"):
        reopen_study(SweepFolder(tmp_path), settings(tmp_path, 4))
