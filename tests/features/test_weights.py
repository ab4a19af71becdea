"""The weights of musicnn: read as data, checked, and kept whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from genre_classifier.cli.main import main
from genre_classifier.errors import MissingWeightsError
from genre_classifier.features.pretrained import weights
from genre_classifier.features.pretrained.weights import (
    SHAPES,
    fetch_weights,
    hash_weights,
    load_weights,
    read_checkpoint,
    weights_path,
)
from tests.features.sounds import collection

# Some variables' places in the checkpoint, in bytes, as its index says.
PLACES = {
    "batch_normalization/moving_mean": 24,
    "batch_normalization_10/beta": 6_560,
    "batch_normalization_9/moving_variance": 72_696,
    "conv2d/bias": 78_728,
    "conv2d/kernel": 81_176,
    "conv2d_5/kernel": 2_022_596,
    "dense/kernel": 5_730_596,
    "dense_1/kernel": 9_345_596,
}


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A wheel of the package's layout with other numbers, published as far as the module knows; an empty cache."""
    content = np.random.default_rng(0).normal(size=9_465_596 // 4).astype("<f4").tobytes()
    path = tmp_path / "musicnn-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("musicnn/__init__.py", "raise SystemExit('executed')")
        archive.writestr("musicnn/MSD_musicnn/.data-00000-of-00001", content)
    monkeypatch.setattr(weights, "WHEEL_BYTES", path.stat().st_size)
    monkeypatch.setattr(weights, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(weights, "WEIGHTS_SHA256", hash_weights(read_checkpoint(content)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load_weights.cache_clear()
    yield path
    load_weights.cache_clear()


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load_weights.cache_clear()
    yield tmp_path / "cache" / "genre-classifier"
    load_weights.cache_clear()


@pytest.mark.parametrize("name", PLACES)
def test_a_variable_is_read_from_its_place(name: str) -> None:
    numbers = np.arange(9_465_596 // 4, dtype="<f4")
    values = read_checkpoint(numbers.tobytes())[name]
    assert values.shape == SHAPES[name]
    assert values.ravel()[0] == PLACES[name] / 4
    np.testing.assert_array_equal(np.diff(values.ravel()), np.ones(values.size - 1))


def test_a_wheel_is_read_and_kept_once(wheel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "musicnn", "--wheel", str(wheel)]) == 0
    path = weights_path()
    assert path is not None
    assert capsys.readouterr().out.startswith(f"{path}: the weights of musicnn")
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read("musicnn/MSD_musicnn/.data-00000-of-00001")
    loaded = load_weights()
    for name, values in read_checkpoint(content).items():
        np.testing.assert_array_equal(loaded[name], values)
        assert not loaded[name].flags.writeable
    wheel.unlink()
    assert fetch_weights() == path  # nothing is fetched again


def test_another_wheel_is_refused_and_nothing_is_kept(wheel: Path, empty_cache: Path) -> None:
    content = wheel.read_bytes()
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 1
    cases = {
        "SHA-256 [0-9a-f]{64}; expected musicnn-0.1.0": bytes(damaged),
        r"has [\d,]+ bytes, not [\d,]+; expected musicnn-0.1.0": content[:-1],
        r"has 0 bytes, not [\d,]+": b"",
    }
    for message, bad in cases.items():
        wheel.write_bytes(bad)
        with pytest.raises(MissingWeightsError, match=message):
            fetch_weights(wheel)
    for path in (wheel.with_name("missing.whl"), wheel.parent):
        with pytest.raises(MissingWeightsError, match=r"is no file; expected musicnn-0\.1\.0"):
            fetch_weights(path)
    assert not empty_cache.exists()


def test_a_full_disk_leaves_nothing(wheel: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(MissingWeightsError, match=r"cannot be written: No space left .*XDG_CACHE_HOME"):
            fetch_weights(wheel)
    assert list(empty_cache.iterdir()) == []


def test_no_cache_folder_is_one_message(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find_cache_folder", lambda: None)
    with pytest.raises(MissingWeightsError, match="no folder for caches can be written"):
        fetch_weights(wheel)


def _header_of_too_much() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize(
    "bad",
    [b"", b"x" * 100, struct.pack("<Q", 2**62) + b"{}", _header_of_too_much(), bytes(2**22 + 1)],
    ids=["empty", "text", "long header", "large array", "large file"],
)
def test_a_damaged_file_is_refused_and_replaced(bad: bytes, wheel: Path) -> None:
    path = fetch_weights(wheel)
    path.write_bytes(bad)
    load_weights.cache_clear()
    with pytest.raises(
        MissingWeightsError, match=r"is not what was kept .*; run again: genre-classifier download"
    ):
        load_weights()
    assert fetch_weights(wheel) == path
    load_weights()


def test_other_numbers_are_refused(wheel: Path) -> None:
    import safetensors.numpy

    path = fetch_weights(wheel)
    changed = {name: values.copy() for name, values in load_weights().items()}
    changed["dense_1/bias"][7] += 1
    load_weights.cache_clear()
    path.write_bytes(safetensors.numpy.save(changed))
    with pytest.raises(MissingWeightsError, match="SHA-256 of its variables is"):
        load_weights()
    path.write_bytes(safetensors.numpy.save({name: values[:1] for name, values in changed.items()}))
    with pytest.raises(MissingWeightsError, match="it holds other variables"):
        load_weights()


def test_without_network_the_message_says_what_to_put_where(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "pip.py").write_text("raise SystemExit('executed')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert main(["download", "musicnn"]) == 1
    message = capsys.readouterr().err
    assert "pip cannot download musicnn==0.1.0 (No matching distribution found" in message
    assert "genre-classifier download musicnn --wheel musicnn-0.1.0-py3-none-any.whl" in message
    assert message.count("\n") == 1
    assert not empty_cache.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["musicnn", "folder"], "download musicnn takes no folder; found folder"),
        (["musicnn", "--url", "x"], "download musicnn takes no url; found --url x"),
        (["fma", "folder", "--wheel", "x"], "download fma takes no wheel; found --wheel x"),
        (["fma"], "FOLDER is missing"),
    ],
)
def test_arguments_of_the_other_download_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["download", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_features_without_weights_are_one_message(
    empty_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    songs = collection(tmp_path / "music")
    table = tmp_path / "features.parquet"
    assert main(["extract", str(songs), str(table), "--features", "musicnn50"]) == 1
    message = capsys.readouterr().err
    assert "the weights of musicnn are not here" in message
    assert "run once: genre-classifier download musicnn" in message
    assert message.count("\n") == 1
    assert not table.exists()
