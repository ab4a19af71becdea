import subprocess
import sys
from pathlib import Path

import pytest

from genre_classifier.machine import devices

HOLD = """
import sys
from pathlib import Path
from genre_classifier.machine.devices import lock_free_device
print(lock_free_device(Path(sys.argv[1]), ["4", "7"]), flush=True)
sys.stdin.read()
"""


def holder(folder: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_trials_at_the_same_time_get_different_devices_and_a_dead_trial_frees_its_device(
    tmp_path: Path,
) -> None:
    held = [holder(tmp_path) for _ in range(2)]
    try:
        assert [device for _, device in held] == ["4", "7"]
        third, shared = holder(tmp_path)
        third.communicate("")
        assert shared in {"4", "7"}, "more trials than devices share one"
        held[0][0].kill()
        held[0][0].wait()
        fourth, device = holder(tmp_path)
        fourth.communicate("")
        assert device == "4"
    finally:
        for process, _ in held:
            process.kill()
            process.communicate()


def test_one_visible_device_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.VISIBLE, "3")
    assert devices.take_gpu(tmp_path) is None
    assert devices.os.environ[devices.VISIBLE] == "3"


def test_the_device_becomes_the_only_visible_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.VISIBLE, "3,5")
    assert devices.take_gpu(tmp_path) == "3"
    assert devices.os.environ[devices.VISIBLE] == "3"
    devices._held.pop().release()
