"""The fma518 feature set: seven statistics of FMA's eleven series, measured with librosa as in FMA's script."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from genre_classifier.features.sets import FMA518, FMA_SERIES, FMA_STATISTICS, HOP_LENGTH, N_FFT, SAMPLE_RATE
from genre_classifier.features.spectral.core20 import check_signal
from genre_classifier.features.spectral.spectra import Spectra, expected_warnings

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

N_OCTAVES = 7
BINS_PER_OCTAVE = 12
N_CONTRAST_BANDS = 6
N_MFCC = 20


def extract_fma518(signal: np.ndarray, sample_rate: int = SAMPLE_RATE) -> Float32:
    """Measure the `fma518` features of a mono signal.

    Seven statistics over time of ``librosa.feature``'s ``chroma_cens``, ``chroma_cqt``, ``chroma_stft``, ``mfcc`` (20),
    ``rms``, ``spectral_bandwidth``, ``spectral_centroid``, ``spectral_contrast``, ``spectral_rolloff``, ``tonnetz`` (of
    the CENS chroma) and ``zero_crossing_rate``; frames of 2,048 samples, 512 apart. A constant series has
    skewness 0 and kurtosis -3, as in FMA's table.

    Parameters
    ----------
    signal : np.ndarray [shape=(n,)]
        Mono samples, full scale is 1.
    sample_rate : int
        Samples per second, in Hz. The set is defined at 22,050 Hz.

    Returns
    -------
    np.ndarray [shape=(518,)] of float32
        Finite values in the order of ``FMA518.features``.

    Raises
    ------
    DataError
        See :func:`genre_classifier.features.spectral.core20.extract_core20`.
    MissingExtraError
        librosa is not installed.
    """
    with expected_warnings():
        series = _compute_series(Spectra(check_signal(signal, sample_rate), sample_rate))
    columns: list[Float64] = []
    for name in FMA_SERIES:
        statistics = _compute_statistics(series[name])
        columns.extend(statistics[statistic] for statistic in FMA_STATISTICS)
    features = np.concatenate(columns).astype(np.float32)
    if features.shape != (len(FMA518.features),):
        raise AssertionError(f"fma518 has {len(FMA518.features)} features, measured {features.shape}")
    return features


def _compute_series(spectra: Spectra) -> dict[str, Float32]:
    """Return the series (row, frame) by the names that FMA gives them."""
    librosa = spectra.librosa
    constant_q = np.abs(
        librosa.cqt(
            spectra.samples,
            sr=spectra.sample_rate,
            hop_length=HOP_LENGTH,
            bins_per_octave=BINS_PER_OCTAVE,
            n_bins=N_OCTAVES * BINS_PER_OCTAVE,
            tuning=librosa.estimate_tuning(S=spectra.magnitude, sr=spectra.sample_rate),
        )
    )
    octaves = {"n_octaves": N_OCTAVES, "bins_per_octave": BINS_PER_OCTAVE}
    cens = librosa.feature.chroma_cens(C=constant_q, **octaves)
    return {
        "chroma_cens": cens,
        "chroma_cqt": librosa.feature.chroma_cqt(C=constant_q, **octaves),
        "chroma_stft": spectra.chroma,
        "mfcc": librosa.feature.mfcc(S=spectra.mel_decibels, n_mfcc=N_MFCC),
        "rmse": librosa.feature.rms(S=spectra.magnitude, frame_length=N_FFT),
        "spectral_bandwidth": spectra.bandwidth,
        "spectral_centroid": spectra.centroid,
        "spectral_contrast": librosa.feature.spectral_contrast(
            S=spectra.magnitude, sr=spectra.sample_rate, n_bands=N_CONTRAST_BANDS
        ),
        "spectral_rolloff": spectra.rolloff,
        "tonnetz": librosa.feature.tonnetz(chroma=cens),
        "zcr": spectra.crossings,
    }


def _compute_statistics(values: Float32) -> dict[str, Float64]:
    """Return each statistic over time of a series (row, frame), shape (row,)."""
    exact = values.astype(np.float64)
    mean = exact.mean(axis=1)
    from_mean = exact - mean[:, None]
    variance = (from_mean**2).mean(axis=1)
    # A variation below float32's resolution of the mean is rounding.
    constant = variance <= (np.finfo(np.float32).eps * np.abs(mean)) ** 2
    spread = np.where(constant, 1.0, np.sqrt(variance))
    scaled = np.where(constant[:, None], 0.0, from_mean / spread[:, None])
    return {
        "kurtosis": (scaled**4).mean(axis=1) - 3.0,
        "max": exact.max(axis=1),
        "mean": mean,
        "median": np.median(exact, axis=1),
        "min": exact.min(axis=1),
        "skew": (scaled**3).mean(axis=1),
        "std": np.sqrt(variance),
    }
