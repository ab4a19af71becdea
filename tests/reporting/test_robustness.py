"""Does a song keep its genre when its sound is changed: the changes, the measurement, the table, the command."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from genre_classifier.bundle.format import BundleDetails, make_predictor, read_bundle
from genre_classifier.bundle.songs import build_audio_recipe, predict_song
from genre_classifier.bundle.writing import write_bundle
from genre_classifier.cli.main import main
from genre_classifier.errors import AudioError
from genre_classifier.features.decoding.audio import Excerpt
from genre_classifier.features.discovery import AudioFile, scan
from genre_classifier.features.measure import Failure, measure_file
from genre_classifier.features.sets import CORE20
from genre_classifier.network import GenreClassifier
from genre_classifier.reporting.robustness import changes, check
from genre_classifier.reporting.robustness.changes import CHANGES, Change, Sound, encode_mp3
from genre_classifier.reporting.robustness.check import (
    Robustness,
    Song,
    Variants,
    check_robustness,
    decode,
    measure_variants,
)
from genre_classifier.reporting.robustness.table import summarize
from tests.example_models import make_model, make_rows, make_scaler
from tests.features.sounds import music, soundfile, write
from tests.hostile import is_safe

NAME = "model"
GENRES = ["Quiet", "Loud"]
MIDDLE, SPREAD, SLOPE = 0.05, 0.02, 3.0


def tone(hertz: float, rate: int = 44_100, seconds: float = 2.0, peak: float = 0.5) -> Sound:
    return Sound(
        (peak * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype("f4"), rate
    )


def amplitude(sound: Sound) -> float:
    """Of a tone's steady part."""
    return float(
        np.sqrt(2 * np.mean(np.square(sound.samples[sound.rate // 2 : -sound.rate // 4], dtype=float)))
    )


def low_hum(rms: float, seconds: float = 7.0, rate: int = 22_050, seed: int = 0) -> np.ndarray:
    """Tones from 100 to 900 Hz, which only a change of loudness changes in loudness."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    sound = sum(np.sin(2 * np.pi * f * time + rng.uniform(0, 6)) for f in (110.0, 233.0, 410.0, 870.0))
    return (sound / np.sqrt(np.mean(sound**2)) * rms).astype(np.float32)


def loudness_bundle(folder: Path) -> Path:
    """A linear network that takes what is louder than an RMS of 0.05 for Loud, and looks at nothing else."""
    model = GenreClassifier(input_dim=20, hidden_dims=(), num_classes=2, dropout=0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.network[-1].weight[1, CORE20.features.index("rms")] = SLOPE
    scaler = StandardScaler().fit(make_rows())
    scaler.mean_ = np.full(20, MIDDLE)
    scaler.scale_ = np.full(20, SPREAD)
    scaler.var_ = scaler.scale_**2
    details = BundleDetails(feature_names=CORE20.features, feature_set=CORE20.build_reference())
    write_bundle(model, scaler, GENRES, {"test_accuracy": 1.0}, folder, NAME, details=details, onnx=False)
    return folder / NAME


def certainty(rms: float) -> float:
    """The probability of Loud, by hand."""
    return float(1 / (1 + np.exp(-SLOPE * (rms - MIDDLE) / SPREAD)))


def checked(bundle_path: Path, files: list[AudioFile], jobs: int = 1) -> Robustness:
    bundle = read_bundle(bundle_path.parent, bundle_path.name)
    recipe = build_audio_recipe(bundle.metadata, bundle.feature_names)
    return check_robustness(make_predictor(bundle), recipe, files, jobs)


@pytest.fixture
def loudness(tmp_path: Path) -> Path:
    return loudness_bundle(tmp_path / "models")


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Two loud songs and a quiet one, below their genres."""
    for place, (genre, rms) in enumerate([("Loud", 0.12), ("loud", 0.1), ("Quiet", 0.02)]):
        write(tmp_path / "music" / genre.capitalize() / f"{place}.wav", low_hum(rms, seed=place))
    return tmp_path / "music"


@pytest.mark.parametrize(("name", "factor"), [("gain -20 dB", 0.1), ("gain -10 dB", 0.316228)])
def test_a_quieter_sound_is_the_same_sound(name: str, factor: float) -> None:
    sound = Sound(music(1.0)[:, 0], 22_050)
    changed = CHANGES[name].apply(sound, 0)
    np.testing.assert_allclose(changed.samples, sound.samples * factor, rtol=1e-5)
    assert not changed.is_clipped


def test_a_louder_sound_is_cut_off_at_full_scale() -> None:
    quiet, loud = tone(440, peak=0.4), tone(440, peak=0.8)
    assert not CHANGES["gain +6 dB"].apply(quiet, 0).is_clipped
    changed = CHANGES["gain +6 dB"].apply(loud, 0)
    assert changed.is_clipped
    expected = np.clip(1.9952623 * loud.samples.astype(float), -1, 1)
    np.testing.assert_allclose(changed.samples, expected, atol=1e-6)


@pytest.mark.parametrize("rate", [44_100, 22_050, 8_000])
def test_a_resampled_tone_is_the_tone_at_16_khz(rate: int) -> None:
    changed = CHANGES["16 kHz sampling"].apply(tone(1000, rate), 0)
    assert changed.rate == 16_000
    expected = tone(1000, 16_000)
    middle = slice(1600, -1600)
    np.testing.assert_allclose(changed.samples[middle], expected.samples[middle], atol=1e-3)
    assert amplitude(CHANGES["16 kHz sampling"].apply(tone(9000), 0)) < 1e-3


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_an_mp3_has_64_kbit_a_second(rate: int) -> None:
    sound = Sound(music(10.0, rate)[:, 0], rate)
    content = encode_mp3(sound)
    assert 64 <= len(content) * 8 / 10 / 1000 < 66  # headers come on top
    changed = CHANGES["MP3 64 kbit/s"].apply(sound, 0)
    assert changed.rate == rate
    assert abs(len(changed.samples) - len(sound.samples)) <= 1152
    n = min(len(changed.samples), len(sound.samples))
    assert np.corrcoef(changed.samples[:n], sound.samples[:n])[0, 1] > 0.9, "and no delay"


def test_a_rate_that_mp3_does_not_have_becomes_the_usual_one() -> None:
    changed = CHANGES["MP3 64 kbit/s"].apply(tone(1000, 96_000), 0)
    assert changed.rate == 44_100
    n = min(len(changed.samples), 88_200)
    assert np.corrcoef(changed.samples[:n], tone(1000).samples[:n])[0, 1] > 0.99


@pytest.mark.parametrize("hertz", [500, 3000, 4000, 5000, 6000])
@pytest.mark.parametrize("rate", [22_050, 44_100])
def test_the_low_pass_has_butterworths_response(hertz: int, rate: int) -> None:
    changed = CHANGES["low-pass 4 kHz"].apply(tone(hertz, rate), 0)
    warped = np.tan(np.pi * hertz / rate) / np.tan(np.pi * 4000 / rate)
    expected = 0.5 / np.sqrt(1 + warped**16)
    assert amplitude(changed) == pytest.approx(expected, rel=0.01, abs=1e-5)


def test_a_long_sound_is_filtered_as_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = Sound(music(1.0)[:, 0], 22_050)
    whole = CHANGES["low-pass 4 kHz"].apply(sound, 0).samples
    monkeypatch.setattr(changes, "BLOCK_SAMPLES", 1000)
    np.testing.assert_array_equal(CHANGES["low-pass 4 kHz"].apply(sound, 0).samples, whole)


def test_a_low_pass_leaves_a_sound_that_has_nothing_above() -> None:
    sound = tone(1000, 8000)
    assert CHANGES["low-pass 4 kHz"].apply(sound, 0) is sound


def test_noise_is_white_and_20_db_below_the_sound() -> None:
    sound = Sound(music(4.0)[:, 0], 22_050)
    noisy = CHANGES["white noise 20 dB"].apply(sound, 7)
    noise = noisy.samples.astype(float) - sound.samples
    assert 10 * np.log10(np.mean(sound.samples.astype(float) ** 2) / np.mean(noise**2)) == pytest.approx(
        20, abs=1e-3
    )
    power = np.abs(np.fft.rfft(noise)) ** 2
    bands = np.array([band.mean() for band in np.array_split(power, 8)])
    np.testing.assert_allclose(bands / bands.mean(), 1, atol=0.1)
    again, other = (CHANGES["white noise 20 dB"].apply(sound, seed).samples for seed in (7, 8))
    np.testing.assert_array_equal(again, noisy.samples)
    assert not np.array_equal(other, noisy.samples)


def test_the_first_five_seconds_go() -> None:
    sound = tone(440, 8_000, seconds=6.0)
    np.testing.assert_array_equal(CHANGES["first 5 s cut"].apply(sound, 0).samples, sound.samples[40_000:])
    with pytest.raises(AudioError, match="shorter than 6 s"):
        CHANGES["first 5 s cut"].apply(tone(440, 8_000, seconds=5.9), 0)


def test_a_stereo_file_is_changed_in_mono_at_its_own_rate(tmp_path: Path) -> None:
    stereo = music(2.0, 44_100, channels=2)
    sound = decode(write(tmp_path / "a.flac", stereo, 44_100))
    assert sound.rate == 44_100
    np.testing.assert_allclose(sound.samples, stereo.mean(axis=1), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "channels", "rate"), [("a.wav", 1, 22_050), ("a.flac", 2, 44_100), ("a.mp3", 2, 48_000)]
)
def test_a_song_that_is_not_changed_has_the_features_that_predict_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, channels: int, rate: int
) -> None:
    monkeypatch.setitem(CHANGES, "none", Change("none", lambda sound, seed: sound))
    path = write(tmp_path / name, music(5.0, rate, channels=channels), rate)
    windows = Excerpt(duration=None, window=2.0)
    found = measure_variants(path, "core20", windows, ["none"])
    assert isinstance(found, Variants)
    np.testing.assert_array_equal(found.original, measure_file(path, "core20", windows).features)
    assert len(found.original) == 3
    np.testing.assert_allclose(found.changed["none"], found.original, rtol=1e-5, atol=1e-6)


def test_a_long_file_is_measured_in_its_first_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loudness: Path
) -> None:
    monkeypatch.setattr(check, "LONGEST_SECONDS", 4.0)
    path = write(tmp_path / "a.wav", music(9.0))
    assert len(decode(path).samples) == 4 * 22_050
    bundle = read_bundle(loudness.parent, loudness.name)
    recipe = build_audio_recipe(bundle.metadata, bundle.feature_names)
    [(_, found)] = check._measure_all([AudioFile(path, "a")], recipe, ("gain -20 dB",), 1)
    assert isinstance(found, Variants)
    expected = measure_file(path, "core20", Excerpt(duration=4.0, window=recipe.clip_seconds)).features
    np.testing.assert_array_equal(found.original, expected)


def test_a_change_is_measured_as_the_changed_file_would_be(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", music(3.0))
    samples, rate = soundfile.read(path, dtype="float32")
    soundfile.write(tmp_path / "quiet.wav", samples * np.float32(0.1), rate, subtype="FLOAT")
    windows = Excerpt(duration=None, window=30.0)
    found = measure_variants(path, "core20", windows, ["gain -20 dB"])
    assert isinstance(found, Variants)
    expected = measure_file(tmp_path / "quiet.wav", "core20", windows).features
    np.testing.assert_allclose(found.changed["gain -20 dB"], expected, rtol=1e-5)


def test_a_bundle_that_hears_loudness_changes_with_loudness_alone(loudness: Path, three: Path) -> None:
    rows = {row.change: row for row in summarize(checked(loudness, scan(three).files))}
    assert list(rows) == list(CHANGES)
    quiet = rows["gain -20 dB"]
    assert (quiet.n_clips, quiet.n_changed) == (3, 2)
    assert (quiet.accuracy_before, quiet.accuracy_after) == (1.0, pytest.approx(1 / 3))
    by_hand = [
        certainty(0.012) - certainty(0.12),
        certainty(0.01) - certainty(0.1),
        (1 - certainty(0.002)) - (1 - certainty(0.02)),
    ]
    assert quiet.confidence_change == pytest.approx(np.mean(by_hand), abs=0.01)
    for change in (
        "16 kHz sampling",
        "MP3 64 kbit/s",
        "low-pass 4 kHz",
        "white noise 20 dB",
        "first 5 s cut",
    ):
        assert (rows[change].n_clips, rows[change].n_changed) == (3, 0)
        assert rows[change].confidence_change == pytest.approx(0, abs=0.02)


def test_the_prediction_before_is_that_of_predict(tmp_path: Path, three: Path) -> None:
    details = BundleDetails(feature_names=CORE20.features, feature_set=CORE20.build_reference(2.0))
    scaler = make_scaler(make_rows())
    write_bundle(
        make_model(), scaler, list("abcdefgh"), {"f1": 1.0}, tmp_path / "m", NAME, details=details, onnx=False
    )
    bundle = read_bundle(tmp_path / "m", NAME)
    recipe = build_audio_recipe(bundle.metadata, bundle.feature_names)
    for song in checked(tmp_path / "m" / NAME, scan(three).files).songs:
        predicted = predict_song(make_predictor(bundle), recipe, song.file.path, recipe.windows)
        assert len(predicted.starts) == 4
        np.testing.assert_allclose(song.original, predicted.average, atol=1e-9)


def test_the_tables_numbers_are_those_computed_by_hand() -> None:
    def song(
        genre: str | None, before: list[float], after: list[float] | Failure, clipped: bool = False
    ) -> Song:
        file = AudioFile(Path("x.wav"), "x", genre)
        changed = {"c": after if isinstance(after, Failure) else np.array(after)}
        return Song(file, np.array(before), changed, ("c",) if clipped else ())

    songs = [
        song("Jazz", [0.7, 0.2, 0.1], [0.3, 0.6, 0.1], clipped=True),  # changes, was right
        song("ROCK", [0.6, 0.3, 0.1], [0.5, 0.4, 0.1]),  # stays, is wrong
        song("Polka", [0.1, 0.1, 0.8], [0.2, 0.2, 0.6]),  # stays; no genre of the bundle's
        song("Jazz", [1.0, 0.0, 0.0], Failure("too short", "x")),
    ]
    [row] = summarize(Robustness(songs, ("Jazz", "Rock", "Folk"), ("c",), {}, [], []))
    assert (row.n_clips, row.n_changed, row.n_labelled, row.n_clipped) == (3, 1, 2, 1)
    assert row.confidence_change == pytest.approx((-0.4 - 0.1 - 0.2) / 3)
    assert (row.accuracy_before, row.accuracy_after) == (0.5, 0.0)
    assert row.left_out == {"too short": 1}
    z, n, p = 1.959964, 3, 1 / 3
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert row.interval == pytest.approx((middle - reach, middle + reach), abs=1e-6)


def test_what_cannot_be_measured_after_a_change_is_left_out_of_its_row(
    loudness: Path, tmp_path: Path
) -> None:
    write(tmp_path / "music" / "short.wav", low_hum(0.1, seconds=5.5))
    write(tmp_path / "music" / "faint.wav", low_hum(0.0003))
    write(tmp_path / "music" / "usual.wav", low_hum(0.1))
    rows = {row.change: row for row in summarize(checked(loudness, scan(tmp_path / "music").files))}
    assert rows["first 5 s cut"].left_out == {"too short": 1}
    assert rows["first 5 s cut"].n_clips == 2
    assert rows["gain -20 dB"].left_out == {"silent": 1}
    assert rows["gain -10 dB"].n_clips == 3


def test_the_command_writes_table_csv_and_picture(
    loudness: Path, three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (three / "Loud" / "bad.mp3").write_bytes(b"no sound")
    command = [
        "robustness",
        str(loudness),
        str(three),
        "--jobs",
        "1",
        "--csv",
        str(tmp_path / "new" / "a.csv"),
    ]
    assert main([*command, "--figure", str(tmp_path / "a.PNG")]) == 0
    printed = capsys.readouterr()
    assert "gain -20 dB" in printed.out
    assert "0.667 [0.208, 0.939]" in printed.out
    assert "1.00 to 0.33" in printed.out
    assert "bad.mp3 cannot be decoded" in printed.err
    assert "1 of 4 files could not be measured" in printed.err
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "new" / "a.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["change"] for row in rows] == list(CHANGES)
    assert (rows[0]["clips"], rows[0]["genre_changed"], rows[0]["share"]) == ("3", "2", "0.666667")
    assert rows[0]["accuracy_after"] == "0.333333"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.csv"]
    first = (tmp_path / "new" / "a.csv").read_bytes()
    assert main([*command, "--figure", str(tmp_path / "a.svg")]) == 0
    assert (tmp_path / "new" / "a.csv").read_bytes() == first, "a second run has the same numbers"
    assert "share of clips with another genre" in (tmp_path / "a.svg").read_text()


def test_processes_give_the_same_numbers(loudness: Path, three: Path) -> None:
    files = scan(three).files
    one, two = (summarize(checked(loudness, files, jobs)) for jobs in (1, 2))
    assert one == two


def test_clipped_clips_are_counted(
    loudness: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "music" / "a.wav", low_hum(0.3))
    write(tmp_path / "music" / "b.wav", low_hum(0.03))
    assert main(["robustness", str(loudness), str(tmp_path / "music"), "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "gain +6 dB: 1 of 2 clips are cut off at full scale" in printed
    assert "accuracy" not in printed


def test_without_an_mp3_encoder_that_row_is_left_out(
    loudness: Path, three: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soundfile, "available_formats", lambda: {"WAV": "WAV"})
    monkeypatch.setattr(soundfile, "__libsndfile_version__", "1.0.31")
    assert main(["robustness", str(loudness), str(three), "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "MP3 64 kbit/s: left out, libsndfile 1.0.31 has no MP3 encoder; 1.1 and newer have one" in printed
    assert "white noise" in printed


def test_a_soundfile_that_sets_no_bit_rate_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert changes.find_mp3_obstacle() is None
    monkeypatch.setattr(soundfile, "SoundFile", lambda file, mode: None)
    monkeypatch.setattr(soundfile, "__version__", "0.12.1")
    assert changes.find_mp3_obstacle() == "soundfile 0.12.1 cannot set a bit rate; 0.13 and newer can"


def test_no_file_that_can_be_measured_is_one_error(
    loudness: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.mp3", "b.wav"):
        (tmp_path / "music").mkdir(exist_ok=True)
        (tmp_path / "music" / name).write_bytes(b"no sound")
    command = [
        "robustness",
        str(loudness),
        str(tmp_path / "music"),
        "--csv",
        str(tmp_path / "a.csv"),
        "--jobs",
        "1",
    ]
    assert main(command) == 1
    printed = capsys.readouterr()
    assert "error: none of 2 files could be measured (2 unreadable): " in printed.err
    assert printed.err.count("error: ") == 1
    assert not (tmp_path / "a.csv").exists()


def test_what_is_wrong_is_said_before_anything_is_measured(
    loudness: Path,
    three: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("genre_classifier.reporting.robustness.check.measure_variants", None)
    (tmp_path / "file").touch()
    song = str(next(three.rglob("*.wav")))
    for told, message in (
        (
            [str(three), "--figure", "a.jpg"],
            "--figure a.jpg: .jpg is not a kind of picture; expected .png or .svg",
        ),
        ([str(three), "--figure", str(tmp_path / "models.png")], "is a folder; name the file to be written"),
        ([str(three), "--csv", str(tmp_path / "file" / "a.csv")], "cannot be written: "),
        ([str(three), "--csv", "/proc/a.csv"], "--csv /proc/a.csv cannot be written: "),
        ([str(three), "--jobs", "0"], "jobs=0: expected at least 1"),
        ([song], "is a file; expected a folder with audio files"),
        ([str(tmp_path / "none")], "there is no such folder"),
        ([str(tmp_path / "models")], "no audio file in it"),
    ):
        (tmp_path / "models.png").mkdir(exist_ok=True)
        assert main(["robustness", str(loudness), *told]) == 1
        assert message in capsys.readouterr().err
    assert main(["robustness", str(loudness.parent), str(three)]) == 1
    assert "is a folder; name the bundle in it" in capsys.readouterr().err


def test_a_bundle_whose_features_cannot_be_measured_is_refused_as_by_predict(
    tmp_path: Path, three: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    details = BundleDetails(feature_names=("tempo", "key"), feature_set=None)
    scaler = make_scaler(make_rows(n_features=2))
    write_bundle(
        make_model(2),
        scaler,
        list("abcdefgh"),
        {"f1": 1.0},
        tmp_path / "m",
        NAME,
        details=details,
        onnx=False,
    )
    song = str(next(three.rglob("*.wav")))
    said = []
    for command in (
        ["robustness", str(tmp_path / "m" / NAME), str(three)],
        ["predict", song, "--bundle", str(tmp_path / "m" / NAME)],
    ):
        assert main(command) == 1
        said.append(capsys.readouterr().err)
    assert "was trained on features that cannot be measured from audio: tempo, key" in said[0]
    assert said[0] == said[1]


def test_an_interruption_leaves_nothing(
    loudness: Path,
    three: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("genre_classifier.reporting.robustness.check.measure_file", interrupted)
    out = tmp_path / "out"
    command = ["robustness", str(loudness), str(three), "--jobs", "1", "--csv", str(out / "a.csv")]
    assert main([*command, "--figure", str(out / "a.png")]) == 1
    assert "interrupted; nothing was written" in capsys.readouterr().err
    assert list(out.iterdir()) == []


def test_names_are_printed_as_text(
    loudness: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "music" / "[bold]\x1b[2J"
    write(folder / "\u202egood.wav", low_hum(0.1, seconds=1.5))
    (folder / "\x9b=bad.wav").write_bytes(b"no sound")
    told = ["robustness", str(loudness), str(tmp_path / "music"), "--jobs", "1"]
    assert main([*told, "--figure", str(tmp_path / "\x1b.svg")]) == 0
    printed = capsys.readouterr()
    assert is_safe(printed.out + printed.err)
    assert "bad.wav" in printed.err
    assert "first 5 s cut: left out 1 too short" in printed.out


def test_the_figure_shows_shares_and_confidence() -> None:
    from genre_classifier.evaluation.figures import draw_robustness

    shares, confidence = np.array([0.25, 1.0]), np.array([-0.2, 0.05])
    intervals = np.array([[0.1, 0.5], [0.8, 1.0]])
    figure = draw_robustness(["gain", "_noise"], shares, intervals, confidence, "a $b$")
    left, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == pytest.approx([0.25, 1.0])
    assert [bar.get_width() for bar in right.patches] == pytest.approx([-0.2, 0.05])
    [segments] = [collection.get_segments() for collection in left.collections]
    np.testing.assert_allclose([segment[:, 0] for segment in segments], intervals)
    assert [label.get_text().strip() for label in left.get_yticklabels()] == ["gain", "_noise"]
