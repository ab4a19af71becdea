"""A song is measured as the bundle's training was, window by window, or refused with the features' names."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from genre_classifier.bundle.format import BundleDetails, read_bundle, wrap_bundle
from genre_classifier.bundle.songs import (
    AudioRecipe,
    average_windows,
    build_audio_recipe,
    build_song_answer,
    predict_song,
    write_curve,
)
from genre_classifier.bundle.writing import write_bundle
from genre_classifier.cli.main import main
from genre_classifier.errors import BundleError
from genre_classifier.features.decoding.audio import Excerpt, open_audio
from genre_classifier.features.pretrained.weights import load_weights
from genre_classifier.features.sets import CORE20, GTZAN57, MUSICNN50, PARAMETERS, FeatureSetReference
from genre_classifier.features.spectral.core20 import extract_core20
from genre_classifier.network import GenreClassifier
from tests.example_models import GENRES, METRICS, make_model, make_scaler, reference_probabilities
from tests.features.sounds import collection, music, write

NAME = "genre_classifier_production"
RNG = np.random.default_rng(0)
# Rows as wide apart as those of music, so that the answers are not all alike.
ROWS = np.stack(
    [extract_core20(music(1.0, seed=seed)[:, 0] * 10 ** RNG.uniform(-2, 0)) for seed in range(30)]
)
MODEL, SCALER = make_model(), make_scaler(ROWS.astype(np.float64))


def bundle_of(
    folder: Path, made_with: FeatureSetReference | None, names=CORE20.features, name: str = NAME
) -> Path:
    model, scaler = MODEL, SCALER
    if names != CORE20.features:
        model, scaler = make_model(len(names)), make_scaler(RNG.normal(size=(20, len(names))))
    details = BundleDetails(feature_names=names, feature_set=made_with)
    write_bundle(model, scaler, GENRES, METRICS, folder, name, details=details, onnx=False)
    return folder / name


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """A bundle trained on clips of two seconds."""
    return bundle_of(tmp_path / "models", CORE20.build_reference(2.0))


def recipe_of(bundle_path: Path) -> AudioRecipe:
    bundle = read_bundle(bundle_path.parent, bundle_path.name)
    return build_audio_recipe(bundle.metadata, bundle.feature_names)


def windows(path: Path, starts: list[float], seconds: float = 2.0) -> np.ndarray:
    """What each window's features are when it is decoded alone."""
    rows = []
    for start in starts:
        with open_audio(path) as recording:
            [clip] = recording.read_clips(Excerpt(offset=start, duration=seconds))
        rows.append(extract_core20(clip.samples))
    return np.stack(rows)


def test_a_song_is_the_mean_of_its_windows(short: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "song.mp3", music(7.3, 44_100, channels=2), 44_100)
    predictor = wrap_bundle(read_bundle(short.parent, NAME), GenreClassifier)
    song = predict_song(predictor, recipe_of(short), path, recipe_of(short).windows)
    assert song.starts.tolist() == [0.0, 2.0, 4.0, 6.0]
    expected = reference_probabilities(MODEL, SCALER, windows(path, [0.0, 2.0, 4.0, 6.0]))
    np.testing.assert_allclose(song.probabilities, expected, atol=1e-5)
    mean = (expected[0] + expected[1] + expected[2] + expected[3]) / 4
    answer = build_song_answer(predictor, song, return_probs=True)
    np.testing.assert_allclose(list(answer["all_probabilities"].values()), mean, atol=1e-5)
    assert answer["predicted_index"] == mean.argmax()
    assert answer["confidence"] == pytest.approx(mean.max(), abs=1e-5)


def test_sliding_windows_are_those_decoded_alone(short: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "song.flac", music(5.0, 44_100), 44_100)
    predictor = wrap_bundle(read_bundle(short.parent, NAME), GenreClassifier)
    song = predict_song(predictor, recipe_of(short), path, recipe_of(short).build_sliding_windows(1.0))
    assert song.starts.tolist() == [0.0, 1.0, 2.0, 3.0]
    expected = reference_probabilities(MODEL, SCALER, windows(path, song.starts.tolist()))
    np.testing.assert_allclose(song.probabilities, expected, atol=1e-6)


@pytest.mark.parametrize("certain", [1.0, 1 - 1e-12, 0.999])
@pytest.mark.parametrize("n_others", [1, 2, 9, 99])
def test_one_certain_window_moves_a_song_by_its_share_only(certain: float, n_others: int) -> None:
    other = [0.3, 0.7]
    average = average_windows(np.array([[certain, 1 - certain], *[other] * n_others]))
    expected = (certain + n_others * 0.3) / (n_others + 1)
    np.testing.assert_allclose(average, [expected, 1 - expected], rtol=1e-12)
    assert np.abs(average - other).max() <= 1 / (n_others + 1)


def test_nine_windows_outvote_a_certain_one() -> None:
    average = average_windows(np.array([[0.3, 0.7]] * 9 + [[1 - 1e-12, 1e-12]]))
    np.testing.assert_allclose(average, [0.37, 0.63], atol=1e-9)


def test_a_window_alone_is_the_song() -> None:
    alone = np.array([[0.1, 0.8, 0.1]])
    np.testing.assert_array_equal(average_windows(alone), alone[0])


def test_a_curve_is_written_by_the_second_as_numbers_and_picture(short: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a $song.wav", music(6.0))
    command = [
        "predict",
        str(path),
        "--over-time",
        "--output",
        str(tmp_path / "curves"),
        "--bundle",
        str(short),
    ]
    assert main(command) == 0
    with (tmp_path / "curves" / "a $song.wav.genres.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["seconds", "start", "end", *GENRES]
    assert [float(row["seconds"]) for row in rows] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert [float(row["end"]) for row in rows] == [2.0, 3.0, 4.0, 5.0, 6.0]
    assert sum(float(rows[2][genre]) for genre in GENRES) == pytest.approx(1.0, abs=1e-5)
    assert (tmp_path / "curves" / "a $song.wav.genres.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "curves").iterdir())) == 2


def test_a_song_of_one_window_has_a_curve_too(short: Path, tmp_path: Path) -> None:
    predictor = wrap_bundle(read_bundle(short.parent, NAME), GenreClassifier)
    path = write(tmp_path / "a.wav", music(1.2))
    song = predict_song(predictor, recipe_of(short), path, recipe_of(short).build_sliding_windows(1.0))
    write_curve(song, "a", tmp_path / "a.csv", tmp_path / "a.png")
    assert (tmp_path / "a.csv").read_text().splitlines()[1].startswith("0.60,0.00,1.20,")


def test_a_selection_of_features_is_measured_in_the_models_order(tmp_path: Path) -> None:
    names = ("rms", "mfcc_2", "chroma_std")
    recipe = recipe_of(bundle_of(tmp_path / "models", CORE20.build_reference(), names))
    path = write(tmp_path / "a.wav")
    _, _, features = recipe.measure(path, recipe.windows)
    whole = dict(zip(CORE20.features, windows(path, [0.0], 30.0)[0], strict=True))
    np.testing.assert_allclose(features[0], [whole[name] for name in names], rtol=1e-5)


def test_a_bundle_without_a_record_is_known_by_its_names(tmp_path: Path) -> None:
    assert recipe_of(bundle_of(tmp_path / "models", None)).features == "core20"
    gtzan = bundle_of(tmp_path / "models", None, GTZAN57.features, "gtzan")
    assert recipe_of(gtzan).features == "gtzan57"


OTHER_RATE = FeatureSetReference("core20", 1, {**PARAMETERS, "sample_rate_hz": 44_100})


@pytest.mark.parametrize(
    ("made_with", "names", "message"),
    [
        (
            None,
            ("tempo", "loudness"),
            "features that cannot be measured from audio: tempo, loudness; those of core20",
        ),
        (FeatureSetReference("own", 1, {}), ("a", "b"), "cannot be measured from audio: a, b"),
        (
            FeatureSetReference("core20", 2, dict(PARAMETERS)),
            CORE20.features,
            r"core20 measured differently .*version 2, not 1",
        ),
        (OTHER_RATE, CORE20.features, "sample_rate_hz 44100, not 22050"),
        (FeatureSetReference("core20", 1, {}), CORE20.features, "clip_seconds None, not 30"),
    ],
)
def test_a_bundle_whose_features_cannot_be_measured_is_refused(
    made_with: FeatureSetReference | None,
    names: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = bundle_of(tmp_path / "models", made_with, names)
    with pytest.raises(BundleError, match=message):
        recipe_of(bundle)
    assert main(["predict", str(write(tmp_path / "a.wav")), "--bundle", str(bundle)]) == 1
    assert f"error: {bundle}: the bundle was trained on" in capsys.readouterr().err


def test_a_bundle_of_other_weights_or_without_them_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = MUSICNN50.build_reference(3.0)
    other = FeatureSetReference("musicnn50", 1, {**made.parameters, "weights_sha256": "00" * 32})
    with pytest.raises(
        BundleError, match=f"musicnn50 measured differently from here .weights_sha256 {'00' * 32}, not 9"
    ):
        recipe_of(bundle_of(tmp_path / "other", other, MUSICNN50.features))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    load_weights.cache_clear()
    bundle = bundle_of(tmp_path / "models", made, MUSICNN50.features)
    song = write(tmp_path / "a.wav", music(3.0))
    assert main(["predict", str(song), "--bundle", str(bundle)]) == 1
    message = capsys.readouterr().err
    assert "the weights of musicnn are not here" in message
    assert message.count("\n") == 1
    # Rows that were measured elsewhere need no weights.
    row = ",".join(["0.1"] * 50)
    assert main(["predict", "--features", row, "--bundle", str(bundle)]) == 0


def test_a_curve_over_time_has_fewer_points_where_each_costs_more(
    musicnn_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = bundle_of(tmp_path / "models", MUSICNN50.build_reference(3.0), MUSICNN50.features)
    song = write(tmp_path / "a.wav", music(9.0, rate=16_000), 16_000)
    for step, n_points in (((), 3), (("--step", "1"), 7)):
        arguments = ["predict", str(song), "--bundle", str(bundle), "--over-time", "--output", str(tmp_path)]
        assert main([*arguments, *step]) == 0
        rows = (tmp_path / "a.wav.genres.csv").read_text().splitlines()
        assert len(rows) == 1 + n_points


def test_a_bundle_that_names_no_features_is_refused() -> None:
    with pytest.raises(BundleError, match="does not name its features"):
        build_audio_recipe({}, None)


def test_each_song_is_one_line_and_bad_songs_are_reported(
    short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write(tmp_path / "good.ogg", music(5.0))
    (tmp_path / "bad.mp3").write_bytes(b"x" * 100)
    other = write(tmp_path / "other.au", music(1.5, seed=3))
    songs = [str(good), str(tmp_path / "bad.mp3"), str(other)]
    assert main(["predict", *songs[:2], "--bundle", str(short), songs[2], "--top-k", "2"]) == 1
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [songs[0], songs[2]]
    assert lines[0].endswith("(0:05, 3 windows of 2 s)")
    assert lines[1].endswith("(0:02, 1 window of 1.5 s)")
    predictor = wrap_bundle(read_bundle(short.parent, NAME), GenreClassifier)
    expected = build_song_answer(
        predictor, predict_song(predictor, recipe_of(short), good, recipe_of(short).windows)
    )
    assert f"{expected['predicted_genre']} {expected['confidence']:.3f}, " in lines[0]
    assert captured.err.splitlines()[-1] == "error: 1 of 3 songs could not be measured"
    assert "bad.mp3 cannot be decoded" in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to predict: name audio files"),
        (["a.wav", "--table", "t.csv"], "only one of SONG, --features and --table"),
        (["--features", "1", "--table", "t.csv"], "only one of SONG, --features and --table"),
    ],
)
def test_one_thing_is_predicted_at_a_time(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_table_of_features_made_otherwise_is_refused(
    short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = collection(tmp_path / "music")
    cache = ["--cache", str(tmp_path / "c.sqlite"), "--jobs", "1"]
    for suffix in ("csv", "parquet"):
        for seconds, code in (("2", 0), ("30", 1)):
            table = tmp_path / f"f{seconds}.{suffix}"
            assert main(["extract", str(root), str(table), "--duration", seconds, *cache]) == 0
            assert main(["predict", "--table", str(table), "--bundle", str(short)]) == code
    assert (
        "f30.parquet: its features were measured differently from those of the training (clip_seconds 30"
        in (capsys.readouterr().err)
    )


def test_a_model_trained_on_audio_predicts_audio(tmp_path: Path) -> None:
    """The whole way: a folder, a run, an export, a song."""
    from genre_classifier.exporting.export import export
    from genre_classifier.training.fit import train
    from tests.conftest import composed

    root = tmp_path / "music"
    for number in range(8):
        write(root / "Hum" / f"{number}.wav", 0.3 * music(2.0, seed=number))
        noise = np.random.default_rng(number).uniform(-0.3, 0.3, (44_100, 1)).astype(np.float32)
        write(root / "Hiss" / f"{number}.wav", noise)
    result = train(
        composed(
            "data=audio_folder",
            f"data.path={root}",
            f"data.cache={tmp_path / 'features.sqlite'}",
            "data.jobs=1",
            "trainer.max_epochs=12",
            "optimizer.lr=0.01",
            "trainer.enable_progress_bar=false",
            "logger=none",
            f"run_dir={tmp_path / 'run'}",
        )
    )
    assert result is not None
    exported = export(composed(f"run={tmp_path / 'run'}", f"save_dir={tmp_path / 'models'}", config="export"))
    assert exported is not None
    recipe = recipe_of(tmp_path / "models" / NAME)
    assert recipe == AudioRecipe("core20", tuple(range(20)), CORE20.features, 30.0)
    predictor = wrap_bundle(read_bundle(tmp_path / "models", NAME), GenreClassifier)
    song = predict_song(
        predictor, recipe, write(tmp_path / "new.flac", 0.3 * music(2.0, seed=99)), recipe.windows
    )
    assert build_song_answer(predictor, song)["predicted_genre"] == "Hum"


def test_the_frames_of_overlapping_windows_are_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genre_classifier.features.decoding.audio import Recording

    read = []
    original = Recording._read
    monkeypatch.setattr(
        Recording, "_read", lambda self, first, n: read.append((first, n)) or original(self, first, n)
    )
    path = write(tmp_path / "a.wav", music(6.0))
    with open_audio(path) as recording:
        assert len(list(recording.read_clips(Excerpt(duration=None, window=3.0, step=1.0)))) == 4
    assert read == [(0, 66_150), (66_150, 22_050), (88_200, 22_050), (110_250, 22_050)]


def test_tables_that_say_nothing_are_predicted_as_before(short: Path, tmp_path: Path) -> None:
    pd.DataFrame(ROWS, columns=list(CORE20.features)).to_parquet(tmp_path / "plain.parquet")
    assert main(["predict", "--table", str(tmp_path / "plain.parquet"), "--bundle", str(short)]) == 0


def test_songs_of_any_format_are_predicted_and_other_files_are_reported(
    short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    songs = [write(tmp_path / f"a.{suffix}") for suffix in ("aiff", "w64", "caf", "wav")]
    content = songs[-1].read_bytes()
    start = content.index(b"data") + 4
    songs[-1].write_bytes(content[:start] + bytes(4) + content[start + 4 :])  # as a recorder leaves it
    other = tmp_path / "it's.m4a"
    other.write_bytes(b"\0\0\0\x20ftypM4A " * 50)
    gone = tmp_path / "gone.mp3"
    assert main(["predict", *map(str, songs), str(other), str(gone), "--bundle", str(short)]) == 1
    captured = capsys.readouterr()
    assert [line.partition(":")[0] for line in captured.out.splitlines()] == [str(song) for song in songs]
    assert caplog.text.count(f"{songs[-1]}: its header does not say how long it is") == 1
    assert (
        f"error: {other} cannot be decoded (Format not recognised): .m4a is not read; convert it"
        in captured.err
    )
    assert """ffmpeg -i 'it'"'"'s.m4a' 'it'"'"'s.flac'""" in captured.err
    assert f"error: {gone} does not exist; expected an audio file" in captured.err
    assert "error: 2 of 6 songs could not be measured" in captured.err
