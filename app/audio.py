"""POST /analyze-audio: the genres of an audio file.

The file is decoded in a process of its own under a limit of time and of memory: whatever a file does to a decoder, the
service goes on. What was written is deleted before the answer leaves.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

import msgspec
import numpy as np
from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from app.model import ModelService, ServedModel
from genre_classifier.audio_prediction import AudioRecipe, audio_recipe, geometric_mean
from genre_classifier.errors import AudioError, BundleError, MissingExtraError
from genre_classifier.features.apart import Limits, measure_apart
from genre_classifier.features.audio import SUFFIXES, require_audio

MAX_AUDIO_BYTES: Final = int(os.environ.get("MAX_AUDIO_BYTES", 50 * 2**20))
LIMITS: Final = Limits(
    seconds=float(os.environ.get("MAX_AUDIO_SECONDS", 30.0)),  # of work, not of music
    memory=int(os.environ.get("MAX_AUDIO_MEMORY", 2**30)),
)
ANALYSES: Final = max(1, (os.cpu_count() or 2) - 1)  # at a time; others wait
ENVELOPE_BYTES: Final = 64 * 2**10  # boundaries, headers and other fields of the form


class RefusedAudioError(Exception):
    """A request that cannot be answered.

    Parameters
    ----------
    status : int
        Of the answer.
    message : str
        The reason, for the caller.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Upload:
    """A file as it came.

    Parameters
    ----------
    name : str
        Without folders.
    content : bytes or memoryview
    """

    name: str
    content: bytes | memoryview

    @property
    def suffix(self) -> str:
        """Of the name, in small letters."""
        return PurePosixPath(self.name).suffix.lower()


def add_audio_route(application: FastAPI, service: ModelService) -> None:
    """Let an application answer ``POST /analyze-audio``."""
    turns = asyncio.Semaphore(ANALYSES)

    async def analyze_audio(request: Request) -> Response:
        served = service.served
        try:
            content = await _analyse(request, served, service.problem, turns)
            status = 200
        except RefusedAudioError as error:
            digest = None if served is None else served.digest
            content = {"detail": [{"loc": ["body", "file"], "msg": str(error)}], "bundle": digest}
            status = error.status
        except ClientDisconnect:
            return Response(status_code=400)
        return Response(msgspec.json.encode(content), status, media_type="application/json")

    application.add_api_route(
        "/analyze-audio", analyze_audio, methods=["POST"], response_model=None, **_OPERATION
    )


async def _analyse(
    request: Request, served: ServedModel | None, problem: str | None, turns: asyncio.Semaphore
) -> dict[str, Any]:
    if served is None:
        raise RefusedAudioError(503, problem or "no bundle was loaded")
    recipe = _recipe(served)
    upload = parse_upload(request.headers.get("content-type", ""), await _body(request))
    if upload.suffix not in SUFFIXES:
        raise RefusedAudioError(
            422, f"{upload.name!r}: {upload.suffix or 'no suffix'} is none of {', '.join(SUFFIXES)}"
        )
    async with turns:
        return await asyncio.to_thread(_answer, served, recipe, upload)


def _recipe(served: ServedModel) -> AudioRecipe:
    try:
        require_audio()
        return audio_recipe(served.metadata, served.predictor.feature_names)
    except (BundleError, MissingExtraError) as error:
        raise RefusedAudioError(503, str(error)) from error


async def _body(request: Request) -> bytearray:
    limit = MAX_AUDIO_BYTES + ENVELOPE_BYTES
    declared = request.headers.get("content-length", "")
    body = bytearray()
    if not (declared.isdigit() and int(declared[:20]) > limit):
        async for block in request.stream():
            body += block
            if len(body) > limit:
                break
        else:
            return body
    raise RefusedAudioError(413, f"more than {MAX_AUDIO_BYTES:,} bytes")


def parse_upload(content_type: str, body: bytes | bytearray) -> Upload:
    """Return the file of a form, ``multipart/form-data`` with a field ``file``.

    Raises
    ------
    RefusedAudioError
        It is no such form, has no such field, or the file is empty or too large.
    """
    kind = _parameters(content_type)
    boundary = kind.get("boundary", "")
    if kind[""] != "multipart/form-data" or not boundary:
        raise RefusedAudioError(400, "expected multipart/form-data with the field 'file'")
    whole = memoryview(body)
    delimiter = b"--" + boundary.encode("latin-1", "replace")
    start = body.find(delimiter)
    while start >= 0:
        start += len(delimiter)
        if body[start : start + 2] == b"--":
            break
        end = body.find(b"\r\n" + delimiter, start)
        head_end = body.find(b"\r\n\r\n", start)
        if end < 0 or not start <= head_end <= end:
            raise RefusedAudioError(400, "the form is cut off: its last boundary is missing")
        field = _disposition(bytes(body[start:head_end]))
        if field.get("name") == "file" and "filename" in field:
            return _checked(field["filename"], whole[head_end + 4 : end])
        start = end + 2
    raise RefusedAudioError(400, "the form has no file in the field 'file'")


def _checked(name: str, content: memoryview) -> Upload:
    if len(content) > MAX_AUDIO_BYTES:
        raise RefusedAudioError(413, f"more than {MAX_AUDIO_BYTES:,} bytes")
    if not content:
        raise RefusedAudioError(422, "the file is empty")
    return Upload(PureWindowsPath(name).name, content)  # takes both kinds of slashes for folders


def _disposition(head: bytes) -> Mapping[str, str]:
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.strip().lower() == b"content-disposition":
            return _parameters(value.decode("utf-8", "replace").strip())
    return {}


def _parameters(value: str) -> dict[str, str]:
    """Return the parameters of a header's value by name, the value itself under ''."""
    message = Message()
    message["content-type"] = value.replace("\n", " ").replace("\r", " ")
    found = message.get_params() or [("", "")]
    parameters = {str(key).lower(): str(text) for key, text in found[1:]}
    parameters[""] = str(found[0][0]).lower()
    return parameters


def _answer(served: ServedModel, recipe: AudioRecipe, upload: Upload) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="genre-classifier-audio-") as folder:
        path = Path(folder) / f"audio{upload.suffix}"
        path.write_bytes(upload.content)
        try:
            measured = measure_apart(path, recipe.features, recipe.windows, LIMITS)
        except AudioError as error:
            # The caller knows the file by another name.
            raise RefusedAudioError(422, str(error).replace(str(path), repr(upload.name))) from error
    features = measured.features[:, recipe.columns]
    answers = served.answer_batch(features, True, len(served.predictor.genre_names))["predictions"]
    windows = np.array(
        [[answer["all_probabilities"][g] for g in served.predictor.genre_names] for answer in answers]
    )
    prediction: dict[str, Any] = {
        **served.predictor.answer(geometric_mean(windows).tolist(), return_probs=True)
    }
    prediction["outside_training_range"] = any(answer["outside_training_range"] for answer in answers)
    unusual = [name for answer in answers for name in answer["unusual_features"]]
    prediction["unusual_features"] = list(dict.fromkeys(unusual))
    prediction["bundle"] = served.digest
    means = features.mean(axis=0, dtype=np.float64).tolist()
    return {
        "filename": upload.name,
        "duration": measured.seconds,
        "features": dict(zip(recipe.names, means, strict=True)),
        "prediction": prediction,
    }


_REFUSED: Final = {"application/json": {"schema": {"type": "object"}}}
_OPERATION: Final[dict[str, Any]] = {
    "summary": "Genres of an audio file",
    "description": (
        f"A form with the field `file`: {', '.join(SUFFIXES)}, at most {MAX_AUDIO_BYTES // 2**20} MB. A song longer "
        "than the clips of the training is measured in windows of their length; `features` are the means over them, "
        "`prediction` is their probabilities' geometric mean."
    ),
    "responses": {
        200: {"description": "filename, duration in seconds, features and prediction."},
        400: {"description": "The request is no form with a file.", "content": _REFUSED},
        413: {"description": "The file is above the limit.", "content": _REFUSED},
        422: {"description": "The file is no audio that can be measured.", "content": _REFUSED},
        503: {"description": "There is no bundle, or not one for audio.", "content": _REFUSED},
    },
    "openapi_extra": {
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
        }
    },
}
