"""A service on loopback for tests, started in each of the ways it can be, and a client for it."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from genre_classifier.bundle.format import BundleDetails, read_bundle
from genre_classifier.bundle.writing import write_bundle
from genre_classifier.service.application import GenreService
from genre_classifier.service.model import ModelService
from genre_classifier.service.server import uvicorn_config
from tests.example_models import (
    FEATURES,
    GENRES,
    METRICS,
    make_model,
    make_rows,
    make_scaler,
    reference_probabilities,
)

NAME = "genre_classifier_production"
ROWS = make_rows()
SCALER = make_scaler(ROWS)
MODELS = [make_model(seed=seed) for seed in range(2)]
EXPECTED = [reference_probabilities(model, SCALER, ROWS) for model in MODELS]
DETAILS = BundleDetails(feature_names=FEATURES, split_protocol="grouped by artist")


def export(folder: Path, number: int = 0, **options) -> str:
    content = {"model": MODELS[number], "scaler": SCALER, "genre_names": GENRES, "metrics": METRICS}
    write_bundle(**(content | {"folder": folder, "details": DETAILS} | options))
    return read_bundle(folder).digest


WAYS = ("serve", "fastapi")  # by `genre-classifier serve`, and as a FastAPI application under plain uvicorn


@contextmanager
def served(service: ModelService, way: str = "serve") -> Iterator[int]:
    """Serve on a free port of the loopback interface; yield the port."""
    with serving(service, way) as (port, _):
        yield port


@contextmanager
def serving(service: ModelService, way: str) -> Iterator[tuple[int, uvicorn.Server]]:
    """Serve on a free port of the loopback interface; yield the port and the server."""
    if way == "serve":
        config = uvicorn_config(service, "127.0.0.1", 0)
    else:
        config = uvicorn.Config(GenreService(service), access_log=False)
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    server = uvicorn.Server(config)
    started = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    startup = server.startup

    async def announce(*arguments, **keywords):
        await startup(*arguments, **keywords)
        started.set()

    server.startup = announce
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert started.wait(30)
        yield listener.getsockname()[1], server
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


class Client:
    """One connection, kept alive."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def ask(self, method: str, path: str, body=None, headers=None) -> tuple[int, dict]:
        encoded = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        self.connection.request(method, path, encoded, headers or {})
        response = self.connection.getresponse()
        content = response.read()
        assert response.headers["content-type"] == "application/json"
        return response.status, json.loads(content)
