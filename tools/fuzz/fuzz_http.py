"""Bytes on a connection: documented statuses only, whatever the bytes and the pieces they arrive in."""

import asyncio
import json
import logging
import re
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["genre_classifier.service", "uvicorn.protocols"]):
    import uvicorn

    from genre_classifier.service.application import GenreService
    from genre_classifier.service.model import ModelService
    from genre_classifier.service.server import LimitedProtocol
    from tests.service.serving import NAME, ROWS, export
    from tests.service.test_server import SlowTransport

logging.disable()
FOLDER = tempfile.TemporaryDirectory()
export(Path(FOLDER.name))
SERVICE = ModelService(FOLDER.name, NAME)
SERVICE.refresh()
CONFIG = uvicorn.Config(GenreService(SERVICE), access_log=False, ws="none", log_config=None)
CONFIG.load()
LOOP = asyncio.new_event_loop()
DOCUMENTED = {100, 200, 307, 400, 404, 405, 413, 422, 431, 503}
BODY = json.dumps({"features": [round(value, 1) for value in ROWS[0].tolist()]}).encode()
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
SEEDS = [
    b"\x10POST /predict HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s" % (H2C, len(BODY), BODY) * 2,
    b"\xffPOST /predict/batch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2;a\r\n{}\r\n0\r\na: b\r\n\r\n",
    b"\x20GET /health?a=%zz HTTP/1.0\r\nExpect: 100-continue\r\n\r\nHEAD /docs/ HTTP/1.1\r\nHost: \xff\r\n\r\n",
    b"\x40POST /analyze-audio HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    b"Content-Length: 5\r\n\r\n--x--GET /genres HTTP/1.1\r\nConnection: close\r\n\r\n",
]


class Transport(SlowTransport):
    """Keeps what is written, and whether it was closed."""

    closed = False

    def close(self) -> None:
        """Remember it."""
        self.closed = True

    def is_closing(self) -> bool:
        """Return whether it was closed."""
        return self.closed

    abort = write_eof = close


def mutate(data: bytes, size: int, seed: int) -> bytes:
    """Begin from real requests now and then."""
    return atheris.Mutate(SEEDS[seed % len(SEEDS)] if seed % 16 < 4 else data, size)


async def exchange(data: bytes, size: int) -> bytes:
    """Send bytes in pieces; return what is answered."""
    transport = Transport()
    state = uvicorn.server.ServerState()
    protocol = LimitedProtocol(CONFIG, state, {})
    protocol.connection_made(transport)
    for start in range(0, len(data), size):
        if transport.closed:
            break
        protocol.data_received(data[start : start + size])
        await asyncio.sleep(0)
    for _ in range(50):
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    if state.tasks:
        await asyncio.wait(state.tasks)
    protocol._unset_keepalive_if_required()
    return transport.written


def test_one(data: bytes) -> None:
    """Open a connection and send."""
    written = LOOP.run_until_complete(exchange(data[1:], data[0] + 1 if data else 1))
    statuses = {int(status) for status in re.findall(rb"(?:^|\}|\n)HTTP/1\.1 (\d{3})", written)}
    assert statuses <= DOCUMENTED, written


if __name__ == "__main__":
    atheris.Setup([*sys.argv, "-max_len=2048"], test_one, custom_mutator=mutate)
    atheris.Fuzz()
