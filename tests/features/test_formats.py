"""Every format of libsndfile is read, and a file whose header does not say its length is read to its end."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genre_classifier.errors import AudioError
from genre_classifier.features.decoding.audio import Excerpt, open_audio
from genre_classifier.features.decoding.formats import (
    FORMATS,
    SUFFIXES,
    is_companion,
    is_readable,
    is_system_folder,
)
from genre_classifier.features.sets import SAMPLE_RATE
from tests.features.sounds import music, soundfile, write

# RAW says neither rate nor channels, MAT4 and MAT5 are matrices of anything, XI is a single instrument.
NOT_READ = {"RAW", "MAT4", "MAT5", "XI"}


def clip_of(path: Path) -> tuple[np.ndarray, list[str]]:
    with open_audio(path) as recording:
        [clip] = recording.read_clips(Excerpt())
        return clip.samples, recording.notes


def test_every_format_of_libsndfile_has_a_suffix() -> None:
    assert set().union(*FORMATS.values()) == set(soundfile.available_formats()) - NOT_READ


@pytest.mark.parametrize("upper", [False, True], ids=["small", "capital"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_is_read_as_librosa_reads_it(suffix: str, upper: bool, tmp_path: Path) -> None:
    librosa = pytest.importorskip("librosa", reason="needs the extra audio")
    path = tmp_path / f"a{suffix.upper() if upper else suffix}"
    kind = next(kind for kind in sorted(FORMATS[suffix]) if kind in soundfile.available_formats())
    if suffix in {".opus", ".wav"}:
        kind = {".opus": "OGG", ".wav": "WAV"}[suffix]
    rate = {"WVE": 8_000}.get(kind, 24_000)
    subtype = "OPUS" if suffix == ".opus" else None
    soundfile.write(path, music(2.0, rate)[:, 0], rate, format=kind, subtype=subtype)
    samples, notes = clip_of(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of audioread, which librosa imports
        expected, _ = librosa.load(path, sr=SAMPLE_RATE)
    assert samples.size >= 1.9 * SAMPLE_RATE
    np.testing.assert_allclose(samples, expected, atol=1e-6)
    assert notes == []


def set_wav(content: bytearray, size: int) -> None:
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", size)


def set_wav_and_riff(content: bytearray, size: int) -> None:
    set_wav(content, size)
    content[4:8] = struct.pack("<I", min(size + 36, 0xFFFFFFFF))


def set_rf64(content: bytearray, size: int) -> None:
    place = content.index(b"ds64") + 16
    content[place : place + 8] = struct.pack("<Q", size)


def set_w64(content: bytearray, size: int) -> None:
    place = content.index(b"data") + 16
    content[place : place + 8] = struct.pack("<Q", size)


def set_aiff(content: bytearray, size: int) -> None:
    place = content.index(b"SSND") + 4
    content[place : place + 4] = struct.pack(">I", size)
    place = content.index(b"COMM") + 10
    content[place : place + 4] = struct.pack(">I", 0 if size < 9 else 0xFFFFFFFF)


def set_au(content: bytearray, size: int) -> None:
    content[8:12] = struct.pack(">I", size)


def set_caf(content: bytearray, size: int) -> None:
    place = content.index(b"data") + 4
    content[place : place + 8] = struct.pack(">Q", size)


def set_flac(content: bytearray, n_frames: int) -> None:
    word = int.from_bytes(content[18:26], "big")
    content[18:26] = ((word >> 36 << 36) | n_frames).to_bytes(8, "big")


PLACEHOLDERS_32 = (0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFDB, 0xFFFFFFFF)
PLACEHOLDERS_64 = (0, 2**63 - 1, 2**64 - 1)
UNKNOWN = [
    *(("wav", change, size) for change in (set_wav, set_wav_and_riff) for size in PLACEHOLDERS_32),
    *(("aiff", set_aiff, size) for size in (*PLACEHOLDERS_32, 8)),
    *(("au", set_au, size) for size in PLACEHOLDERS_32),
    *(("rf64", set_rf64, size) for size in PLACEHOLDERS_64),
    *(("w64", set_w64, size) for size in PLACEHOLDERS_64),
    *(("caf", set_caf, size) for size in (0, 2**64 - 1)),
    *(("flac", set_flac, n_frames) for n_frames in (0, 2**36 - 1)),
]


@pytest.mark.parametrize(("suffix", "change", "size"), UNKNOWN)
def test_a_header_that_says_no_length_is_read_to_the_end_and_noted(
    suffix: str, change: Callable[[bytearray, int], None], size: int, tmp_path: Path
) -> None:
    path = write(tmp_path / f"a.{suffix}", music(2.0))
    expected, _ = clip_of(path)
    content = bytearray(path.read_bytes())
    change(content, size)
    path.write_bytes(content)
    samples, notes = clip_of(path)
    # Of FLAC the very last sample is lost, as its decoder fails at an end that it does not know.
    assert samples.size == expected.size - (suffix == "flac")
    np.testing.assert_array_equal(samples, expected[: samples.size])
    assert notes == ["its header does not say how long it is"] or suffix in {"w64", "rf64"}


@pytest.mark.parametrize(
    ("suffix", "change"), [("wav", set_wav), ("wav", set_wav_and_riff), ("au", set_au), ("caf", set_caf)]
)
@pytest.mark.parametrize("off", [-2, -1, 1, 2, 100])
def test_a_size_that_is_a_few_bytes_off_is_read(
    suffix: str, change: Callable[[bytearray, int], None], off: int, tmp_path: Path
) -> None:
    path = write(tmp_path / f"a.{suffix}", music(2.0))
    expected, _ = clip_of(path)
    content = bytearray(path.read_bytes())
    change(content, expected.size * 2 + off)
    path.write_bytes(content)
    samples, _ = clip_of(path)
    assert abs(samples.size - expected.size) < 100
    shared = min(samples.size, expected.size)
    np.testing.assert_array_equal(samples[:shared], expected[:shared])


def test_samples_that_a_header_does_not_count_are_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", music(6.0))
    expected, _ = clip_of(path)
    content = bytearray(path.read_bytes())
    set_wav(content, 2 * 2 * SAMPLE_RATE)  # as of a recorder that was cut off after it had said 2 s
    path.write_bytes(content)
    samples, notes = clip_of(path)
    np.testing.assert_array_equal(samples, expected[: 2 * SAMPLE_RATE])
    assert notes == ["what follows the samples that its header counts is not read"]


def test_a_flac_file_that_is_a_few_samples_shorter_than_it_says_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", music(2.0))
    expected, _ = clip_of(path)
    content = bytearray(path.read_bytes())
    set_flac(content, expected.size + 10)
    path.write_bytes(content)
    samples, notes = clip_of(path)
    assert expected.size - 2 <= samples.size <= expected.size
    np.testing.assert_array_equal(samples, expected[: samples.size])
    assert "its last samples cannot be decoded" in notes[0]


def test_a_size_of_0_before_another_chunk_is_an_empty_recording(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", music(2.0))
    content = path.read_bytes()
    start = content.index(b"data")
    cover = b"id3 " + struct.pack("<I", 200_000) + bytes(range(256)) * 782
    path.write_bytes(content[:start] + b"data" + bytes(4) + cover)
    with pytest.raises(AudioError, match="has 0 s; expected at least 1"):
        clip_of(path)


@pytest.mark.parametrize("name", ["song.m4a", "song.WMA", "my song.ape", "song"])
def test_a_suffix_that_is_not_read_says_what_to_do(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(range(256)) * 20)
    with pytest.raises(AudioError, match="is not read; convert it, for example with: ffmpeg -i") as caught:
        clip_of(path)
    assert caught.value.kind == "unsupported"


def test_what_is_music_and_what_lies_beside_it() -> None:
    assert all(is_readable(name) for name in ("a.AIF", "b.Opus", "c.d.w64"))
    assert not any(is_readable(name) for name in ("a.m4a", "b", ".wav", "c.wav.part"))
    assert all(is_companion(name) for name in ("cover.JPG", "disc.cue", "Thumbs.db", "README", "x.nfo"))
    assert not any(is_companion(name) for name in ("a.m4a", "a.wma", "a.mid", "b", "c.mp4"))
    assert all(is_system_folder(name) for name in (".git", "__MACOSX", "@eaDir", "lost+found"))
    assert not is_system_folder("Rock")
