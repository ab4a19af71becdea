"""The served bundle. It is loaded on start, and replaced by a newer one while requests go on.

    from genre_classifier.service.model import model_service
    model_service.predict([0.1, ...])

The folder and the name come from the environment variables MODEL_DIR and MODEL_NAME. Where the bundle has an
ONNX file and onnxruntime is installed, neither torch nor scikit-learn is imported.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from genre_classifier.bundle.format import (
    DEFAULT_FOLDER,
    DEFAULT_NAME,
    compute_bundle_fingerprint,
    make_predictor,
    read_bundle,
)
from genre_classifier.bundle.inputs import read_row, read_rows
from genre_classifier.bundle.predictor import DEFAULT_TOP_K, Prediction, Predictor
from genre_classifier.bundle.songs import AudioRecipe, build_audio_recipe
from genre_classifier.commands import advise_to_install
from genre_classifier.errors import BundleError, GenreClassifierError, MissingExtraError
from genre_classifier.features.decoding.audio import require_audio

UNUSUAL_DEVIATIONS: Final = 10.0  # standard deviations from the mean beyond which training saw nothing
WATCH_SECONDS: Final = 1.0
LOAD_SECONDS: Final = 30.0  # for loading a bundle; then it is given up

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class ServedModel:
    """One bundle, ready to answer; never changed, only replaced.

    Parameters
    ----------
    predictor : Predictor
        Answers for the bundle's network.
    digest : str
        SHA-256 over the bundle's files.
    metadata : Mapping[str, Any]
        Content of the bundle's metadata.
    limits : tuple of np.ndarray or None
        Lowest and highest usual value of each feature; None if the scaler does not know.
    """

    predictor: Predictor
    digest: str
    metadata: Mapping[str, Any]
    limits: tuple[np.ndarray, np.ndarray] | None

    def find_recipe(self) -> AudioRecipe:
        """Return how to measure songs for the bundle.

        Raises
        ------
        BundleError, MissingExtraError, MissingWeightsError
            Its features cannot be measured from audio here.
        """
        require_audio()
        return build_audio_recipe(self.metadata, self.predictor.feature_names)

    def answer(self, features: Any, return_probs: bool, top_k: int) -> dict[str, Any]:
        """Return the prediction for one row, the features far from the training data, and the bundle."""
        predictor = self.predictor
        row = read_row(features, predictor.n_features, predictor.feature_names)
        answer: dict[str, Any] = predictor.predict_row(row, return_probs, top_k)  # type: ignore[assignment]
        unusual = self.find_unusual(row)
        answer["outside_training_range"] = bool(unusual)
        answer["unusual_features"] = unusual
        answer["bundle"] = self.digest
        return answer

    def answer_batch(self, features: Any, return_probs: bool, top_k: int) -> dict[str, Any]:
        """Return the predictions for many rows, each with its unusual features, and the bundle."""
        predictor = self.predictor
        rows = read_rows(features, predictor.n_features, predictor.feature_names)
        answers: list[Any] = predictor.predict_rows(rows, return_probs, top_k)
        is_outside: Any = self._is_outside(rows).any(axis=1).tolist()
        for answer, row, some in zip(answers, rows, is_outside, strict=True):
            answer["outside_training_range"] = some
            answer["unusual_features"] = self.find_unusual(row) if some else []
        return {"predictions": answers, "bundle": self.digest}

    def _is_outside(self, values: np.ndarray) -> np.ndarray:
        """Return for each value, shape (feature,) or (row, feature), whether it is far from the training data."""
        if self.limits is None:
            return np.zeros(values.shape, bool)
        low, high = self.limits
        return (values < low) | (values > high)

    def find_unusual(self, row: np.ndarray) -> list[str | int]:
        """Return the names (positions where unknown) of a row's features far from the training data."""
        outside = self._is_outside(row)
        if not np.count_nonzero(outside):
            return []
        names = self.predictor.feature_names
        positions: list[int] = np.flatnonzero(outside).tolist()
        return [position if names is None else names[position] for position in positions]


class ModelService:
    """The served bundle of one name, and the thread that looks for a newer one.

    Parameters
    ----------
    folder : str or Path
        Folder of the bundle.
    name : str
        Name of the bundle.
    """

    def __init__(self, folder: str | Path, name: str) -> None:
        self.folder = Path(folder)
        self.name = name
        self.problem: str | None = None
        self._served: ServedModel | None = None
        self._seen: tuple | None = None
        self._loading = threading.Lock()
        self._stopped = threading.Event()
        self._watcher: threading.Thread | None = None
        self.given_up: list[threading.Thread] = []  # loads that took too long

    @property
    def served(self) -> ServedModel | None:
        """The served bundle; None if none could be loaded."""
        return self._served

    def predict(self, features: Any, return_probs: bool = False, top_k: int = DEFAULT_TOP_K) -> Prediction:
        """Predict one row as ModelWrapper does; load the bundle first where that has not been done.

        Raises
        ------
        BundleError
            There is no bundle to predict with.
        ValueError
            The features or `top_k` cannot be used.
        """
        served = self._served
        if served is None:
            self.refresh()
            served = self._served
            if served is None:
                raise BundleError(self.problem or f"{self.folder / self.name}: no bundle")
        return served.predictor.predict(features, return_probs, top_k)

    def refresh(self) -> bool:
        """Load the bundle if it changed since it was last looked at; tell whether another one is now served.

        A bundle that cannot be loaded, or not in time, is reported in `problem`, and the one before goes on being
        served.
        """
        with self._loading:
            seen = None
            try:
                seen = compute_bundle_fingerprint(self.folder, self.name)
                if seen == self._seen:
                    return False
                self._seen = seen
                served = self._in_time(load)
            except GenreClassifierError as error:
                self._report(str(error))
                return False
            except Exception as error:  # what a damaged bundle, or the file system, may still raise
                if seen is None:  # to be looked at again as soon as that works
                    self._seen = None
                self._report(
                    f"{self.folder / self.name}: {type(error).__name__}: {error}", with_traceback=True
                )
                return False
            self.problem = None
            is_new = self._served is None or self._served.digest != served.digest
            self._served = served
            _log.info(
                "serving %s, bundle %s, with %s", self.name, served.digest[:12], served.predictor.backend
            )
            return is_new

    def _report(self, problem: str, with_traceback: bool = False) -> None:
        if problem != self.problem:  # else the log would have it every second
            _log.error("cannot serve the bundle: %s", problem, exc_info=with_traceback)
        self.problem = problem

    def _in_time(self, function: Callable[[Path, str], T]) -> T:
        """Call a function of folder and name on a thread; BundleError when it takes too long.

        Nothing waits for a thread that was given up: neither the watch nor the end of the process.
        """
        results: list[T] = []
        errors: list[Exception] = []

        def call() -> None:
            try:
                results.append(function(self.folder, self.name))
            except Exception as error:
                errors.append(error)
            except BaseException as error:
                errors.append(BundleError(f"{self.folder / self.name}: loading ended with {error!r}"))

        thread = threading.Thread(target=call, name="bundle-load", daemon=True)
        thread.start()
        thread.join(LOAD_SECONDS)
        if thread.is_alive():
            self.given_up.append(thread)
            raise BundleError(
                f"{self.folder / self.name}: not loaded within {LOAD_SECONDS:g} s, given up; export it again"
            )
        if errors:
            raise errors[0]
        return results[0]

    def start(self) -> None:
        """Load the bundle, and look for a newer one every second on a separate thread."""
        self.refresh()
        self._stopped.clear()
        self._watcher = threading.Thread(target=self._watch, name="bundle-watch", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Stop looking for a newer bundle."""
        self._stopped.set()
        if self._watcher is not None:
            self._watcher.join(WATCH_SECONDS)  # it may be waiting for a load
            self._watcher = None

    def _watch(self) -> None:
        while not self._stopped.wait(WATCH_SECONDS):
            self.refresh()


def load(folder: Path, name: str) -> ServedModel:
    """Load a bundle and answer once with it, so that the first request does not wait for a first time."""
    bundle = read_bundle(folder, name)
    predictor = make_predictor(bundle)
    statistics = bundle.scaler
    typical = [0.0] * statistics.n_features if statistics.mean is None else list(statistics.mean)
    predictor.predict(typical)
    return ServedModel(predictor, bundle.digest, bundle.metadata, statistics.limits(UNUSUAL_DEVIATIONS))


def predict_in_process(folder: Path, name: str, rows: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """Return the service's answer to each row, asked without a server: how an export tries a bundle.

    Parameters
    ----------
    folder : Path
    name : str
        Of the bundle to serve.
    rows : sequence of sequences of float
        Raw features, in the order of training.

    Raises
    ------
    MissingExtraError
        What the service needs is not installed.
    BundleError
        It did not answer with 200.
    """
    if find_spec("msgspec") is None:
        raise MissingExtraError(f"the service needs msgspec, not installed; {advise_to_install('serve')}")
    import msgspec

    from genre_classifier.service.endpoints import Endpoints

    service = ModelService(folder, name)
    service.refresh()
    endpoints = Endpoints(service)
    answers = []
    for row in rows:
        body = msgspec.json.encode({"features": list(row), "return_probs": True})
        status, content = endpoints.answer(endpoints.paths["POST", "/predict"], body)
        answer = msgspec.json.decode(content)
        if status != 200:
            raise BundleError(f"the service answered {status}: {answer['detail'][0]['msg']}")
        answers.append(answer)
    return answers


model_service = ModelService(
    os.environ.get("MODEL_DIR", DEFAULT_FOLDER), os.environ.get("MODEL_NAME", DEFAULT_NAME)
)
