"""The service as a FastAPI application.

    uvicorn app.main:app              # or, ready sooner and faster: genre-classifier serve

FastAPI documents the interface and answers whatever is not one of its paths. The documented paths themselves
are answered in the event loop before FastAPI's own layers: a prediction takes microseconds, and a thread pool
or a second validation would take a hundred times that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from app.asgi import ClientGoneError, Receive, Scope, Send, answer, respond, running
from app.audio import add_audio_route
from app.documentation import OPERATIONS
from app.endpoints import Answer, Endpoint, Endpoints
from app.model import ModelService, model_service
from genre_classifier import __version__


class GenreService(FastAPI):
    """The FastAPI application, with the documented paths answered first.

    Parameters
    ----------
    service : ModelService
        Says which bundle is served; started and stopped with the application.
    """

    def __init__(self, service: ModelService) -> None:
        super().__init__(
            title="Genre classifier",
            version=__version__,
            description="Genres from audio features. Every answer names the bundle that gave it.",
            lifespan=lambda _: running(service),
        )
        self.endpoints = Endpoints(service)
        for (method, path), endpoint in self.endpoints.paths.items():
            self.add_api_route(
                path,
                self._through_fastapi(endpoint),
                methods=[method],
                response_model=None,
                **OPERATIONS[method, path],
            )
        add_audio_route(self, service)
        self.add_exception_handler(HTTPException, self._unknown_path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the documented paths; hand everything else to FastAPI."""
        if not await respond(self.endpoints, scope, receive, send):
            await super().__call__(scope, receive, send)

    def _through_fastapi(self, endpoint: Endpoint) -> Callable:
        """Return FastAPI's form of an endpoint, reached where the service is mounted under a longer path."""

        async def respond_to(request: Request) -> Response:
            try:
                return _response(await answer(self.endpoints, endpoint, request.scope, request.receive))
            except ClientGoneError:
                return Response(status_code=400)

        return respond_to

    async def _unknown_path(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            return _response(self.endpoints.refuse(500, [], "internal error"))
        return _response(self.endpoints.refuse(error.status_code, [], error.detail), error.headers)


def _response(answered: Answer, headers: Any = None) -> Response:
    status, content = answered
    return Response(content, status, headers, media_type="application/json")


app = GenreService(model_service)
