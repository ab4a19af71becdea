"""The core20 feature set: twenty numbers that describe the timbre, level and harmony of a signal.

All come from one float32 spectrogram, computed in blocks that stay in the processor's cache. The definitions are
librosa's. Its functions, called one by one, compute four spectrograms. Neither librosa nor numba is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from genre_classifier.errors import DataError
from genre_classifier.features.sets import CORE20, HOP_LENGTH, N_FFT, SAMPLE_RATE
from genre_classifier.features.spectral.filters import (
    N_BINS,
    N_MELS,
    compute_bin_frequencies,
    compute_chroma_filters,
    compute_cosine_transform,
    compute_mel_blocks,
)
from genre_classifier.features.spectral.tuning import Peaks, estimate_tuning, find_peaks, find_pitch_bins

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

N_MFCC = 13
BLOCK_FRAMES = 96
ROLLOFF = np.float32(0.85)
SILENT_POWER = np.float32(1e-10)  # librosa.power_to_db's floor
DYNAMIC_RANGE = 80.0  # dB below the loudest mel band of the clip
CROSSING_THRESHOLD = np.float32(1e-10)  # librosa.zero_crossings treats smaller samples as 0
TINY = float(np.finfo(np.float32).tiny)  # librosa.util.normalize does not scale smaller values

_BAND = 32  # bins per band; the roll-off is searched band by band
_N_BANDS = N_BINS // _BAND  # the last bin is in no band
_ONES = np.ones(_BAND, dtype=np.float32)
_RESOLUTION = np.float32(np.finfo(np.float32).eps)
_ERROR = 1e-8  # error of a float32 transform in one bin, relative to the largest bin
_TOLERANCE = 5e-6
_FLAT = np.float32(1e-4)
_SUM_ERROR = np.float32(2e-5)  # error of a sequential sum of 1,025 float32 numbers
_FAINT = np.float32(1e-12)

# Periodic, as for a spectrum. The padding before and after is silence.
_WINDOW: Float64 = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(N_FFT) / N_FFT)
_WINDOW_32: Float32 = _WINDOW.astype(np.float32)


def extract_core20(signal: np.ndarray, sample_rate: int = SAMPLE_RATE) -> Float32:
    """Measure the `core20` features of a mono signal.

    The definitions are librosa's, with centred frames of 2,048 samples, 512 apart. In order:

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
        At least one mono sample; full scale is 1.
    sample_rate : int
        Samples per second, in Hz. The set is defined at 22,050 Hz: resample other signals first.

    Returns
    -------
    np.ndarray [shape=(20,)] of float32
        Finite values in the order of ``CORE20.features``.

    Raises
    ------
    DataError
        `signal` is empty, not one-dimensional, not finite or above 1e12, or `sample_rate` is not positive.

    See Also
    --------
    genre_classifier.features.sets : names and order of the features

    Examples
    --------
    >>> import numpy as np
    >>> from genre_classifier.features.spectral.core20 import extract_core20
    >>> features = extract_core20(0.5 * np.sin(2 * np.pi * 440 * np.arange(22050) / 22050))
    >>> features.shape, round(float(features[16]), 2)  # rms
    ((20,), 0.35)
    """
    samples = check_signal(signal, sample_rate)
    padded = np.zeros(samples.size + N_FFT, dtype=np.float32)
    padded[N_FFT // 2 : N_FFT // 2 + samples.size] = samples
    n_frames = 1 + samples.size // HOP_LENGTH
    frames = as_strided(padded, (n_frames, N_FFT), (HOP_LENGTH * 4, 4), writeable=False)
    spectrum = _measure(frames, sample_rate)
    chroma = _compute_chroma(spectrum, sample_rate)  # (frame, pitch class)
    values = [
        *_compute_mfcc_means(spectrum.mel),
        _compute_mean_centroid(spectrum),
        _compute_mean_rolloff(spectrum, frames, sample_rate),
        _compute_crossing_rate(samples, n_frames),
        _compute_mean_rms(padded, n_frames),
        chroma.mean(),
        chroma.std(),
        _compute_entropy(chroma.mean(axis=0)),
    ]
    features = np.asarray(values, dtype=np.float32)
    if features.shape != (len(CORE20.features),):
        raise AssertionError(f"core20 has {len(CORE20.features)} features, measured {features.shape}")
    return features


def check_signal(signal: np.ndarray, sample_rate: int) -> Float32:
    """Return a mono signal as float32. Raises DataError unless it is one channel of finite samples."""
    samples = np.asarray(signal)
    if samples.ndim != 1 or samples.size == 0:
        raise DataError(
            f"signal of shape {samples.shape}: expected one channel of at least one sample; "
            "mix it to mono first"
        )
    if sample_rate <= 0:
        raise DataError(f"sample_rate={sample_rate}: expected a positive number of samples per second")
    with np.errstate(over="ignore"):
        samples = np.ascontiguousarray(samples, dtype=np.float32)
    peak = max(float(samples.max()), -float(samples.min()))
    if not np.isfinite(peak):
        raise DataError(
            f"signal has {np.count_nonzero(~np.isfinite(samples))} samples that are not finite; "
            "check how the file was decoded"
        )
    if peak > 1e12:  # its power would overflow
        raise DataError(
            f"signal has a sample of {peak:.3g} where full scale is 1; divide it by its full scale"
        )
    return samples


@dataclass(frozen=True, eq=False)
class _Spectrum:
    """The values of a spectrogram that the features need.

    Parameters
    ----------
    power : np.ndarray [shape=(frame, bin), dtype=float32]
    largest : np.ndarray [shape=(frame, 1), dtype=float32]
        Each frame's largest power.
    mel : np.ndarray [shape=(frame, band), dtype=float32]
    bands : np.ndarray [shape=(frame, 32), dtype=float32]
        Magnitudes summed over bands of 32 bins. The last bin is in no band.
    weighted : np.ndarray [shape=(frame,), dtype=float32]
        Sum of magnitudes times their frequencies in Hz.
    peaks : list of Peaks
        Peaks, block by block of frames.
    """

    power: Float32
    largest: Float32
    mel: Float32
    bands: Float32
    weighted: Float32
    peaks: list[Peaks]

    @property
    def last(self) -> Float32:
        """Magnitude in the last bin, shape (frame,)."""
        return np.sqrt(self.power[:, -1])


def _measure(frames: Float32, sample_rate: int) -> _Spectrum:
    n_frames = len(frames)
    frequencies = compute_bin_frequencies(sample_rate).astype(np.float32)
    spectrum = _Spectrum(
        power=np.empty((n_frames, N_BINS), np.float32),
        largest=np.empty((n_frames, 1), np.float32),
        mel=np.empty((n_frames, N_MELS), np.float32),
        bands=np.empty((n_frames, _N_BANDS), np.float32),
        weighted=np.empty(n_frames, np.float32),
        peaks=[],
    )
    searched = find_pitch_bins(sample_rate)
    windowed = np.empty((BLOCK_FRAMES, N_FFT), np.float32)
    for start in range(0, n_frames, BLOCK_FRAMES):
        block = slice(start, min(start + BLOCK_FRAMES, n_frames))
        magnitude = _compute_magnitudes(
            np.multiply(frames[block], _WINDOW_32, out=windowed[: block.stop - start])
        )
        np.matmul(magnitude, frequencies, out=spectrum.weighted[block])
        peaks = _fill(spectrum, block, magnitude, searched)
        coarse = _find_inexact_frames(spectrum, block, peaks, sample_rate)
        if coarse.size:
            magnitude[coarse] = _compute_magnitudes(frames[start + coarse] * _WINDOW)
            np.matmul(magnitude, frequencies, out=spectrum.weighted[block])
            peaks = _fill(spectrum, block, magnitude, searched)
        for filters in compute_mel_blocks(sample_rate):
            np.matmul(
                spectrum.power[block, filters.bins], filters.weights, out=spectrum.mel[block, filters.bands]
            )
        spectrum.peaks.append(peaks)
    return spectrum


def _compute_magnitudes(windowed: npt.NDArray[np.floating]) -> Float32:
    """Return float32 magnitudes (frame, bin) of frames in float32 or float64. The frames are overwritten."""
    from scipy.fft import rfft

    return np.abs(rfft(windowed, axis=1, overwrite_x=True).astype(np.complex64, copy=False))


def _fill(spectrum: _Spectrum, block: slice, magnitude: Float32, searched: slice) -> Peaks:
    power = np.multiply(magnitude, magnitude, out=spectrum.power[block])
    np.max(power, axis=1, keepdims=True, out=spectrum.largest[block])
    in_bands = magnitude[:, :-1].reshape(len(magnitude), _N_BANDS, _BAND)
    np.matmul(in_bands, _ONES, out=spectrum.bands[block])
    return find_peaks(power, spectrum.largest[block], searched)


def _find_inexact_frames(
    spectrum: _Spectrum, block: slice, peaks: Peaks, sample_rate: int
) -> npt.NDArray[np.intp]:
    """Return which frames of a block need a float64 transform.

    The errors of a float32 transform are about the same in every bin. They matter for the centroid if the high bands
    are almost empty, as with a deep tone or an offset. They matter for the tuning if the spectrum is so flat that the
    errors make peaks, as with a click. Music has almost no such frames.
    """
    largest = np.sqrt(spectrum.largest[block])  # (frame, 1)
    empty = spectrum.bands[block] < _BAND * _RESOLUTION * largest
    coarse = np.zeros(len(largest), dtype=np.bool_)
    if empty.any():
        centres = (np.arange(_N_BANDS) + 0.5) * (_BAND * sample_rate / N_FFT)  # Hz
        error = _BAND * _ERROR * largest[:, 0] * (empty @ centres)
        coarse = error > _TOLERANCE * spectrum.weighted[block]
    if peaks.frames.size:
        coarse[peaks.frames[-peaks.curvature < _FLAT * peaks.power]] = True
    return np.flatnonzero(coarse)


def _compute_mfcc_means(mel: Float32) -> Float64:
    """Return the means over time of the first 13 cepstral coefficients."""
    decibels = np.log(np.maximum(mel, SILENT_POWER))
    decibels *= np.float32(10.0 / np.log(10.0))
    np.maximum(decibels, decibels.max() - np.float32(DYNAMIC_RANGE), out=decibels)
    # The transform is linear, so it is applied to the mean.
    means: Float64 = compute_cosine_transform(N_MFCC) @ decibels.mean(axis=0, dtype=np.float64)
    return means


def _compute_mean_centroid(spectrum: _Spectrum) -> float:
    total = spectrum.bands.sum(axis=1, dtype=np.float64) + spectrum.last
    return float((spectrum.weighted / np.where(total < TINY, 1.0, total)).mean())


def _compute_mean_rolloff(spectrum: _Spectrum, frames: Float32, sample_rate: int) -> float:
    """Return the mean over time of the lowest frequency with 85 % of the magnitudes at or below it."""
    reached = np.cumsum(spectrum.bands, axis=1)  # (frame, band)
    total = reached[:, -1] + spectrum.last
    wanted = (ROLLOFF * total)[:, None]
    band = (reached < wanted).sum(axis=1)
    rows = np.arange(len(band))
    before = np.where(band > 0, reached[rows, band - 1], np.float32(0))[:, None]
    inside = np.minimum(band[:, None] * _BAND + np.arange(_BAND), N_BINS - 1)  # (frame, bin of the band)
    within = before + np.cumsum(np.sqrt(spectrum.power[rows[:, None], inside]), axis=1)
    bins = np.minimum(band * _BAND + (within < wanted).sum(axis=1), N_BINS - 1)
    # One wrong bin in one frame exceeds the tolerance of a quiet clip's mean. Frames in which rounding decides, or with
    # powers too small for float32, are therefore summed in librosa's precision and order.
    close = np.abs(within - wanted).min(axis=1) < _SUM_ERROR * total
    close |= (total > 0) & (total < _FAINT)
    if close.any():
        sums = np.cumsum(_compute_magnitudes(frames[close] * _WINDOW), axis=1)
        bins[close] = (sums < ROLLOFF * sums[:, -1:]).sum(axis=1)
    return float(bins.mean() * sample_rate / N_FFT)


def _compute_crossing_rate(samples: Float32, n_frames: int) -> float:
    """Return the mean over frames of the share of samples whose sign differs from the sample before."""
    half = N_FFT // 2
    n_padded = (n_frames - 1) * HOP_LENGTH + N_FFT
    negative = np.empty(samples.size + N_FFT, dtype=np.bool_)
    # Padding with the first and last sample adds no crossing.
    np.less(samples, -CROSSING_THRESHOLD, out=negative[half : half + samples.size])
    negative[:half] = negative[half]
    negative[half + samples.size :] = negative[half + samples.size - 1]
    crossing = np.empty(n_padded, dtype=np.bool_)
    crossing[0] = False
    np.not_equal(negative[1:n_padded], negative[: n_padded - 1], out=crossing[1:])
    per_hop = np.count_nonzero(crossing.reshape(-1, HOP_LENGTH), axis=1)
    frames_of_hop = np.convolve(
        np.ones(n_frames), np.ones(N_FFT // HOP_LENGTH)
    )  # number of frames that contain each hop
    # A frame's first sample has no sample before it.
    total = per_hop @ frames_of_hop - np.count_nonzero(crossing[: n_frames * HOP_LENGTH : HOP_LENGTH])
    return float(total / (n_frames * N_FFT))


def _compute_mean_rms(padded: Float32, n_frames: int) -> float:
    hops = padded[: (n_frames - 1) * HOP_LENGTH + N_FFT].reshape(-1, HOP_LENGTH)
    energy = np.einsum("hs,hs->h", hops, hops).astype(np.float64)
    in_frame = np.convolve(energy, np.ones(N_FFT // HOP_LENGTH), mode="valid")  # (frame,)
    return float(np.sqrt(in_frame / N_FFT).mean())


def _compute_chroma(spectrum: _Spectrum, sample_rate: int) -> Float64:
    """Return ``librosa.feature.chroma_stft`` of the signal, shape (frame, pitch class)."""
    tuning = estimate_tuning(spectrum.peaks, sample_rate)
    chroma = (spectrum.power @ compute_chroma_filters(sample_rate, tuning)).astype(np.float64)
    largest = chroma.max(axis=1, keepdims=True)
    chroma /= np.where(largest < TINY, 1.0, largest)
    return chroma


def _compute_entropy(profile: Float64) -> float:
    """Return the Shannon entropy, in nats, of a non-negative profile (pitch class,) divided by its sum."""
    total = float(profile.sum())
    if total <= 0.0:
        return float(np.log(profile.size))
    share = profile / total
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())
