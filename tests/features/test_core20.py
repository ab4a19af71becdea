"""core20 says what librosa's functions say when each is called by itself, and never NaN."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from genre_classifier.errors import DataError, MissingExtraError
from genre_classifier.features.core20 import extract_core20
from genre_classifier.features.sets import CORE20, SAMPLE_RATE

librosa = pytest.importorskip("librosa")

AT = {name: place for place, name in enumerate(CORE20.features)}


def _chirp_and_noise() -> np.ndarray:
    rng = np.random.default_rng(3)
    time = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    tones = np.sin(2 * np.pi * 331.0 * time) + 0.5 * np.sin(2 * np.pi * (500.0 + 200.0 * time) * time)
    return (0.2 * tones + 0.05 * rng.standard_normal(time.size)).astype(np.float32)


def test_every_feature_is_what_librosa_says() -> None:
    y = _chirp_and_noise()
    chroma = librosa.feature.chroma_stft(y=y, sr=SAMPLE_RATE, n_fft=2048, hop_length=512)
    profile = chroma.mean(axis=1).astype(np.float64)
    profile /= profile.sum()
    expected = [
        *librosa.feature.mfcc(y=y, sr=SAMPLE_RATE, n_mfcc=13, n_fft=2048, hop_length=512).mean(axis=1),
        librosa.feature.spectral_centroid(y=y, sr=SAMPLE_RATE, n_fft=2048, hop_length=512).mean(),
        librosa.feature.spectral_rolloff(y=y, sr=SAMPLE_RATE, n_fft=2048, hop_length=512).mean(),
        librosa.feature.zero_crossing_rate(y, frame_length=2048, hop_length=512).mean(),
        librosa.feature.rms(y=y, frame_length=2048, hop_length=512).mean(),
        chroma.mean(),
        chroma.std(),
        -np.sum(profile * np.log(profile)),
    ]
    features = extract_core20(y)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5)


def test_a_sine_has_the_level_crossings_and_pitch_class_of_a_sine() -> None:
    time = np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE
    features = extract_core20(0.5 * np.sin(2 * np.pi * 440.0 * time))
    assert features[AT["rms"]] == pytest.approx(0.5 / np.sqrt(2), rel=0.02)
    assert features[AT["zero_crossing_rate"]] == pytest.approx(2 * 440.0 / SAMPLE_RATE, rel=0.02)
    assert features[AT["spectral_centroid"]] == pytest.approx(440.0, rel=0.02)
    assert features[AT["chroma_entropy"]] < 1.5  # nats; noise has nearly log(12) = 2.48


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "signal",
    [
        np.zeros(SAMPLE_RATE),
        np.full(SAMPLE_RATE, 0.5),
        np.zeros(1),
        np.ones(1),
        np.array([0.0, 1.0, -1.0]),
        np.full(SAMPLE_RATE, 1e-20),
        np.random.default_rng(0).uniform(-1, 1, SAMPLE_RATE),
    ],
    ids=["silence", "DC", "one zero", "one sample", "three samples", "below float32's squares", "noise"],
)
def test_degenerate_signals_give_finite_values_and_no_warning(signal: np.ndarray) -> None:
    assert np.isfinite(extract_core20(signal)).all()


def test_silence_has_no_level_and_the_entropy_of_no_preference() -> None:
    features = extract_core20(np.zeros(SAMPLE_RATE))
    assert features[AT["rms"]] == 0.0
    assert features[AT["chroma_mean"]] == 0.0
    assert features[AT["chroma_entropy"]] == pytest.approx(np.log(12))


@pytest.mark.parametrize(
    ("signal", "sample_rate", "message"),
    [
        (np.zeros((2, 100)), SAMPLE_RATE, r"signal of shape \(2, 100\): expected one channel"),
        (np.zeros(0), SAMPLE_RATE, r"signal of shape \(0,\)"),
        (np.array([0.0, np.nan, np.inf]), SAMPLE_RATE, "2 samples that are not finite"),
        (np.zeros(100), 0, "sample_rate=0"),
    ],
)
def test_bad_signals_are_refused(signal: np.ndarray, sample_rate: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        extract_core20(signal, sample_rate)


def test_without_librosa_the_install_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def no_librosa(name: str, *rest: object) -> object:
        if name.split(".")[0] == "librosa":
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_librosa)
    with pytest.raises(MissingExtraError, match=r"pip install 'genre-classifier\[audio\]'"):
        extract_core20(np.zeros(10))
