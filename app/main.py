"""The HTTP service.

    genre-classifier serve            # or: uvicorn app.main:app

FastAPI documents the interface and answers whatever is not one of its paths. The documented paths themselves
are answered in the event loop before FastAPI's own layers: a prediction takes microseconds, and a thread pool
or a second validation would take a hundred times that.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from app.audio import add_audio_route
from app.documentation import OPERATIONS
from app.model import ModelService, ServedModel, model_service
from app.requests import RefusedBodyError, decode_batch, decode_predict
from genre_classifier import __version__
from genre_classifier.errors import FeatureError
from genre_classifier.prediction import DEFAULT_TOP_K

MAX_BODY_BYTES: Final = int(os.environ.get("MAX_BODY_BYTES", 16 * 2**20))
MAX_ROWS: Final = int(os.environ.get("MAX_ROWS", 10_000))
_INLINE_BYTES: Final = 64 * 2**10  # a larger body takes milliseconds, and those on a thread

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[Any], Awaitable[None]]
Answer = tuple[int, Any]

_log = logging.getLogger(__name__)


class BodyTooLargeError(Exception):
    """A request body above the limit."""


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete."""


class GenreService(FastAPI):
    """The FastAPI application, with the documented paths answered first."""

    def __init__(self, service: ModelService) -> None:
        super().__init__(
            title="Genre classifier",
            version=__version__,
            description="Genres from audio features. Every answer names the bundle that gave it.",
            lifespan=_lifespan(service),
        )
        self._service = service
        self._endpoints: dict[tuple[str, str], Callable[[Scope, Receive], Awaitable[Answer]]] = {
            ("POST", "/predict"): self._predict,
            ("POST", "/predict/batch"): self._predict_batch,
            ("GET", "/health"): self._health,
            ("GET", "/genres"): self._genres,
            ("GET", "/model"): self._model,
        }
        for (method, path), endpoint in self._endpoints.items():
            operation = OPERATIONS[method, path]
            self.add_api_route(
                path,
                self._through_fastapi(endpoint),
                methods=[method],
                response_model=None,
                **operation,
            )

        add_audio_route(self, service)
        self.add_exception_handler(HTTPException, self._unknown_path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the documented paths; hand everything else to FastAPI."""
        if scope["type"] == "http":
            endpoint = self._endpoints.get((scope["method"], scope["path"]))
            if endpoint is not None:
                await self._respond(endpoint, scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    def _through_fastapi(self, endpoint: Callable[[Scope, Receive], Awaitable[Answer]]) -> Callable:
        """Return FastAPI's form of an endpoint, reached where the service is mounted under a longer path."""

        async def answer(request: Request) -> Response:
            try:
                status, content = await self._guarded(endpoint, request.scope, request.receive)
            except ClientGoneError:
                return Response(status_code=400)
            return _json_response(status, content)

        return answer

    async def _respond(
        self,
        endpoint: Callable[[Scope, Receive], Awaitable[Answer]],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        try:
            status, content = await self._guarded(endpoint, scope, receive)
        except ClientGoneError:
            return
        body = _encoded(content)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _guarded(
        self, endpoint: Callable[[Scope, Receive], Awaitable[Answer]], scope: Scope, receive: Receive
    ) -> Answer:
        """Turn every way in which a request can be wrong into its status, and never show a stack trace."""
        try:
            return await endpoint(scope, receive)
        except RefusedBodyError as error:
            return self._refusal(422, error.location, error.message)
        except FeatureError as error:
            place = [part for part in (error.row, error.feature) if part is not None]
            return self._refusal(422, ["body", "features", *place], str(error))
        except BodyTooLargeError:
            return self._refusal(413, ["body"], f"more than {MAX_BODY_BYTES:,} bytes")
        except ClientGoneError:
            raise
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            return self._refusal(500, [], "internal error; the service's log has the reason")

    async def _unknown_path(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        message = error.detail if isinstance(error, HTTPException) else "internal error"
        headers = error.headers if isinstance(error, HTTPException) else None
        return _json_response(*self._refusal(status, [], message), headers=headers)

    def _refusal(self, status: int, location: list[Any], message: str) -> Answer:
        served = self._service.served
        digest = None if served is None else served.digest
        return status, {"detail": [{"loc": location, "msg": message}], "bundle": digest}

    def _unavailable(self) -> Answer:
        problem = self._service.problem or "no bundle was loaded"
        return 503, {"status": "no bundle", "detail": [{"loc": [], "msg": problem}], "bundle": None}

    async def _predict(self, scope: Scope, receive: Receive) -> Answer:
        body = await _read_body(scope, receive)
        served = self._service.served
        if served is None:
            return self._unavailable()
        if len(body) > _INLINE_BYTES:
            return await asyncio.to_thread(_answer_one, served, body)
        return _answer_one(served, body)

    async def _predict_batch(self, scope: Scope, receive: Receive) -> Answer:
        body = await _read_body(scope, receive)
        served = self._service.served
        if served is None:
            return self._unavailable()
        if len(body) > _INLINE_BYTES:
            return await asyncio.to_thread(_answer_batch, served, body)
        return _answer_batch(served, body)

    async def _health(self, scope: Scope, receive: Receive) -> Answer:
        served = self._service.served
        if served is None:
            return self._unavailable()
        problem = self._service.problem  # of a newer bundle that could not be loaded
        return 200, {
            "status": "ok",
            "backend": served.predictor.backend,
            "problem": problem,
            "bundle": served.digest,
        }

    async def _genres(self, scope: Scope, receive: Receive) -> Answer:
        served = self._service.served
        if served is None:
            return self._unavailable()
        return 200, {"genres": list(served.predictor.genre_names), "bundle": served.digest}

    async def _model(self, scope: Scope, receive: Receive) -> Answer:
        served = self._service.served
        if served is None:
            return self._unavailable()
        metadata = served.metadata
        names = served.predictor.feature_names
        described = {key: metadata.get(key) for key in _DESCRIBED}
        return 200, {
            **described,
            "features": None if names is None else list(names),
            "n_features": served.predictor.n_features,
            "backend": served.predictor.backend,
            "service_version": __version__,
            "bundle": served.digest,
        }


_DESCRIBED: Final = (
    "model_name",
    "model_architecture",
    "timestamp",
    "metrics",
    "split_protocol",
    "feature_set",
    "library_versions",
    "temperature",
)


def _answer_one(served: ServedModel, body: bytes) -> Answer:
    request = decode_predict(body)
    top_k = _checked_top_k(request.top_k, served)
    return 200, served.answer(request.features, request.return_probs, top_k)


def _answer_batch(served: ServedModel, body: bytes) -> Answer:
    request = decode_batch(body)
    if len(request.features) > MAX_ROWS:
        raise RefusedBodyError(
            ["body", "features"], f"{len(request.features)} rows, at most {MAX_ROWS} are taken"
        )
    top_k = _checked_top_k(request.top_k, served)
    answer = served.answer_batch(request.features, request.return_probs, top_k)
    return 200, msgspec.json.encode(answer)  # here, where a large answer does not hold up the event loop


def _checked_top_k(top_k: int | None, served: ServedModel) -> int:
    if top_k is None:
        return DEFAULT_TOP_K
    n_genres = len(served.predictor.genre_names)
    if not 1 <= top_k <= n_genres:
        raise RefusedBodyError(["body", "top_k"], f"expected 1 to {n_genres}, the number of genres")
    return top_k


def _encoded(content: Any) -> bytes:
    return content if isinstance(content, bytes) else msgspec.json.encode(content)


def _json_response(status: int, content: Any, headers: Any = None) -> Response:
    return Response(_encoded(content), status, headers, media_type="application/json")


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > MAX_BODY_BYTES:
            raise BodyTooLargeError
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLargeError
        return body
    parts = bytearray()
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        parts += message.get("body", b"")
        if len(parts) > MAX_BODY_BYTES:
            raise BodyTooLargeError
        if not message.get("more_body"):
            return bytes(parts)
        message = await receive()


def _lifespan(service: ModelService) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        # What was imported stays; a full collection that walks over it holds up requests for 40 ms.
        gc.collect()
        gc.freeze()
        try:
            yield
        finally:
            gc.unfreeze()
            await asyncio.to_thread(service.stop)

    return lifespan


app = GenreService(model_service)
