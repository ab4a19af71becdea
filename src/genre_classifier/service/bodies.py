"""Reading a request's body, waiting for a turn to work on it, and stopping when the client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[Any], Awaitable[None]]
T = TypeVar("T")

SECONDS_TO_SEND: Final = 20.0  # the next piece of a body
LEAST_PACE: Final = 8 * 2**10  # bytes a second, of what comes after the first SECONDS_TO_SEND
TOO_SLOW: Final = "the body stopped arriving, or comes too slowly; send it again"


class BodyTooLargeError(Exception):
    """A request body is above its limit."""


class BodyTooSlowError(Exception):
    """A request body does not arrive; who waits for it would keep its place for ever."""


class ClientGoneError(Exception):
    """The client closed the connection; nobody is left to answer."""


class BusyError(Exception):
    """So much work waits already that more of it is refused."""


class Turns:
    """A bounded queue: some at a time, some more in line, the rest refused.

    Parameters
    ----------
    at_once : int
        How many have their turn at the same time.
    waiting : int
        How many may wait for theirs.
    """

    def __init__(self, at_once: int, waiting: int) -> None:
        self._turns = asyncio.Semaphore(at_once)  # first come, first served
        self._free = at_once + waiting

    def check(self) -> None:
        """Raise BusyError where one more would be refused."""
        if self._free <= 0:
            raise BusyError

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Wait for a turn, and give it back at the end; leave the queue when cancelled."""
        self.check()
        self._free -= 1
        try:
            async with self._turns:
                yield
        finally:
            self._free += 1


async def body_pieces(
    scope: Scope, receive: Receive, limit: int, message: MutableMapping[str, Any] | None = None
) -> AsyncIterator[bytes]:
    """Yield a body as it arrives; `message` is its start where that was received already.

    Raises
    ------
    BodyTooLargeError
        It has, or announces, more than `limit` bytes.
    BodyTooSlowError
        It stopped arriving, or comes at less than `LEAST_PACE`.
    ClientGoneError
        The client left before the end.
    """
    check_declared_length(scope, limit)
    received = 0
    now = asyncio.get_running_loop().time
    start = now()
    while True:
        if message is None:
            try:
                slowest = start + received / LEAST_PACE
                async with asyncio.timeout_at(min(now(), slowest) + SECONDS_TO_SEND):
                    message = await receive()
            except TimeoutError:
                raise BodyTooSlowError from None
        if message["type"] != "http.request":
            raise ClientGoneError
        piece: bytes = message.get("body", b"")
        received += len(piece)
        if received > limit:
            raise BodyTooLargeError
        yield piece
        if not message.get("more_body"):
            return
        message = None


def check_declared_length(scope: Scope, limit: int) -> None:
    """Raise BodyTooLargeError where a request announces a body above the limit."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > limit:
            raise BodyTooLargeError


async def in_thread(function: Callable[[], T], stop: Callable[[], None] | None = None) -> T:
    """Return the result of a function that runs on a thread; when cancelled, wait until the thread is done.

    Parameters
    ----------
    function : callable
    stop : callable, optional
        Called when cancelled, so that the function ends soon.
    """
    running = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        await asyncio.wait({running})
        running.exception()  # seen, so that asyncio does not log it
        raise


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of some work; cancel it and raise ClientGoneError when the client leaves before.

    The request's body must have been read to its end.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_until_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
