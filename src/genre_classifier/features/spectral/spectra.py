"""The spectrograms that librosa's functions share, each computed once from one signal.

librosa is imported on first use: its numba compiles for many seconds if the cache is empty.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from genre_classifier.commands import advise_to_install
from genre_classifier.errors import GenreClassifierError, MissingExtraError
from genre_classifier.features.sets import HOP_LENGTH, N_FFT
from genre_classifier.machine.cache_folders import prepare_caches

Float32 = npt.NDArray[np.float32]

FRAME = {"n_fft": N_FFT, "hop_length": HOP_LENGTH}


def load_librosa() -> Any:
    """Import and return librosa. Raises MissingExtraError without it, GenreClassifierError if numba cannot compile."""
    prepare_caches()  # for numba's compiled code
    try:
        import librosa
        import librosa.feature.spectral  # librosa imports its modules on first use, and numba compiles them then
    except ImportError as error:
        raise MissingExtraError(
            f"these features cannot be measured: librosa is not installed; {advise_to_install('audio')}"
        ) from error
    except RuntimeError as error:  # numba's 'no locator available'
        raise GenreClassifierError(
            f"these features cannot be measured: numba finds no folder to compile into ({error}); name one that can be "
            "written in XDG_CACHE_HOME or NUMBA_CACHE_DIR"
        ) from error
    return librosa


class Spectra:
    """Spectrograms of one signal, computed on first use.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,), dtype=float32]
        Mono, full scale is 1.
    sample_rate : int
        In Hz.
    """

    def __init__(self, samples: Float32, sample_rate: int) -> None:
        self.samples = samples
        self.sample_rate = sample_rate
        self.librosa = load_librosa()

    @cached_property
    def complex(self) -> npt.NDArray[np.complex64]:
        """``librosa.stft``, shape (bin, frame)."""
        spectrum: npt.NDArray[np.complex64] = self.librosa.stft(self.samples, **FRAME)
        return spectrum

    @cached_property
    def magnitude(self) -> Float32:
        """Magnitudes, shape (bin, frame)."""
        return np.abs(self.complex)

    @cached_property
    def power(self) -> Float32:
        """Squared magnitudes, shape (bin, frame)."""
        return self.magnitude**2

    @cached_property
    def mel_decibels(self) -> Float32:
        """Power in 128 mel bands in dB, at most 80 below the largest, shape (band, frame)."""
        mel = self.librosa.feature.melspectrogram(S=self.power, sr=self.sample_rate, **FRAME)
        decibels: Float32 = self.librosa.power_to_db(mel)
        return decibels

    @cached_property
    def chroma(self) -> Float32:
        """``librosa.feature.chroma_stft`` with its own estimate of the tuning, shape (pitch class, frame)."""
        chroma: Float32 = self.librosa.feature.chroma_stft(S=self.power, sr=self.sample_rate, **FRAME)
        return chroma

    @cached_property
    def centroid(self) -> Float32:
        """``librosa.feature.spectral_centroid`` in Hz, shape (1, frame)."""
        centroid: Float32 = self.librosa.feature.spectral_centroid(S=self.magnitude, sr=self.sample_rate)
        return centroid

    @cached_property
    def bandwidth(self) -> Float32:
        """``librosa.feature.spectral_bandwidth`` in Hz, shape (1, frame)."""
        bandwidth: Float32 = self.librosa.feature.spectral_bandwidth(
            S=self.magnitude, sr=self.sample_rate, centroid=self.centroid
        )
        return bandwidth

    @cached_property
    def rolloff(self) -> Float32:
        """``librosa.feature.spectral_rolloff`` in Hz, shape (1, frame)."""
        rolloff: Float32 = self.librosa.feature.spectral_rolloff(S=self.magnitude, sr=self.sample_rate)
        return rolloff

    @cached_property
    def crossings(self) -> Float32:
        """``librosa.feature.zero_crossing_rate``, crossings per sample, shape (1, frame)."""
        rate: Float32 = self.librosa.feature.zero_crossing_rate(
            self.samples, frame_length=N_FFT, hop_length=HOP_LENGTH
        )
        return rate


@contextmanager
def expected_warnings() -> Iterator[None]:
    """Silence librosa's warnings about signals shorter than a frame and signals without a pitch."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_fft=.* is too large for input signal", UserWarning)
        warnings.filterwarnings("ignore", "Trying to estimate tuning from empty frequency set", UserWarning)
        yield
