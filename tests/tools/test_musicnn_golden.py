"""The golden file of musicnn's graph has every signal, and the graph was given what librosa says today."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("librosa", reason="needs the extra audio")
pytest.importorskip("soundfile", reason="needs the extra audio")
pytest.importorskip("soxr", reason="needs the extra audio")

from tools.musicnn.golden import (
    FRAMES,
    GOLDEN,
    LIBRARIES,
    POOLED,
    WITH_INPUT,
    compress,
    compute_mel,
    split_patches,
)
from tools.musicnn.signals import HOP, make_signal, signal_names


@pytest.fixture(scope="module")
def golden() -> Iterator[np.lib.npyio.NpzFile]:
    with np.load(GOLDEN, allow_pickle=False) as file:
        yield file


def test_the_file_has_every_signal_and_nothing_else(golden: np.lib.npyio.NpzFile) -> None:
    names = signal_names()
    assert len(names) == len(set(names)) == 40
    expected = {f"{name}/{key}" for name in names for key in ("tags", "penultimate", "log_mel")}
    expected |= {f"{name}/{key}" for name in POOLED for key in ("max_pool", "mean_pool")}
    expected |= {f"{name}/mel" for name in WITH_INPUT}
    assert set(golden.files) == expected | {"tag_names", "made_with"}


def test_the_outputs_have_their_shapes_and_ranges(golden: np.lib.npyio.NpzFile) -> None:
    for name in signal_names():
        n_patches = max(1, (1 + len(make_signal(name)) // HOP) // FRAMES)
        assert golden[f"{name}/tags"].shape == (n_patches, 50)
        assert golden[f"{name}/penultimate"].shape == (n_patches, 200)
        assert ((golden[f"{name}/tags"] > 0) & (golden[f"{name}/tags"] < 1)).all()
        assert np.isfinite(golden[f"{name}/penultimate"]).all()
    for name in POOLED:
        assert golden[f"{name}/max_pool"].shape == golden[f"{name}/mean_pool"].shape
        assert (golden[f"{name}/max_pool"] >= golden[f"{name}/mean_pool"] - 1e-5).all()
    assert len(set(golden["tag_names"])) == 50
    assert set(json.loads(str(golden["made_with"]))) == {*LIBRARIES, "wheel"}


@pytest.mark.parametrize("name", signal_names())
def test_the_graph_was_given_the_mel_spectrogram_of_librosa(golden: np.lib.npyio.NpzFile, name: str) -> None:
    log_mel = compress(split_patches(compute_mel(make_signal(name)))).astype(np.float64)
    # The last bits of an FFT decide now and then to which float16 a value is rounded: 5e-4 of that value.
    assert [log_mel.sum(), log_mel.max()] == pytest.approx(golden[f"{name}/log_mel"], rel=1e-5, abs=1e-3)


@pytest.mark.parametrize("name", WITH_INPUT)
def test_the_input_that_is_kept_is_the_signals(golden: np.lib.npyio.NpzFile, name: str) -> None:
    mel = split_patches(compute_mel(make_signal(name)))
    np.testing.assert_allclose(golden[f"{name}/mel"].astype(float), mel.astype(float), rtol=1e-3, atol=1e-6)


def test_frames_left_at_the_end_are_dropped_and_too_few_are_repeated() -> None:
    frames = np.arange(2 * FRAMES, dtype=np.float16)[:, None]
    assert split_patches(frames[: 2 * FRAMES - 1])[:, :, 0].tolist() == [list(range(FRAMES))]
    assert split_patches(frames)[1, :, 0].tolist() == list(range(FRAMES, 2 * FRAMES))
    assert split_patches(frames[:100])[0, :, 0].tolist() == [*range(100), *range(FRAMES - 100)]


def test_the_logarithm_of_a_loud_spectrogram_is_finite() -> None:
    loud = np.array([0, 1, 500], dtype=np.float16)
    assert compress(loud) == pytest.approx(np.log10([1, 10_001, 5_000_001]), rel=1e-6)
