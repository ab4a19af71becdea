"""The endpoints as an ASGI application; FastAPI, which is long to import, comes in when it is asked for.

``genre-classifier serve`` starts this one: it is ready in a third of the time. ``app.main:app`` is the same
service as a FastAPI application, for a server or a framework that wants one.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from app.endpoints import INLINE_BYTES, MAX_BODY_BYTES, Answer, Endpoint, Endpoints
from app.model import ModelService

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class BodyTooLargeError(Exception):
    """A request body above the limit."""


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete."""


class LeanApplication:
    """The documented paths without FastAPI; its pages, and whatever is no documented path, with it.

    Parameters
    ----------
    service : ModelService
        Says which bundle is served; started and stopped with the application.
    """

    def __init__(self, service: ModelService) -> None:
        self.endpoints = Endpoints(service)
        self._full: Application | None = None
        self._importing = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or go along with the server's start and end."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif not await respond(self.endpoints, scope, receive, send):
            application = await self._with_fastapi()
            await application(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with running(self.endpoints.service):
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _with_fastapi(self) -> Application:
        async with self._importing:
            if self._full is None:
                # On a thread: half a second in which predictions go on.
                self._full = await asyncio.to_thread(_fastapi_application, self.endpoints.service)
        return self._full


def _fastapi_application(service: ModelService) -> Application:
    from app.main import GenreService

    return GenreService(service)


@asynccontextmanager
async def running(service: ModelService) -> AsyncIterator[None]:
    """Load the bundle, and look for a newer one until the end."""
    service.start()
    # What was imported stays; a full collection that walks over it holds up requests for 40 ms.
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        await asyncio.to_thread(service.stop)


async def respond(endpoints: Endpoints, scope: Scope, receive: Receive, send: Send) -> bool:
    """Answer a request to a documented path; return whether it was one."""
    if scope["type"] != "http":
        return False
    endpoint = endpoints.paths.get((scope["method"], scope["path"]))
    if endpoint is None:
        return False
    try:
        status, content = await answer(endpoints, endpoint, scope, receive)
    except ClientGoneError:
        return True
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
    return True


async def answer(endpoints: Endpoints, endpoint: Endpoint, scope: Scope, receive: Receive) -> Answer:
    """Read a request's body and return status and content of the answer.

    Raises
    ------
    ClientGoneError
        There is nobody left to answer.
    """
    try:
        body = await _read_body(scope, receive)
    except BodyTooLargeError:
        return endpoints.refuse(413, ["body"], f"more than {MAX_BODY_BYTES:,} bytes")
    if len(body) > INLINE_BYTES:
        return await asyncio.to_thread(endpoints.answer, endpoint, body)
    return endpoints.answer(endpoint, body)


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
