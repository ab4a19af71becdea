"""The gtzan57 feature set: the columns of the widely used GTZAN table, measured with librosa."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from genre_classifier.features.sets import GTZAN57, HOP_LENGTH, SAMPLE_RATE
from genre_classifier.features.spectral.core20 import check_signal
from genre_classifier.features.spectral.spectra import FRAME, Spectra, expected_warnings

Float32 = npt.NDArray[np.float32]

N_MFCC = 20
KERNEL = 31
"""Frames, or bins, of the median filters that separate harmonic from percussive; librosa's default."""


def extract_gtzan57(signal: np.ndarray, sample_rate: int = SAMPLE_RATE) -> Float32:
    """Measure the `gtzan57` features of a mono signal.

    Means and variances over time of ``librosa.feature.chroma_stft``, ``rms``, ``spectral_centroid``,
    ``spectral_bandwidth``, ``spectral_rolloff`` and ``zero_crossing_rate``, of the samples of the two parts of
    ``librosa.effects.hpss`` (``harmony``, ``perceptr``), ``librosa.feature.tempo`` in beats per minute, and means and
    variances of 20 coefficients of ``librosa.feature.mfcc``; frames of 2,048 samples, 512 apart.

    Parameters
    ----------
    signal : np.ndarray [shape=(n,)]
        Mono samples, full scale is 1.
    sample_rate : int
        Samples per second, in Hz. The set is defined at 22,050 Hz.

    Returns
    -------
    np.ndarray [shape=(57,)] of float32
        Finite values in the order of ``GTZAN57.features``.

    Raises
    ------
    DataError
        See :func:`genre_classifier.features.spectral.core20.extract_core20`.
    MissingExtraError
        librosa is not installed.
    """
    spectra = Spectra(check_signal(signal, sample_rate), sample_rate)
    librosa = spectra.librosa
    with expected_warnings():
        harmonic, percussive = _separate(spectra)
        series = (
            spectra.chroma,
            librosa.feature.rms(y=spectra.samples, frame_length=FRAME["n_fft"], hop_length=HOP_LENGTH),
            spectra.centroid,
            spectra.bandwidth,
            spectra.rolloff,
            spectra.crossings,
            harmonic,
            percussive,
        )
        tempo = _estimate_tempo(spectra)
        mfcc = librosa.feature.mfcc(S=spectra.mel_decibels, n_mfcc=N_MFCC)  # (coefficient, frame)
    values = [statistic for values in series for statistic in _compute_mean_and_variance(values)]
    values.append(tempo)
    values.extend(statistic for values in mfcc for statistic in _compute_mean_and_variance(values))
    features = np.asarray(values, dtype=np.float32)
    if features.shape != (len(GTZAN57.features),):
        raise AssertionError(f"gtzan57 has {len(GTZAN57.features)} features, measured {features.shape}")
    return features


def _compute_mean_and_variance(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean(dtype=np.float64)), float(values.var(dtype=np.float64))


def _separate(spectra: Spectra) -> tuple[Float32, Float32]:
    """Return the samples of the harmonic and of the percussive part."""
    spectrograms = _separate_spectra(spectra)
    n = spectra.samples.size
    # If the buffer is shorter than a frame, librosa's istft adds the memory beside it.
    room = max(n, 2 * FRAME["n_fft"])
    harmonic, percussive = (
        spectra.librosa.istft(spectrogram, dtype=np.float32, length=room, **FRAME)[:n]
        for spectrogram in spectrograms
    )
    return harmonic, percussive


def _separate_spectra(spectra: Spectra) -> tuple[np.ndarray, np.ndarray]:
    """Return the spectrogram's harmonic and percussive part, as ``librosa.decompose.hpss`` defines them."""
    complete, librosa = spectra.complex, spectra.librosa
    n_frames = complete.shape[1]
    if n_frames >= KERNEL:
        harmonic, percussive = librosa.decompose.hpss(complete)
        return harmonic, percussive
    # SciPy's median filter reads beyond an axis shorter than its kernel, so the reflected frames are written out.
    from scipy.ndimage import median_filter

    magnitude = np.abs(complete)
    reflected = np.pad(magnitude, ((0, 0), (KERNEL, KERNEL)), mode="symmetric")
    over_time = median_filter(reflected, size=(1, KERNEL))[:, KERNEL : KERNEL + n_frames]
    over_pitch = median_filter(magnitude, size=(KERNEL, 1), mode="reflect")
    masks = (
        librosa.util.softmask(one, other, power=2.0, split_zeros=True)
        for one, other in ((over_time, over_pitch), (over_pitch, over_time))
    )
    harmonic, percussive = (complete * mask for mask in masks)
    return harmonic, percussive


def _estimate_tempo(spectra: Spectra) -> float:
    onsets = spectra.librosa.onset.onset_strength(S=spectra.mel_decibels, sr=spectra.sample_rate)
    return float(spectra.librosa.feature.tempo(onset_envelope=onsets, sr=spectra.sample_rate)[0])
