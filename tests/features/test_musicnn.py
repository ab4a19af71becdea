"""musicnn50 and musicnn beside the original TensorFlow graph, torch's convolutions and librosa's spectrogram."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from genre_classifier.features.decoding.audio import Excerpt
from genre_classifier.features.measure import get_extractor, measure_file
from genre_classifier.features.pretrained.musicnn import (
    cut_patches,
    extract_musicnn,
    extract_musicnn50,
    load_network,
    log_mel,
)
from genre_classifier.features.pretrained.network import Convolution
from genre_classifier.features.sets import MUSICNN_TAGS
from tests.features.sounds import music, soundfile, soxr, write
from tools.musicnn.signals import make_signal, signal_names

GOLDEN = np.load(Path(__file__).with_name("musicnn_golden.npz"))
TOLERANCE = 1e-4  # of a probability; the other outputs are compared relative to their largest value


def test_the_tags_are_those_of_the_graph() -> None:
    assert tuple(GOLDEN["tag_names"].tolist()) == MUSICNN_TAGS


@pytest.mark.parametrize("name", signal_names())
def test_outputs_are_those_of_the_original_graph(name: str, musicnn_weights: Path) -> None:
    tags, penultimate = GOLDEN[f"{name}/tags"], GOLDEN[f"{name}/penultimate"]
    patches = cut_patches(log_mel(make_signal(name)))
    total, largest = GOLDEN[f"{name}/log_mel"]
    assert patches.max() == pytest.approx(largest, rel=1e-3, abs=1e-6)
    assert patches.sum(dtype=np.float64) == pytest.approx(total, rel=1e-4, abs=1e-4)
    found = load_network()(patches)
    np.testing.assert_allclose(found[0], tags, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(found[1], penultimate, rtol=0, atol=TOLERANCE * np.abs(penultimate).max())


@pytest.mark.parametrize("name", ["chord of 0.5 s", "187 frames"])
def test_the_network_alone_agrees_on_the_graphs_own_input(name: str, musicnn_weights: Path) -> None:
    patches = np.log10(10_000 * GOLDEN[f"{name}/mel"].astype(np.float32) + 1)
    np.testing.assert_allclose(load_network()(patches)[0], GOLDEN[f"{name}/tags"], rtol=0, atol=1e-5)


def test_features_are_means_over_patches(musicnn_weights: Path) -> None:
    name = "sweep of 30 s"
    assert len(GOLDEN[f"{name}/tags"]) == 10
    signal = make_signal(name)
    expected = np.concatenate([GOLDEN[f"{name}/{key}"].mean(axis=0) for key in ("tags", "penultimate")])
    scale = np.abs(expected).max()
    np.testing.assert_allclose(extract_musicnn(signal), expected, rtol=0, atol=TOLERANCE * scale)
    np.testing.assert_array_equal(extract_musicnn50(signal), extract_musicnn(signal)[:50])


@pytest.mark.parametrize(("length", "bands"), [(7, 38), (128, 1), (7, 96), (1, 1)])
def test_a_convolution_is_torchs(length: int, bands: int) -> None:
    rng = np.random.default_rng(length)
    kernel, bias, scale, shift = (
        rng.normal(size=shape).astype(np.float32) for shape in ((length, bands, 5), 5, 5, 5)
    )
    assert np.unique(np.sign(scale)).tolist() == [-1, 1]
    x = rng.normal(size=(2, 30, 96)).astype(np.float32)
    sign = np.sign(scale)
    found = Convolution(kernel * sign, sign, bias, scale, shift)(x)
    before = (length - 1) // 2
    padded = torch.nn.functional.pad(torch.from_numpy(x)[:, None], (0, 0, before, length - 1 - before))
    weight = torch.from_numpy(kernel).permute(2, 0, 1)[:, None]
    convolved = torch.nn.functional.conv2d(padded, weight, torch.from_numpy(bias)).relu()
    normalized = convolved * torch.from_numpy(scale)[:, None, None] + torch.from_numpy(shift)[:, None, None]
    expected = normalized.amax(dim=3).transpose(1, 2).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_spectrogram_is_librosas() -> None:
    librosa = pytest.importorskip("librosa", reason="needs the extra audio")
    signal = music(4.0, rate=16_000)[:, 0]
    mel = librosa.feature.melspectrogram(
        y=signal, sr=16_000, n_fft=512, hop_length=256, n_mels=96, pad_mode="reflect"
    )
    expected = np.log10(10_000 * mel.T.astype(np.float16).astype(np.float64) + 1)
    # One step of float16 is 1/1024 of a power, which is 0.0004 of a decade.
    np.testing.assert_allclose(log_mel(signal), expected, rtol=0, atol=5e-4)


@pytest.mark.parametrize("gain", [0.0, 1e-6, 1.0, 1e6])
def test_any_loudness_gives_probabilities(gain: float, musicnn_weights: Path) -> None:
    features = extract_musicnn(gain * music(3.5, rate=16_000)[:, 0])
    assert np.isfinite(features).all()
    assert ((features[:50] >= 0) & (features[:50] <= 1)).all()


def test_a_spectrogram_shorter_than_a_patch_is_repeated_from_its_start() -> None:
    frames = np.arange(120 * 2, dtype=np.float32).reshape(120, 2)
    [patch] = cut_patches(frames)
    np.testing.assert_array_equal(patch, np.concatenate([frames, frames[:67]]))
    assert len(cut_patches(np.repeat(frames, 4, axis=0))) == 2  # 480 frames: what is left over is not used


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_a_file_is_measured_at_the_sets_sample_rate(rate: int, tmp_path: Path, musicnn_weights: Path) -> None:
    path = write(tmp_path / "song.wav", music(7.0, rate=rate), rate)
    measured = measure_file(path, "musicnn50", Excerpt())
    decoded, _ = soundfile.read(path, dtype="float32")
    at_16k = soxr.resample(decoded, rate, 16_000)
    np.testing.assert_allclose(measured.features[0], extract_musicnn50(at_16k), rtol=0, atol=TOLERANCE)


def test_windows_are_measured_one_by_one(tmp_path: Path, musicnn_weights: Path) -> None:
    path = write(tmp_path / "song.flac", music(7.0, rate=16_000), 16_000)
    measured = measure_file(path, "musicnn", Excerpt(duration=None, window=3.0))
    assert measured.starts.tolist() == [0.0, 3.0]
    assert measured.features.shape == (2, 250)
    [alone] = measure_file(path, "musicnn", Excerpt(offset=3.0, duration=3.0)).features
    np.testing.assert_array_equal(measured.features[1], alone)


def test_the_extractor_is_found_by_the_sets_name(musicnn_weights: Path) -> None:
    assert get_extractor("musicnn") is extract_musicnn
    assert get_extractor("musicnn50") is extract_musicnn50
