"""Whatever a client does with its connection, the service answers, under its own command and under uvicorn's."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvicorn

from genre_classifier.service.endpoints import INLINE_BYTES
from genre_classifier.service.model import ModelService
from genre_classifier.service.server import LimitedProtocol, Server, uvicorn_config
from tests.conftest import ROOT
from tests.example_models import GENRES
from tests.service.serving import EXPECTED, NAME, ROWS, WAYS, Client, export, served, serving

BODIES = [json.dumps({"features": row}).encode() for row in ROWS[:8].tolist()]
BEST = EXPECTED[0].argmax(1).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    export(folder)
    return folder


@pytest.fixture(scope="module", params=WAYS)
def port(folder, request) -> Iterator[int]:
    with served(ModelService(folder, NAME), request.param) as port:
        yield port


def message(
    body: bytes, *, path: str = "/predict", version: str = "1.1", headers: tuple[str, ...] = ()
) -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(body: bytes) -> bytes:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    half = len(body) // 2
    return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:], b""))


class Answers:
    """Reads one answer after another from a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = b""

    def receive(self) -> None:
        piece = self.connection.recv(65536)
        assert piece, self.received
        self.received += piece

    def until(self, mark: bytes) -> bytes:
        """Return what comes up to a mark, and leave the mark out."""
        while mark not in self.received:
            self.receive()
        found, _, self.received = self.received.partition(mark)
        return found

    def next(self) -> tuple[int, dict[str, str], bytes]:
        first, *lines = self.until(b"\r\n\r\n").decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(self.received) < length:
            self.receive()
        content, self.received = self.received[:length], self.received[length:]
        return int(first.split()[1]), headers, content

    def end(self) -> bytes:
        """Return what comes before the connection is closed."""
        while piece := self.connection.recv(65536):
            self.received += piece
        return self.received

    def best(self) -> int:
        status, _, content = self.next()
        assert status == 200, content
        return json.loads(content)["predicted_index"]


def test_pipelined_requests_are_answered_in_order(port):
    unknown = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
    large = message(BODIES[3] + b" " * INLINE_BYTES)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(
            message(BODIES[0]) + chunked(BODIES[1]) + message(BODIES[2]) + unknown + large
            + message(b"{") + message(BODIES[4])
        )  # fmt: skip
        answers = Answers(connection)
        assert [answers.best() for _ in range(3)] == BEST[:3]
        assert answers.next()[0] == 404
        assert answers.best() == BEST[3]
        assert answers.next()[0] == 422
        assert answers.best() == BEST[4]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_address_to_open_is_printed(host, folder, capsys):
    config = uvicorn_config(ModelService(folder, NAME), host, 0)
    server = Server(config)

    async def start() -> int:
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        port = server.servers[0].sockets[0].getsockname()[1]
        await server.shutdown()
        return port

    port = asyncio.run(start())
    assert f"open http://127.0.0.1:{port}/ in a browser\n" in capsys.readouterr().err


def test_a_request_may_arrive_in_any_pieces(port):
    sent = message(BODIES[0])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers = Answers(connection)
        for cut in range(1, len(sent), 7):
            connection.sendall(sent[:cut])
            connection.sendall(sent[cut : cut + 40])
            connection.sendall(sent[cut + 40 :])
            assert answers.best() == BEST[0]


@pytest.mark.parametrize("size", [INLINE_BYTES - 1, INLINE_BYTES, INLINE_BYTES + 1, 200_000])
def test_the_size_of_a_body_changes_nothing_about_the_answer(port, size):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(message(BODIES[5].ljust(size)) + message(BODIES[6]))
        answers = Answers(connection)
        assert [answers.best(), answers.best()] == BEST[5:7]


def test_a_client_that_wants_the_connection_closed_finds_it_closed(port):
    for request in (
        message(BODIES[0], headers=("Connection: close",)),
        message(BODIES[0], version="1.0"),
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(request)
            answers = Answers(connection)
            status, headers, content = answers.next()
            assert (status, json.loads(content)["predicted_index"]) == (200, BEST[0])
            assert headers.get("connection", "close") == "close"  # older versions of uvicorn do not say so
            assert answers.end() == b""


def test_a_client_that_waits_for_100_continue_is_told_to_go_on(port):
    request = message(BODIES[0], headers=("Expect: 100-continue",))
    head, body = request[: -len(BODIES[0])], BODIES[0]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head)
        answers = Answers(connection)
        assert answers.next()[0] == 100
        connection.sendall(body)
        assert answers.best() == BEST[0]


def test_a_query_changes_nothing_and_head_is_no_get(port):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(message(BODIES[0], path="/predict?x=1"))
        assert Answers(connection).best() == BEST[0]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"HEAD /genres HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 405")


def test_an_answer_names_its_type_length_and_date(port):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"GET /genres HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers, content = Answers(connection).next()
    assert (status, json.loads(content)["genres"]) == (200, GENRES)
    assert headers["content-type"] == "application/json"
    assert int(headers["content-length"]) == len(content)


@pytest.mark.parametrize("way", WAYS)
def test_a_request_under_way_is_answered_before_the_service_ends(folder, way):
    request = message(BODIES[0])
    with serving(ModelService(folder, NAME), way) as (port, server), ExitStack() as stack:
        halfway, idle = (
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(2)
        )
        for connection in (halfway, idle):  # both are known to the server
            connection.sendall(message(BODIES[1]))
        answers = [Answers(connection) for connection in (halfway, idle)]
        assert [answer.best() for answer in answers] == [BEST[1]] * 2
        halfway.sendall(request[:-10])
        with Client(port) as client:  # by now the server has seen what was sent before
            assert client.ask("GET", "/health")[0] == 200
        server.should_exit = True
        assert answers[1].end() == b""  # the idle one is closed
        halfway.sendall(request[-10:])
        status, headers, content = answers[0].next()
        assert (status, json.loads(content)["predicted_index"]) == (200, BEST[0])
        assert headers.get("connection", "close") == "close"
        assert answers[0].end() == b""


class SlowTransport(asyncio.Transport):
    """Keeps what is written; its protocol is told when to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_reading = True

    def write(self, data) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


def test_a_client_that_does_not_read_is_not_answered_without_end(folder):
    async def scenario() -> None:
        config = uvicorn_config(ModelService(folder, NAME), "127.0.0.1", 0)
        config.load()
        config.app.endpoints.service.refresh()
        transport = SlowTransport()
        protocol = LimitedProtocol(config, uvicorn.server.ServerState(), {})
        protocol.connection_made(transport)
        protocol.data_received(message(BODIES[0]))
        while not transport.written.count(b"HTTP/1.1 200"):
            await asyncio.sleep(0)
        protocol.pause_writing()
        for _ in range(2):
            protocol.data_received(message(BODIES[1]))
            for _ in range(20):  # turns of the event loop, in which an answer could be written
                await asyncio.sleep(0)
        n_written, was_reading = transport.written.count(b"HTTP/1.1 200"), transport.is_reading
        protocol.resume_writing()
        while transport.written.count(b"HTTP/1.1 200") < 3:
            await asyncio.sleep(0)
        assert (n_written, was_reading, transport.is_reading) == (1, False, True)
        protocol.connection_lost(None)

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_the_command_serves_until_it_is_interrupted(folder):
    command = [
        sys.executable,
        "-m",
        "genre_classifier.cli.main",
        "serve",
        "--bundle",
        str(folder / NAME),
        "--port",
        "0",
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr
        try:
            log = []
            while "running on" not in "".join(log[-1:]):
                log.append(process.stderr.readline())
                assert log[-1], log
            port = int(log[-1].partition("http://127.0.0.1:")[2].split()[0])
            with Client(port) as client:
                status, answer = client.ask("POST", "/predict", BODIES[0])
                assert (status, answer["predicted_index"]) == (200, BEST[0])
            assert any(f"bundle {answer['bundle'][:12]}, with numpy" in line for line in log)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()
