"""A download goes on where it broke off, and nothing is unpacked that was not published."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from genre_classifier.cli.main import main
from genre_classifier.data.download import Archive, fetch
from genre_classifier.data.sources import read
from genre_classifier.data.tables import fma_tables
from genre_classifier.errors import DataError
from tests.data.fma_layout import write_fma
from tests.data.test_fma import config


@dataclass
class Server:
    """A server of one file on the loopback."""

    content: bytes
    url: str = ""
    break_after: int | None = None  # bytes, once
    resumes: bool = True
    ranges: list[str | None] = field(default_factory=list)


@pytest.fixture
def archive(tmp_path: Path) -> tuple[Archive, bytes]:
    """A small archive in the layout of the published one."""
    folder = tmp_path / "published"
    write_fma(folder)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("fma_metadata/README.txt", "not wanted")
        for name in ("features.csv", "tracks.csv"):
            file.write(folder / name, f"fma_metadata/{name}")
    content = buffer.getvalue()
    sha1 = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    return replace(fma_tables.ARCHIVE, sha1=sha1), content


@pytest.fixture
def server(archive: tuple[Archive, bytes]) -> Iterator[Server]:
    state = Server(archive[1])

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and state.resumes else 0
            if start >= len(state.content):
                self.send_error(416)
                return
            body = state.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if state.break_after is not None:
                body, state.break_after = body[: state.break_after], None
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        state.url = f"http://127.0.0.1:{http.server_address[1]}/fma_metadata.zip"
        yield state
        http.shutdown()
        thread.join()


def test_an_archive_is_fetched_checked_and_unpacked(
    archive: tuple[Archive, bytes], server: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "fma"
    paths = fetch(archive[0], folder, url=server.url, progress=False)
    assert paths == [folder / "features.csv", folder / "tracks.csv"]
    assert sorted(path.name for path in folder.iterdir()) == ["features.csv", "tracks.csv"]
    assert len(read(config(folder))) == 15


def test_a_download_that_broke_off_goes_on(
    archive: tuple[Archive, bytes], server: Server, tmp_path: Path
) -> None:
    server.break_after = 5000
    with pytest.raises(DataError, match=r"the download broke off .*; 5,000 bytes are kept"):
        fetch(archive[0], tmp_path / "fma", url=server.url, progress=False)
    fetch(archive[0], tmp_path / "fma", url=server.url, progress=False)
    assert server.ranges == [None, "bytes=5000-"]
    assert len(read(config(tmp_path / "fma"))) == 15


def test_a_server_that_does_not_resume_is_asked_for_all(
    archive: tuple[Archive, bytes], server: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "fma"
    folder.mkdir()
    (folder / "fma_metadata.zip.part").write_bytes(b"x" * 5000)
    server.resumes = False
    assert fetch(archive[0], folder, url=server.url, progress=False)[0].is_file()


def test_a_complete_download_is_only_checked_and_unpacked(
    archive: tuple[Archive, bytes], server: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "fma"
    folder.mkdir()
    (folder / "fma_metadata.zip.part").write_bytes(archive[1])
    assert fetch(archive[0], folder, url=server.url, progress=False)[0].is_file()
    server.ranges.clear()
    fetch(archive[0], folder, url=server.url, progress=False)
    assert server.ranges == []


def test_what_is_not_as_published_is_removed(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"published is {fma_tables.ARCHIVE.sha1}; it was removed"):
        fetch(fma_tables.ARCHIVE, tmp_path / "fma", url=server.url, progress=False)
    assert list((tmp_path / "fma").iterdir()) == []


def test_an_archive_without_a_table_is_refused(
    archive: tuple[Archive, bytes], server: Server, tmp_path: Path
) -> None:
    wanted = replace(archive[0], members=("features.csv", "echonest.csv"))
    with pytest.raises(
        DataError, match=r"there is no echonest\.csv in the archive; it has README\.txt, features\.csv"
    ):
        fetch(wanted, tmp_path / "fma", url=server.url, progress=False)


def test_no_server_and_no_file_are_one_message(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.content = b""
    assert main(["download", "fma", str(tmp_path / "a"), "--url", server.url]) == 1
    assert f"error: {server.url}: the server answered 416" in capsys.readouterr().err
    assert main(["download", "fma", str(tmp_path / "b"), "--url", "http://127.0.0.1:9/x.zip"]) == 1
    assert "http://127.0.0.1:9/x.zip: the download broke off" in capsys.readouterr().err


def test_the_command_names_what_it_fetched(
    archive: tuple[Archive, bytes],
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fma_tables, "ARCHIVE", archive[0])
    assert main(["download", "fma", str(tmp_path / "fma"), "--url", server.url]) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / "fma" / name) for name in ("features.csv", "tracks.csv")
    ]
