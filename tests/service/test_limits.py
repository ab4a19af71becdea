"""What one client sends, or does not send, never keeps the service from answering the others."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from genre_classifier.bundle.format import BundleDetails
from genre_classifier.cli.main import main
from genre_classifier.service import application, requests, server
from genre_classifier.service.endpoints import Endpoints, encode
from genre_classifier.service.model import ModelService
from genre_classifier.service.requests import MAX_ROW_BYTES, MAX_ROWS, WHOLE_BYTES
from genre_classifier.service.server import HEAD_BYTES, LimitedProtocol
from tests.conftest import ROOT
from tests.service.serving import EXPECTED, NAME, ROWS, WAYS, Client, export, served
from tests.service.test_server import BEST, BODIES, Answers, chunked, message

UPGRADE = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    export(folder)
    return folder


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    with served(ModelService(folder, NAME)) as port:
        yield port


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        yield connection


def is_answering(port: int) -> bool:
    with Client(port) as client:
        status, answer = client.ask("POST", "/predict", BODIES[0])
    return (status, answer["predicted_index"]) == (200, BEST[0])


@pytest.mark.parametrize("body", ["counted", "chunked", "closing", "none", "upper case", "websocket"])
def test_a_request_to_go_over_to_another_protocol_is_answered_as_if_it_had_not_asked(
    port: int, body: str
) -> None:
    asking = UPGRADE
    if body == "closing":
        asking = (*UPGRADE, "Connection: close")
    elif body == "websocket":
        asking = (
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: eA==",
        )
    elif body == "upper case":
        asking = tuple(line.upper() for line in UPGRADE)
    head = "".join(f"{line}\r\n" for line in asking).encode()
    request = message(BODIES[1], headers=asking)
    if body == "chunked":
        request = chunked(BODIES[1]).replace(b"Host: x\r\n", b"Host: x\r\n" + head)
    elif body == "none":
        request = b"GET /genres HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n"
    with connected(port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers = Answers(connection)
        cut = len(request) if body == "none" else len(request) - len(BODIES[1]) // 2  # within the body
        for piece in (
            request[:cut],
            request[cut:],
            b"" if body == "closing" else request + message(BODIES[2]),
        ):
            connection.sendall(piece)
        for _ in range(1 if body == "closing" else 2):
            if body == "none":
                assert answers.next()[0] == 200
            else:
                assert answers.best() == BEST[1]
        if body == "closing":
            assert answers.end() == b""
        else:
            assert answers.best() == BEST[2]


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/analyze-audio"])
def test_uvicorns_own_protocol_class_refuses_it_and_closes(folder: Path, path: str) -> None:
    with served(ModelService(folder, NAME), "fastapi") as port:
        with connected(port) as connection:
            connection.sendall(message(BODIES[1], path=path, headers=UPGRADE) + message(BODIES[2]))
            answers = Answers(connection)
            status, headers, content = answers.next()
            assert (status, headers["connection"]) == (400, "close")
            assert "without the header Upgrade" in json.loads(content)["detail"][0]["msg"]
            assert answers.end() == b""
        assert is_answering(port)


def test_a_wrong_body_is_named_where_another_protocol_was_asked_for(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(message(b"{}", headers=UPGRADE) + message(BODIES[2]))
        answers = Answers(connection)
        assert answers.next()[0] == 422
        assert answers.best() == BEST[2]


def test_curl_and_javas_client_are_answered(port: int) -> None:
    curl = ["curl", "-s", "--http2", "--max-time", "20", "-d", BODIES[3].decode()]
    address = f"http://127.0.0.1:{port}/predict"
    try:
        done = subprocess.run([*curl, address, "--next", *curl[1:], address], capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("needs curl")
    if done.returncode == 2:
        pytest.skip("this curl knows no HTTP/2")
    decoder = json.JSONDecoder()
    text = done.stdout.decode()
    first, end = decoder.raw_decode(text)
    assert [first["predicted_index"], decoder.raw_decode(text[end:])[0]["predicted_index"]] == [BEST[3]] * 2


TOO_LONG = {
    "one header": (b"GET /health HTTP/1.1\r\nHost: x\r\nx: ", b"x"),
    "many headers": (b"GET /health HTTP/1.1\r\nHost: x\r\n", b"a: b\r\n"),
    "request line": (b"GET /", b"x"),
    "header name": (b"GET /health HTTP/1.1\r\n", b"x"),
    "trailers": (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"a: b\r\n",
    ),
    "chunk extensions": (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=",
        b"x",
    ),
}


@pytest.mark.parametrize("kind", TOO_LONG)
def test_headers_without_end_are_refused_and_the_connection_is_closed(port: int, kind: str) -> None:
    start, piece = TOO_LONG[kind]
    with connected(port) as connection:
        connection.sendall(start)
        sent = 0
        while sent < 50 * 2**20:
            connection.sendall(piece * (60_000 // len(piece)))
            sent += 60_000
        assert Answers(connection).next()[0] == 431
    assert is_answering(port)


def test_a_complete_head_above_the_limit_is_431_and_below_it_none(port: int) -> None:
    for size, expected in ((HEAD_BYTES - 1000, 200), (HEAD_BYTES + 1, 431)):
        with connected(port) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nx: " + b"x" * size + b"\r\n\r\n")
            assert Answers(connection).next()[0] == expected


def test_what_is_no_http_is_400(port: int) -> None:
    for sent in (
        b"\x00\xff" * 50,
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ):
        with connected(port) as connection:
            connection.sendall(sent)
            status, headers, content = Answers(connection).next()
        assert status == 400, sent
        assert headers["content-type"] == "application/json"
        assert json.loads(content)["detail"][0]["msg"]


HALF_SENT = {
    "nothing": b"",
    "blank lines": b"\r\n",
    "half a head": b"GET /health HTTP/1.1\r\nHo",
    "half a body": b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
    "half a chunk": b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;",
    "half an upload": b"POST /analyze-audio HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\nContent-Disposition: form-data; name=file; ",
    "half a second head": message(BODIES[0]) + b"GET /",
    "half a refused body": b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n{",
}


@pytest.mark.parametrize("kind", HALF_SENT)
def test_a_client_that_does_not_go_on_is_turned_away(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("HEAD_SECONDS", 0.2), ("BODY_SECONDS", 0.2), ("CHECK_SECONDS", 0.05)):
        monkeypatch.setattr(server, name, value)
    with served(ModelService(folder, NAME)) as port, connected(port) as connection:
        connection.sendall(HALF_SENT[kind])
        received = Answers(connection).end()
        assert received.count(b"HTTP/1.1 ") == {"nothing": 0, "blank lines": 0, "half a second head": 2}.get(
            kind, 1
        )
        last = received.rpartition(b"HTTP/1.1 ")[2][:3]
        assert last == {"nothing": b"", "blank lines": b"", "half a refused body": b"413"}.get(kind, b"408")
        assert is_answering(port)


def test_a_client_that_does_not_read_its_answer_is_turned_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "READ_SECONDS", 0.2)
    monkeypatch.setattr(server, "CHECK_SECONDS", 0.05)
    lost = threading.Event()
    connection_lost = LimitedProtocol.connection_lost

    def noted(self: LimitedProtocol, error: Exception | None) -> None:
        connection_lost(self, error)
        lost.set()

    with served(ModelService(folder, NAME)) as port, connected(port) as connection:
        monkeypatch.setattr(LimitedProtocol, "connection_lost", noted)
        large = message(rows_of(5_000, return_probs=True), path="/predict/batch")
        connection.settimeout(None)
        threading.Thread(target=send_all, args=(connection, large * 4), daemon=True).start()
        assert lost.wait(30)
        assert is_answering(port)


def send_all(connection: socket.socket, content: bytes) -> None:
    with suppress(OSError):
        connection.sendall(content)


def test_a_client_that_sends_slowly_but_steadily_is_answered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(server, "BODY_RATE", 10)  # bytes a second: each gives a tenth more
    monkeypatch.setattr(server, "CHECK_SECONDS", 0.05)
    request = message(BODIES[1])
    start = len(request) - len(BODIES[1]) + 100
    with served(ModelService(folder, NAME)) as port, connected(port) as connection, connected(port) as other:
        connection.sendall(request[:start])
        other.sendall(message(BODIES[0])[: 10 - len(BODIES[0])])
        assert Answers(other).next()[0] == 408  # by now the first has also been waiting longer than 0.2 s
        connection.sendall(request[start:])
        assert Answers(connection).best() == BEST[1]


@pytest.mark.parametrize("length", ["Content-Length: 30000000", "Transfer-Encoding: chunked"])
def test_a_client_that_wants_the_connection_closed_gets_its_refusal_all_the_same(
    port: int, length: str
) -> None:
    with connected(port) as connection:
        connection.sendall(
            f"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}\r\n\r\n".encode()
        )
        for _ in range(30):  # a connection that was closed before its end would be reset
            frame = (b"%x\r\n" % 10**6, b"\r\n") if "chunked" in length else (b"", b"")
            connection.sendall(frame[0] + b"x" * 10**6 + frame[1])
        connection.sendall(b"0\r\n\r\n" if "chunked" in length else b"")
        answer = Answers(connection).end()
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"\r\nconnection: close\r\n" in answer
    assert is_answering(port)


def test_idle_and_half_sent_connections_give_way_to_new_ones(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LimitedProtocol, "limit", 20)
    with ExitStack() as stack:
        for number in range(60):
            connection = stack.enter_context(connected(port))
            connection.sendall((b"", HALF_SENT["half a head"], HALF_SENT["half a body"])[number % 3])
        for _ in range(3):
            assert is_answering(port)


def test_a_connection_that_is_being_answered_is_not_given_up(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LimitedProtocol, "limit", 1)
    begun, go_on = threading.Event(), threading.Event()
    answer = Endpoints.answer

    def slowly(*arguments):
        begun.set()
        assert go_on.wait(30)
        return answer(*arguments)

    monkeypatch.setattr(Endpoints, "answer", slowly)
    large = message(BODIES[2].ljust(20_000))
    with connected(port) as connection:
        connection.sendall(large)
        assert begun.wait(30)
        with connected(port) as other:
            status, headers, _ = Answers(other).next()
            assert (status, headers["retry-after"]) == (503, "5")
        go_on.set()
        assert Answers(connection).best() == BEST[2]


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit of descriptors")
def test_an_address_that_cannot_be_had_is_one_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = ["--bundle", str(folder / NAME)]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", *bundle, "--port", str(port)]) == 1
    assert f"error: cannot listen on 127.0.0.1, port {port}; choose others" in capsys.readouterr().err
    for number in (70_000, -5):  # the system would take 70,000 for 4,464
        assert main(["serve", *bundle, "--port", str(number)]) == 1
        assert f"error: port {number}: expected 1 to 65535" in capsys.readouterr().err


def test_the_number_of_connections_stays_below_that_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    for allowed, expected in ((256, 192), (32, 16), (65536, 1000), (resource.RLIM_INFINITY, 1000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, allowed=allowed: (allowed, allowed))
        assert server.most_connections() == expected


def rows_of(n_rows: int, **more: object) -> bytes:
    rows = np.resize(ROWS, (n_rows, ROWS.shape[1])).tolist()
    return json.dumps({"features": rows, **more}).encode()


@pytest.mark.parametrize("way", WAYS)
def test_many_large_batches_at_once_wait_for_each_other(folder: Path, way: str) -> None:
    body = rows_of(2_000, top_k=1)
    assert len(body) > application.MEMORY_BYTES
    found: list[tuple[int, int]] = []

    def ask() -> None:
        with Client(port) as client:
            status, answer = client.ask("POST", "/predict/batch", body)
            found.append((status, len(answer["predictions"])))

    with served(ModelService(folder, NAME), way) as port:
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert is_answering(port)
        for thread in threads:
            thread.join()
    assert found == [(200, 2_000)] * 8


def test_large_bodies_beyond_the_queue_are_refused_before_they_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "LARGE_WAITING", 0)
    begun, go_on = threading.Event(), threading.Event()
    answer = Endpoints.answer

    def slowly(self: Endpoints, endpoint, body):
        if len(body) > 20_000:
            begun.set()
            assert go_on.wait(30)
        return answer(self, endpoint, body)

    monkeypatch.setattr(Endpoints, "answer", slowly)
    large = message(BODIES[2].ljust(30_000))
    with served(ModelService(folder, NAME)) as port, connected(port) as connection:
        connection.sendall(large)
        assert begun.wait(30)
        with connected(port) as other:
            other.sendall(message(BODIES[3].ljust(200_000))[:20_000])  # the rest never comes
            status, headers, content = Answers(other).next()
        assert (status, headers["retry-after"]) == (503, "5")
        assert "too much waits already" in json.loads(content)["detail"][0]["msg"]
        assert is_answering(port)  # small ones do not wait
        go_on.set()
        assert Answers(connection).best() == BEST[2]
        connection.sendall(message(BODIES[4].ljust(20_001)))
        assert Answers(connection).best() == BEST[4]


@pytest.mark.parametrize(
    ("features", "location", "text"),
    [
        ("[1, 2]" + " " * WHOLE_BYTES, ["body", "features", 1], "expected 20 features, found 2"),
        ('["x"]' + " " * WHOLE_BYTES, ["body", "features", 1, 0], "expected a number, found a string"),
        ('{"mfcc_1": true}' + " " * WHOLE_BYTES, ["body", "features", 1, "mfcc_1"], "found a boolean"),
        ("[1e999]" + " " * WHOLE_BYTES, ["body", "features", 1, 0], "expected a finite number, found inf"),
        ("[" + "9" * WHOLE_BYTES + "]", ["body", "features", 1], "out of range"),
        ('{"x\\ud800": 1}' + " " * WHOLE_BYTES, ["body"], "malformed"),
        ("[" + "1," * MAX_ROW_BYTES + "1]", ["body", "features", 1], f"at most {MAX_ROW_BYTES:,} are taken"),
        ("3" + " " * WHOLE_BYTES, ["body", "features", 1], "expected a list of numbers"),
        ("[NaN]" + " " * WHOLE_BYTES, ["body"], "malformed"),
        ("[1]], " + " " * WHOLE_BYTES, ["body"], "malformed"),
    ],
)
def test_in_a_large_body_the_row_is_named(port: int, features: str, location: list, text: str) -> None:
    good = json.dumps(ROWS[0].tolist())
    with Client(port) as client:
        status, answer = client.ask(
            "POST", "/predict/batch", f'{{"features": [{good}, {features}]}}'.encode()
        )
        assert status == 422
        assert answer["detail"][0]["loc"] == location
        assert text in answer["detail"][0]["msg"]


def test_a_large_body_is_answered_as_a_small_one_is(port: int) -> None:
    named = [dict(zip(requests_names(), row, strict=True)) for row in ROWS[:3].tolist()]
    with Client(port) as client:
        for features in (ROWS[:3].tolist(), named):
            body = json.dumps({"features": features, "return_probs": True, "top_k": 2}).encode()
            small = client.ask("POST", "/predict/batch", body)
            assert client.ask("POST", "/predict/batch", body.ljust(WHOLE_BYTES + 1)) == small
            one = json.dumps({"features": features[1]}).encode()
            assert client.ask("POST", "/predict", one.ljust(WHOLE_BYTES + 1)) == client.ask(
                "POST", "/predict", one
            )
        status, answer = client.ask("POST", "/predict/batch", rows_of(MAX_ROWS + 1))
        assert (status, answer["detail"][0]["loc"]) == (422, ["body", "features"])
        assert f"at most {MAX_ROWS}" in answer["detail"][0]["msg"]


def requests_names() -> list[str]:
    from tests.example_models import FEATURES

    return list(FEATURES)


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
@pytest.mark.parametrize(
    "body",
    [
        rb'{"features": [1], "\ud800": 1}',
        rb'{"\udc00\ud800": 1}',
        rb'{"features": {"\ud800": 1}}',
        rb'{"features": {"\ud800": "x"}}',
        rb'{"features": [{"\ud800": "x"}]}',
        rb'{"features": ["\ud800"]}',
        rb'["\ud800"]',
        rb'"\ud83d"',
        b'{"features": {"\xed\xa0\x80": 1}}',
    ],
)
def test_half_a_surrogate_pair_anywhere_is_422(port: int, path: str, body: bytes) -> None:
    with Client(port) as client:
        status, answer = client.ask("POST", path, body)
        assert status == 422
        assert answer["detail"][0]["msg"]
        assert client.ask("GET", "/health")[0] == 200


def test_an_answer_is_json_whatever_names_it_holds() -> None:
    content = {"genres": ["Rock", "\ud800", "a\udc00b"], "\udfff": ("🎵", 1.5, None)}
    assert json.loads(encode(content)) == {"genres": ["Rock", "�", "a�b"], "�": ["🎵", 1.5, None]}


def test_a_long_name_is_not_sent_back_whole(port: int) -> None:
    name = "x" * 10_000
    with Client(port) as client:
        for body in ({name: 1}, {"features": {name: 1}}, {"features": {name: "1"}}):
            status, answer = client.ask("POST", "/predict", body)
            assert status == 422
            assert len(json.dumps(answer)) < 2_000


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("when", ["first", "newer"])
def test_stopping_works_while_a_bundle_is_loaded_without_end(tmp_path: Path, name: str, when: str) -> None:
    export(tmp_path)
    code = f"""
import sys, time
from pathlib import Path
from genre_classifier.service import model
from genre_classifier.service.server import run

load = model.load
def endless(folder, name):
    if (folder / "endless").exists():
        print("loading", flush=True)
        while True:
            time.sleep(3600)
    return load(folder, name)

model.load = endless
model.LOAD_SECONDS = 5 if {when == "newer"} else 1e6
model.WATCH_SECONDS = 0.05
run(model.ModelService(Path(sys.argv[1]), {NAME!r}), "127.0.0.1", 0)
"""
    if when == "first":
        (tmp_path / "endless").touch()
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    ) as process:
        assert process.stdout
        assert process.stderr
        watchdog = threading.Timer(90, process.kill)
        watchdog.start()
        try:
            if when == "newer":
                line = ""
                while "running on" not in line:
                    line = process.stderr.readline()
                    assert line
                port = int(line.partition("http://127.0.0.1:")[2].split()[0])
                threading.Thread(target=process.stderr.read, daemon=True).start()
                (tmp_path / "endless").touch()
                export(tmp_path, 1)
            assert process.stdout.readline() == "loading\n"
            if when == "newer":
                with Client(port) as client:
                    while (problem := client.ask("GET", "/health")[1]["problem"]) is None:
                        pass
                    assert "not loaded within 5 s, given up" in problem
                    assert client.ask("POST", "/predict", BODIES[0])[1]["predicted_index"] == BEST[0]
                    (tmp_path / "endless").unlink()
                    digest = export(tmp_path, 1, details=BundleDetails(split_protocol="another"))
                    while client.ask("GET", "/health")[1]["bundle"] != digest:
                        pass
                    assert client.ask("GET", "/health")[1]["problem"] is None
                    index = client.ask("POST", "/predict", BODIES[0])[1]["predicted_index"]
                    assert index == EXPECTED[1][0].argmax()
            process.send_signal(getattr(signal, name))
            process.wait(30)
        finally:
            watchdog.cancel()
            process.kill()


def test_health_says_whatever_went_wrong_with_a_newer_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genre_classifier.service import model

    digest = export(tmp_path)
    service = ModelService(tmp_path, NAME)
    with served(service) as port, Client(port) as client:
        for error, text in (
            (OverflowError("int too large"), "OverflowError: int too large"),
            (RecursionError("too deep"), "RecursionError: too deep"),
            (MemoryError(), "MemoryError"),
            (SystemExit(3), "loading ended with SystemExit(3)"),
        ):

            def fail(*_: object, error: BaseException = error) -> None:
                raise error

            with monkeypatch.context() as patched:
                patched.setattr(model, "load", fail)
                export(tmp_path, 1)
                service.refresh()
            status, answer = client.ask("GET", "/health")
            assert (status, answer["bundle"]) == (200, digest)
            assert text in answer["problem"]
        with monkeypatch.context() as patched:
            patched.setattr(model, "compute_bundle_fingerprint", lambda *_: 1 / 0)
            service.refresh()
            assert "ZeroDivisionError" in client.ask("GET", "/health")[1]["problem"]
        service.refresh()
        answer = client.ask("GET", "/health")[1]
        assert (answer["problem"], answer["bundle"] == digest) == (None, False)


def test_no_second_look_is_taken_at_a_large_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests.json, "loads", lambda _: pytest.fail("read twice"))
    with pytest.raises(requests.RefusedBodyError) as caught:
        requests.decode_batch(b'{"features": [[1]], "top_k": "x"}' + b" " * WHOLE_BYTES)
    assert caught.value.location == ["body", "top_k"]
    assert caught.value.message == "Expected `int | null`, got `str`"
