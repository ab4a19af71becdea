"""Build the baseline models, choose their settings, and compute their log probabilities.

Only training rows are used for fitting and choosing. Other rows are only predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genre_classifier.commands import advise_to_install
from genre_classifier.errors import CalibrationError, ConfigError, MissingExtraError
from genre_classifier.evaluation.calibration import fit_temperature

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Text = npt.NDArray[np.object_]
Folds = list[tuple[Int64, Int64]]

FOLDS, FEW_FOLDS = 5, 3
SCORE = "f1_weighted"
# Replaces a probability of 0, as in scikit-learn's log_loss for float32: log(0) would make every mean infinite.
SMALLEST = float(np.finfo(np.float32).eps)


def _build_empty_grid(rows: int, features: int) -> dict[str, list[Any]]:
    return {}


def _build_logistic_grid(rows: int, features: int) -> dict[str, list[Any]]:
    return {"C": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0]}


def _build_knn_grid(rows: int, features: int) -> dict[str, list[Any]]:
    numbers = [number for number in (1, 3, 5, 9, 15, 25, 45) if number <= rows]
    return {"n_neighbors": numbers, "weights": ["uniform", "distance"]}


def _build_svc_grid(rows: int, features: int) -> dict[str, list[Any]]:
    # The mean squared distance of two rows of standardised features grows with the number of features.
    return {
        "C": [1.0, 3.0, 10.0, 30.0],
        "gamma": [factor / features for factor in (0.125, 0.25, 0.5, 1.0, 2.0)],
    }


def _build_forest_grid(rows: int, features: int) -> dict[str, list[Any]]:
    return {"max_features": ["sqrt", 0.3], "min_samples_leaf": [1, 3]}


def _build_boosting_grid(rows: int, features: int) -> dict[str, list[Any]]:
    return {"learning_rate": [0.05, 0.1], "max_leaf_nodes": [6, 31]}


def _build_lightgbm_grid(rows: int, features: int) -> dict[str, list[Any]]:
    return {"learning_rate": [0.05, 0.1], "num_leaves": [6, 31]}


def _build_catboost_grid(rows: int, features: int) -> dict[str, list[Any]]:
    return {"depth": [3, 5]}


def _build_tabm_grid(rows: int, features: int) -> dict[str, list[Any]]:
    return {"epochs": [30, 60, 120]}


@dataclass(frozen=True, eq=False)
class Baseline:
    """A baseline model.

    Parameters
    ----------
    name : str
    target : str
        Dotted path of its class.
    settings : mapping of str to Any
        Arguments that are not searched.
    grid : callable
        Takes the numbers of training rows and of features. Returns the values to try, by argument, the simplest first:
        the first of equal scores wins.
    seeded : bool
        Whether the result depends on `random_state`.
    threads : str or None
        The argument that limits its threads.
    extra : str or None
        The optional dependency that installs it.
    folds : int
        Number of folds of the training rows for choosing its settings.
    """

    name: str
    target: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    grid: Callable[[int, int], dict[str, list[Any]]] = _build_empty_grid
    seeded: bool = False
    threads: str | None = None
    extra: str | None = None
    folds: int = FOLDS

    @property
    def package(self) -> str:
        """The package that holds its class, or that its class needs."""
        return self.extra or self.target.partition(".")[0]

    @property
    def installed(self) -> bool:
        """Whether its package is installed."""
        return find_spec(self.package) is not None

    def build(self, seed: int, threads: int = 1, **chosen: Any) -> Any:
        """Return an estimator that is not fitted yet."""
        module, _, name = self.target.rpartition(".")
        arguments = {**self.settings, **chosen}
        if self.seeded:
            arguments["random_state"] = seed
        if self.threads is not None:
            arguments[self.threads] = threads
        return getattr(import_module(module), name)(**arguments)


_LIGHTGBM = {"n_estimators": 150, "verbosity": -1, "deterministic": True, "force_row_wise": True}
_CATBOOST = {"iterations": 200, "verbose": False, "allow_writing_files": False}

# The fastest ones first. Histogram boosting and LightGBM draw nothing at random with these settings.
BASELINES = (
    # Predicts the most frequent genre, with the genres' shares as probabilities.
    Baseline("majority", "sklearn.dummy.DummyClassifier", {"strategy": "prior"}),
    Baseline("logistic", "sklearn.linear_model.LogisticRegression", {"max_iter": 5000}, _build_logistic_grid),
    Baseline("knn", "sklearn.neighbors.KNeighborsClassifier", {}, _build_knn_grid),
    # Decision values break ties between votes, so the predicted genre has the largest decision value.
    Baseline("svc", "sklearn.svm.SVC", {"break_ties": True}, _build_svc_grid),
    Baseline(
        "forest",
        "sklearn.ensemble.RandomForestClassifier",
        {"n_estimators": 300},
        _build_forest_grid,
        seeded=True,
        folds=FEW_FOLDS,
        threads="n_jobs",
    ),
    Baseline(
        "boosting",
        "sklearn.ensemble.HistGradientBoostingClassifier",
        {"max_iter": 150, "early_stopping": False, "random_state": 0},
        _build_boosting_grid,
        folds=FEW_FOLDS,
    ),
    Baseline(
        "lightgbm",
        "lightgbm.LGBMClassifier",
        _LIGHTGBM,
        _build_lightgbm_grid,
        folds=FEW_FOLDS,
        threads="n_jobs",
        extra="lightgbm",
    ),
    Baseline(
        "catboost",
        "catboost.CatBoostClassifier",
        _CATBOOST,
        _build_catboost_grid,
        seeded=True,
        folds=FEW_FOLDS,
        threads="thread_count",
        extra="catboost",
    ),
    Baseline(
        "tabm",
        "genre_classifier.baselines.tabm_classifier.TabMClassifier",
        {},
        _build_tabm_grid,
        seeded=True,
        folds=FEW_FOLDS,
        threads="threads",
        extra="tabm",
    ),
)


def get_baseline(name: str) -> Baseline:
    """Return a baseline by name.

    Raises
    ------
    ConfigError
        There is no baseline of this name.
    MissingExtraError
        Its extra is not installed.
    """
    found = next((one for one in BASELINES if one.name == name), None)
    if found is None:
        raise ConfigError(f"--models {name}: expected one of {', '.join(one.name for one in BASELINES)}")
    if not found.installed:
        raise MissingExtraError(
            f"--models {name} needs {found.package}, which is not installed; "
            f"{advise_to_install(found.extra or '')}"
        )
    return found


@dataclass(frozen=True, eq=False)
class Selection:
    """The settings chosen on the training rows, and how they were chosen.

    Parameters
    ----------
    chosen : mapping of str to Any
        Arguments by name.
    folds : int
        0 if nothing was searched.
    grouped : bool
        Whether a group was kept on one side of every fold.
    tried : int
        Number of combinations.
    score : float or None
        Mean weighted F1 of the chosen combination over the folds.
    note : str or None
        Why the search was not the usual one.
    """

    chosen: Mapping[str, Any]
    folds: int
    grouped: bool
    tried: int
    score: float | None
    note: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {
            "chosen": dict(self.chosen),
            "folds": self.folds,
            "grouped": self.grouped,
            "tried": self.tried,
            "metric": SCORE,
            "score": self.score,
            "note": self.note,
        }


@dataclass(frozen=True, eq=False)
class Fitted:
    """A baseline fitted on all training rows.

    Parameters
    ----------
    estimator : Any
    selection : Selection
    temperature : float or None
        Divisor of the decision values, for a model without probabilities.
    """

    estimator: Any
    selection: Selection
    temperature: float | None = None

    def compute_logits(self, features: Float64) -> Tensor:
        """Return log probabilities, or decision values divided by the temperature, float32 (row, genre).

        Parameters
        ----------
        features : np.ndarray [shape=(row, feature)]
            Standardised.
        """
        if self.temperature is not None:
            logits = _complete_decision_values(self.estimator.decision_function(features)) / self.temperature
        else:
            logits = np.log(np.maximum(self.estimator.predict_proba(features), SMALLEST))
        return torch.from_numpy(logits.astype(np.float32))


def fit_baseline(
    baseline: Baseline,
    features: Float64,
    genres: Int64,
    groups: Text | None = None,
    *,
    seed: int,
    fold_seed: int,
    jobs: int = 1,
) -> Fitted:
    """Return a baseline fitted on all training rows, with settings chosen by cross-validation on these rows.

    Parameters
    ----------
    baseline : Baseline
    features : np.ndarray [shape=(row, feature)]
        Standardised features of the training rows.
    genres : np.ndarray [shape=(row,), dtype=int64]
    groups : np.ndarray [shape=(row,), dtype=object], optional
        All rows of a group are on the same side of a fold.
    seed : int
        Seed of the model.
    fold_seed : int
        Seed of the folds. The chosen settings are the same for every `seed`.
    jobs : int
        Number of processes, and of threads.
    """
    needs_folds = bool(baseline.grid(len(genres), features.shape[1])) or _gives_margins(baseline)
    folds = make_inner_folds(genres, groups, fold_seed, baseline.folds) if needs_folds else []
    selection = _select(baseline, features, genres, groups, folds, seed, jobs)
    estimator = baseline.build(seed, jobs, **selection.chosen)
    temperature, note = None, selection.note
    if _gives_margins(baseline):
        temperature, why = _fit_temperature(estimator, features, genres, folds)
        note = note or why
        chosen = {**selection.chosen, "temperature": temperature}
    else:
        chosen = dict(selection.chosen)
    final = Selection(chosen, selection.folds, selection.grouped, selection.tried, selection.score, note)
    return Fitted(estimator.fit(features, genres), final, temperature)


def make_inner_folds(genres: Int64, groups: Text | None, seed: int, wanted: int) -> Folds:
    """Return folds of the training rows. In each fold, every genre is left to train on.

    Returns
    -------
    list of tuple of np.ndarray
        Rows to fit on and rows to score. There are as many folds as wanted, or as the genre with the fewest groups
        (rows) allows; none if that is less than 2.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    present = np.unique(genres)
    units = [
        len(np.flatnonzero(mine) if groups is None else set(groups[mine]))
        for mine in genres == present[:, None]
    ]
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    for number in range(min(wanted, *units), 1, -1):
        splitter = kind(n_splits=number, shuffle=True, random_state=seed)
        folds = list(splitter.split(np.zeros(len(genres)), genres, groups))
        if all(len(part) and len(np.unique(genres[rest])) == len(present) for rest, part in folds):
            return folds
    return []


def _select(
    baseline: Baseline,
    features: Float64,
    genres: Int64,
    groups: Text | None,
    folds: Folds,
    seed: int,
    jobs: int,
) -> Selection:
    from sklearn.metrics import f1_score, make_scorer
    from sklearn.model_selection import GridSearchCV

    grouped = groups is not None
    smallest = min((len(rest) for rest, _ in folds), default=len(genres))
    grid = baseline.grid(smallest, features.shape[1])
    if not grid:
        return Selection({}, 0, grouped, 0, None, None)
    if not folds:
        unit = "group" if grouped else "row"
        reason = f"a genre has one {unit} among the training rows, too few for folds: the defaults were taken"
        return Selection({}, 0, grouped, 0, None, reason)
    search = GridSearchCV(
        _add_scaler(baseline.build(seed)),
        {f"model__{name}": values for name, values in grid.items()},
        scoring=make_scorer(f1_score, average="weighted", zero_division=0.0),
        cv=folds,
        refit=False,
        n_jobs=None if jobs == 1 else jobs,
        error_score="raise",
    )
    search.fit(features, genres)
    results = search.cv_results_
    best = int(np.argmax(results["mean_test_score"]))
    chosen = {name.removeprefix("model__"): value for name, value in results["params"][best].items()}
    few = len(folds) < baseline.folds
    note = f"{len(folds)} folds: a genre has too few groups or rows for {baseline.folds}" if few else None
    score = float(results["mean_test_score"][best])
    return Selection(chosen, len(folds), grouped, len(results["params"]), score, note)


def _add_scaler(estimator: Any) -> Any:
    """Return a pipeline that fits a scaler on each fold's training rows. An earlier linear rescaling has no effect."""
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    return Pipeline([("scaler", StandardScaler()), ("model", estimator)])


def _gives_margins(baseline: Baseline) -> bool:
    return baseline.name == "svc"


def _fit_temperature(
    estimator: Any, features: Float64, genres: Int64, folds: Sequence[tuple[Int64, Int64]]
) -> tuple[float, str | None]:
    """Return the temperature fitted on the decision values of held-out rows, each predicted by its fold's model."""
    from sklearn.base import clone

    if not folds:
        return 1.0, "too few groups or rows for folds: the decision values are taken as log odds"
    values = np.empty((len(genres), len(np.unique(genres))))
    for rest, part in folds:
        model = _add_scaler(clone(estimator)).fit(features[rest], genres[rest])
        values[part] = _complete_decision_values(model.decision_function(features[part]))
    try:
        return fit_temperature(torch.from_numpy(values), torch.from_numpy(genres)), None
    except CalibrationError as error:
        return 1.0, f"the decision values are taken as log odds: {error}"


def _complete_decision_values(values: Float64) -> Float64:
    """Return decision values (row, genre). For two genres scikit-learn gives only one value per row."""
    return np.stack([-values, values], axis=1) if values.ndim == 1 else values


def select_baselines(names: Sequence[str] | None) -> list[Baseline]:
    """Return the named baselines in the order of `BASELINES`, or all that are installed."""
    if names is None:
        return [one for one in BASELINES if one.installed]
    wanted = {get_baseline(name).name for name in names}
    return [one for one in BASELINES if one.name in wanted]
