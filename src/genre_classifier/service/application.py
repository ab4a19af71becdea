"""The service as a FastAPI application: routes, OpenAPI document, start and end.

    genre-classifier serve            # with the limits on connections of server.py
    uvicorn app.main:app              # from the repository's root, behind a front that has such limits

A prediction takes 25 microseconds, FastAPI's way from its middleware to a route 40, and its reading, validating and
writing of JSON some hundred. So the documented paths are looked up first, and their routes are plain ASGI: msgspec
reads and writes JSON in the event loop; larger bodies go through a file and a thread. FastAPI has the routes too: for
the OpenAPI document, and for a service that is mounted under a longer path.
"""

from __future__ import annotations

import gc
import logging
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from genre_classifier import __version__
from genre_classifier.machine.child_process import leave_if_script_runs_again
from genre_classifier.service.audio import AudioRoute
from genre_classifier.service.bodies import (
    TOO_SLOW,
    BodyTooLargeError,
    BodyTooSlowError,
    BusyError,
    ClientGoneError,
    Receive,
    Scope,
    Send,
    Turns,
    body_pieces,
    in_thread,
    while_connected,
)
from genre_classifier.service.documentation import OPERATIONS
from genre_classifier.service.endpoints import (
    INLINE_BYTES,
    INTERNAL_ERROR,
    MAX_BODY_BYTES,
    Answer,
    Endpoint,
    Endpoints,
)
from genre_classifier.service.model import ModelService, model_service
from genre_classifier.service.page import read_page_files

MEMORY_BYTES: Final = 256 * 2**10  # what is larger waits on disk
LARGE_AT_ONCE: Final = 1  # bodies that are worked on; each may take ten times its size in memory
LARGE_WAITING: Final = 64
ON_DISK: Final = 32  # bodies that are received into files at the same time
RETRY_SECONDS: Final = b"5"

_log = logging.getLogger(__name__)


Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Route(Protocol):
    """What answers the requests to one path."""

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """Read a request and return status and JSON of the answer."""


class GenreService(FastAPI):
    """The FastAPI application.

    Parameters
    ----------
    service : ModelService
        Says which bundle is served; started and stopped with the application.
    """

    def __init__(self, service: ModelService) -> None:
        super().__init__(
            title="Genre classifier",
            version=__version__,
            description=(
                "Genres from audio features. Every answer names the bundle that gave it. Any path may also answer 400 "
                "(the request is not valid HTTP), 408 (it took too long to arrive), 431 (its headers are too long) or "
                "503 (there are too many connections)."
            ),
            docs_url=None,  # these two would load their scripts from elsewhere
            redoc_url=None,
            lifespan=lambda _: self._running(),
        )
        self.endpoints = Endpoints(service)
        self._applications: dict[tuple[str, str], Application] = {}
        large = LargeBodies()
        for (method, path), endpoint in self.endpoints.paths.items():
            route = JsonRoute(self.endpoints, endpoint, large)
            self._add(method, path, route, OPERATIONS[method, path])
        self._audio = AudioRoute(self.endpoints)
        self._add("POST", "/analyze-audio", self._audio, OPERATIONS["POST", "/analyze-audio"])
        for path, file in read_page_files().items():
            self._route("GET", path, file, include_in_schema=False)
            self._route("HEAD", path, file, include_in_schema=False)
        self.mount("/swagger", StaticFiles(packages=[("fastapi_offline", "static")]))
        self.add_exception_handler(HTTPException, self._unknown_path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the documented paths; hand everything else to FastAPI."""
        application = None
        if scope["type"] == "http":
            application = self._applications.get((scope["method"], scope["path"]))
        await (application or super().__call__)(scope, receive, send)

    def _add(self, method: str, path: str, route: Route, operation: dict[str, Any]) -> None:
        """Add a route, whose requests FastAPI documents and hands on untouched."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                status, content = await route.answer(scope, receive)
            except BusyError:
                status, content = self.endpoints.refuse(503, [], "too much waits already; try again later")
            except ClientGoneError:
                return
            except Exception:
                _log.exception("%s %s failed", method, path)
                status, content = self.endpoints.refuse(500, [], INTERNAL_ERROR)
            lost = (
                status >= 400 and method == "POST" and any(name == b"upgrade" for name, _ in scope["headers"])
            )
            if (
                lost
            ):  # uvicorn's own protocol class takes the body for another protocol; LimitedProtocol does not
                message = "no other protocol is spoken here; send the request without the header Upgrade"
                status, content = self.endpoints.refuse(400, [], message)
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
            if lost:
                headers.append((b"connection", b"close"))
            if status == 503:
                headers.append((b"retry-after", RETRY_SECONDS))
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": content})

        self._route(method, path, application, **operation)

    def _route(self, method: str, path: str, application: Application, **documented: Any) -> None:
        """Add an ASGI application, for this service alone and for one that mounts it."""
        self.add_api_route(path, _only_documented, methods=[method], response_model=None, **documented)
        self.router.routes[-1].app = application  # type: ignore[attr-defined]
        self._applications[method, path] = application

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        """Load the bundle, and look for a newer one until the end."""
        leave_if_script_runs_again()
        service = self.endpoints.service
        service.start()
        # What was imported stays; a full collection that walks over it holds up requests for 40 ms.
        gc.collect()
        gc.freeze()
        try:
            yield
        finally:
            gc.unfreeze()
            service.stop()
            await self._audio.finish()

    async def _unknown_path(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            status, content = self.endpoints.refuse(500, [], INTERNAL_ERROR)
            return Response(content, status, media_type="application/json")
        status, content = self.endpoints.refuse(error.status_code, [], error.detail)
        return Response(content, status, error.headers, media_type="application/json")


def _only_documented() -> None:
    """Stand for an endpoint in FastAPI's eyes."""


class LargeBodies:
    """What bounds the bodies that are too large to be answered in the event loop."""

    def __init__(self) -> None:
        self.on_disk = Turns(ON_DISK, waiting=0)
        self.at_work = Turns(LARGE_AT_ONCE, LARGE_WAITING)


class JsonRoute:
    """Answers the requests to one of the documented paths.

    Parameters
    ----------
    endpoints : Endpoints
    endpoint : callable
        One of them.
    large : LargeBodies
        Shared by all routes.
    """

    def __init__(self, endpoints: Endpoints, endpoint: Endpoint, large: LargeBodies) -> None:
        self._endpoints = endpoints
        self._endpoint = endpoint
        self._large = large

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """Read a request's body and return status and JSON of the answer.

        Raises
        ------
        BusyError
            The body is large, and too many such wait already.
        ClientGoneError
            Nobody is left to answer.
        """
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            body: bytes = message.get("body", b"")
            if len(body) <= INLINE_BYTES:  # nearly all are
                return self._endpoints.answer(self._endpoint, body)
        try:
            return await self._answer_in_pieces(body_pieces(scope, receive, MAX_BODY_BYTES, message), receive)
        except BodyTooLargeError:
            return self._endpoints.refuse(413, ["body"], f"more than {MAX_BODY_BYTES:,} bytes")
        except BodyTooSlowError:
            return self._endpoints.refuse(408, ["body"], TOO_SLOW)

    async def _answer_in_pieces(self, pieces: AsyncIterator[bytes], receive: Receive) -> Answer:
        body = bytearray()
        async for piece in pieces:
            body += piece
            if len(body) > INLINE_BYTES:
                return await self._answer_large(body, pieces, receive)
        return self._endpoints.answer(self._endpoint, body)

    async def _answer_large(self, body: bytearray, pieces: AsyncIterator[bytes], receive: Receive) -> Answer:
        self._large.at_work.check()  # before the rest is read
        async for piece in pieces:
            body += piece
            if len(body) > MEMORY_BYTES:
                return await self._answer_from_disk(body, pieces, receive)
        return await while_connected(receive, self._work(lambda: body))

    async def _answer_from_disk(
        self, start: bytearray, pieces: AsyncIterator[bytes], receive: Receive
    ) -> Answer:
        async with self._large.on_disk.taken():
            with tempfile.TemporaryFile() as file:
                await in_thread(lambda: file.write(start))
                start.clear()
                async for piece in pieces:
                    await in_thread(partial(file.write, piece))

                def read() -> bytes:
                    file.seek(0)
                    return file.read()

                return await while_connected(receive, self._work(read))

    async def _work(self, read: Callable[[], bytes | bytearray]) -> Answer:
        async with self._large.at_work.taken():
            return await in_thread(lambda: self._endpoints.answer(self._endpoint, read()))


app = GenreService(model_service)
