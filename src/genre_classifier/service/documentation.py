"""The OpenAPI documentation of each path, with an example of every request."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from genre_classifier.features.decoding.audio import SUFFIXES
from genre_classifier.features.sets import CORE20
from genre_classifier.service.requests import BatchRequest, PredictRequest
from genre_classifier.service.upload import MAX_AUDIO_BYTES

_VALUES: Final = [
    -113.6, 121.6, -19.2, 42.4, -6.4, 18.6, -13.7, 15.3, -12.3, 10.9, -8.3, 8.8, -3.6,
    1784.2, 3805.8, 0.083, 0.13, 0.35, 0.29, 3.29,
]  # fmt: skip
_NAMED: Final = dict(zip(CORE20.features, _VALUES, strict=True))


class TopPrediction(msgspec.Struct):
    """One genre and its probability."""

    genre: str
    confidence: float


class Prediction(msgspec.Struct):
    """The answer for one row."""

    predicted_genre: str
    predicted_index: int
    confidence: float
    top_predictions: list[TopPrediction]
    outside_training_range: bool
    """True where a feature lies more than ten standard deviations from the mean of the training rows: the
    confidence then means nothing."""
    unusual_features: list[str | int]
    all_probabilities: dict[str, float] | None = None


class PredictAnswer(Prediction):
    """The answer for one row, and the bundle that gave it."""

    bundle: str = ""


class BatchAnswer(msgspec.Struct):
    """One answer per row, and the bundle that gave them."""

    predictions: list[Prediction]
    bundle: str


class CurvePoint(msgspec.Struct):
    """The genres of a part of a song."""

    start: float
    """In seconds."""
    end: float
    probabilities: dict[str, float]


class SongAnswer(msgspec.Struct):
    """The answer for a song."""

    filename: str
    duration: float
    """In seconds."""
    features: dict[str, float]
    """Means over the windows."""
    prediction: PredictAnswer
    over_time: list[CurvePoint] | msgspec.UnsetType = msgspec.UNSET
    """With ``over_time=true``."""


class Problem(msgspec.Struct):
    """Where a request is wrong, and why."""

    loc: list[str | int]
    msg: str


class Refusal(msgspec.Struct):
    """Why a request was refused."""

    detail: list[Problem]
    bundle: str | None


_TYPES: Final = (PredictRequest, BatchRequest, PredictAnswer, BatchAnswer, SongAnswer, Refusal)


def _inlined(schema: Any, components: dict[str, Any]) -> Any:
    """Return a JSON schema without references; these would point to where FastAPI keeps its own."""
    if isinstance(schema, list):
        return [_inlined(item, components) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(components[schema["$ref"].rpartition("/")[2]], components)
    return {key: _inlined(value, components) for key, value in schema.items()}


def _schemas() -> dict[type, Any]:
    schemas, components = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    return {kind: _inlined(schema, components) for kind, schema in zip(_TYPES, schemas, strict=True)}


_SCHEMAS: Final = _schemas()


def _json(kind: type, **more: Any) -> dict[str, Any]:
    return {"application/json": {"schema": _SCHEMAS[kind], **more}}


def _body(kind: type, examples: dict[str, Any]) -> dict[str, Any]:
    shown = {name: {"value": value} for name, value in examples.items()}
    return {"requestBody": {"required": True, "content": _json(kind, examples=shown)}}


_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    408: {"description": "The body stopped arriving.", "content": _json(Refusal)},
    413: {"description": "The body is above the limit.", "content": _json(Refusal)},
    422: {"description": "A field cannot be used; `loc` names it.", "content": _json(Refusal)},
    503: {
        "description": "There is no bundle to predict with, or too much waits already; `Retry-After` says when to ask "
        "again.",
        "content": _json(Refusal),
    },
}
_NO_BUNDLE: Final = {503: _REFUSALS[503]}

OPERATIONS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("POST", "/predict"): {
        "summary": "Genre of one row of features",
        "responses": {200: {"description": "The prediction.", "content": _json(PredictAnswer)}, **_REFUSALS},
        "openapi_extra": _body(
            PredictRequest,
            {
                "in order": {"features": _VALUES},
                "by name": {"features": _NAMED, "return_probs": True, "top_k": 2},
            },
        ),
    },
    ("POST", "/predict/batch"): {
        "summary": "Genres of many rows of features",
        "responses": {
            200: {"description": "One prediction a row.", "content": _json(BatchAnswer)},
            **_REFUSALS,
        },
        "openapi_extra": _body(BatchRequest, {"two rows": {"features": [_VALUES, _NAMED], "top_k": 1}}),
    },
    ("POST", "/analyze-audio"): {
        "summary": "Genres of an audio file",
        "description": (
            f"A form with the field `file`: {', '.join(SUFFIXES)}, at most {MAX_AUDIO_BYTES // 2**20} MB. A song "
            "longer than the clips of the training is measured in windows of their length; `features` are the means "
            "over them, `prediction` is the mean of their probabilities. With `over_time=true` the answer has a curve "
            "as well: `over_time` lists the genres of overlapping windows, at most 60 of them, or 20 for a pretrained "
            "network. Their step follows from the song's length. A song of one window has one point."
        ),
        "responses": {
            200: {"description": "The song's genres.", "content": _json(SongAnswer)},
            400: {"description": "The request is no form with a file.", "content": _json(Refusal)},
            408: {"description": "The file stopped arriving.", "content": _json(Refusal)},
            413: {"description": "The file is above the limit.", "content": _json(Refusal)},
            422: {"description": "The file is no audio that can be measured.", "content": _json(Refusal)},
            503: {
                "description": "There is no bundle, or not one for audio, or too many songs wait; `Retry-After` says "
                "when.",
                "content": _json(Refusal),
            },
        },
        "openapi_extra": {
            "parameters": [
                {
                    "name": "over_time",
                    "in": "query",
                    "description": "Whether the answer has a curve over the song's time.",
                    "schema": {"type": "boolean", "default": False},
                }
            ],
            "requestBody": {
                "required": True,
                "content": {
                    "multipart/form-data": {
                        "schema": {
                            "type": "object",
                            "required": ["file"],
                            "properties": {"file": {"type": "string", "format": "binary"}},
                        }
                    }
                },
            },
        },
    },
    ("GET", "/health"): {
        "summary": "Whether there is a bundle to predict with",
        "responses": {200: {"description": "The service predicts."}, **_NO_BUNDLE},
    },
    ("GET", "/genres"): {
        "summary": "The genres, in the order of the network's outputs",
        "responses": {200: {"description": "The genres."}, **_NO_BUNDLE},
    },
    ("GET", "/model"): {
        "summary": "The model card: name, versions, data, metrics, evaluation, checklist and features in order",
        "responses": {200: {"description": "What the bundle says of itself."}, **_NO_BUNDLE},
    },
}
