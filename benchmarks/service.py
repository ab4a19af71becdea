"""Measure predictions per second of the service and of the common way over loopback, in the same run.

    python benchmarks/service.py [--seconds 10] [--rounds 10] [--quiet 0.03] [--fuzz 100000]

Server and client are one process each. The client is the same for all. Every service answers ``POST /predict`` with one
row of 20 features, from the same bundle, and is started as documented: the common way (benchmarks/common_service.py)
with uvicorn's command, this project with ``genre-classifier serve``, and also with uvicorn's command,
``uvicorn app.main:app``, without the limits on connections.

The services take turns in short rounds, so other work of the machine affects them alike. The table shows the median of
the rounds. With ``--quiet``, a round is measured again if other processes took more than this share of the machine. The
server's own processor time depends least on other work. In every round a process that only reads the clock measures how
long it waits for a processor: no p99 can be shorter. With ``--fuzz``, this project's service also gets damaged bodies.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
NAME = "genre_classifier_production"
CONNECTIONS = (1, 16)
ATTEMPTS = 40
UVICORN = ("-m", "uvicorn", "--log-level", "error", "--no-access-log")
SERVE = ("-m", "genre_classifier.cli.main", "serve")
SERVICES = {
    "common way": (*UVICORN, "common_service:app"),
    "this service": SERVE,
    "the same under uvicorn": (*UVICORN, "app.main:app"),
}


@dataclass(frozen=True)
class Load:
    """The results of one load.

    Parameters
    ----------
    rate : float
        Requests per second.
    p50, p99 : float
        Milliseconds at the median and at the 99th percentile.
    cpu : float
        The server's processor time, in microseconds per request.
    """

    rate: float
    p50: float
    p99: float
    cpu: float


@dataclass(frozen=True)
class Running:
    """A running service.

    Parameters
    ----------
    port, pid : int
    ready : float
        Seconds until /health answered; the median of three starts.
    """

    port: int
    pid: int
    ready: float


def main() -> None:
    """Measure every service and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each load, default 10")
    parser.add_argument("--rounds", type=int, default=10, help="parts to measure each load in, default 10")
    parser.add_argument(
        "--quiet",
        type=float,
        default=1.0,
        metavar="SHARE",
        help=f"measure again, up to {ATTEMPTS} times, what other processes disturbed by more than this share of the "
        "machine",
    )
    parser.add_argument("--fuzz", type=int, default=0, metavar="N", help="send N damaged bodies as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        row = _write_bundle(Path(directory))
        services = {
            name: stack.enter_context(_running(command, Path(directory)))
            for name, command in SERVICES.items()
        }
        print(f"machine  {os.cpu_count()} cores, {platform.machine()}; Python {platform.python_version()}")
        print(
            f"load     one row of {len(row)} features a request, connections kept alive, {options.seconds:g} s in "
            f"{options.rounds} rounds\n"
        )
        body = json.dumps({"features": row}).encode()
        loads, gaps = _measure_all(services, body, options.seconds, options.rounds, options.quiet)
        _show(loads)
        print(
            f"\na process that only reads the clock waits up to {gaps:.1f} ms for a processor (p99 of a round)"
        )
        for name, service in services.items():
            print(
                f"{name:28}ready in {service.ready:.2f} s, {_read_memory(service.pid):.0f} MB after the load"
            )
            if options.fuzz and name == "this service":
                print(f"{name:28}{_fuzz(service.port, row, options.fuzz)}")


def _measure_all(
    services: Mapping[str, Running], body: bytes, seconds: float, n_rounds: int, quiet: float
) -> tuple[dict[tuple[str, int], Load], float]:
    """Return the median load by service and connections, and an idle process's wait in milliseconds."""
    found: dict[tuple[str, int], list[Load]] = defaultdict(list)
    gaps = []
    for _ in range(n_rounds):
        gaps.append(_wait_for_a_processor())
        for name, service in services.items():
            for connections in CONNECTIONS:
                load = _measure_quietly(service, body, connections, seconds / n_rounds, quiet)
                found[name, connections].append(load)
    medians = {
        key: Load(*np.median([astuple(load) for load in loads], axis=0)) for key, loads in found.items()
    }
    return medians, float(np.median(gaps))


def _measure_quietly(service: Running, body: bytes, connections: int, seconds: float, quiet: float) -> Load:
    """Return a load that other processes disturbed little, or after many attempts the least disturbed one."""
    attempts = []
    for _ in range(ATTEMPTS):
        ours = _read_own_seconds() + _read_cpu_seconds(service.pid)
        all_processes, start = _read_busy_seconds(), time.perf_counter()
        load = _run(_measure(service.port, service.pid, body, connections, seconds))
        of_others = (
            _read_busy_seconds()
            - all_processes
            - (_read_own_seconds() + _read_cpu_seconds(service.pid) - ours)
        )
        share = of_others / (time.perf_counter() - start) / (os.cpu_count() or 1)
        attempts.append((share, load))
        if not share > quiet:  # NaN if the system does not tell
            break
    return min(attempts, key=itemgetter(0))[1]


def _read_own_seconds() -> float:
    return sum(os.times()[:2])


def _read_busy_seconds() -> float:
    """Return the processor time of all processes, or NaN if the system does not tell it."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return float("nan")
    user, nice, system, _, _, interrupts, soft_interrupts = map(int, stat.read_text().split()[1:8])
    return (user + nice + system + interrupts + soft_interrupts) / os.sysconf("SC_CLK_TCK")


def _show(loads: Mapping[tuple[str, int], Load]) -> None:
    columns = f"{'connections':>12}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'CPU us':>9}"
    columns += f"{'rate':>8}{'p99':>9}{'CPU':>8}"
    print(f"{'service':28}{columns}")
    common = next(iter(SERVICES))
    for (name, connections), load in loads.items():
        peer = loads[common, connections]
        print(
            f"{name:28}{connections:12}{load.rate:12,.0f}"
            f"{load.p50:9.2f}{load.p99:9.2f}{load.cpu:9.0f}"
            f"{load.rate / peer.rate:7.1f}x{peer.p99 / load.p99:8.1f}x"
            f"{peer.cpu / load.cpu:7.1f}x"
        )


def _write_bundle(folder: Path) -> list[float]:
    import torch
    from sklearn.preprocessing import StandardScaler

    from genre_classifier import GenreClassifier
    from genre_classifier.bundle.predictor import DEFAULT_GENRES
    from genre_classifier.bundle.writing import write_bundle

    torch.manual_seed(0)
    rows = np.random.default_rng(0).normal(loc=5.0, scale=3.0, size=(500, 20))
    model, scaler = GenreClassifier().eval(), StandardScaler().fit(rows)
    write_bundle(model, scaler, DEFAULT_GENRES, {}, folder, NAME, onnx=False)
    return rows[0].tolist()


def _wait_for_a_processor(seconds: float = 0.5) -> float:
    """Return how long an idle process waits for a processor, in milliseconds: the 99th percentile over time."""
    gaps = []
    last = start = time.perf_counter()
    while last - start < seconds:
        now = time.perf_counter()
        gaps.append(now - last)
        last = now
    lengths = np.sort(gaps)[::-1]
    # Longer waits take one hundredth of the time.
    return float(lengths[np.searchsorted(np.cumsum(lengths), seconds / 100)]) * 1e3


@contextmanager
def _running(command: Sequence[str], folder: Path) -> Iterator[Running]:
    """Start a service three times, and keep the last one running."""
    ready = []
    for _ in range(2):
        with _started(command, folder) as (_, _, seconds):
            ready.append(seconds)
    with _started(command, folder) as (port, pid, seconds):
        yield Running(port, pid, float(np.median([*ready, seconds])))


@contextmanager
def _started(service: Sequence[str], folder: Path) -> Iterator[tuple[int, int, float]]:
    """Start a service on a free port. Yield the port, the process and the seconds until /health answered."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    paths = [str(ROOT), str(ROOT / "src"), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "MODEL_DIR": str(folder),
        "MODEL_NAME": NAME,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, *service, "--port", str(port)]
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
                    response.read()
                break
            except urllib.error.URLError:
                if process.poll() is not None or time.perf_counter() - start > 60:
                    sys.exit(f"{shlex.join(command)} did not start")
                time.sleep(0.005)
        yield port, process.pid, time.perf_counter() - start
    finally:
        process.terminate()
        process.wait()


def _run(measurement: Coroutine[Any, Any, Load]) -> Load:
    """Run the client, on uvloop if it is installed: it uses less of the machine."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(measurement)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measurement)


class _Connection(asyncio.Protocol):
    """Sends one request after another and records their times."""

    def __init__(self, request: bytes, until: float) -> None:
        self.request = request
        self.until = until
        self.times: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.received = b""
        self.length = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._send()

    def _send(self) -> None:
        self.sent = time.perf_counter()
        self.transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.received = data if not self.received else self.received + data
        if len(self.received) < self.length:
            return
        if (
            not self.length
        ):  # the first answer; the others have the same length, because the requests are the same
            head, _, body = self.received.partition(b"\r\n\r\n")
            n_body = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            if not n_body or len(body) < n_body:
                return
            self.length = len(head) + 4 + n_body
        now = time.perf_counter()
        if not self.received.startswith(b"HTTP/1.1 200") or len(self.received) != self.length:
            self.done.set_exception(RuntimeError(f"the service answered {self.received!r}"))
            self.transport.close()
            return
        self.times.append(now - self.sent)
        self.received = b""
        if now < self.until:
            self._send()
        else:
            self.transport.close()
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or RuntimeError("the service closed the connection"))


async def _measure(port: int, pid: int, body: bytes, connections: int, seconds: float) -> Load:
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    request = f"{head}Content-Type: application/json\r\n\r\n".encode() + body
    await _load(port, request, connections, seconds / 10)  # warm up
    before, start = _read_cpu_seconds(pid), time.perf_counter()
    times = np.array(await _load(port, request, connections, seconds)) * 1e3
    elapsed = time.perf_counter() - start
    cpu = (_read_cpu_seconds(pid) - before) / len(times) * 1e6
    return Load(len(times) / elapsed, float(np.median(times)), float(np.quantile(times, 0.99)), cpu)


async def _load(port: int, request: bytes, connections: int, seconds: float) -> list[float]:
    loop = asyncio.get_running_loop()
    until = time.perf_counter() + seconds
    opened = [
        await loop.create_connection(lambda: _Connection(request, until), "127.0.0.1", port)
        for _ in range(connections)
    ]
    protocols = [protocol for _, protocol in opened]
    await asyncio.gather(*(protocol.done for protocol in protocols))
    return [duration for protocol in protocols for duration in protocol.times]


def _fuzz(port: int, row: list[float], n_bodies: int) -> str:
    """Send damaged bodies one after another over one connection. Return a summary of the answers."""
    import http.client

    generator = np.random.default_rng(1)
    good = json.dumps(row)
    seeds = [
        f'{{"features": {good}}}',
        f'{{"features": [{good}, {good}]}}',
        f'{{"features": {good}, "top_k": 3}}',
    ]
    scraps = [
        b"NaN",
        b"1e999",
        b"true",
        b"null",
        b'"3"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"-",
        b"\x00",
        b"\xc3",
        b"1e308",
    ]
    statuses: Counter[int] = Counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for number in range(n_bodies):
        body = bytearray(seeds[number % len(seeds)].encode())
        for _ in range(int(generator.integers(1, 5))):
            at = int(generator.integers(0, len(body) + 1))
            kind = generator.random()
            if kind < 0.4:
                body[at:at] = scraps[int(generator.integers(0, len(scraps)))]
            elif kind < 0.8:
                del body[at : at + int(generator.integers(1, 12))]
            else:
                body[at:at] = generator.bytes(int(generator.integers(1, 4)))
        connection.request("POST", ("/predict", "/predict/batch")[number % 2], bytes(body))
        response = connection.getresponse()
        response.read()
        statuses[response.status] += 1
    connection.close()
    counted = ", ".join(f"{count:,} x {status}" for status, count in sorted(statuses.items()))
    return f"{n_bodies:,} damaged bodies: {counted}"


def _read_cpu_seconds(pid: int) -> float:
    """Return the processor time of a process, or NaN if the system does not tell it."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return float("nan")
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _read_memory(pid: int) -> float:
    """Return a process's resident memory in MB, or NaN if the system does not tell it."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return float("nan")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
