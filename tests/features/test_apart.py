"""A process that decodes keeps its own limits, and ends with its parent."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genre_classifier.errors import AudioError
from genre_classifier.features.decoding import apart
from genre_classifier.features.decoding.apart import Limits, measure_apart
from genre_classifier.features.decoding.audio import Excerpt
from tests.features.sounds import music, write

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")
WINDOWS = Excerpt(duration=None, window=1.0)


def test_a_long_recording_is_measured_as_far_as_allowed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", music(9.0, 8_000), 8_000)
    limits = Limits(music=4.0)
    measured = measure_apart(path, "core20", WINDOWS, limits)
    assert measured.starts.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert measured.notes == (f"{path}: only 4 of 9 s were measured",)
    later = measure_apart(path, "core20", replace(WINDOWS, offset=3.5), limits)
    assert later.starts.tolist() == [3.5, 4.5, 5.5, 6.5]
    assert measure_apart(path, "core20", replace(WINDOWS, duration=2.0), limits).notes == ()


def test_hours_of_silence_in_a_small_file_are_not_decoded(tmp_path: Path) -> None:
    """A FLAC file whose header and frames say 100 hours, of which only the first frames are there."""
    path = write(tmp_path / "a.flac", np.tile(music(5.0, 8_000), (4, 1)), 8_000)
    content = bytearray(path.read_bytes())
    word = int.from_bytes(content[18:26], "big")
    content[18:26] = ((word >> 36 << 36) | 100 * 3600 * 8_000).to_bytes(8, "big")
    path.write_bytes(content)
    measured = measure_apart(path, "core20", WINDOWS, Limits(music=10.0))
    assert len(measured.starts) == 10
    assert measured.seconds == 360_000.0


def _spin(by_processor_time: bool) -> None:
    apart._set_limits(Limits(seconds=0.1))
    if by_processor_time:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    while True:
        pass


@pytest.mark.parametrize("by_processor_time", [False, True])
def test_the_limit_of_time_is_the_processes_own(by_processor_time: bool) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_spin, args=(by_processor_time,))
    process.start()
    process.join(60)
    assert process.exitcode == -(signal.SIGKILL if by_processor_time else signal.SIGALRM)


def test_a_result_that_nobody_waits_for_is_given_up(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav")
    given_up, give_up = multiprocessing.Pipe(duplex=False)
    give_up.close()
    with given_up, pytest.raises(AudioError, match=r"a\.wav was given up"):
        measure_apart(path, "core20", WINDOWS, Limits(), given_up)
    assert not multiprocessing.active_children()


KILLED = """
import os, signal, sys, threading
from pathlib import Path
from genre_classifier.features.decoding import apart
from genre_classifier.features.decoding.audio import Excerpt

class Slow(apart._Measure):
    def __call__(self):
        import time
        from genre_classifier.features.decoding import apart
        def measure(path, *arguments, **options):
            print("measuring", file=sys.stderr, flush=True)
            while True:
                time.sleep(60)
        apart.measure_file = measure
        super().__call__()

if __name__ == "__main__":
    apart._Measure = Slow
    path = Path(sys.argv[1])
    ends_by = getattr(signal, sys.argv[2])
    limits = apart.Limits(seconds=3600.0)
    excerpt = Excerpt(duration=None, window=1.0)
    arguments = (path, "core20", excerpt, limits)
    threading.Thread(target=apart.measure_apart, args=arguments, daemon=True).start()
    sys.stdin.readline()
    os.kill(os.getpid(), ends_by)
"""


@pytest.mark.parametrize("ended_by", ["SIGKILL", "SIGTERM"])
def test_nothing_goes_on_when_the_caller_is_killed(ended_by: str, tmp_path: Path) -> None:
    script = tmp_path / "service.py"
    script.write_text(KILLED)
    path = write(tmp_path / "a.wav")
    with subprocess.Popen(
        [sys.executable, str(script), str(path), ended_by],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,  # closed when the last process that inherited it has ended
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        assert started.stderr is not None
        assert started.stderr.readline() == "measuring\n"
        started.communicate("\n", timeout=60)
    assert started.returncode == -getattr(signal, ended_by)
