"""Render a score to samples: play the parts, mix, add the room, and master."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import butter, sosfilt

from genre_classifier.features.sets import SAMPLE_RATE
from tools.demo.instruments import play_note, strike_drum
from tools.demo.score import Hit, Note, Part, Production, Score
from tools.demo.streams import Stream

CEILING = 0.97  # highest sample of a clip
KNEE = 0.6  # where the limiter sets in
STRUCK_ONCE = (
    "guitar",
    "pluck",
)  # a string sounds the same every time, and its loop is the dearest to compute


def render(score: Score) -> np.ndarray:
    """Synthesise a score.

    Parameters
    ----------
    score : Score
        A composed track.

    Returns
    -------
    np.ndarray [shape=(n,)] of float32
        Mono samples at 22,050 Hz with no sample beyond ±0.97.

    Examples
    --------
    >>> from tools.demo.compose import compose
    >>> render(compose(1, "Folk", 1, 1)).shape
    (176400,)
    """
    n = int(score.seconds * SAMPLE_RATE)
    mix = np.zeros(n)
    ducked = np.zeros(n)
    for number, part in enumerate(score.parts):
        target = ducked if part.ducked else mix
        target += _decibels(part.gain) * _play(part, n, score.name, number)
    mix += ducked * _duck(score.hits, n, score.production.sidechain)
    mix += _decibels(score.drum_gain) * _drum(score, n)
    return _master(mix, score.production, score.name)


def _decibels(gain: float) -> float:
    return float(10.0 ** (gain / 20.0))


def _play(part: Part, n: int, name: str, number: int) -> np.ndarray:
    track = np.zeros(n)
    rung: dict[tuple[float, float], np.ndarray] = {}
    for i, note in enumerate(part.notes):
        stream = Stream(name, "part", number, i)
        if part.instrument in STRUCK_ONCE:
            key = (note.pitch, round(note.duration, 2))
            if key not in rung:
                rung[key] = play_note(part.instrument, part.brightness, _at_full(note, key[1]), stream)
            tone = rung[key] * note.velocity
        else:
            tone = play_note(part.instrument, part.brightness, note, stream)
        _add(track, tone, note.start)
    track *= 0.3  # room for chords
    if part.drive > 0.0:
        return _distort(track, part.drive, cabinet=part.instrument == "guitar")
    return track


def _at_full(note: Note, duration: float) -> Note:
    return Note(0.0, duration, note.pitch, 1.0)


def _add(track: np.ndarray, tone: np.ndarray, start: float) -> None:
    first = int(start * SAMPLE_RATE)
    end = min(first + tone.size, track.size)
    if first < end:
        track[first:end] += tone[: end - first]


def _distort(track: np.ndarray, drive: float, *, cabinet: bool) -> np.ndarray:
    driven = np.tanh(track * (1.0 + 2.5 * drive)) / (1.0 + 0.45 * drive) * 0.9
    if not cabinet:
        return driven
    box = butter(2, (90.0, 4800.0), "bandpass", fs=SAMPLE_RATE, output="sos")
    speaker: np.ndarray = sosfilt(box, driven)
    return speaker


def _duck(hits: Iterable[Hit], n: int, depth: float) -> np.ndarray:
    """Gain of the parts that a kick pushes down: at once to ``1 - depth``, back within 0.4 s."""
    gain = np.ones(n)
    if depth <= 0.0:
        return gain
    dip = 1.0 - depth * np.exp(-np.arange(int(0.4 * SAMPLE_RATE)) / (0.11 * SAMPLE_RATE))
    for hit in hits:
        if hit.drum == "kick":
            first = int(hit.start * SAMPLE_RATE)
            window = gain[first : first + dip.size]
            np.minimum(window, dip[: window.size], out=window)
    return gain


def _drum(score: Score, n: int) -> np.ndarray:
    track = np.zeros(n)
    takes: dict[tuple[str, int], np.ndarray] = {}
    for i, hit in enumerate(score.hits):
        take = (hit.drum, i % 3)  # three takes of each drum, so that rolls do not sound like a machine gun
        if take not in takes:
            takes[take] = strike_drum(hit.drum, score.kit, Stream(score.name, "drum", *take))
        _add(track, takes[take] * hit.velocity * 0.6, hit.start)
    return track


def _master(mix: np.ndarray, production: Production, name: str) -> np.ndarray:
    wet = _reverberate(mix, production.reverb_seconds, Stream(name, "room"))
    sound = (1.0 - production.reverb_mix) * mix + production.reverb_mix * wet
    sound = _to_rms(sound, 0.2)
    if production.drive > 0.0:
        sound = np.tanh(sound * (1.0 + production.drive)) / (1.0 + 0.5 * production.drive)
    sound = _equalise(sound, production)
    sound = _to_rms(sound, 0.1) + 0.1 * _dirt(sound.size, production, Stream(name, "dirt"))
    sound *= np.linspace(_decibels(-production.swell / 2), _decibels(production.swell / 2), sound.size)
    return _limit(_to_rms(sound, _decibels(production.loudness))).astype(np.float32)


def _to_rms(sound: np.ndarray, level: float) -> np.ndarray:
    rms = float(np.sqrt(np.mean(sound**2)))
    return sound * (level / rms) if rms > 0.0 else sound


def _reverberate(mix: np.ndarray, seconds: float, stream: Stream) -> np.ndarray:
    """Convolve with noise that decays by 60 dB in `seconds`, at the level of the dry sound."""
    time = np.arange(int(min(seconds, 3.0) * SAMPLE_RATE)) / SAMPLE_RATE
    response = stream.noise(time.size) * np.exp(-6.91 * time / seconds)
    response = sosfilt(butter(1, (150.0, 5000.0), "bandpass", fs=SAMPLE_RATE, output="sos"), response)
    size = next_fast_len(mix.size + time.size, real=True)
    wet: np.ndarray = irfft(rfft(mix, size) * rfft(response, size), size)[: mix.size]
    dry_level = float(np.sqrt(np.mean(mix**2)))
    return _to_rms(wet, dry_level) if dry_level > 0.0 else wet


def _equalise(sound: np.ndarray, production: Production) -> np.ndarray:
    high = min(production.high_cut, 0.49 * SAMPLE_RATE)
    sound = sosfilt(butter(2, production.low_cut, "highpass", fs=SAMPLE_RATE, output="sos"), sound)
    sound = sosfilt(butter(2, high, "lowpass", fs=SAMPLE_RATE, output="sos"), sound)
    low = sosfilt(butter(1, 900.0, "lowpass", fs=SAMPLE_RATE, output="sos"), sound)
    return _decibels(-production.tilt / 2) * low + _decibels(production.tilt / 2) * (sound - low)


def _dirt(n: int, production: Production, stream: Stream) -> np.ndarray:
    """Hiss and clicks, relative to music at an RMS of 1."""
    noise = _decibels(production.hiss) * 1.7 * stream.noise(n)
    click = np.exp(-np.arange(60) / 9.0)
    for _ in range(int(production.crackle * n / SAMPLE_RATE)):
        tone = click * stream.noise(click.size) * 1.5 * stream.uniform(0.0, 1.0) ** 3
        _add(noise, tone, stream.uniform(0.0, n / SAMPLE_RATE))
    return noise


def _limit(sound: np.ndarray) -> np.ndarray:
    """Bend what goes beyond the knee so that nothing reaches the ceiling."""
    excess = np.maximum(np.abs(sound) - KNEE, 0.0)
    bent = KNEE + (CEILING - KNEE) * np.tanh(excess / (CEILING - KNEE))
    return np.where(excess > 0.0, np.sign(sound) * bent, sound)
