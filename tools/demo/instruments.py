"""Synthesise single notes and drum strokes.

Most instruments read a wavetable that fades from a bright to a dark version of its spectrum. Plucked
strings are Karplus-Strong loops, bells are frequency modulation, washes are filtered noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import butter, lfilter, sosfilt

from genre_classifier.features.sets import SAMPLE_RATE
from tools.demo.score import Drum, Instrument, Kit, Note
from tools.demo.streams import Stream

TABLE_SIZE = 2048
TOP_PARTIAL = 10_000.0  # Hz: nothing is synthesised above, so nothing folds back at 11,025 Hz
FADE = 0.004  # s over which a note is released at least
MAX_RING = 3.0  # s

VOWELS = (  # formants in Hz
    (730.0, 1090.0, 2440.0),
    (570.0, 840.0, 2410.0),
    (530.0, 1840.0, 2480.0),
    (390.0, 1990.0, 2550.0),
    (440.0, 1020.0, 2240.0),
)


@dataclass(frozen=True)
class Spectrum:
    """How a wavetable instrument sounds.

    Parameters
    ----------
    slope : float
        The k-th partial has amplitude ``k**-slope``.
    even : float
        Factor for the even partials.
    cutoff : tuple of float
        Corner in Hz, from brightness 0 to 1, above which partials fade.
    darken : float
        Share of the cutoff that is left when a note has settled.
    settle : float
        Time constant of darkening, in s.
    attack, decay, release : float
        Envelope in s: rise, time constant of the fall (0: none), fade after the note's end.
    formants : tuple of (float, float)
        Resonances: centre in Hz and strength.
    vibrato : float
        Depth in cents.
    unison : int
        Detuned copies.
    detune : float
        Spread of the copies in cents.
    breath : float
        Level of noise on top of the tone.
    """

    slope: float
    even: float
    cutoff: tuple[float, float]
    darken: float
    settle: float
    attack: float
    decay: float
    release: float
    formants: tuple[tuple[float, float], ...] = ()
    vibrato: float = 0.0
    unison: int = 1
    detune: float = 0.0
    breath: float = 0.0


SPECTRA: dict[str, Spectrum] = {
    "saw": Spectrum(1.0, 1.0, (300, 9000), 0.5, 0.12, 0.004, 1.5, 0.05, unison=3, detune=11),
    "square": Spectrum(1.0, 0.05, (300, 8000), 0.5, 0.1, 0.004, 1.2, 0.04),
    "sub": Spectrum(2.2, 0.6, (90, 900), 0.6, 0.15, 0.006, 0.9, 0.05),
    "strings": Spectrum(
        1.1, 1.0, (900, 6000), 0.9, 0.5, 0.12, 0.0, 0.25, ((500, 0.8), (1200, 0.6)), 10, 3, 9, 0.01
    ),
    "violin": Spectrum(
        1.0,
        1.0,
        (1200, 7000),
        0.9,
        0.4,
        0.06,
        0.0,
        0.1,
        ((460, 0.9), (1100, 0.8), (2700, 0.9)),
        22,
        1,
        0,
        0.015,
    ),
    "cello": Spectrum(
        1.1,
        1.0,
        (700, 4500),
        0.85,
        0.4,
        0.08,
        0.0,
        0.15,
        ((220, 0.8), (600, 0.8), (1500, 0.5)),
        14,
        1,
        0,
        0.015,
    ),
    "piano": Spectrum(1.3, 1.0, (900, 7000), 0.35, 0.25, 0.003, 0.9, 0.12, unison=2, detune=1.5),
    "epiano": Spectrum(2.0, 0.5, (600, 5000), 0.35, 0.2, 0.004, 1.1, 0.1),
    "organ": Spectrum(0.9, 0.9, (700, 6000), 1.0, 1.0, 0.01, 0.0, 0.04, vibrato=8),
    "flute": Spectrum(2.3, 0.7, (1500, 6000), 1.0, 1.0, 0.05, 0.0, 0.08, vibrato=14, breath=0.06),
    "clarinet": Spectrum(1.1, 0.12, (1200, 5500), 0.9, 0.5, 0.03, 0.0, 0.06, ((1500, 0.6),), 5, breath=0.02),
    "sax": Spectrum(
        1.0, 0.9, (1100, 6500), 0.8, 0.4, 0.03, 0.0, 0.07, ((650, 1.2), (1400, 1.0)), 16, breath=0.05
    ),
    "trumpet": Spectrum(
        0.7, 1.0, (1000, 6500), 0.75, 0.3, 0.025, 0.0, 0.06, ((1200, 1.4), (2300, 0.8)), 10, breath=0.02
    ),
    "voice": Spectrum(0.9, 1.0, (2200, 7500), 0.95, 0.5, 0.035, 0.0, 0.08, (), 18, breath=0.07),
    "ebass": Spectrum(1.3, 0.8, (350, 2800), 0.4, 0.25, 0.004, 0.8, 0.05),
    "upright": Spectrum(1.7, 0.9, (250, 1600), 0.35, 0.15, 0.008, 0.5, 0.1, ((180, 0.6),), 3, breath=0.01),
}
LOOP_GAINS = {"guitar": 3.2, "pluck": 1.8}  # s for a string to fall by 60 dB at 220 Hz


def play_note(instrument: Instrument, brightness: float, note: Note, stream: Stream) -> np.ndarray:
    """Synthesise one note.

    Parameters
    ----------
    instrument : str
        What is played.
    brightness : float
        0 (dull) to 1 (bright).
    note : Note
        Pitch, duration and velocity; the start does not matter.
    stream : Stream
        Where vowels, phases and noise are drawn from.

    Returns
    -------
    np.ndarray [shape=(n,)] of float64
        Samples at 22,050 Hz, with a peak near the velocity.
    """
    frequency = 440.0 * 2.0 ** ((note.pitch - 69.0) / 12.0)
    frequency = min(max(frequency, 25.0), 4000.0)
    duration = min(max(note.duration, 0.02), MAX_RING * 3)
    if instrument in LOOP_GAINS:
        tone = _string(frequency, duration, brightness, LOOP_GAINS[instrument], stream)
    elif instrument == "fm":
        tone = _bell(frequency, duration, brightness, stream)
    elif instrument == "wash":
        tone = _wash(frequency, duration, brightness, stream)
    else:
        spectrum = SPECTRA[instrument]
        if instrument == "voice":
            vowel = stream.choose(VOWELS)
            strengths = (2.6, 2.0, 0.6 + 1.4 * brightness)
            spectrum = _with_formants(spectrum, tuple(zip(vowel, strengths, strict=True)))
        tone = _wavetable_note(spectrum, frequency, duration, brightness, stream)
    return tone * note.velocity


def _with_formants(spectrum: Spectrum, formants: tuple[tuple[float, float], ...]) -> Spectrum:
    return Spectrum(**{**spectrum.__dict__, "formants": formants})


def _wavetable_note(
    spectrum: Spectrum, frequency: float, duration: float, brightness: float, stream: Stream
) -> np.ndarray:
    n = int((duration + spectrum.release) * SAMPLE_RATE)
    time = np.arange(n) / SAMPLE_RATE
    low, high = spectrum.cutoff
    cutoff = low * (high / low) ** brightness
    bright = _table(spectrum, frequency, cutoff)
    dark = _table(spectrum, frequency, cutoff * spectrum.darken)
    freshness = np.exp(-time / spectrum.settle)
    tone = np.zeros(n)
    for copy in range(spectrum.unison):
        cents = spectrum.detune * (copy - (spectrum.unison - 1) / 2)
        phase = _phase(frequency * 2.0 ** (cents / 1200.0), time, spectrum.vibrato, stream)
        tone += _read(bright, dark, freshness, phase)
    tone /= spectrum.unison
    if spectrum.breath:
        air = sosfilt(butter(1, 1500.0, "highpass", fs=SAMPLE_RATE, output="sos"), stream.noise(n))
        tone += spectrum.breath * (0.4 + brightness) * air * (0.35 + np.exp(-time / 0.03))
    return tone * _envelope(n, duration, spectrum.attack, spectrum.decay, spectrum.release)


def _table(spectrum: Spectrum, frequency: float, cutoff: float) -> np.ndarray:
    """One period (TABLE_SIZE + 1 samples, the last repeating the first) with a peak of 1."""
    n_partials = max(1, min(96, int(TOP_PARTIAL / frequency)))
    k = np.arange(1, n_partials + 1)
    hertz = k * frequency
    amplitude = k**-spectrum.slope / np.sqrt(1.0 + (hertz / cutoff) ** 4)
    amplitude[1::2] *= spectrum.even
    resonance = np.ones(n_partials)
    for centre, strength in spectrum.formants:
        resonance += strength * 3.0 / (1.0 + ((hertz - centre) / (0.12 * centre + 60.0)) ** 2)
    amplitude *= resonance
    bins = np.zeros(TABLE_SIZE // 2 + 1, dtype=complex)
    bins[1 : n_partials + 1] = amplitude * np.exp(-1j * np.pi * k * (k - 1) / n_partials)  # low crest factor
    period = np.fft.irfft(bins, TABLE_SIZE)
    period /= np.max(np.abs(period))
    return np.append(period, period[0])


def _phase(frequency: float, time: np.ndarray, vibrato: float, stream: Stream) -> np.ndarray:
    """Phase in periods; vibrato sets in during the first third of a second."""
    phase = frequency * time + stream.uniform(0.0, 1.0)
    if vibrato:
        rate = stream.uniform(4.6, 6.2)  # Hz
        depth = frequency * (2.0 ** (vibrato / 1200.0) - 1.0)
        onset = np.minimum(time / 0.3, 1.0)
        phase += onset * depth / (2 * np.pi * rate) * np.sin(2 * np.pi * rate * time)
    return phase


def _read(bright: np.ndarray, dark: np.ndarray, freshness: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Read two wavetables at a phase, between samples by a line, and fade from the first to the second."""
    position = (phase - np.floor(phase)) * TABLE_SIZE
    index = np.minimum(position.astype(np.int32), TABLE_SIZE - 1)
    fraction = position - index
    settled = dark[index] + fraction * np.diff(dark)[index]
    fresh = bright[index] + fraction * np.diff(bright)[index]
    return settled + freshness * (fresh - settled)


def _envelope(n: int, duration: float, attack: float, decay: float, release: float) -> np.ndarray:
    time = np.arange(n) / SAMPLE_RATE
    level = np.minimum(time / attack, 1.0)
    if decay:
        level = level * np.exp(-time / decay)
    return level * np.clip((duration + release - time) / max(release, FADE), 0.0, 1.0)


def _string(frequency: float, duration: float, brightness: float, ring: float, stream: Stream) -> np.ndarray:
    """A plucked string: noise in a loop as long as the period, losing a little treble in each round."""
    period = SAMPLE_RATE / frequency
    n = int((min(duration, MAX_RING) + 0.03) * SAMPLE_RATE)
    smoothing = 0.5 - 0.42 * brightness  # weight of the older of two samples, which is also a delay
    whole = int(period - smoothing)
    fraction = period - smoothing - whole
    taps = np.convolve([1.0 - smoothing, smoothing], [1.0 - fraction, fraction])
    gain = 10.0 ** (-3.0 / (ring * frequency) * (frequency / 220.0) ** 0.4)
    loop = np.zeros(whole + 3)
    loop[0] = 1.0
    loop[whole:] -= gain * taps
    pluck = np.zeros(n)
    burst = stream.noise(whole)
    corner = 1200.0 * (8000.0 / 1200.0) ** brightness
    pluck[:whole] = sosfilt(butter(1, corner, "lowpass", fs=SAMPLE_RATE, output="sos"), burst - burst.mean())[
        :n
    ]
    tone = lfilter([1.0], loop, pluck)
    return _levelled(tone) * _envelope(n, n / SAMPLE_RATE - 0.03, 0.001, 0.0, 0.03)


def _bell(frequency: float, duration: float, brightness: float, stream: Stream) -> np.ndarray:
    """Frequency modulation with a ratio that is no simple fraction."""
    n = int((duration + 0.3) * SAMPLE_RATE)
    time = np.arange(n) / SAMPLE_RATE
    ratio = stream.choose((1.414, 2.76, 0.618, 3.13, 1.87, 4.53))
    room = max(0.0, (TOP_PARTIAL - frequency) / (ratio * frequency) - 1.0)  # sidebands stay below the limit
    index = min((0.4 + 7.0 * brightness), room)
    modulator = np.sin(2 * np.pi * ratio * frequency * time)
    tone = np.sin(2 * np.pi * frequency * time + index * np.exp(-time / (0.5 * duration + 0.1)) * modulator)
    return tone * _envelope(n, duration, stream.choose((0.003, 0.003, 0.2)), 0.8 * duration + 0.1, 0.3)


def _wash(frequency: float, duration: float, brightness: float, stream: Stream) -> np.ndarray:
    """A band of noise around a pitch that comes and goes slowly."""
    n = int((duration + 0.4) * SAMPLE_RATE)
    low = min(frequency * (1.0 + 2.0 * brightness), 6000.0)
    high = min(low * (1.3 + 4.0 * brightness * stream.uniform(0.3, 1.0)), 10_000.0)
    band = butter(2, (low, high), "bandpass", fs=SAMPLE_RATE, output="sos")
    tone = _levelled(sosfilt(band, stream.noise(n)))
    return tone * _envelope(n, duration, min(0.3, 0.5 * duration), 0.0, 0.4)


def _levelled(tone: np.ndarray) -> np.ndarray:
    peak = float(np.max(np.abs(tone)))
    return tone / peak if peak > 0 else tone


def strike_drum(drum: Drum, kit: Kit, stream: Stream) -> np.ndarray:
    """Synthesise one stroke at full velocity.

    Parameters
    ----------
    drum : str
        What is struck.
    kit : Kit
        How the kit sounds.
    stream : Stream
        Where noise is drawn from.

    Returns
    -------
    np.ndarray [shape=(n,)] of float64
        Samples at 22,050 Hz, with a peak of about 1.
    """
    if drum in ("kick", "tom"):
        return _skin(drum, kit, stream)
    if drum in ("snare", "clap", "rim", "brush"):
        return _snap(drum, kit, stream)
    return _cymbal(drum, kit, stream)


def _skin(drum: Drum, kit: Kit, stream: Stream) -> np.ndarray:
    base, sweep, decay = (48.0, 130.0, 0.16) if drum == "kick" else (95.0, 60.0, 0.2)
    decay *= kit.decay
    n = int(min(6 * decay, 1.2) * SAMPLE_RATE)
    time = np.arange(n) / SAMPLE_RATE
    phase = base * kit.tuning * time + sweep * kit.tuning * 0.03 * (1.0 - np.exp(-time / 0.03))
    tone = np.sin(2 * np.pi * phase) * np.exp(-time / decay)
    click = _filtered(stream.noise(n), 2000.0 + 5000.0 * kit.brightness, "lowpass") * np.exp(-time / 0.004)
    return np.tanh((tone + 0.7 * kit.brightness * click) * (1.0 + 2.0 * kit.grit))


def _snap(drum: Drum, kit: Kit, stream: Stream) -> np.ndarray:
    decay = {"snare": 0.11, "clap": 0.09, "rim": 0.025, "brush": 0.14}[drum] * kit.decay
    n = int(min(7 * decay, 1.0) * SAMPLE_RATE)
    time = np.arange(n) / SAMPLE_RATE
    corner = {"snare": 1200.0, "clap": 900.0, "rim": 1500.0, "brush": 1800.0}[drum] * (
        0.6 + 0.8 * kit.brightness
    )
    noise = _filtered(stream.noise(n), corner, "highpass")
    noise = _filtered(noise, 3500.0 + 6500.0 * kit.brightness, "lowpass")
    if drum == "brush":
        return _levelled(noise * np.minimum(time / 0.02, 1.0) * np.exp(-time / decay)) * 0.5
    if drum == "clap":
        bursts = sum(np.where(time >= d, np.exp(-(time - d) / 0.008), 0.0) for d in (0.0, 0.011, 0.023))
        return _levelled(noise * (bursts + np.exp(-time / decay)))
    hertz = (185.0 if drum == "snare" else 800.0) * kit.tuning
    shell = np.sin(2 * np.pi * hertz * time) * np.exp(-time / (0.6 * decay))
    return np.tanh((1.0 + kit.grit) * _levelled(0.8 * shell + 0.9 * noise * np.exp(-time / decay)))


def _cymbal(drum: Drum, kit: Kit, stream: Stream) -> np.ndarray:
    decay = {"hat": 0.035, "open": 0.22, "ride": 0.35, "shaker": 0.04, "metal": 0.4}[drum] * kit.decay
    n = int(min(5 * decay, 1.5) * SAMPLE_RATE)
    time = np.arange(n) / SAMPLE_RATE
    body = stream.noise(n) if drum != "metal" else 0.2 * stream.noise(n)
    base = {"ride": 420.0, "metal": 310.0}.get(drum, 540.0) * kit.tuning
    ring = sum(np.sign(np.sin(2 * np.pi * base * ratio * time)) for ratio in (1.0, 1.342, 1.523, 2.21, 2.91))
    mixed = body + (0.1 if drum == "shaker" else 0.25) * ring
    corner = {"metal": 500.0, "ride": 3000.0, "shaker": 4000.0}.get(drum, 5000.0) * (
        0.55 + 0.6 * kit.brightness
    )
    swish = np.minimum(time / 0.012, 1.0) if drum == "shaker" else 1.0
    level = {"hat": 0.5, "open": 0.5, "ride": 0.4, "shaker": 0.4, "metal": 0.7}[drum]
    return level * _levelled(_filtered(mixed, corner, "highpass") * swish * np.exp(-time / decay))


def _filtered(signal: np.ndarray, corner: float, kind: str) -> np.ndarray:
    filtered: np.ndarray = sosfilt(
        butter(2, min(corner, 10_500.0), kind, fs=SAMPLE_RATE, output="sos"), signal
    )
    return filtered
