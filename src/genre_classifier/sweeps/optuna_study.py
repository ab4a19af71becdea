"""Resume a stored Optuna study so that it continues as an uninterrupted one would."""

from __future__ import annotations

import copy
import hashlib
import math
import secrets
import warnings
from typing import Any, cast

import optuna
from omegaconf import DictConfig
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from genre_classifier.errors import RunFolderError
from genre_classifier.runs.sweep_folder import SweepFolder


class ResumableTPE(BaseSampler):
    """Tree-structured Parzen estimator (Bergstra et al., 2011). Its draws depend only on the study.

    Optuna's own sampler has one stream of random numbers for the whole study, so a resumed study would draw other
    values. This sampler has a separate stream for each value, from the seed, the trial's number and the setting's name.

    Parameters
    ----------
    seed : int or None
        None draws a new one for each process.
    n_startup_trials : int
        Trials drawn at random before the estimator takes over.
    n_ei_candidates : int
        Candidates for each value.
    consider_prior, prior_weight, consider_magic_clip, consider_endpoints, multivariate, warn_independent_sampling
        As in ``optuna.samplers.TPESampler``.
    """

    def __init__(
        self,
        seed: int | None = None,
        n_startup_trials: int = 10,
        n_ei_candidates: int = 24,
        consider_prior: bool = True,
        prior_weight: float = 1.0,
        consider_magic_clip: bool = True,
        consider_endpoints: bool = False,
        multivariate: bool = False,
        warn_independent_sampling: bool = True,
    ) -> None:
        self.seed = secrets.randbits(32) if seed is None else seed
        self.arguments: dict[str, Any] = {
            "n_startup_trials": n_startup_trials,
            "n_ei_candidates": n_ei_candidates,
            "consider_prior": consider_prior,
            "prior_weight": prior_weight,
            "consider_magic_clip": consider_magic_clip,
            "consider_endpoints": consider_endpoints,
            "multivariate": multivariate,
            "warn_independent_sampling": warn_independent_sampling,
        }

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the space that is sampled jointly; empty unless ``multivariate``."""
        space: dict[str, BaseDistribution] = self._build_sampler(trial, "").infer_relative_search_space(
            study, trial
        )
        return space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return values of the jointly sampled space."""
        seen = cast("Study", _PessimisticStudy(study, trial))
        values: dict[str, Any] = self._build_sampler(trial, "").sample_relative(seen, trial, search_space)
        return values

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return one value."""
        seen = cast("Study", _PessimisticStudy(study, trial))
        sampler = self._build_sampler(trial, param_name)
        return sampler.sample_independent(seen, trial, param_name, param_distribution)

    def _build_sampler(self, trial: FrozenTrial, name: str) -> TPESampler:
        digest = hashlib.sha256(f"{self.seed}/{trial.number}/{name}".encode()).digest()
        with warnings.catch_warnings():
            # The warning says that multivariate may change. Optuna's version is pinned.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(seed=int.from_bytes(digest[:4], "big"), **self.arguments)


class _PessimisticStudy:
    """A study as the estimator sees it: trials that still run have the worst value, so a batch spreads out.

    Optuna has ``constant_liar`` for that. Up to version 2.10 it takes running trials for the best ones in a study that
    maximises, so all trials of a batch crowd in one place.
    """

    def __init__(self, study: Study, trial: FrozenTrial) -> None:
        self._study = study
        self._trial = trial  # the one that gets its values

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def get_trials(self, deepcopy: bool, states: tuple[TrialState, ...]) -> list[FrozenTrial]:
        """Return the trials in these states, and those that run."""
        worst = [
            math.inf if direction is StudyDirection.MINIMIZE else -math.inf
            for direction in self._study.directions
        ]
        trials = self._study.get_trials(deepcopy=deepcopy, states=(*states, TrialState.RUNNING))
        return [
            _end_with(trial, worst) if trial.state is TrialState.RUNNING else trial
            for trial in trials
            if trial.number != self._trial.number
        ]


def _end_with(trial: FrozenTrial, values: list[float]) -> FrozenTrial:
    """Return a copy of a trial that ended with these values."""
    ended = copy.copy(trial)
    ended.state = TrialState.COMPLETE
    ended.values = values
    return ended


def reopen_study(folder: SweepFolder, sweeper: DictConfig) -> int:
    """Prepare a stored study to continue, and return the number of missing trials.

    An interrupted trial runs again with its number and values. The values of a failed trial are tried once more.

    Raises
    ------
    RunFolderError
        The study is missing, damaged, or locked by another process.
    """
    storage = sweeper.storage
    if not folder.study.is_file():
        raise RunFolderError(
            f"sweep.resume={folder.path}: there is no {folder.study.name}, the study to go on with"
        )
    try:
        with warnings.catch_warnings():
            # The warning says that enqueue_trial may change. Optuna's version is pinned.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return max(0, int(sweeper.n_trials) - _requeue_trials(sweeper.study_name, storage))
    except Exception as error:
        raise RunFolderError(
            f"{folder.study}: the study cannot be continued ({_describe_error(error)})"
        ) from error


def _requeue_trials(name: str, storage: str) -> int:
    """Queue the interrupted and failed trials again, and return the number of completed ones."""
    study = optuna.load_study(study_name=name, storage=storage)
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        if trial.state is TrialState.RUNNING:
            study._storage.set_trial_state(trial._trial_id, TrialState.WAITING)
    known = [trial.params for trial in trials if trial.state is not TrialState.FAIL]
    for trial in trials:
        if trial.state is TrialState.FAIL and trial.params and trial.params not in known:
            study.enqueue_trial(trial.params)
            known.append(trial.params)
    return sum(trial.state is TrialState.COMPLETE for trial in trials)


def _describe_error(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "locked" in text:
        return "it is locked by another process; stop that one first"
    return text
