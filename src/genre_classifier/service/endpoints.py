"""The service's answers: from the bytes of a request's body to a status and the bytes of an answer.

Knows nothing of how a request arrives, and imports neither FastAPI nor uvicorn.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from genre_classifier import __version__
from genre_classifier.bundle.predictor import DEFAULT_TOP_K
from genre_classifier.errors import FeatureError, GenreClassifierError, TopKError
from genre_classifier.features.decoding.audio import SUFFIXES
from genre_classifier.service.model import ModelService, ServedModel
from genre_classifier.service.requests import LONGEST_NAME, RefusedBodyError, decode_batch, decode_predict

MAX_BODY_BYTES: Final = int(os.environ.get("MAX_BODY_BYTES", 16 * 2**20))
MAX_AUDIO_BYTES: Final = int(os.environ.get("MAX_AUDIO_BYTES", 50 * 2**20))
INLINE_BYTES: Final = 16 * 2**10  # a larger body may take milliseconds, and those on a thread
INTERNAL_ERROR: Final = "internal error; the service's log has the reason"
LONGEST_MESSAGE: Final = 1000  # a message may repeat names from the request

Answer = tuple[int, bytes]
Endpoint = Callable[[ServedModel, bytes | bytearray], Any]  # returns what msgspec can write as JSON

_DESCRIBED: Final = (
    "model_name",
    "model_architecture",
    "timestamp",
    "metrics",
    "split_protocol",
    "feature_set",
    "library_versions",
    "temperature",
    "calibration",
    "data",
    "evaluation",
    "production_checklist",
)

_encode: Final = msgspec.json.Encoder().encode
_log = logging.getLogger(__name__)


def encode(content: Any) -> bytes:
    """Return content as JSON. Half a surrogate pair, which UTF-8 cannot hold, becomes U+FFFD."""
    try:
        return _encode(content)
    except UnicodeEncodeError:
        return _encode(_without_lone_surrogates(content))


def _without_lone_surrogates(content: Any) -> Any:
    if isinstance(content, str):
        return content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(content, Mapping):
        return {_without_lone_surrogates(k): _without_lone_surrogates(v) for k, v in content.items()}
    if isinstance(content, list | tuple):
        return [_without_lone_surrogates(item) for item in content]
    return content


class Endpoints:
    """The answers of one service, by method and path.

    Parameters
    ----------
    service : ModelService
        Says which bundle is served.
    """

    def __init__(self, service: ModelService) -> None:
        self.service = service
        self.paths: Mapping[tuple[str, str], Endpoint] = {
            ("POST", "/predict"): _predict,
            ("POST", "/predict/batch"): _predict_batch,
            ("GET", "/health"): self._health,
            ("GET", "/genres"): _genres,
            ("GET", "/model"): _model,
        }

    def answer(self, endpoint: Endpoint, body: bytes | bytearray) -> Answer:
        """Return status and JSON of an answer, all of it from the bundle that is served at this moment.

        Turns every way in which a request can be wrong into its status, and never shows a stack trace.
        """
        served = self.service.served
        if served is None:
            problem = self.service.problem or "no bundle was loaded"
            content = {"status": "no bundle", "detail": [{"loc": [], "msg": problem}], "bundle": None}
            return 503, encode(content)
        try:
            return 200, encode(endpoint(served, body))
        except RefusedBodyError as error:
            return _refusal(served, 422, error.location, error.message)
        except TopKError as error:
            return _refusal(served, 422, ["body", "top_k"], str(error))
        except FeatureError as error:
            name = error.feature[:LONGEST_NAME] if isinstance(error.feature, str) else error.feature
            place = [part for part in (error.row, name) if part is not None]
            return _refusal(served, 422, ["body", "features", *place], str(error))
        except Exception:
            _log.exception("%s failed", endpoint.__name__.strip("_"))
            return _refusal(served, 500, [], INTERNAL_ERROR)

    def refuse(self, status: int, location: list[Any], message: str) -> Answer:
        """Return the answer to a request that none of the endpoints takes."""
        return _refusal(self.service.served, status, location, message)

    def _health(self, served: ServedModel, body: bytes | bytearray) -> Any:
        return {
            "status": "ok",
            "backend": served.predictor.backend,
            "problem": self.service.problem,  # of a newer bundle that could not be loaded
            "bundle": served.digest,
        }


def _refusal(served: ServedModel | None, status: int, location: list[Any], message: str) -> Answer:
    digest = None if served is None else served.digest
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[:LONGEST_MESSAGE]} ..."
    return status, encode({"detail": [{"loc": location, "msg": message}], "bundle": digest})


def _predict(served: ServedModel, body: bytes | bytearray) -> Any:
    request = decode_predict(body)
    top_k = DEFAULT_TOP_K if request.top_k is None else request.top_k
    return served.answer(request.features, request.return_probs, top_k)


def _predict_batch(served: ServedModel, body: bytes | bytearray) -> Any:
    request = decode_batch(body)
    top_k = DEFAULT_TOP_K if request.top_k is None else request.top_k
    return served.answer_batch(request.features, request.return_probs, top_k)


def _genres(served: ServedModel, body: bytes | bytearray) -> Any:
    return {"genres": list(served.predictor.genre_names), "bundle": served.digest}


def _model(served: ServedModel, body: bytes | bytearray) -> Any:
    names = served.predictor.feature_names
    return {
        **{key: served.metadata.get(key) for key in _DESCRIBED},
        "genres": list(served.predictor.genre_names),
        "features": None if names is None else list(names),
        "n_features": served.predictor.n_features,
        "backend": served.predictor.backend,
        "service_version": __version__,
        "songs": {
            "refused_because": _explain_no_songs(served),
            "suffixes": SUFFIXES,
            "most_bytes": MAX_AUDIO_BYTES,
        },
        "bundle": served.digest,
    }


def _explain_no_songs(served: ServedModel) -> str | None:
    """Return why the bundle's features cannot be measured from audio here; None if they can."""
    try:
        served.find_recipe()
    except GenreClassifierError as error:
        return str(error)
    return None
