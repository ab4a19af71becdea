"""What a composed track is made of, between the rules that write it and the synthesis that plays it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Instrument = Literal[
    "saw",
    "square",
    "sub",
    "strings",
    "violin",
    "cello",
    "piano",
    "epiano",
    "organ",
    "flute",
    "clarinet",
    "sax",
    "trumpet",
    "voice",
    "ebass",
    "upright",
    "guitar",
    "pluck",
    "fm",
    "wash",
]
Drum = Literal["kick", "snare", "clap", "rim", "brush", "hat", "open", "ride", "shaker", "tom", "metal"]


@dataclass(frozen=True)
class Note:
    """One note: start and duration in s, pitch as a MIDI number, velocity in (0, 1]."""

    start: float
    duration: float
    pitch: float
    velocity: float


@dataclass(frozen=True)
class Hit:
    """One stroke on a drum at `start` seconds with a velocity in (0, 1]."""

    start: float
    drum: Drum
    velocity: float


@dataclass(frozen=True)
class Part:
    """The notes of one player.

    Parameters
    ----------
    instrument : str
        What is played.
    brightness : float
        0 (dull) to 1 (bright).
    gain : float
        Level in the mix, in dB.
    drive : float
        Distortion: 0 is clean, 10 is heavy.
    ducked : bool
        Whether the kick pushes the part down when the production asks for it.
    notes : tuple of Note
        In order of time.
    """

    instrument: Instrument
    brightness: float
    gain: float
    drive: float
    ducked: bool
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class Kit:
    """How a drum kit sounds: tuning (1 is neutral), decay (1 is neutral), brightness and grit in [0, 1]."""

    tuning: float
    decay: float
    brightness: float
    grit: float


@dataclass(frozen=True)
class Production:
    """How a track is mixed and mastered.

    Parameters
    ----------
    loudness : float
        Level of the whole clip, in dB below full scale (RMS).
    drive : float
        Saturation of the sum, 0 is none.
    reverb_seconds, reverb_mix : float
        Time to decay by 60 dB, in s, and the share of the reverberated signal in [0, 1].
    hiss, crackle : float
        Level of steady noise, in dB below the music, and clicks per second.
    low_cut, high_cut : float
        Corners of the filters around the sum, in Hz.
    tilt : float
        Tone control around 900 Hz, in dB: positive is brighter.
    sidechain : float
        How far a kick pushes the other parts down, in [0, 1].
    swell : float
        Change of level from the first sample to the last, in dB.
    """

    loudness: float
    drive: float
    reverb_seconds: float
    reverb_mix: float
    hiss: float
    crackle: float
    low_cut: float
    high_cut: float
    tilt: float
    sidechain: float
    swell: float


@dataclass(frozen=True)
class Score:
    """A composed track: who plays what and when, and how it is mixed; `name` seeds the synthesis."""

    name: str
    seconds: float
    tempo: float  # beats per minute
    beats_per_bar: int
    section: str
    parts: tuple[Part, ...]
    kit: Kit
    drum_gain: float  # dB
    hits: tuple[Hit, ...]
    production: Production
