"""The core20 feature set: twenty numbers that describe the timbre, level and harmony of a signal."""

from __future__ import annotations

from typing import Any

import numpy as np

from genre_classifier.errors import DataError, MissingExtraError
from genre_classifier.features.sets import CORE20, HOP_LENGTH, N_FFT, SAMPLE_RATE

N_MFCC = 13
N_CHROMA = 12


def extract_core20(signal: np.ndarray, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Measure the `core20` features of a mono signal.

    All are librosa's definitions with frames of 2,048 samples, 512 apart, centred on their time. In order:

    - ``mfcc_1`` to ``mfcc_13``: means over time of ``librosa.feature.mfcc(n_mfcc=13)``;
    - ``spectral_centroid``: mean over time of ``librosa.feature.spectral_centroid``, in Hz;
    - ``spectral_rolloff``: mean over time of ``librosa.feature.spectral_rolloff`` (85 %), in Hz;
    - ``zero_crossing_rate``: mean over time of ``librosa.feature.zero_crossing_rate``, crossings per sample;
    - ``rms``: mean over time of ``librosa.feature.rms``, full scale is 1;
    - ``chroma_mean``, ``chroma_std``: mean and standard deviation over all entries of the matrix
      ``librosa.feature.chroma_stft`` (12 pitch classes by frames, tuning estimated from the signal);
    - ``chroma_entropy``: Shannon entropy, in nats, of that matrix averaged over time and divided by its sum;
      log(12), the entropy of no preference, where all of it is zero.

    Parameters
    ----------
    signal : np.ndarray [shape=(n,)]
        Mono samples, full scale is 1. A signal shorter than one frame is padded with silence to one frame.
    sample_rate : int
        Samples per second, in Hz. The set is defined at 22,050 Hz; resample first where a file differs.

    Returns
    -------
    np.ndarray [shape=(20,)] of float32
        Finite values in the order of ``CORE20.features``.

    Raises
    ------
    DataError
        `signal` is empty, not one-dimensional or not finite, or `sample_rate` is not positive.
    MissingExtraError
        librosa is not installed.

    See Also
    --------
    genre_classifier.features.sets : names and order of the features

    Examples
    --------
    >>> import numpy as np
    >>> from genre_classifier.features.core20 import extract_core20
    >>> features = extract_core20(0.5 * np.sin(2 * np.pi * 440 * np.arange(22050) / 22050))
    >>> features.shape, round(float(features[16]), 2)  # rms
    ((20,), 0.35)
    """
    samples = _checked(signal, sample_rate)
    librosa = _librosa()
    spectrum = np.abs(librosa.stft(samples, n_fft=N_FFT, hop_length=HOP_LENGTH))  # (bin, frame)
    mel = librosa.feature.melspectrogram(S=spectrum**2, sr=sample_rate, n_fft=N_FFT, hop_length=HOP_LENGTH)
    mfcc = librosa.feature.mfcc(S=librosa.power_to_db(mel), sr=sample_rate, n_mfcc=N_MFCC)
    centroid = librosa.feature.spectral_centroid(S=spectrum, sr=sample_rate, n_fft=N_FFT)
    rolloff = librosa.feature.spectral_rolloff(S=spectrum, sr=sample_rate, n_fft=N_FFT)
    crossings = librosa.feature.zero_crossing_rate(samples, frame_length=N_FFT, hop_length=HOP_LENGTH)
    rms = librosa.feature.rms(y=samples, frame_length=N_FFT, hop_length=HOP_LENGTH)
    chroma = _chroma(librosa, spectrum, sample_rate)  # (pitch class, frame)

    values = [
        *mfcc.mean(axis=1),
        centroid.mean(),
        rolloff.mean(),
        crossings.mean(),
        rms.mean(),
        chroma.mean(),
        chroma.std(),
        _entropy(chroma.mean(axis=1)),
    ]
    features = np.asarray(values, dtype=np.float32)
    if features.shape != (len(CORE20.features),):
        raise AssertionError(f"core20 has {len(CORE20.features)} features, measured {features.shape}")
    return features


def _checked(signal: np.ndarray, sample_rate: int) -> np.ndarray:
    samples = np.asarray(signal, dtype=np.float32)
    if samples.ndim != 1 or samples.size == 0:
        raise DataError(
            f"signal of shape {samples.shape}: expected one channel of at least one sample; "
            "mix it to mono first"
        )
    if not np.isfinite(samples).all():
        raise DataError(
            f"signal has {np.count_nonzero(~np.isfinite(samples))} samples that are not finite; "
            "check how the file was decoded"
        )
    if sample_rate <= 0:
        raise DataError(f"sample_rate={sample_rate}: expected a positive number of samples per second")
    # One frame is the least that librosa can measure; silence adds nothing to the spectrum.
    return np.pad(samples, (0, max(0, N_FFT - samples.size)))


def _librosa() -> Any:
    try:
        import librosa
    except ImportError as error:
        raise MissingExtraError(
            "features cannot be measured: librosa is not installed; "
            "run: pip install 'genre-classifier[audio]'"
        ) from error
    return librosa


def _chroma(librosa: Any, spectrum: np.ndarray, sample_rate: int) -> np.ndarray:
    power = spectrum**2
    chroma: np.ndarray = librosa.feature.chroma_stft(
        S=power, sr=sample_rate, n_fft=N_FFT, tuning=_tuning(librosa, power, sample_rate)
    )
    return chroma


def _tuning(librosa: Any, power: np.ndarray, sample_rate: int) -> float:
    """What librosa.estimate_tuning returns, but without its warning where there is no pitch at all."""
    pitch, magnitude = librosa.piptrack(S=power, sr=sample_rate, n_fft=N_FFT)  # (bin, frame)
    found = pitch > 0
    if not found.any():
        return 0.0
    clear = found & (magnitude >= np.median(magnitude[found]))
    return float(librosa.pitch_tuning(pitch[clear], bins_per_octave=N_CHROMA))


def _entropy(profile: np.ndarray) -> float:
    """Shannon entropy in nats of a non-negative profile (pitch class,) divided by its sum."""
    total = float(profile.sum(dtype=np.float64))
    if total <= 0.0:
        return float(np.log(profile.size))
    share = profile.astype(np.float64) / total
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())
