"""POST /analyze-audio: the genres of an audio file.

The file is decoded in a separate process under a limit of time and of memory: whatever a file does to a decoder, the
service goes on. Songs wait on disk, a bounded number of them, and are deleted before the answer leaves.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from functools import partial
from typing import Any, Final

import numpy as np

from genre_classifier.bundle.inputs import read_rows
from genre_classifier.bundle.songs import AudioRecipe, audio_recipe, average_windows
from genre_classifier.errors import AudioError, BundleError, MissingExtraError, MissingWeightsError
from genre_classifier.features.cache import Measured
from genre_classifier.features.decoding.apart import Limits, measure_apart
from genre_classifier.features.decoding.audio import SUFFIXES, require_audio
from genre_classifier.service.bodies import (
    TOO_SLOW,
    BodyTooLargeError,
    BodyTooSlowError,
    BusyError,
    Receive,
    Scope,
    Turns,
    body_pieces,
    check_declared_length,
    in_thread,
    while_connected,
)
from genre_classifier.service.endpoints import Answer, Endpoints, encode
from genre_classifier.service.model import ServedModel
from genre_classifier.service.upload import ENVELOPE_BYTES, MAX_AUDIO_BYTES, RefusedAudioError, Upload

LIMITS: Final = Limits(
    seconds=float(os.environ.get("MAX_AUDIO_SECONDS", 30.0)),  # of work, not of music
    memory=int(os.environ.get("MAX_AUDIO_MEMORY", 2**30)),
)
ANALYSES: Final = max(1, (os.cpu_count() or 2) - 1)  # at a time
MAX_AUDIO_WAITING: Final = int(os.environ.get("MAX_AUDIO_WAITING", 8))  # for their turn
RECEIVED_AT_ONCE: Final = 16  # uploads that arrive at the same time
SECONDS_TO_DELETE: Final = 5.0


class AudioRoute:
    """Answers ``POST /analyze-audio``.

    Parameters
    ----------
    endpoints : Endpoints
        Says which bundle is served, and words refusals.
    """

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._received = Turns(RECEIVED_AT_ONCE, waiting=0)
        self._measured = Turns(ANALYSES, MAX_AUDIO_WAITING)
        self._under_way: set[asyncio.Task[Any] | None] = set()

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """Read a request and return status and JSON of the answer.

        Raises
        ------
        ClientGoneError
            Nobody is left to answer.
        """
        task = asyncio.current_task()
        self._under_way.add(task)
        try:
            return 200, encode(await self._analyse(scope, receive))
        except RefusedAudioError as error:
            return self._endpoints.refuse(error.status, ["body", "file"], str(error))
        except BodyTooLargeError:
            return self._endpoints.refuse(413, ["body", "file"], f"more than {MAX_AUDIO_BYTES:,} bytes")
        except BodyTooSlowError:
            return self._endpoints.refuse(408, ["body", "file"], TOO_SLOW)
        except BusyError:
            message = "too many songs wait already; try again later"
            return self._endpoints.refuse(503, ["body", "file"], message)
        finally:
            self._under_way.discard(task)

    async def finish(self) -> None:
        """Wait until the songs of cancelled requests are deleted; uvicorn ends the process without."""
        if tasks := [task for task in self._under_way if task is not None]:
            await asyncio.wait(tasks, timeout=SECONDS_TO_DELETE)

    async def _analyse(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        service = self._endpoints.service
        served = service.served
        if served is None:
            raise RefusedAudioError(503, service.problem or "no bundle was loaded")
        recipe = _recipe(served)
        limit = MAX_AUDIO_BYTES + ENVELOPE_BYTES
        check_declared_length(scope, limit)
        self._measured.check()  # before the song is received
        content_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        with Upload(content_type.decode("latin-1"), SUFFIXES) as upload:
            async with self._received.taken():
                async for piece in body_pieces(scope, receive, limit):
                    await in_thread(partial(upload.write, piece))
            upload.finish()
            measured = await while_connected(receive, self._measure(upload, recipe))
            return await in_thread(partial(_content, served, recipe, upload.name, measured))

    async def _measure(self, upload: Upload, recipe: AudioRecipe) -> Measured:
        async with self._measured.taken():
            given_up, give_up = multiprocessing.Pipe(duplex=False)
            with given_up, give_up:
                measure = partial(
                    measure_apart, upload.path, recipe.features, recipe.windows, LIMITS, given_up=given_up
                )
                try:
                    return await in_thread(measure, stop=give_up.close)
                except AudioError as error:
                    # The caller knows the file by another name.
                    message = str(error).replace(str(upload.path), repr(upload.name))
                    raise RefusedAudioError(422, message) from error
                except MissingWeightsError as error:
                    raise RefusedAudioError(503, str(error)) from error


def _recipe(served: ServedModel) -> AudioRecipe:
    try:
        require_audio()
        return audio_recipe(served.metadata, served.predictor.feature_names)
    except (BundleError, MissingExtraError, MissingWeightsError) as error:
        raise RefusedAudioError(503, str(error)) from error


def _content(served: ServedModel, recipe: AudioRecipe, filename: str, measured: Measured) -> dict[str, Any]:
    features = measured.features[:, recipe.columns]
    predictor = served.predictor
    rows = read_rows(features, predictor.n_features, predictor.feature_names)
    average = average_windows(predictor.predict_probabilities(rows))
    prediction: dict[str, Any] = {**predictor.answer(average.tolist(), return_probs=True)}
    unusual = dict.fromkeys(name for row in rows for name in served.find_unusual(row))
    prediction["outside_training_range"] = bool(unusual)
    prediction["unusual_features"] = list(unusual)
    prediction["bundle"] = served.digest
    means = features.mean(axis=0, dtype=np.float64).tolist()
    return {
        "filename": filename,
        "duration": measured.seconds,
        "features": dict(zip(recipe.names, means, strict=True)),
        "prediction": prediction,
    }


_REFUSED: Final = {"application/json": {"schema": {"type": "object"}}}
AUDIO_OPERATION: Final[dict[str, Any]] = {
    "summary": "Genres of an audio file",
    "description": (
        f"A form with the field `file`: {', '.join(SUFFIXES)}, at most {MAX_AUDIO_BYTES // 2**20} MB. A song longer "
        "than the clips of the training is measured in windows of their length; `features` are the means over them, "
        "`prediction` is the mean of their probabilities."
    ),
    "responses": {
        200: {"description": "filename, duration in seconds, features and prediction."},
        400: {"description": "The request is no form with a file.", "content": _REFUSED},
        408: {"description": "The file stopped arriving.", "content": _REFUSED},
        413: {"description": "The file is above the limit.", "content": _REFUSED},
        422: {"description": "The file is no audio that can be measured.", "content": _REFUSED},
        503: {
            "description": "There is no bundle, or not one for audio, or too many songs wait; `Retry-After` says when.",
            "content": _REFUSED,
        },
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
