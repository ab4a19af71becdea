from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from genre_classifier.baselines import models as baseline_models
from genre_classifier.baselines.fit import DividedTable, build_baseline_config, divide_table, run_baseline
from genre_classifier.baselines.models import (
    BASELINES,
    Fitted,
    fit_baseline,
    get_baseline,
    make_inner_folds,
    select_baselines,
)
from genre_classifier.data.sources import read
from genre_classifier.errors import ConfigError, ExportError, MissingExtraError, SplitError
from genre_classifier.runs.folder import RunFolder
from tests.conftest import composed

QUICK = ("majority", "logistic", "knn", "svc")


@pytest.fixture
def rows(music_overrides: list[str]) -> DividedTable:
    data = OmegaConf.to_object(composed(*music_overrides).data)
    return divide_table(read(data), data)


def quickened(name: str) -> baseline_models.Baseline:
    """A baseline that costs little: few trees, iterations or epochs, and a grid of one value an argument."""
    one = get_baseline(name)
    few = {
        "forest": {"n_estimators": 5},
        "boosting": {"max_iter": 5},
        "lightgbm": {"n_estimators": 5},
        "catboost": {"iterations": 5},
        "tabm": {"members": 2, "width": 8, "epochs": 3},
    }
    first = {key: values[:1] for key, values in one.grid(50, 4).items()}
    grid = {} if name == "tabm" else first
    return replace(one, settings={**one.settings, **few.get(name, {})}, grid=lambda rows, features: grid)


def ran(name: str, rows: DividedTable, folder: Path, overrides: list[str], seed: int = 7) -> RunFolder:
    one = quickened(name)
    run_baseline(one, build_baseline_config(composed(*overrides), one, seed, folder), rows)
    return RunFolder(folder)


INSTALLED = [one.name for one in BASELINES if one.installed]


@pytest.mark.parametrize("name", INSTALLED)
def test_every_baseline_leaves_a_run_folder_whose_metrics_are_scikit_learns(
    name: str, rows: DividedTable, music_overrides: list[str], tmp_path: Path
) -> None:
    folder = ran(name, rows, tmp_path / name, music_overrides)
    run, metrics = folder.read_run(), folder.read_metrics()
    assert (run["status"], run["baseline"]["name"]) == ("finished", name)
    assert run["settings"]["model._target_"] == get_baseline(name).target
    assert run["objective"] == metrics["val"]["f1"]
    header, lines = folder.read_prediction_rows()
    truth, predicted = [line[2] for line in lines], [line[3] for line in lines]
    probabilities = np.array([line[4:] for line in lines], dtype=float)
    probabilities /= probabilities.sum(axis=1, keepdims=True)  # they were rounded
    names = [column.removeprefix("p_") for column in header[4:]]
    assert predicted == [names[i] for i in probabilities.argmax(axis=1)]
    assert metrics["test"]["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert metrics["test"]["f1"] == pytest.approx(f1_score(truth, predicted, average="weighted"))
    assert metrics["test"]["f1_macro"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert metrics["test"]["loss"] == pytest.approx(log_loss(truth, probabilities, labels=names), rel=1e-4)


def test_the_rows_the_split_and_the_scaler_are_those_of_a_networks_run(
    rows: DividedTable,
    trained: Callable[..., Any],
    music_overrides: list[str],
    tmp_path: Path,
) -> None:
    network = trained().folder
    found = ran("svc", rows, tmp_path / "svc", music_overrides)
    ours, theirs = found.read_run(), network.read_run()
    for key in ("data", "split_protocol"):
        assert ours[key] == theirs[key]
    data = {key: value for key, value in theirs["settings"].items() if key.startswith("data.")}
    assert {key: value for key, value in ours["settings"].items() if key.startswith("data.")} == data
    lines = [[line[:3] for line in folder.read_prediction_rows()[1]] for folder in (found, network)]
    assert lines[0] == lines[1], "ids, groups and true genres of the test rows"
    assert found.scaler.read_bytes() == network.scaler.read_bytes()
    assert set(found.read_metrics()) == set(network.read_metrics())


def test_the_scaler_is_fitted_on_training_rows_only(rows: DividedTable) -> None:
    expected = StandardScaler().fit(rows.table.features[rows.split.train].astype(np.float64))
    assert rows.scaler.mean_ == pytest.approx(expected.mean_)
    assert rows.scaler.scale_ == pytest.approx(expected.scale_)
    features, genres = rows.side("test")
    assert features == pytest.approx(
        expected.transform(rows.table.features[rows.split.test].astype(np.float64)), rel=1e-5, abs=1e-6
    )
    assert (genres == rows.table.genres[rows.split.test]).all()


@pytest.mark.parametrize("name", ["knn", "svc"])
def test_what_is_chosen_and_fitted_does_not_depend_on_the_other_rows(
    name: str, rows: DividedTable, music_overrides: list[str], tmp_path: Path
) -> None:
    """With other features and genres in the validation and test rows everything about the model is the same."""
    features, genres = rows.table.features.copy(), rows.table.genres.copy()
    held = np.concatenate([rows.split.val, rows.split.test])
    features[held] = np.random.default_rng(0).normal(size=features[held].shape) * 5
    genres[held] = (genres[held] + 1) % 3
    changed = DividedTable(replace(rows.table, features=features, genres=genres), rows.split)
    told = []
    for number, one in enumerate((rows, changed)):
        cfg = build_baseline_config(composed(*music_overrides), get_baseline(name), 1, tmp_path / str(number))
        told.append(run_baseline(get_baseline(name), cfg, one)["baseline"])
    assert told[0] == told[1]
    scores = [RunFolder(tmp_path / number).read_metrics() for number in "01"]
    assert scores[0]["train"] == scores[1]["train"]
    assert scores[0]["test"] != scores[1]["test"]


def test_no_group_is_on_two_sides_of_an_inner_fold_and_every_fold_trains_on_every_genre(
    rows: DividedTable,
) -> None:
    genres, groups = rows.table.genres[rows.split.train], rows.table.groups[rows.split.train]
    folds = make_inner_folds(genres, groups, seed=3, wanted=5)
    # Six artists a genre, of which training has four.
    assert len(folds) == 4
    assert sorted(np.concatenate([part for _, part in folds])) == list(range(len(genres)))
    for rest, part in folds:
        assert not set(groups[rest]) & set(groups[part])
        assert set(genres[rest]) == {0, 1, 2}


def test_fewer_folds_where_a_genre_has_few_groups_and_none_where_it_has_one() -> None:
    genres = np.repeat([0, 1], 12)
    groups = np.array([f"a{i % 6}" for i in range(12)] + [f"b{i % 2}" for i in range(12)], dtype=object)
    assert len(make_inner_folds(genres, groups, seed=0, wanted=5)) == 2
    assert len(make_inner_folds(genres, None, seed=0, wanted=5)) == 5
    groups[12:] = "b"
    assert make_inner_folds(genres, groups, seed=0, wanted=5) == []
    features = np.random.default_rng(0).normal(size=(24, 3)) + genres[:, None]
    found = fit_baseline(get_baseline("svc"), features, genres, groups, seed=0, fold_seed=0).selection
    assert (found.folds, found.chosen) == (0, {"temperature": 1.0})
    assert "one group among the training rows" in str(found.note)


def fitted_svc(rows: DividedTable) -> tuple[Fitted, np.ndarray, np.ndarray]:
    features, genres = rows.side("train")
    groups = rows.table.groups[rows.split.train]
    return fit_baseline(get_baseline("svc"), features, genres, groups, seed=0, fold_seed=42), features, genres


def test_the_svcs_most_probable_genre_is_its_own_prediction(rows: DividedTable) -> None:
    fitted, _, _ = fitted_svc(rows)
    told = {key: value for key, value in fitted.selection.chosen.items() if key != "temperature"}
    features, genres = rows.side("train")
    own = SVC(break_ties=True, **told).fit(features, genres)
    elsewhere = np.random.default_rng(1).normal(size=(5000, features.shape[1])) * 2
    logits = fitted.compute_logits(elsewhere)
    assert (logits.argmax(dim=1).numpy() == own.predict(elsewhere)).all()
    assert (torch.softmax(logits, dim=1).argmax(dim=1) == logits.argmax(dim=1)).all()


def test_the_svcs_probabilities_are_those_of_scikit_learns_temperature_scaling(rows: DividedTable) -> None:
    fitted, features, genres = fitted_svc(rows)
    groups = rows.table.groups[rows.split.train]
    told = {key: value for key, value in fitted.selection.chosen.items() if key != "temperature"}
    folds = make_inner_folds(genres, groups, seed=42, wanted=5)
    reference = CalibratedClassifierCV(
        baseline_models._add_scaler(SVC(break_ties=True, **told)),
        method="temperature",
        ensemble=False,
        cv=folds,
    ).fit(features, genres)
    test = rows.side("test")[0]
    found = torch.softmax(fitted.compute_logits(test), dim=1).numpy()
    assert found == pytest.approx(reference.predict_proba(test), abs=2e-3)


def test_two_genres_are_enough_for_every_quick_baseline() -> None:
    rng = np.random.default_rng(0)
    genres = np.repeat([0, 1], 20)
    features = rng.normal(size=(40, 3)) + 3 * genres[:, None]
    for name in QUICK:
        logits = fit_baseline(get_baseline(name), features, genres, seed=0, fold_seed=0).compute_logits(
            features
        )
        assert logits.shape == (40, 2)
        if name != "majority":
            assert (logits.argmax(dim=1).numpy() == genres).mean() > 0.9


def test_the_choice_is_that_of_the_best_mean_f1_over_the_folds(rows: DividedTable) -> None:
    features, genres = rows.side("train")
    groups = rows.table.groups[rows.split.train]
    found = fit_baseline(get_baseline("knn"), features, genres, groups, seed=0, fold_seed=1).selection

    means = {}
    folds = make_inner_folds(genres, groups, seed=1, wanted=5)
    for number in (1, 3, 5, 9, 15, 25):
        for weights in ("uniform", "distance"):
            scores = []
            for rest, part in folds:
                scaler = StandardScaler().fit(features[rest])
                model = KNeighborsClassifier(number, weights=weights)
                model.fit(scaler.transform(features[rest]), genres[rest])
                predicted = model.predict(scaler.transform(features[part]))
                scores.append(f1_score(genres[part], predicted, average="weighted"))
            means[number, weights] = float(np.mean(scores))
    assert found.score == pytest.approx(max(means.values()))
    assert means[found.chosen["n_neighbors"], found.chosen["weights"]] == pytest.approx(found.score)


def test_a_model_that_fails_is_recorded_with_its_reason(
    rows: DividedTable, music_overrides: list[str], tmp_path: Path
) -> None:
    broken = replace(get_baseline("logistic"), settings={"C": -1.0}, grid=get_baseline("majority").grid)
    cfg = build_baseline_config(composed(*music_overrides), broken, 1, tmp_path / "run")
    with pytest.raises(ValueError, match="'C' parameter"):
        run_baseline(broken, cfg, rows)
    run = RunFolder(tmp_path / "run").read_run()
    assert run["status"] == "failed"
    assert "'C' parameter" in run["reason"]


def test_export_passes_over_baselines_and_says_so_of_a_named_one(
    rows: DividedTable, music_overrides: list[str], tmp_path: Path
) -> None:
    from genre_classifier.config.schema import ExportConfig
    from genre_classifier.exporting.choose import choose

    folder = ran("majority", rows, tmp_path / "majority", music_overrides)
    with pytest.raises(ExportError, match=r"is the baseline majority, which has no network to export"):
        choose(ExportConfig(run=str(folder.path)))
    with pytest.raises(ExportError, match=r"no finished run .* \(1 baselines\)"):
        choose(ExportConfig(outputs_dir=str(tmp_path)))


def test_unknown_and_missing_models_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"--models xgboost: expected one of majority, logistic, .*"):
        select_baselines(["xgboost"])
    monkeypatch.setattr(
        baseline_models, "find_spec", lambda name: None if name == "lightgbm" else find_spec(name)
    )
    with pytest.raises(MissingExtraError, match=r"--models lightgbm needs lightgbm.*-e '\.\[lightgbm\]'"):
        select_baselines(["lightgbm"])
    assert "lightgbm" not in [one.name for one in select_baselines(None)]


def test_a_split_that_holds_nothing_out_is_refused(music_overrides: list[str]) -> None:
    data = OmegaConf.to_object(
        composed(*music_overrides, "data/split=all", "optimized_metric=train/loss").data
    )
    with pytest.raises(SplitError, match="there is nothing to compare models on"):
        divide_table(read(data), data)


@pytest.mark.parametrize("name", INSTALLED)
def test_a_seed_matters_to_the_models_that_say_so_and_to_no_other(
    name: str, rows: DividedTable, music_overrides: list[str], tmp_path: Path
) -> None:
    one, again, other = (
        ran(name, rows, tmp_path / str(number), music_overrides, seed).predictions_csv.read_text()
        for number, seed in enumerate((1, 1, 2))
    )
    assert one == again
    assert (one != other) is get_baseline(name).seeded
