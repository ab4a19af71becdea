"""POST /analyze-audio: the genres of an audio file.

The file is decoded in a separate process under a limit of time and of memory: whatever a file does to a decoder, the
service goes on. Songs wait on disk, a bounded number of them, and are deleted before the answer leaves.
"""

from __future__ import annotations

import asyncio
import logging
import math
import multiprocessing
import os
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs

import numpy as np

from genre_classifier.bundle.inputs import read_rows
from genre_classifier.bundle.songs import AudioRecipe, average_windows
from genre_classifier.errors import (
    AudioError,
    BundleError,
    GenreClassifierError,
    MissingExtraError,
    MissingWeightsError,
)
from genre_classifier.features.cache import Measured
from genre_classifier.features.decoding.apart import Limits, measure_apart
from genre_classifier.features.decoding.audio import SUFFIXES, Excerpt
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
from genre_classifier.service.endpoints import MAX_AUDIO_BYTES, Answer, Endpoints, encode
from genre_classifier.service.model import ServedModel
from genre_classifier.service.upload import ENVELOPE_BYTES, RefusedAudioError, Upload

LIMITS: Final = Limits(
    seconds=float(os.environ.get("MAX_AUDIO_SECONDS", 30.0)),  # of work, not of music
    memory=int(os.environ.get("MAX_AUDIO_MEMORY", 2**30)),
)
ANALYSES: Final = max(1, (os.cpu_count() or 2) - 1)  # at a time
MAX_AUDIO_WAITING: Final = int(os.environ.get("MAX_AUDIO_WAITING", 8))  # for their turn
RECEIVED_AT_ONCE: Final = 16  # uploads that arrive at the same time
SECONDS_TO_DELETE: Final = 5.0
_YES_OR_NO: Final = {"true": True, "1": True, "false": False, "0": False}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class MeasuredSong:
    """The features of a song.

    Parameters
    ----------
    windows : Measured
        Side by side, for the song's prediction.
    curve : Measured or None
        Overlapping, for the curve over time; None if nobody asked for it.
    """

    windows: Measured
    curve: Measured | None


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
            return self._endpoints.refuse(error.status, list(error.location), str(error))
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
        over_time = _read_over_time(scope)
        limit = MAX_AUDIO_BYTES + ENVELOPE_BYTES
        check_declared_length(scope, limit)
        self._measured.check()  # before the song is received
        content_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        with Upload(content_type.decode("latin-1"), SUFFIXES) as upload:
            async with self._received.taken():
                async for piece in body_pieces(scope, receive, limit):
                    await in_thread(partial(upload.write, piece))
            upload.finish()
            song = await while_connected(receive, self._measure(upload, recipe, over_time))
            return await in_thread(partial(_content, served, recipe, upload.name, song))

    async def _measure(self, upload: Upload, recipe: AudioRecipe, over_time: bool) -> MeasuredSong:
        async with self._measured.taken():
            start = time.monotonic()
            try:
                windows = await _measure_apart(upload, recipe, recipe.windows, LIMITS)
            except AudioError as error:
                # The caller knows the file by another name.
                message = str(error).replace(str(upload.path), repr(upload.name))
                raise RefusedAudioError(422, message) from error
            except GenreClassifierError as error:
                raise RefusedAudioError(503, str(error)) from error
            if not over_time:
                return MeasuredSong(windows, None)
            seconds = min(windows.seconds, LIMITS.music)
            if seconds <= recipe.clip_seconds or seconds >= recipe.most_points * recipe.clip_seconds:
                return MeasuredSong(windows, windows)  # one window, or enough of them
            rest = replace(LIMITS, seconds=LIMITS.seconds - (time.monotonic() - start))
            try:
                return MeasuredSong(
                    windows, await _measure_apart(upload, recipe, recipe.build_overview(seconds), rest)
                )
            except GenreClassifierError as error:  # a coarse curve is better than none
                _log.warning("a curve over time has only the song's windows side by side: %s", error)
                return MeasuredSong(windows, windows)


async def _measure_apart(upload: Upload, recipe: AudioRecipe, excerpt: Excerpt, limits: Limits) -> Measured:
    given_up, give_up = multiprocessing.Pipe(duplex=False)
    with given_up, give_up:
        measure = partial(measure_apart, upload.path, recipe.features, excerpt, limits, given_up=given_up)
        return await in_thread(measure, stop=give_up.close)


def _read_over_time(scope: Scope) -> bool:
    given = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    value = given.get("over_time", ["false"])[-1]
    if value.lower() not in _YES_OR_NO:
        raise RefusedAudioError(422, f"expected true or false, found {value[:20]!r}", ("query", "over_time"))
    return _YES_OR_NO[value.lower()]


def _recipe(served: ServedModel) -> AudioRecipe:
    try:
        return served.find_recipe()
    except (BundleError, MissingExtraError, MissingWeightsError) as error:
        raise RefusedAudioError(503, str(error)) from error


def _content(served: ServedModel, recipe: AudioRecipe, filename: str, song: MeasuredSong) -> dict[str, Any]:
    features = song.windows.features[:, recipe.columns]
    predictor = served.predictor
    rows = read_rows(features, predictor.n_features, predictor.feature_names)
    average = average_windows(predictor.predict_probabilities(rows))
    prediction: dict[str, Any] = {**predictor.answer(average.tolist(), return_probs=True)}
    unusual = dict.fromkeys(name for row in rows for name in served.find_unusual(row))
    prediction["outside_training_range"] = bool(unusual)
    prediction["unusual_features"] = list(unusual)
    prediction["bundle"] = served.digest
    means = features.mean(axis=0, dtype=np.float64).tolist()
    content = {
        "filename": filename,
        "duration": song.windows.seconds,
        "features": dict(zip(recipe.names, means, strict=True)),
        "prediction": prediction,
    }
    if song.curve is not None:
        content["over_time"] = _compute_points(served, recipe, song.curve)
    return content


def _compute_points(served: ServedModel, recipe: AudioRecipe, curve: Measured) -> list[dict[str, Any]]:
    """Return the points of a curve over time; if there are too many windows, each point is the mean of some."""
    predictor = served.predictor
    rows = read_rows(curve.features[:, recipe.columns], predictor.n_features, predictor.feature_names)
    probabilities = predictor.predict_probabilities(rows)  # (window, genre)
    ends = np.minimum(curve.starts + recipe.clip_seconds, curve.seconds)
    size = math.ceil(len(ends) / recipe.most_points)
    points = []
    for first in range(0, len(ends), size):
        windows = slice(first, first + size)
        means = average_windows(probabilities[windows]).tolist()
        points.append(
            {
                "start": float(curve.starts[first]),
                "end": float(ends[windows][-1]),
                "probabilities": dict(zip(predictor.genre_names, means, strict=True)),
            }
        )
    return points
