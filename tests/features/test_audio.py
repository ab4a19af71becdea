"""A file is decoded as librosa would decode it, and what is wrong with it is said."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from genre_classifier.errors import AudioError, DataError, MissingExtraError
from genre_classifier.features.decoding.audio import Excerpt, open_audio
from genre_classifier.features.measure import measure_file, try_to_measure
from genre_classifier.features.sets import SAMPLE_RATE
from tests.features.sounds import FORMATS, music, soundfile, write

SUFFIXES = list(FORMATS)


def decoded(path: Path, excerpt: Excerpt = Excerpt()) -> list[tuple[float, np.ndarray]]:  # noqa: B008
    with open_audio(path) as recording:
        return [(clip.start, clip.samples) for clip in recording.read_clips(excerpt)]


def notes(path: Path, excerpt: Excerpt = Excerpt()) -> list[str]:  # noqa: B008
    with open_audio(path) as recording:
        for _ in recording.read_clips(excerpt):
            pass
        return recording.notes


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("rate", "channels"), [(22_050, 1), (44_100, 2), (48_000, 1)])
def test_a_file_is_decoded_as_librosa_does(suffix: str, rate: int, channels: int, tmp_path: Path) -> None:
    librosa = pytest.importorskip("librosa", reason="needs the extra audio")
    path = write(tmp_path / f"a.{suffix}", music(4.0, rate, channels=channels), rate)
    for excerpt in (Excerpt(), Excerpt(offset=1.3, duration=1.7)):
        [(start, samples)] = decoded(path, excerpt)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of audioread, which librosa imports
            expected, _ = librosa.load(path, sr=SAMPLE_RATE, offset=excerpt.offset, duration=excerpt.duration)
        assert start == excerpt.offset
        np.testing.assert_allclose(samples, expected, atol=1e-6)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_many_small_blocks_are_one_file(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / f"a.{suffix}", music(2.0, channels=2))
    whole = decoded(path)
    monkeypatch.setattr("genre_classifier.features.decoding.audio.BLOCK_SAMPLES", 3001)
    np.testing.assert_allclose(decoded(path)[0][1], whole[0][1], atol=1e-6)


def test_the_first_thirty_seconds_are_taken_and_no_more(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", music(31.0, 8_000), 8_000)
    [(_, samples)] = decoded(path)
    assert samples.size == 30 * SAMPLE_RATE


@pytest.mark.parametrize(
    ("excerpt", "seconds", "spans"),
    [
        (Excerpt(), 10.0, [(0.0, 10.0)]),
        (Excerpt(offset=4.0, duration=3.0), 10.0, [(4.0, 3.0)]),
        (Excerpt(offset=8.0, duration=3.0), 10.0, [(8.0, 2.0)]),
        (Excerpt(duration=None, window=3.0), 9.0, [(0.0, 3.0), (3.0, 3.0), (6.0, 3.0)]),
        (Excerpt(duration=None, window=3.0), 10.0, [(0.0, 3.0), (3.0, 3.0), (6.0, 3.0)]),
        (Excerpt(duration=None, window=4.0), 10.0, [(0.0, 4.0), (4.0, 4.0), (8.0, 2.0)]),
        (Excerpt(duration=6.0, window=3.0), 10.0, [(0.0, 3.0), (3.0, 3.0)]),
        (Excerpt(duration=None, window=30.0), 10.0, [(0.0, 10.0)]),
    ],
)
def test_an_excerpt_is_cut_into_clips(
    excerpt: Excerpt, seconds: float, spans: list[tuple[float, float]]
) -> None:
    assert list(excerpt.list_spans(seconds)) == spans


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"offset": -1.0}, "offset=-1: expected at least 0 seconds"),
        ({"duration": 0.5}, r"duration=0\.5: expected at least 1 seconds"),
        ({"window": float("inf")}, "window=inf"),
        ({"duration": None}, "neither duration nor window"),
    ],
)
def test_an_excerpt_that_makes_no_clip_is_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Excerpt(**fields)


def test_windows_are_what_their_excerpts_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", music(5.0, 44_100), 44_100)
    for start, samples in decoded(path, Excerpt(duration=None, window=2.0)):
        [(_, alone)] = decoded(path, Excerpt(offset=start, duration=2.0))
        np.testing.assert_array_equal(samples, alone)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_the_artist_is_read_from_the_tags(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{suffix}", artist="Björk")
    with open_audio(path) as recording:
        assert recording.artist == "Björk"
    with open_audio(write(tmp_path / f"b.{suffix}")) as recording:
        assert recording.artist is None


def refused(path: Path) -> AudioError:
    with pytest.raises(AudioError) as caught:
        decoded(path)
    assert str(path) in str(caught.value)
    return caught.value


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"just some text " * 500, bytes(50_000), b"PK\3\4" + bytes(range(256)) * 100],
    ids=["empty", "one byte", "text", "zeros", "archive"],
)
def test_what_is_no_audio_is_unreadable(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    error = refused(path)
    assert error.kind == "unreadable"
    assert "is empty" in str(error) or "Format not recognised" in str(error)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_header_alone_is_unreadable(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{suffix}")
    path.write_bytes(path.read_bytes()[:200])
    assert refused(path).kind in {"unreadable", "too short"}


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "au", "aiff", "w64", "caf"])
def test_half_a_file_is_unreadable(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{suffix}", music(6.0, 44_100), 44_100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refused(path).kind == "unreadable"


@pytest.mark.parametrize("suffix", ["wav", "flac", "au", "aiff", "w64"])
def test_the_requested_part_of_a_truncated_file_is_measured(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{suffix}", music(6.0))
    [(_, whole)] = decoded(path, Excerpt(duration=2.0))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    [(_, samples)] = decoded(path, Excerpt(duration=2.0))
    np.testing.assert_array_equal(samples, whole)
    [reason] = notes(path, Excerpt(duration=2.0)) or ["flac says it of the end only"]
    assert "bytes of samples, it has" in reason or suffix == "flac"


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
def test_a_damaged_middle_is_unreadable(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{suffix}", music(6.0, 44_100), 44_100)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = np.random.default_rng(0).bytes(4000)
    path.write_bytes(content)
    assert refused(path).kind == "unreadable"


def test_another_format_than_the_suffix_says_is_mislabelled(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac").rename(tmp_path / "a.mp3")
    error = refused(path)
    assert error.kind == "mislabelled"
    assert "is FLAC, not what .mp3 says" in str(error)


def test_less_than_a_second_is_too_short(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", music(0.9))
    assert refused(path).kind == "too short"
    longer = write(tmp_path / "b.wav", music(3.0))
    with pytest.raises(AudioError, match=r"has 0\.5 s after offset=2\.5; expected at least 1"):
        decoded(longer, Excerpt(offset=2.5))


def test_a_sample_rate_of_no_music_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(1000), 10)
    assert "sample rate of 10 Hz" in str(refused(path))


def test_what_is_not_a_file_is_reported(tmp_path: Path) -> None:
    assert "does not exist" in str(refused(tmp_path / "gone.wav"))
    assert "is a folder" in str(refused(tmp_path))


def test_a_folder_named_in_any_script_and_a_long_name_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "日本語 🎵" / f"{'é' * 120}.flac")
    assert decoded(path)[0][1].size == 3 * SAMPLE_RATE
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.flac"))
    path.rename(odd)
    assert decoded(odd)[0][1].size == 3 * SAMPLE_RATE


def test_decoders_own_messages_stay_off_the_terminal(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp3", music(6.0, 44_100), 44_100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code = (
        "import sys\nfrom pathlib import Path\nfrom genre_classifier.features.measure import try_to_measure\n"
        "from genre_classifier.features.decoding.audio import Excerpt\n"
        f"print(try_to_measure(Path({str(path)!r}), 'core20', Excerpt()).result.kind)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("unreadable", "")


def test_without_soundfile_the_install_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genre_classifier.features.decoding.audio.find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r"soundfile and soxr not installed; run in .*-e '\.\[audio\]'"
    ):
        decoded(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("left", "right"), [(1.0, -1.0), (0.5, -0.5005)], ids=["inverted", "all but inverted"]
)
@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
def test_channels_that_cancel_are_reported(suffix: str, left: float, right: float, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{suffix}", music(4.0) * np.array([left, right], dtype=np.float32), 44_100)
    with pytest.raises(AudioError, match=r"a\.\w+: its channels cancel each other in mono") as caught:
        measure_file(path, "core20", Excerpt())
    assert caught.value.kind == "out of phase"


@pytest.mark.parametrize(("gains", "kind"), [((0.0, 0.0), "silent"), ((1.0, -0.9), None), ((1.0, 0.0), None)])
def test_other_channels_are_measured_or_silent(
    gains: tuple[float, float], kind: str | None, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.wav", music(2.0) * np.array(gains, dtype=np.float32))
    result = try_to_measure(path, "core20", Excerpt()).result
    assert getattr(result, "kind", None) == kind


def test_a_file_without_permission_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.wav")

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(AudioError, match=r"a\.wav cannot be read: Permission denied"), open_audio(path):
        pass


def test_no_more_is_decoded_than_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.flac", np.tile(music(5.0, 8_000), (24, 1)), 8_000)
    read: list[int] = []
    original = soundfile.SoundFile.read

    def counted(self, frames: int = -1, **options):
        read.append(frames)
        return original(self, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    decoded(path, Excerpt(offset=10.0, duration=6.0, window=2.0))
    assert sum(read) == 6 * 8_000
