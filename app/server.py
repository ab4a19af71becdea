"""uvicorn with a short way for small requests: what ``genre-classifier serve`` runs."""

from __future__ import annotations

import contextlib
import logging
from http import HTTPStatus
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.asgi import LeanApplication
from app.endpoints import INLINE_BYTES, Endpoint, Endpoints
from app.model import ModelService

SECONDS_TO_FINISH: Final = 10  # for requests under way when the service is told to stop

_STATUS_LINES: Final = {
    status: f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode() for status in (200, 422, 500, 503)
}


class DirectProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which answers a small request to a documented path once its last byte is there.

    That takes half of a request's processor time: there is no task, no scope, no event to wait for, and head
    and body leave in one write. Whatever is out of the ordinary goes uvicorn's own way.
    """

    def __init__(self, config: uvicorn.Config, *arguments: Any, **keywords: Any) -> None:
        super().__init__(config, *arguments, **keywords)
        application = config.app
        assert isinstance(application, LeanApplication)
        self._endpoints: Endpoints = application.endpoints
        self._paths = {
            (method.encode(), path.encode()): endpoint
            for (method, path), endpoint in application.endpoints.paths.items()
        }
        self._endpoint: Endpoint | None = None  # of a request that is being received for a direct answer
        self._received = b""
        self._ends = False

    def on_headers_complete(self) -> None:
        """Decide which way the request goes."""
        endpoint = self._paths.get((self.parser.get_method(), self.url))
        if endpoint is None or not self._is_ordinary():
            super().on_headers_complete()
            return
        self._endpoint = endpoint
        self._received = b""

    def _is_ordinary(self) -> bool:
        if self.cycle is not None and not self.cycle.response_complete:
            return False  # an earlier request of the same connection is still being answered
        parser = self.parser
        if not parser.should_keep_alive() or parser.should_upgrade() or parser.get_http_version() != "1.1":
            return False
        if self.expect_100_continue or self.flow.write_paused or self.access_log or self.limit_concurrency:
            return False
        for name, value in self.headers:
            if name == b"transfer-encoding" or (name == b"content-length" and int(value) > INLINE_BYTES):
                return False
        return True

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        if self._endpoint is None:
            super().on_body(body)
        else:
            self._received = self._received + body if self._received else body

    def on_message_complete(self) -> None:
        """Answer."""
        if self._endpoint is None:
            super().on_message_complete()
            return
        status, content = self._endpoints.answer(self._endpoint, self._received)
        self._endpoint = None
        parts = [_STATUS_LINES[status]]
        for name, value in self.server_state.default_headers:
            parts += (name, b": ", value, b"\r\n")
        parts.append(b"content-type: application/json\r\ncontent-length: %d\r\n" % len(content))
        parts.append(b"connection: close\r\n\r\n" if self._ends else b"\r\n")
        parts.append(content)
        self.transport.write(b"".join(parts))
        if self._ends:
            self.transport.close()
        self.on_response_complete()

    def shutdown(self) -> None:
        """Close the connection, after the answer where one is due."""
        if self._endpoint is None:
            super().shutdown()
        else:
            self._ends = True


def configuration(service: ModelService, host: str, port: int) -> uvicorn.Config:
    """Return uvicorn's settings for a service."""
    return uvicorn.Config(
        LeanApplication(service),
        host=host,
        port=port,
        http=DirectProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=SECONDS_TO_FINISH,
    )


def run(service: ModelService, host: str, port: int) -> None:
    """Answer requests until interrupted; where the port cannot be had, log that and exit."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s:     %(message)s")  # as uvicorn's own lines
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(configuration(service, host, port)).run()
