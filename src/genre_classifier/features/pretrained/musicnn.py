"""musicnn50 and musicnn: what a pretrained music tagger makes of a clip, averaged over its patches of three seconds.

The network was trained on the tags of the Million Song Dataset. Its input is librosa's mel spectrogram, rounded to
float16 as in its training, then log10(10000 x + 1), cut into patches of 187 frames. What is left over at the end, less
than a patch, is not used. The frames of a clip shorter than one patch are repeated, as in its training.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from genre_classifier.features.pretrained.network import MusicnnNetwork
from genre_classifier.features.pretrained.weights import load_weights
from genre_classifier.features.sets import MUSICNN_PARAMETERS
from genre_classifier.features.spectral.filters import compute_mel_filters

Float32 = npt.NDArray[np.float32]

SAMPLE_RATE: int = MUSICNN_PARAMETERS["sample_rate_hz"]
N_FFT: int = MUSICNN_PARAMETERS["n_fft"]
HOP_LENGTH: int = MUSICNN_PARAMETERS["hop_length"]
N_MELS: int = MUSICNN_PARAMETERS["n_mels"]
PATCH_FRAMES: int = MUSICNN_PARAMETERS["patch_frames"]

_GROUP = 4  # patches computed together: more are no faster, and take more memory
_BLOCK = 2048  # frames transformed together


def extract_musicnn50(samples: Float32) -> Float32:
    """Return the first 50 values of :func:`extract_musicnn`, the tags' probabilities, shape (50,)."""
    return extract_musicnn(samples)[:50]


def extract_musicnn(samples: Float32) -> Float32:
    """Return the 50 tags' probabilities and the 200 units of the layer before, averaged over a clip's patches.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,), dtype=float32]
        Mono at 16 kHz, full scale is 1.

    Returns
    -------
    np.ndarray [shape=(250,), dtype=float32]

    Raises
    ------
    MissingWeightsError
        The weights were not fetched yet.
    """
    network = load_network()
    patches = cut_patches(log_mel(samples))
    total = np.zeros(250, np.float64)
    for start in range(0, len(patches), _GROUP):
        outputs = np.concatenate(network(patches[start : start + _GROUP]), axis=1)  # (patch, 250)
        total += outputs.sum(axis=0, dtype=np.float64)
    means: Float32 = (total / len(patches)).astype(np.float32)
    return means


@lru_cache(maxsize=1)
def load_network() -> MusicnnNetwork:
    """Return the network with its published weights. Raise MissingWeightsError if they were not fetched yet."""
    return MusicnnNetwork(load_weights())


def log_mel(samples: Float32) -> Float32:
    """Return log10(10000 m + 1) of the mel spectrogram m, shape (frame, band).

    Powers beyond float16's largest number, which need samples far beyond full scale, count as that number.
    """
    from scipy.fft import rfft

    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)).astype(np.float32)  # Hann's
    filters = compute_mel_filters(SAMPLE_RATE, N_FFT, N_MELS).T  # (bin, band)
    padded = np.pad(samples, N_FFT // 2, mode="reflect")
    frames = sliding_window_view(padded, N_FFT)[::HOP_LENGTH]
    mel = np.empty((len(frames), N_MELS), np.float32)
    for start in range(0, len(frames), _BLOCK):
        spectrum = rfft(frames[start : start + _BLOCK] * window, axis=1)
        np.matmul(spectrum.real**2 + spectrum.imag**2, filters, out=mel[start : start + _BLOCK])
    rounded = np.minimum(mel, np.finfo(np.float16).max).astype(np.float16)
    # Not in float16, where 10000 times the power of a loud bass is infinite.
    decades: Float32 = np.log10(np.float32(10_000) * rounded.astype(np.float32) + np.float32(1))
    return decades


def cut_patches(frames: Float32) -> Float32:
    """Return the patches of a spectrogram, shape (patch, frame of the patch, band).

    The frames of a spectrogram shorter than one patch are repeated from its start.
    """
    n_patches = len(frames) // PATCH_FRAMES
    if n_patches == 0:
        frames, n_patches = frames[np.arange(PATCH_FRAMES) % len(frames)], 1
    return frames[: n_patches * PATCH_FRAMES].reshape(n_patches, PATCH_FRAMES, frames.shape[1])
