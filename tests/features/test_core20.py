"""core20 says what librosa's functions say when each is called by itself, needs no librosa, and is never NaN."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from genre_classifier.errors import DataError
from genre_classifier.features.sets import CORE20, HOP_LENGTH, N_FFT, SAMPLE_RATE
from genre_classifier.features.spectral import filters
from genre_classifier.features.spectral.core20 import BLOCK_FRAMES, extract_core20
from genre_classifier.features.spectral.tuning import estimate_tuning, find_peaks, find_pitch_bins
from tests.features.reference import (
    CHROMA,
    DEGENERATE,
    FLAT,
    GOLDEN,
    MUSICAL,
    chroma_error_at_best_tuning,
    core20_error,
    golden,
    librosa_core20,
    signal,
)
from tools.demo.compose import compose
from tools.demo.genres import GENRES
from tools.demo.render import render

AT = {name: place for place, name in enumerate(CORE20.features)}
ORDINARY = 2e-5  # allowed difference relative to the value, as docs/from-audio.md says
# Relative to the feature's scale: float32 rounds to 6e-8, and a feature is a chain of some hundred such roundings.
ROUNDING = 1e-5
CEPSTRUM_FLOOR = 0.2  # dB; a coefficient below is what is left of 128 bands of up to 100 dB
FLOORS = np.array([CEPSTRUM_FLOOR if name.startswith("mfcc") else 0.0 for name in CORE20.features])
CLIPS = sorted((Path(str(files("genre_classifier.demo"))) / "clips").glob("*.ogg"))


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(core20_error(found, expected, FLOORS).max())


@pytest.mark.parametrize("name", MUSICAL)
def test_every_feature_of_an_ordinary_signal_is_what_librosa_says(name: str) -> None:
    pytest.importorskip("librosa", reason="needs the extra audio")
    y = signal(name)
    assert relative_error(extract_core20(y), librosa_core20(y)) < ORDINARY


@pytest.mark.parametrize("name", DEGENERATE)
def test_every_feature_of_an_odd_signal_is_what_librosa_says(name: str) -> None:
    pytest.importorskip("librosa", reason="needs the extra audio")
    y = signal(name)
    features = extract_core20(y)
    errors = core20_error(features, librosa_core20(y))
    if name in FLAT:
        assert chroma_error_at_best_tuning(features, y) < ROUNDING
        errors = errors[~CHROMA]
    assert errors.max() < ROUNDING


@pytest.mark.parametrize("clip", CLIPS[::3], ids=lambda path: path.stem)
def test_every_feature_of_a_demo_clip_is_what_librosa_says(clip: Path) -> None:
    pytest.importorskip("librosa", reason="needs the extra audio")
    soundfile = pytest.importorskip("soundfile", reason="needs the extra audio")
    y, _ = soundfile.read(clip, dtype="float32")
    assert relative_error(extract_core20(y), librosa_core20(y)) < ORDINARY


@pytest.mark.parametrize("genre", GENRES)
def test_every_feature_of_a_rendered_track_is_what_librosa_says(genre: str) -> None:
    pytest.importorskip("librosa", reason="needs the extra audio")
    y = render(compose(31, genre, 3, 2))
    assert relative_error(extract_core20(y), librosa_core20(y)) < ORDINARY


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", [*MUSICAL, *DEGENERATE])
def test_every_feature_is_that_of_the_golden_file(name: str) -> None:
    features = extract_core20(signal(name))
    assert features.dtype == np.float32
    errors = core20_error(features, golden()[name])
    assert errors[~CHROMA if name in FLAT else ...].max() < ROUNDING


def test_the_golden_file_is_librosas() -> None:
    librosa = pytest.importorskip("librosa", reason="needs the extra audio")
    made_by = json.loads(GOLDEN.read_text())["librosa"]
    if made_by != librosa.__version__:
        pytest.skip(f"the golden file is of librosa {made_by}")
    assert set(golden()) == {*MUSICAL, *DEGENERATE}
    for name in ("chords over noise", "one click", "600 samples"):
        errors = core20_error(librosa_core20(signal(name)), golden()[name])
        assert errors[~CHROMA if name in FLAT else ...].max() < ROUNDING


@pytest.mark.parametrize("n_frames", [1, BLOCK_FRAMES - 1, BLOCK_FRAMES, BLOCK_FRAMES + 1, 2 * BLOCK_FRAMES])
def test_where_a_block_ends_makes_no_difference(n_frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    y = signal("chords over noise")[: (n_frames - 1) * HOP_LENGTH + 100]
    whole = extract_core20(y)
    monkeypatch.setattr("genre_classifier.features.spectral.core20.BLOCK_FRAMES", 7)
    assert core20_error(extract_core20(y), whole.astype(np.float64)).max() < ROUNDING


@pytest.mark.parametrize("sample_rate", [100, 8_000, 22_050, 96_000])
def test_filter_banks_are_librosas(sample_rate: int) -> None:
    librosa = pytest.importorskip("librosa", reason="needs the extra audio")
    if sample_rate >= 8_000:  # below, librosa warns of empty bands
        expected = librosa.filters.mel(sr=sample_rate, n_fft=N_FFT)
        np.testing.assert_allclose(filters.compute_mel_filters(sample_rate), expected, rtol=1e-6, atol=1e-12)
    for tuning in (-0.5, 0.0, 0.17):
        expected = librosa.filters.chroma(sr=sample_rate, n_fft=N_FFT, tuning=tuning)
        np.testing.assert_allclose(filters.compute_chroma_filters(sample_rate, tuning).T, expected, atol=1e-6)


def test_mel_blocks_hold_all_of_the_filter_bank() -> None:
    whole = np.zeros((filters.N_MELS, filters.N_BINS), np.float32)
    for block in filters.compute_mel_blocks(SAMPLE_RATE):
        whole[block.bands, block.bins] = block.weights.T
    np.testing.assert_array_equal(whole, filters.compute_mel_filters(SAMPLE_RATE))


@pytest.mark.parametrize("cents", [-50, -31, 0, 12, 49])
def test_the_tuning_of_detuned_chords_is_found(cents: int) -> None:
    librosa = pytest.importorskip("librosa", reason="needs the extra audio")
    time = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    notes = 440.0 * 2.0 ** ((np.array([0, 4, 7, 12]) + cents / 100) / 12)
    y = sum(np.sin(2 * np.pi * note * time) for note in notes).astype(np.float32)
    power = (np.abs(librosa.stft(y)) ** 2).T.copy()
    peaks = find_peaks(power, power.max(axis=1, keepdims=True), find_pitch_bins(SAMPLE_RATE))
    tuning = estimate_tuning([peaks], SAMPLE_RATE)
    assert tuning == pytest.approx(librosa.estimate_tuning(S=power.T, sr=SAMPLE_RATE))
    assert abs((tuning - cents / 100 + 0.5) % 1.0 - 0.5) < 0.05


def test_a_sine_has_the_level_crossings_and_pitch_class_of_a_sine() -> None:
    time = np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE
    features = extract_core20(0.5 * np.sin(2 * np.pi * 440.0 * time))
    assert features[AT["rms"]] == pytest.approx(0.5 / np.sqrt(2), rel=0.02)
    assert features[AT["zero_crossing_rate"]] == pytest.approx(2 * 440.0 / SAMPLE_RATE, rel=0.02)
    assert features[AT["spectral_centroid"]] == pytest.approx(440.0, rel=0.02)
    assert features[AT["chroma_entropy"]] < 1.5  # nats; noise has nearly log(12) = 2.48


def test_silence_has_no_level_and_the_entropy_of_no_preference() -> None:
    features = extract_core20(np.zeros(SAMPLE_RATE))
    assert features[AT["rms"]] == 0.0
    assert features[AT["chroma_mean"]] == 0.0
    assert features[AT["chroma_entropy"]] == pytest.approx(np.log(12))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("sample_rate", [100, 300, 3_000, 192_000])
def test_another_sample_rate_gives_finite_values(sample_rate: int) -> None:
    assert np.isfinite(extract_core20(signal("noise"), sample_rate)).all()


@pytest.mark.parametrize(
    ("bad", "sample_rate", "message"),
    [
        (np.zeros((2, 100)), SAMPLE_RATE, r"signal of shape \(2, 100\): expected one channel"),
        (np.zeros(0), SAMPLE_RATE, r"signal of shape \(0,\)"),
        (np.array([0.0, np.nan, np.inf]), SAMPLE_RATE, "2 samples that are not finite"),
        (np.array([0.0, 1e300]), SAMPLE_RATE, "1 samples that are not finite"),
        (np.array([0.0, -1e15]), SAMPLE_RATE, r"a sample of 1e\+15 where full scale is 1"),
        (np.zeros(100), 0, "sample_rate=0"),
    ],
)
def test_bad_signals_are_refused(bad: np.ndarray, sample_rate: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        extract_core20(bad, sample_rate)


def test_the_signal_is_left_as_it_was() -> None:
    y = signal("chords over noise")
    before = y.copy()
    extract_core20(y)
    np.testing.assert_array_equal(y, before)


def test_a_fresh_process_measures_without_librosa_numba_and_torch() -> None:
    code = (
        "import sys\nimport numpy as np\nfrom genre_classifier.features.spectral.core20 import extract_core20\n"
        "extract_core20(np.sin(np.arange(22050)))\n"
        "loaded = {'librosa', 'numba', 'torch', 'pandas'} & sys.modules.keys()\nassert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
