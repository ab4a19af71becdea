"""uvicorn as ``genre-classifier serve`` runs it: with limits on what a connection may send, and for how long.

uvicorn has no such settings for its fast parser (httptools). The same limits under uvicorn's own command:
``uvicorn app.main:app --ws none --http genre_classifier.service.server:LimitedProtocol``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, Literal

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from genre_classifier.errors import ServiceError
from genre_classifier.service.application import GenreService
from genre_classifier.service.model import ModelService
from genre_classifier.terminal import say

SECONDS_TO_FINISH: Final = 10  # for requests under way when the service is told to stop
HEAD_BYTES: Final = 64 * 2**10  # request line and headers
HEAD_SECONDS: Final = 15.0  # from the connection, or the answer before, to the end of the next headers
BODY_SECONDS: Final = 20.0  # for a body, and one more for every BODY_RATE bytes that have arrived
BODY_RATE: Final = 64 * 2**10
READ_SECONDS: Final = 60.0  # for reading an answer
CHECK_SECONDS: Final = 1.0
FRAMING: Final = 8  # bytes that chunked framing may take per byte of a body
TOO_LONG: Final = f"request line and headers take more than {HEAD_BYTES:,} bytes"
LAST_PORT: Final = 65535
LINGER_SECONDS: Final = 2.0  # from a refusal to the end of the connection


def most_connections() -> int:
    """Return how many connections may be open: fewer than the process may have descriptors."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 500
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1000 if allowed == resource.RLIM_INFINITY else max(16, min(1000, allowed - 64))


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol; a client that takes too long, sends too much or holds too much is turned away.

    A request to go over to another protocol (``Upgrade: h2c``) is answered as if it had not asked.
    """

    limit = most_connections()

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.parser = _OrdinaryParser(self)
        self.ws_protocol_class = None
        self._phase: Literal["head", "body", "end"] = "end"  # of the request that is being received
        self._piece = 0  # bytes received last
        self._raw = 0  # bytes received since the message began
        self._received = 0  # bytes of its body
        self._since = self.loop.time()  # when the client was last known to owe something
        self._refused = False
        self._is_replayed = False  # the parser is reading a head that _OrdinaryParser made
        self._closes = False  # as soon as the body has arrived
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; where there are too many, in exchange for one that waits for its client."""
        super().connection_made(transport)
        if len(self.connections) > self.limit and not self._make_room():
            self._refuse(503, "too many connections; try again later")
            return
        self._timer = self.loop.call_later(CHECK_SECONDS, self._check)

    def _make_room(self) -> bool:
        others = [other for other in self.connections if other is not self and isinstance(other, type(self))]
        for owing in ("head", "body"):
            waiting = [other for other in others if other._owed == owing]
            if waiting:
                min(waiting, key=lambda other: other._since).transport.abort()
                return True
        return False

    @property
    def _owed(self) -> Literal["head", "body"] | None:
        """What the client has to send before anything goes on; None while the service works."""
        if self._phase == "body":
            return "body"
        return "head" if self.cycle is None or self.cycle.response_complete else None

    def _check(self) -> None:
        """Turn away a client that takes too long; look again in a second."""
        now, owed = self.loop.time(), self._owed
        if self.transport.is_closing() or self.flow.write_paused:
            owed = None
            if now - self._since > READ_SECONDS:  # it does not read its answer
                self.transport.abort()
                return
        if owed == "body" and self.flow.read_paused:
            self._since = now  # the service does not read
        allowed = HEAD_SECONDS if owed == "head" else BODY_SECONDS + self._received / BODY_RATE
        if owed is not None and now - self._since > allowed:
            self._refuse(408, "the request took too long to arrive")
            return
        self._timer = self.loop.call_later(CHECK_SECONDS, self._check)

    def _refuse(self, status: int, message: str) -> None:
        """Answer, where an answer is due and none has begun, and close."""
        self._refused = True
        if self._phase == "body":
            is_due = not self.cycle.response_started and not self.pipeline
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        else:
            is_due = self._owed == "head" and (self._phase == "head" or status == 503)
        if not is_due or self.transport.is_closing():
            self.transport.close()
            return
        content = json.dumps({"detail": [{"loc": [], "msg": message}], "bundle": None}).encode()
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        head += "retry-after: 5\r\n" if status == 503 else ""
        head += f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode() + content)
        # To close while the client still sends would take the answer from it: it gets time to read.
        self.flow.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        """Take what the client sent, as long as it is not too much beside the body."""
        if self._refused:
            return
        self._piece = len(data)
        self._raw += self._piece
        super().data_received(data)
        if self._phase != "end" and self._raw > HEAD_BYTES + FRAMING * self._received and not self._refused:
            self._refuse(431, TOO_LONG)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or was refused while it was parsed."""
        if not self._refused:
            self._refuse(400, msg)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def feed_framing(self, parse: Callable[[bytes], None]) -> None:
        """Parse a head that holds nothing but how the body of the present request ends."""
        framing = [
            name + b": " + value + b"\r\n"
            for name, value in self.scope["headers"]
            if name in (b"content-length", b"transfer-encoding")
        ]
        if not self.cycle.keep_alive:
            framing.append(b"connection: close\r\n")
        self._is_replayed = True
        try:
            parse(b"POST / HTTP/1.1\r\n" + b"".join(framing) + b"\r\n")
        finally:
            self._is_replayed = False

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self._is_replayed:
            return
        self._phase = "head"
        self._raw = self._received = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Start the request, unless its head is too long."""
        if self._is_replayed:
            return
        if self._piece + self._raw > HEAD_BYTES and self._head_size() > HEAD_BYTES:
            self._refuse(431, TOO_LONG)
            raise _TooLargeError
        if self.parser.should_upgrade():  # the application sees an ordinary request
            self.headers[:] = [(name, value) for name, value in self.headers if name != b"upgrade"]
        super().on_headers_complete()
        self.cycle.transport = _PatientTransport(self)
        self.headers = []  # takes trailers, which nobody reads
        self._phase = "body"
        self._since = self.loop.time()

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._received += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request."""
        if self.parser.should_upgrade() and not self._is_replayed:
            return  # its body is still to come
        self._phase = "end"
        self._since = self.loop.time()
        super().on_message_complete()
        if self._closes:
            self.transport.close()

    def close_after_body(self) -> None:
        """Close the connection when the body has arrived. The rest of the body is not kept."""
        self._closes = self._phase == "body"
        if not self._closes:
            self.transport.close()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        if self._phase == "end":
            self._since = self.loop.time()
        super().on_response_complete()


class _PatientTransport(asyncio.Transport):
    """What a request's answer is written to: its close waits for the end of the request's body.

    A client that sends ``Connection: close`` and gets its answer early, such as 413, still sends its body. To close
    then would reset the connection and take the answer from it.
    """

    def __init__(self, protocol: LimitedProtocol) -> None:
        super().__init__()
        self._protocol = protocol

    def write(self, data: Any) -> None:
        """Send bytes."""
        self._protocol.transport.write(data)

    def is_closing(self) -> bool:
        """Return whether the connection is closed or about to be."""
        return self._protocol.transport.is_closing()

    def close(self) -> None:
        """Close the connection, now or when the body has arrived."""
        self._protocol.close_after_body()


class _TooLargeError(Exception):
    """Ends the parsing of a head."""


class _OrdinaryParser(httptools.HttpRequestParser):
    """httptools' parser, which after a head with ``Upgrade`` goes on with the request's body.

    llhttp takes what follows such a head for another protocol. A head with nothing but the body's length, which the
    protocol does not see, makes it a body again.
    """

    def __init__(self, protocol: LimitedProtocol) -> None:
        super().__init__(protocol)
        self._protocol = protocol
        with contextlib.suppress(AttributeError):  # as uvicorn does, where httptools can
            self.set_dangerous_leniencies(lenient_data_after_close=True)

    def feed_data(self, data: Any) -> None:
        """Parse the next bytes."""
        rest, parse = memoryview(data), super().feed_data
        while True:
            try:
                parse(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
                if not self._protocol.parser.should_keep_alive():  # it would pass over the body
                    self._protocol.parser = _OrdinaryParser(self._protocol)
                    parse = self._protocol.parser.feed_data
                self._protocol.feed_framing(parse)


def uvicorn_config(service: ModelService, host: str, port: int) -> uvicorn.Config:
    """Return uvicorn's settings for a service."""
    return uvicorn.Config(
        GenreService(service),
        host=host,
        port=port,
        http=LimitedProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=SECONDS_TO_FINISH,
    )


class Server(uvicorn.Server):
    """uvicorn's server; when it is ready it prints the address to open."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        try:
            await super().startup(sockets)
        except SystemExit:  # uvicorn has logged why
            config = self.config
            raise ServiceError(
                f"cannot listen on {config.host}, port {config.port}; choose others with --host and --port"
            ) from None
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
            say(f"open http://{f'[{host}]' if ':' in host else host}:{port}/ in a browser", error=True)


def run(service: ModelService, host: str, port: int) -> None:
    """Answer requests until interrupted.

    Raises
    ------
    ServiceError
        The address or port is taken, unknown or out of range.
    """
    if not 0 <= port <= LAST_PORT:
        raise ServiceError(f"port {port}: expected 1 to {LAST_PORT}, or 0 for any free port")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s:     %(message)s")  # as uvicorn's own lines
    service.refresh()  # before uvicorn takes the signals, so that they end a load that does not
    with contextlib.suppress(KeyboardInterrupt):
        Server(uvicorn_config(service, host, port)).run()
    if any(thread.is_alive() for thread in service.given_up):
        logging.shutdown()
        os._exit(0)  # the end of Python would wait for a library that computes
