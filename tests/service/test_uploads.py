"""Every form gets a documented status; songs wait on disk, in a bounded queue, only while someone waits."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("soundfile", reason="needs the extra audio")

from genre_classifier.features.cache import Measured
from genre_classifier.features.decoding.apart import Limits, measure_apart
from genre_classifier.features.decoding.audio import SUFFIXES, Excerpt
from genre_classifier.features.measure import measure_file
from genre_classifier.features.sets import CORE20
from genre_classifier.service import audio, bodies, upload
from genre_classifier.service.bodies import (
    BodyTooSlowError,
    BusyError,
    ClientGoneError,
    Turns,
    body_pieces,
    in_thread,
    while_connected,
)
from genre_classifier.service.model import ModelService
from genre_classifier.service.upload import MAX_PARTS, RefusedAudioError, Upload, form_field
from tests.conftest import ROOT
from tests.features.sounds import FORMATS, music, write
from tests.service.serving import DETAILS, NAME, Client, export, served
from tests.service.test_server import Answers

B = "----boundary7MA4YWxkTrZu0gW"
TYPE = f"multipart/form-data; boundary={B}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    details = type(DETAILS)(feature_names=DETAILS.feature_names, feature_set=CORE20.build_reference(2.0))
    export(folder, details=details)
    return folder


def form(disposition: str | bytes, content: bytes = b"x" * 100) -> bytes:
    raw = disposition.encode() if isinstance(disposition, str) else disposition
    head = f"--{B}\r\nContent-Disposition: ".encode() + raw
    return head + b"\r\nContent-Type: audio/mpeg\r\n\r\n" + content + f"\r\n--{B}--\r\n".encode()


def request(body: bytes, declared: int | None = None, content_type: str = TYPE) -> bytes:
    length = len(body) if declared is None else declared
    head = (
        f"POST /analyze-audio HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nContent-Type: {content_type}"
    )
    return f"{head}\r\n\r\n".encode() + body


SONG = "Söng 🎵.mp3"
CODED = "S%C3%B6ng%20%F0%9F%8E%B5.mp3"


@pytest.mark.parametrize(
    ("disposition", "filename"),
    [
        ('form-data; name="file"; filename="a.mp3"', "a.mp3"),
        ("form-data; name=file; filename=a.mp3", "a.mp3"),
        (f'form-data; name="file"; filename="{SONG}"', SONG),  # browsers, curl, urllib3 2
        (f"form-data; name=\"file\"; filename*=utf-8''{CODED}", SONG),  # urllib3 1
        (f"form-data; name=file; filename=\"=?utf-8?B?U8O2bmc=?=\"; filename*=utf-8''{CODED}", SONG),  # .NET
        (f"form-data; name=file; filename*=UTF-8''{CODED}; filename=x.mp3", SONG),
        (f"form-data; name=file; filename*=\"utf-8''{CODED}\"", SONG),
        (f"form-data; name=file; filename*=utf-8'en'{CODED}", SONG),
        (f"form-data; name=file ; FILENAME* = utf-8''{CODED} ", SONG),
        ("form-data; name=file; filename*=iso-8859-1''S%F6ng.mp3", "Söng.mp3"),
        ("form-data; name=file; filename*=klingon''a.mp3", "a.mp3"),
        ("form-data; name=file; filename*=utf-8''S%C3.mp3", "S�.mp3"),
        ("form-data; name=file; filename*=a.mp3", "a.mp3"),
        (
            "form-data; name=file; filename*0*=utf-8''S%C3%B6; filename*1=\"ng.m\"; filename*2*=p%33",
            "Söng.mp3",
        ),
        ("form-data; name=file; filename*1=b.mp3; filename*0=a", "ab.mp3"),
        (
            "form-data; name=file; filename=\"a; filename*=utf-8''b.wav;.mp3\"",
            "a; filename*=utf-8''b.wav;.mp3",
        ),
        ('form-data; name=file; filename="a \\"b\\".mp3"', 'a "b".mp3'),
        ('form-data; name=file; filename="a.mp3"; filename*0000=b', "a.mp3"),
        ('form-data; name="file"', None),
        ("form-data", None),
        ("", None),
    ],
)
def test_a_file_name_is_read_as_clients_write_it(disposition: str, filename: str | None) -> None:
    found = form_field(disposition.encode())
    assert found[1] == filename
    if "name" in disposition:
        assert found[0] == "file"


def refusal(body: bytes, content_type: str = TYPE, size: int = 1 << 16) -> RefusedAudioError | None:
    """Give a form to the reader in pieces; return why it was refused."""
    try:
        with Upload(content_type, SUFFIXES) as reader:
            for start in range(0, len(body), size):
                reader.write(body[start : start + size])
            reader.finish()
    except RefusedAudioError as error:
        return error
    return None


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_a_form_may_arrive_in_any_pieces(size: int) -> None:
    content = b"\r\n--" + B.encode()[:-1] + b"\r\n\r\n" + bytes(range(256)) + b"\r\n"
    with Upload(TYPE, SUFFIXES) as reader:
        body = form('form-data; name="top_k"', b"3").replace(b"--\r\n", b"\r\n", 1)[: -len(f"{B}--\r\n") - 4]
        body = f'--{B}\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n3\r\n'.encode()
        body += form('form-data; name="file"; filename="C:\\Music\\a.MP3"', content)
        for start in range(0, len(body), size):
            reader.write(body[start : start + size])
        reader.finish()
        assert (reader.name, reader.path.suffix, reader.path.read_bytes()) == ("a.MP3", ".mp3", content)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (form('form-data; x="' + ";" * 2**20), 400, "cannot be read"),
        (form("form-data; name=file; filename=a.mp3;" + ";" * 3500), None, ""),
        (form('form-data; name=file; filename="a.mp3"; x="' + ";" * 3500), None, ""),
        (form('form-data; name=file; filename="' + '\\";' * 1300), 422, "no suffix"),
        (form("form-data; name=file; filename*" + "0" * 5000 + "=a.mp3"), 400, "cannot be read"),
        (form("form-data; name=file; filename*" + "9" * 4000 + "=a.mp3"), 400, "no file in the field"),
        (form("form-data; name=file; filename*" + "9" * 4000 + "=a.mp3; filename=a.mp3"), None, ""),
        (form("form-data; name=file; filename*0=a; filename*=utf-8''b; filename=c.mp3"), 422, "no suffix"),
        (form(b"form-data; name=file; filename=\xff\xfe.mp3"), None, ""),
        (form("form-data; name=file; filename*=utf-8''%ED%A0%80.mp3"), None, ""),
        (form("form-data; name=file; filename=a\x00.mp3"), None, ""),
        (form("form-data; name=file; filename=../../a.mp3"), None, ""),
        (form("form-data; name=file; filename=.."), 422, "no suffix"),
        (form('form-data; name=file; filename=""'), 422, "no suffix"),
        (form("form-data; name=file; filename=a.zip"), 422, ".zip is none of"),
        (form("form-data; name=file; filename=a.mp3", b""), 422, "empty"),
        (f"--{B}\r\n".encode() + b"a: b\r\n" * 20 + form("x"), 400, "cannot be read"),
        ((f"--{B}\r\n\r\n\r\n" * (MAX_PARTS + 1)).encode(), 400, f"more than {MAX_PARTS} fields"),
        (f"--{B}\r\n\r\n".encode() + b"x" * 100_000, 413, "beside the file"),
        (form("form-data; name=file; filename=a.mp3") + b" " * 100_000, 413, "beside the file"),
        (f"--{B}\r\nContent-Disposition: form-data; name=file; filename=a.mp3\r\n\r\nxx\r\n--{B}".encode()
         + b" " * 100_000, 413, "beside the file"),
        (b"\r\n" * 100_000, 413, "beside the file"),
        (form("form-data; name=audio; filename=a.mp3", b"x" * 100_000), 413, "must have it in the field 'file'"),
        (b"", 400, "no file in the field"),
        (b"--", 400, "no file in the field"),
    ],
    ids=range(25),
)  # fmt: skip
@pytest.mark.parametrize("size", [100, 1 << 16])
def test_every_form_is_taken_or_refused_for_what_it_is(
    body: bytes, status: int | None, text: str, size: int
) -> None:
    found = refusal(body, size=size)
    assert (found and found.status) == status
    assert text in str(found)


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 300,
        'multipart/form-data; boundary="' + ";" * 900,
        'multipart/form-data; boundary="' + ";" * 2**20,
        "multipart/form-data; boundary*=utf-8''x; boundary*0" + "9" * 900 + "=y",
        "multipart/mixed; boundary=x",
        "\x00\xff",
        "",
    ],
)
def test_every_content_type_is_taken_or_refused_for_what_it_is(content_type: str) -> None:
    found = refusal(b"--x--", content_type)
    assert found is not None
    assert found.status == 400


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(upload.tempfile.SpooledTemporaryFile):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(upload, "_open_for_this_process", lambda path: Full())
    found = refusal(form("form-data; name=file; filename=a.mp3"))
    assert found is not None
    assert (found.status, str(found)) == (503, "the file could not be stored: No space left on device")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_song_is_measured_as_the_file_it_was(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{suffix}", music(3.0, 44_100, channels=2), 44_100)
    windows = Excerpt(duration=None, window=1.0)
    expected = measure_file(path, "core20", windows)
    with Upload(TYPE, SUFFIXES) as reader:
        reader.write(form(f"form-data; name=file; filename={path.name}", path.read_bytes()))
        reader.finish()
        measured = measure_apart(reader.path, "core20", windows, Limits())
    np.testing.assert_allclose(measured.features, expected.features, rtol=1e-4, atol=1e-4)
    assert measured.seconds == expected.seconds


@pytest.mark.skipif(sys.platform != "linux", reason="needs files without a name")
def test_a_song_does_not_outlive_a_killed_service(tmp_path: Path) -> None:
    code = f"""
import os, signal
from genre_classifier.service.upload import Upload
with Upload({TYPE!r}, (".mp3",)) as reader:
    reader.write({form("form-data; name=file; filename=a.mp3", b"the song" * 1000)!r})
    reader.finish()
    assert reader.path.read_bytes() == b"the song" * 1000
    os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    left = [path for path in tmp_path.rglob("*") if path.is_file() or (path.is_symlink() and path.exists())]
    assert left == []


def test_turns_are_taken_in_order_and_the_line_is_bounded() -> None:
    async def scenario() -> list[object]:
        turns, done, go_on = Turns(at_once=2, waiting=2), [], asyncio.Event()

        async def work(number: int) -> None:
            try:
                async with turns.taken():
                    await go_on.wait()
                    done.append(number)
            except BusyError:
                done.append(f"{number} refused")

        tasks = [asyncio.create_task(work(number)) for number in range(5)]
        await asyncio.sleep(0)
        tasks[2].cancel()  # leaves the line, and makes room
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(work(5)))
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        turns.check()
        return done

    assert asyncio.run(scenario()) == ["4 refused", 0, 1, 3, 5]


def test_work_is_given_up_when_the_client_leaves_and_its_thread_ends_first() -> None:
    started, stopped, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        assert stopped.wait(30)
        ended.set()

    async def receive() -> dict[str, str]:
        await asyncio.to_thread(started.wait)
        return {"type": "http.disconnect"}

    async def scenario() -> None:
        with pytest.raises(ClientGoneError):
            await while_connected(receive, in_thread(work, stop=stopped.set))
        assert ended.is_set()

    asyncio.run(scenario())


class Analyses:
    """Stands for measuring: begins, and goes on until it is told to, or given up."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.given_up = threading.Semaphore(0)
        self.paths: list[Path] = []

    def __call__(self, path: Path, *_: object, given_up) -> Measured:
        self.paths.append(path)
        self.begun.release()
        while not self.go_on.acquire(timeout=0.02):
            if given_up.poll():
                self.given_up.release()
                raise audio.AudioError(f"{path} was given up", kind="unreadable")
        return Measured(2.0, None, np.zeros(1), np.zeros((1, 20), np.float32))


@pytest.fixture
def analyses(monkeypatch: pytest.MonkeyPatch) -> Analyses:
    analyses = Analyses()
    monkeypatch.setattr(audio, "measure_apart", analyses)
    monkeypatch.setattr(audio, "ANALYSES", 1)
    monkeypatch.setattr(audio, "MAX_AUDIO_WAITING", 1)
    return analyses


@pytest.fixture
def port(folder: Path, analyses: Analyses) -> Iterator[int]:
    with served(ModelService(folder, NAME)) as port:
        yield port
        for _ in range(10):
            analyses.go_on.release()


UPLOAD = request(form("form-data; name=file; filename=a.mp3"))


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def health(port: int) -> int:
    with Client(port) as client:
        return client.ask("GET", "/health")[0]


def test_songs_beyond_the_queue_are_refused_before_they_are_received(port: int, analyses: Analyses) -> None:
    with connect(port) as first, connect(port) as second:
        first.sendall(UPLOAD)
        assert analyses.begun.acquire(timeout=30)
        second.sendall(UPLOAD)
        while (found := refused_or_waiting(port)) is None:
            pass
        assert found == (503, "5", "too many songs wait already; try again later")
        assert health(port) == 200
        analyses.go_on.release(2)
        assert Answers(first).next()[0] == 200
        assert Answers(second).next()[0] == 200
    assert [path.exists() for path in analyses.paths] == [False, False]


def refused_or_waiting(port: int) -> tuple[int, str | None, str] | None:
    """Return the refusal of an upload, or None where it is received, because the one before is not in line yet."""
    with connect(port) as connection:
        connection.sendall(request(b"--nothing of the kind", declared=1000))
        status, headers, content = Answers(connection).next()
        return (
            None
            if status == 400
            else (status, headers.get("retry-after"), json.loads(content)["detail"][0]["msg"])
        )


def test_a_client_that_stops_sending_gives_up_its_place(
    port: int, analyses: Analyses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "SECONDS_TO_SEND", 0.2)
    json_head = b"POST /predict/batch HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n"
    json_body = b'{"features": [' + b" " * 500_000
    stalled = [UPLOAD[:-20], UPLOAD[: len(UPLOAD) // 2]] * 10 + [json_head + json_body]
    for sent in stalled:  # more than may be received at once
        with connect(port) as connection:
            connection.sendall(sent)
            status, _, content = Answers(connection).next()
            assert (status, json.loads(content)["detail"][0]["msg"][:25]) == (
                408,
                "the body stopped arriving",
            )
    analyses.go_on.release()
    with connect(port) as connection:
        connection.sendall(UPLOAD)
        assert Answers(connection).next()[0] == 200


@pytest.mark.parametrize(("piece", "arrives"), [(b"x", False), (b"x" * 4096, True)])
def test_a_body_must_keep_up_the_least_pace(
    piece: bytes, arrives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "SECONDS_TO_SEND", 0.5)
    monkeypatch.setattr(bodies, "LEAST_PACE", 1024)
    left = iter(range(99, -1, -1))

    async def receive() -> dict[str, object]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": piece, "more_body": next(left) > 0}

    async def read() -> int:
        return sum([len(piece) async for piece in body_pieces({"headers": []}, receive, 10**6)])

    if arrives:
        assert asyncio.run(read()) == 100 * len(piece)
    else:
        with pytest.raises(BodyTooSlowError):
            asyncio.run(read())


def test_a_client_that_leaves_gives_up_its_place_and_its_analysis(port: int, analyses: Analyses) -> None:
    first = connect(port)
    first.sendall(UPLOAD)
    assert analyses.begun.acquire(timeout=30)
    for _ in range(5):  # five times as many as may wait
        abandoned = connect(port)
        abandoned.sendall(UPLOAD)
        while refused_or_waiting(port) is None:
            pass
        abandoned.close()
        while refused_or_waiting(port) is not None:
            pass
    first.close()
    assert analyses.given_up.acquire(timeout=30)
    with connect(port) as last:
        last.sendall(UPLOAD)
        assert analyses.begun.acquire(timeout=30)
        analyses.go_on.release()
        assert Answers(last).next()[0] == 200
    assert len(analyses.paths) == 2
    assert not any(path.exists() for path in analyses.paths)


def test_a_client_that_leaves_ends_the_process_that_decodes_its_song(tmp_path: Path) -> None:
    from multiprocessing import Pipe

    path = write(tmp_path / "a.wav", music(120.0))
    given_up, give_up = Pipe(duplex=False)
    give_up.close()
    with given_up, pytest.raises(audio.AudioError, match=r"a\.wav was given up"):
        measure_apart(path, "core20", Excerpt(duration=None, window=2.0), Limits(), given_up=given_up)


def test_stopping_does_not_wait_for_an_analysis(folder: Path, tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from genre_classifier.service import audio, server
from genre_classifier.service.model import ModelService

def endless(path, *_, given_up):
    print("measuring", flush=True)
    given_up.poll(None)
    raise audio.AudioError("given up", kind="unreadable")

audio.measure_apart = endless
server.SECONDS_TO_FINISH = 1
server.run(ModelService(Path(sys.argv[1]), {NAME!r}), "127.0.0.1", 0)
"""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
        "TMPDIR": str(tmp_path),
    }
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout
        assert process.stderr
        watchdog = threading.Timer(90, process.kill)
        watchdog.start()
        try:
            line = ""
            while "running on" not in line:
                line = process.stderr.readline()
                assert line
            with connect(int(line.partition("http://127.0.0.1:")[2].split()[0])) as connection:
                connection.sendall(UPLOAD)
                assert process.stdout.readline() == "measuring\n"
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=60)
        finally:
            watchdog.cancel()
            process.kill()
    assert list(tmp_path.glob("genre-classifier-audio-*")) == []


def test_songs_wait_on_disk_and_not_in_memory(port: int, analyses: Analyses) -> None:
    content = os.urandom(2**20) * 40
    with connect(port) as connection:
        connection.sendall(request(form("form-data; name=file; filename=a.mp3", content)))
        assert analyses.begun.acquire(timeout=30)
        assert analyses.paths[0].stat().st_size == len(content)
        assert Path(tempfile.gettempdir()) in analyses.paths[0].parents
        analyses.go_on.release()
        assert Answers(connection).next()[0] == 200
