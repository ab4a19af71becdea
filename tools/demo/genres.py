"""The rules of the eight synthetic genres: what a band of each plays, on what, and how it is produced.

Every pair of numbers is a range. An artist settles on a place in it (a habit), a track strays a little from
there. Options are listed; an artist has a favourite among them. Rhythms are strings of sixteenth steps, one
bar long: ``X`` accent, ``x`` stroke, ``o`` soft stroke, ``?`` soft stroke half of the time, ``.`` nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar, get_type_hints

from tools.demo.score import Drum, Instrument

Range = tuple[float, float]
BassPattern = Literal[
    "none", "eighths", "sixteenths", "offbeat", "walking", "root-fifth", "boom", "pushed", "pedal"
]
CompPattern = Literal["none", "chug", "strum", "arpeggio", "pads", "stabs", "offbeats", "clusters"]
LeadPattern = Literal["none", "riff", "sung", "solo", "lyrical", "rap", "free"]


@dataclass(frozen=True)
class Voice:
    """An instrument on offer: brightness in [0, 1], gain in dB, drive (0 is clean)."""

    instrument: Instrument
    brightness: Range
    gain: Range
    drive: Range = (0.0, 0.0)


@dataclass(frozen=True)
class Groove:
    """A bar of drums; a groove of twelve steps is in three-four."""

    strokes: Mapping[Drum, str]

    @property
    def beats(self) -> int:
        return len(next(iter(self.strokes.values()))) // 4


@dataclass(frozen=True)
class RhythmRules:
    """Tempo in beats per minute; swing 0 is straight, 1 a full triplet; looseness in fractions of a beat."""

    tempo: Range
    waltz: float  # share of tracks in three-four
    swing: Range
    swing_step: Literal[1, 2]  # sixteenths per swung step
    looseness: Range
    drumless: float  # share of tracks without drums
    grooves: tuple[Groove, ...]
    tuning: Range
    decay: Range
    brightness: Range
    grit: Range
    gain: Range  # dB


@dataclass(frozen=True)
class HarmonyRules:
    """Chords as (semitones above the key, quality); one chord lasts `bars_per_chord` bars."""

    scales: tuple[str, ...]
    progressions: tuple[tuple[tuple[int, str], ...], ...]
    bars_per_chord: tuple[float, ...]
    detune: Range  # cents by which an artist is off 440 Hz


@dataclass(frozen=True)
class BassRules:
    patterns: tuple[BassPattern, ...]
    voices: tuple[Voice, ...]


@dataclass(frozen=True)
class CompRules:
    """Accompaniment, in one or two layers."""

    patterns: tuple[CompPattern, ...]
    voices: tuple[Voice, ...]
    second_layer: float  # probability


@dataclass(frozen=True)
class LeadRules:
    patterns: tuple[LeadPattern, ...]
    voices: tuple[Voice, ...]
    register: Range  # MIDI pitch


@dataclass(frozen=True)
class ProductionRules:
    """Ranges of :class:`tools.demo.score.Production`."""

    loudness: Range
    drive: Range
    reverb_seconds: Range
    reverb_mix: Range
    hiss: Range
    crackle: Range
    low_cut: Range
    high_cut: Range
    tilt: Range
    sidechain: Range
    swell: Range


@dataclass(frozen=True)
class Genre:
    """All the rules of one genre.

    `neighbours` are the genres its artists borrow from, with weights; `crossover` is how much the keenest of
    them borrows: the probability that a facet of a track (rhythm, harmony, bass, accompaniment, lead,
    production) follows the neighbour's rules.

    Two genres may be the ends of one continuum. `sibling` is then the genre at the other end, and `lean` the
    range of how far towards it this genre's artists stand: 0 is here, 1 is there, see :func:`between`.
    """

    name: str
    rhythm: RhythmRules
    harmony: HarmonyRules
    bass: BassRules
    comp: CompRules
    lead: LeadRules
    production: ProductionRules
    neighbours: Mapping[str, float]
    crossover: float
    sibling: str | None = None
    lean: Range = (0.0, 0.0)

    @property
    def slug(self) -> str:
        """The genre's name as it stands in ids and file names."""
        return self.name.lower()


SCALES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
    "major pentatonic": (0, 2, 4, 7, 9),
    "minor pentatonic": (0, 3, 5, 7, 10),
    "blues": (0, 3, 5, 6, 7, 10),
    "whole tone": (0, 2, 4, 6, 8, 10),
    "chromatic": tuple(range(12)),
}

CHORDS: dict[str, tuple[float, ...]] = {
    "5": (0, 7, 12),
    "maj": (0, 4, 7, 12),
    "min": (0, 3, 7, 12),
    "sus": (0, 5, 7, 12),
    "dim": (0, 3, 6, 12),
    "maj7": (0, 4, 7, 11, 14),
    "min7": (0, 3, 7, 10, 14),
    "7": (0, 4, 7, 10),
    "9": (0, 4, 10, 14),
    "m7b5": (0, 3, 6, 10),
    "cluster": (0, 1, 6, 8, 13),
    "quartal": (0, 5, 10, 15),
    "microtonal": (0, 2.5, 5.5, 9.3),
}

_BACKBEATS = (
    Groove({"kick": "X.......X.x.....", "snare": "....X.......X...", "hat": "x.o.x.o.x.o.x.o."}),
    Groove({"kick": "X..x....X.X...?.", "snare": "....X..?....X...", "hat": "x.x.x.x.x.x.x.x."}),
    Groove({"kick": "X.x.....x.x.....", "snare": "....X.......X..x", "open": "x...x...x...x..."}),
)
_ROCK_GROOVES = (
    *_BACKBEATS,
    Groove({"kick": "X.x.X.x.X.x.X.x.", "snare": "....X.......X...", "ride": "x.x.x.x.x.x.x.x."}),
    Groove(
        {
            "kick": "X.....x.X.......",
            "snare": "....X.......X...",
            "tom": "............?.x.",
            "open": "x...x...x...x...",
        }
    ),
    Groove({"kick": "X.....x.....", "snare": "....X...X...", "hat": "x.x.x.x.x.x."}),
)
_POP_GROOVES = (
    *_BACKBEATS[:2],
    Groove({"kick": "X...X...X...X...", "snare": "....X.......X...", "hat": "..x...x...x...x."}),
    Groove({"kick": "X..x..x.X..x..x.", "clap": "....X.......X...", "shaker": "o.o.o.o.o.o.o.o."}),
    Groove({"kick": "X.....x...x.....", "clap": "....X.......X...", "hat": "x.xxx.x.x.xxx.x."}),
    Groove({"kick": "X.....?.....", "snare": "....X...X...", "hat": "x.o.x.o.x.o."}),
)
_ELECTRONIC_GROOVES = (
    Groove({"kick": "X...X...X...X...", "clap": "....x.......x...", "open": "..x...x...x...x."}),
    Groove({"kick": "X...X...X...X...", "hat": "xoxoxoxoxoxoxoxo", "rim": "...x..x....x..?."}),
    Groove(
        {
            "kick": "X...X...X...X...",
            "snare": "....x.......x..?",
            "shaker": "xoxoxoxoxoxoxoxo",
            "open": "..x...x...x...x.",
        }
    ),
    Groove({"kick": "X.........X.....", "snare": "....X..o.o..X...", "hat": "x.x.x.x.x.x.x.xx"}),
    Groove({"kick": "X...X...X...", "clap": "....x...x...", "hat": "..x...x...x."}),
)
_HIPHOP_GROOVES = (
    Groove({"kick": "X.....x...X.....", "snare": "....X.......X...", "hat": "x.x.x.x.x.x.x.x."}),
    Groove({"kick": "X..x......X..x..", "snare": "....X..o.o..X...", "hat": "x.o.x.o.x.o.x.o."}),
    Groove({"kick": "X......x..X.....", "clap": "........X.......", "hat": "x.x.xxx.x.x.xoxo"}),
    Groove({"kick": "X.x.......Xx....", "rim": "....X.......X...", "shaker": "x.o.x.o.x.o.x.o."}),
    Groove({"kick": "X.....x.x...", "snare": "....X...X...", "hat": "x.x.x.x.x.x."}),
)
_JAZZ_GROOVES = (
    Groove(
        {
            "ride": "x...x.x.x...x.x.",
            "hat": "....o.......o...",
            "kick": "?.........?.....",
            "snare": "......?.......?.",
        }
    ),
    Groove({"ride": "X...x.x.x...x.x.", "hat": "....x.......x...", "snare": "..?...o.....?..."}),
    Groove({"brush": "x.o.X.o.x.o.X.o.", "hat": "....o.......o...", "kick": "o.......?......."}),
    Groove({"ride": "x.x.x.x.x.x.x.x.", "rim": "...x..x....x....", "kick": "x.....x.x.....x."}),
    Groove({"ride": "x...x.x.x...", "hat": "....o...o...", "kick": "o..........."}),
    Groove({"brush": "x...X.o.X.o.", "kick": "o..........."}),
)
_FOLK_GROOVES = (
    Groove({"shaker": "x.o.x.o.x.o.x.o.", "kick": "x.......x......."}),
    Groove({"brush": "o...x...o...x...", "kick": "x.......x..?...."}),
    Groove({"tom": "X..o..x.X..o..x.", "shaker": "o.o.o.o.o.o.o.o."}),
    Groove({"kick": "x.......x.......", "rim": "....x.......x...", "shaker": "x.o.x.o.x.o.x.o."}),
    Groove({"tom": "X.....x.....", "shaker": "o.o.o.o.o.o."}),
    Groove({"brush": "o...x...x...", "kick": "x..........."}),
)
_CLASSICAL_GROOVES = (
    Groove({"tom": "x.........?....."}),
    Groove({"tom": "x..........."}),
    Groove({"metal": "?..............."}),
)
_EXPERIMENTAL_GROOVES = (
    Groove({"metal": "?..?.?...?..?..?", "tom": "..?....?.?...?.."}),
    Groove({"kick": "X..?..X.?...X.?.", "metal": "..?..?..?...?..x", "hat": "?.??.?.???.?.??."}),
    Groove({"snare": "??..?.?.??.?....", "kick": "x....?.....x....", "open": "....?.........?."}),
    Groove({"rim": "?.?.??.?..?.", "metal": "..?...?....?"}),
)

ROCK = Genre(
    name="Rock",
    rhythm=RhythmRules(
        tempo=(96, 162),
        waltz=0.05,
        swing=(0.0, 0.12),
        swing_step=2,
        looseness=(0.0, 0.02),
        drumless=0.04,
        grooves=_ROCK_GROOVES,
        tuning=(0.85, 1.15),
        decay=(0.8, 1.5),
        brightness=(0.25, 0.7),
        grit=(0.2, 0.8),
        gain=(-7, -2),
    ),
    harmony=HarmonyRules(
        scales=("minor pentatonic", "mixolydian", "minor", "blues", "major"),
        progressions=(
            ((0, "5"), (10, "5"), (5, "5"), (0, "5")),
            ((0, "5"), (8, "5"), (10, "5"), (0, "5")),
            ((0, "5"), (5, "5"), (7, "5"), (5, "5")),
            ((0, "maj"), (7, "maj"), (9, "min"), (5, "maj")),
            ((0, "min"), (3, "maj"), (10, "maj"), (5, "maj")),
        ),
        bars_per_chord=(1, 1, 2, 0.5),
        detune=(-25, 25),
    ),
    bass=BassRules(("eighths", "eighths", "pushed"), (Voice("ebass", (0.3, 0.8), (-9, -3), (0.0, 3.0)),)),
    comp=CompRules(
        ("chug", "strum", "strum", "pads"),
        (
            Voice("guitar", (0.4, 0.9), (-4, 2), (4.0, 12.0)),
            Voice("guitar", (0.3, 0.8), (-4, 2), (3.0, 9.0)),
            Voice("guitar", (0.4, 0.9), (-5, 0), (1.5, 5.0)),
            Voice("organ", (0.3, 0.7), (-10, -5), (2.0, 5.0)),
        ),
        second_layer=0.6,
    ),
    lead=LeadRules(
        ("sung", "sung", "riff", "solo", "none"),
        (
            Voice("voice", (0.4, 0.8), (-7, -2), (0.0, 2.0)),
            Voice("voice", (0.5, 0.9), (-7, -2), (1.0, 4.0)),
            Voice("guitar", (0.5, 0.9), (-8, -3), (4.0, 11.0)),
        ),
        register=(57, 72),
    ),
    production=ProductionRules(
        loudness=(-18, -11),
        drive=(0.3, 1.6),
        reverb_seconds=(0.3, 1.2),
        reverb_mix=(0.03, 0.2),
        hiss=(-66, -46),
        crackle=(0, 0),
        low_cut=(35, 80),
        high_cut=(7000, 10500),
        tilt=(0, 4),
        sidechain=(0.0, 0.1),
        swell=(-1, 2),
    ),
    neighbours={"Pop": 0.6, "Folk": 0.14, "Experimental": 0.12, "Electronic": 0.08, "Hip-Hop": 0.06},
    crossover=0.26,
    sibling="Pop",
    lean=(0.0, 0.1),
)

ELECTRONIC = Genre(
    name="Electronic",
    rhythm=RhythmRules(
        tempo=(110, 142),
        waltz=0.01,
        swing=(0.0, 0.15),
        swing_step=1,
        looseness=(0.0, 0.003),
        drumless=0.1,
        grooves=_ELECTRONIC_GROOVES,
        tuning=(0.8, 1.2),
        decay=(0.6, 1.4),
        brightness=(0.5, 1.0),
        grit=(0.1, 0.6),
        gain=(-2, 4),
    ),
    harmony=HarmonyRules(
        scales=("minor", "dorian", "minor pentatonic"),
        progressions=(
            ((0, "min"), (8, "maj"), (3, "maj"), (10, "maj")),
            ((0, "min7"), (5, "min7")),
            ((0, "min"), (0, "min"), (8, "maj"), (10, "maj")),
            ((0, "sus"),),
            ((0, "min7"), (10, "maj"), (8, "maj7"), (8, "maj7")),
        ),
        bars_per_chord=(1, 2),
        detune=(-6, 6),
    ),
    bass=BassRules(
        ("offbeat", "sixteenths", "eighths", "boom"),
        (
            Voice("saw", (0.05, 0.45), (-8, -2), (0.0, 2.0)),
            Voice("square", (0.05, 0.4), (-9, -3), (0.0, 1.5)),
            Voice("sub", (0.2, 0.6), (-7, -1)),
        ),
    ),
    comp=CompRules(
        ("stabs", "offbeats", "arpeggio", "pads"),
        (
            Voice("saw", (0.25, 0.9), (-10, -4)),
            Voice("saw", (0.4, 1.0), (-10, -4), (0.0, 2.0)),
            Voice("square", (0.2, 0.8), (-12, -6)),
            Voice("epiano", (0.3, 0.8), (-9, -4)),
            Voice("fm", (0.2, 0.6), (-12, -6)),
        ),
        second_layer=0.65,
    ),
    lead=LeadRules(
        ("riff", "riff", "none"),
        (
            Voice("saw", (0.3, 0.95), (-9, -4)),
            Voice("square", (0.2, 0.8), (-10, -5)),
        ),
        register=(60, 79),
    ),
    production=ProductionRules(
        loudness=(-16, -9),
        drive=(0.2, 1.3),
        reverb_seconds=(0.4, 2.2),
        reverb_mix=(0.05, 0.3),
        hiss=(-85, -60),
        crackle=(0, 0),
        low_cut=(22, 40),
        high_cut=(9000, 10800),
        tilt=(-2, 3),
        sidechain=(0.4, 0.95),
        swell=(-2, 4),
    ),
    neighbours={"Pop": 0.22, "Hip-Hop": 0.35, "Experimental": 0.43},
    crossover=0.17,
)

HIP_HOP = Genre(
    name="Hip-Hop",
    rhythm=RhythmRules(
        tempo=(70, 100),
        waltz=0.01,
        swing=(0.05, 0.6),
        swing_step=1,
        looseness=(0.0, 0.02),
        drumless=0.05,
        grooves=_HIPHOP_GROOVES,
        tuning=(0.7, 1.05),
        decay=(0.9, 2.2),
        brightness=(0.2, 0.75),
        grit=(0.2, 0.9),
        gain=(-3, 3),
    ),
    harmony=HarmonyRules(
        scales=("minor", "minor pentatonic", "dorian", "blues"),
        progressions=(
            ((0, "min7"), (0, "min7")),
            ((0, "min7"), (5, "min7")),
            ((0, "min7"), (8, "maj7")),
            ((2, "min7"), (7, "9"), (0, "maj7"), (0, "maj7")),
            ((0, "min"), (1, "maj")),
        ),
        bars_per_chord=(1, 2, 1),
        detune=(-45, 45),
    ),
    bass=BassRules(
        ("boom", "boom", "pushed"),
        (
            Voice("sub", (0.1, 0.7), (-5, 1), (0.0, 2.5)),
            Voice("sub", (0.3, 0.8), (-5, 1), (1.0, 4.0)),
            Voice("ebass", (0.1, 0.5), (-7, -2)),
        ),
    ),
    comp=CompRules(
        ("stabs", "arpeggio", "pads", "none"),
        (
            Voice("epiano", (0.2, 0.7), (-11, -5)),
            Voice("piano", (0.1, 0.6), (-12, -6)),
            Voice("strings", (0.1, 0.6), (-13, -7)),
            Voice("pluck", (0.2, 0.6), (-12, -6)),
            Voice("trumpet", (0.1, 0.5), (-14, -8)),
        ),
        second_layer=0.3,
    ),
    lead=LeadRules(
        ("rap", "rap", "rap", "sung", "none"),
        (Voice("voice", (0.3, 0.75), (-5, 0), (0.0, 1.5)), Voice("voice", (0.4, 0.9), (-5, 0), (0.5, 2.5))),
        register=(45, 58),
    ),
    production=ProductionRules(
        loudness=(-17, -10),
        drive=(0.3, 1.6),
        reverb_seconds=(0.2, 0.8),
        reverb_mix=(0.02, 0.12),
        hiss=(-62, -40),
        crackle=(0, 14),
        low_cut=(22, 45),
        high_cut=(4500, 10500),
        tilt=(-5, 2),
        sidechain=(0.0, 0.35),
        swell=(-1, 1),
    ),
    neighbours={"Electronic": 0.5, "Pop": 0.2, "Jazz": 0.3},
    crossover=0.18,
)

CLASSICAL = Genre(
    name="Classical",
    rhythm=RhythmRules(
        tempo=(58, 152),
        waltz=0.4,
        swing=(0.0, 0.0),
        swing_step=2,
        looseness=(0.01, 0.06),
        drumless=0.94,
        grooves=_CLASSICAL_GROOVES,
        tuning=(0.7, 0.9),
        decay=(1.5, 2.5),
        brightness=(0.1, 0.4),
        grit=(0.0, 0.1),
        gain=(-10, -4),
    ),
    harmony=HarmonyRules(
        scales=("major", "harmonic minor", "minor"),
        progressions=(
            ((0, "maj"), (5, "maj"), (7, "7"), (0, "maj")),
            ((0, "maj"), (9, "min"), (2, "min"), (7, "7")),
            ((0, "min"), (5, "min"), (7, "7"), (0, "min")),
            ((0, "min"), (8, "maj"), (2, "dim"), (7, "maj")),
            ((0, "maj"), (7, "maj"), (9, "min"), (4, "min"), (5, "maj"), (0, "maj"), (5, "maj"), (7, "maj")),
        ),
        bars_per_chord=(1, 0.5, 1),
        detune=(-8, 12),
    ),
    bass=BassRules(
        ("pedal", "pedal", "none"),
        (
            Voice("cello", (0.15, 0.55), (-9, -3)),
            Voice("strings", (0.1, 0.4), (-10, -4)),
            Voice("piano", (0.1, 0.4), (-9, -4)),
        ),
    ),
    comp=CompRules(
        ("arpeggio", "arpeggio", "pads"),
        (
            Voice("piano", (0.1, 0.55), (-6, -1)),
            Voice("strings", (0.1, 0.55), (-8, -2)),
            Voice("piano", (0.2, 0.6), (-6, -1)),
            Voice("strings", (0.2, 0.6), (-8, -2)),
        ),
        second_layer=0.4,
    ),
    lead=LeadRules(
        ("lyrical", "lyrical", "solo", "none"),
        (
            Voice("violin", (0.2, 0.65), (-7, -1)),
            Voice("flute", (0.2, 0.6), (-8, -2)),
            Voice("clarinet", (0.2, 0.6), (-8, -2)),
            Voice("piano", (0.2, 0.6), (-5, 0)),
            Voice("cello", (0.2, 0.6), (-7, -1)),
        ),
        register=(62, 84),
    ),
    production=ProductionRules(
        loudness=(-32, -20),
        drive=(0.0, 0.05),
        reverb_seconds=(1.2, 2.8),
        reverb_mix=(0.15, 0.45),
        hiss=(-72, -48),
        crackle=(0, 0.3),
        low_cut=(25, 45),
        high_cut=(7500, 10800),
        tilt=(-4, 1),
        sidechain=(0.0, 0.0),
        swell=(-10, 12),
    ),
    neighbours={"Experimental": 0.35, "Folk": 0.35, "Jazz": 0.3},
    crossover=0.17,
)

JAZZ = Genre(
    name="Jazz",
    rhythm=RhythmRules(
        tempo=(92, 230),
        waltz=0.15,
        swing=(0.5, 1.0),
        swing_step=2,
        looseness=(0.01, 0.05),
        drumless=0.12,
        grooves=_JAZZ_GROOVES,
        tuning=(0.95, 1.4),
        decay=(0.7, 1.4),
        brightness=(0.25, 0.75),
        grit=(0.0, 0.25),
        gain=(-9, -2),
    ),
    harmony=HarmonyRules(
        scales=("dorian", "mixolydian", "blues", "major"),
        progressions=(
            ((2, "min7"), (7, "9"), (0, "maj7"), (0, "maj7")),
            ((0, "maj7"), (9, "7"), (2, "min7"), (7, "9")),
            ((0, "7"), (5, "9"), (0, "7"), (7, "9")),
            ((2, "m7b5"), (7, "9"), (0, "min7"), (0, "min7")),
            ((0, "min7"), (0, "min7"), (1, "min7"), (0, "min7")),
        ),
        bars_per_chord=(1, 1, 0.5),
        detune=(-15, 15),
    ),
    bass=BassRules(
        ("walking", "walking", "pedal"),
        (Voice("upright", (0.15, 0.6), (-6, 0)), Voice("ebass", (0.1, 0.5), (-7, -2))),
    ),
    comp=CompRules(
        ("stabs", "stabs", "pads", "none"),
        (
            Voice("piano", (0.2, 0.7), (-9, -3)),
            Voice("guitar", (0.05, 0.35), (-11, -5)),
            Voice("epiano", (0.2, 0.7), (-10, -4)),
            Voice("organ", (0.1, 0.5), (-14, -7)),
        ),
        second_layer=0.1,
    ),
    lead=LeadRules(
        ("solo", "solo", "lyrical", "sung"),
        (
            Voice("sax", (0.3, 0.8), (-6, 0)),
            Voice("trumpet", (0.2, 0.7), (-7, -1)),
            Voice("piano", (0.3, 0.7), (-5, 0)),
            Voice("guitar", (0.1, 0.4), (-7, -2)),
            Voice("clarinet", (0.2, 0.6), (-7, -1)),
        ),
        register=(58, 76),
    ),
    production=ProductionRules(
        loudness=(-25, -15),
        drive=(0.0, 0.4),
        reverb_seconds=(0.4, 1.5),
        reverb_mix=(0.05, 0.25),
        hiss=(-64, -40),
        crackle=(0, 3),
        low_cut=(30, 70),
        high_cut=(6000, 10500),
        tilt=(-3, 2),
        sidechain=(0.0, 0.0),
        swell=(-3, 3),
    ),
    neighbours={"Classical": 0.15, "Folk": 0.25, "Hip-Hop": 0.25, "Experimental": 0.2, "Rock": 0.15},
    crossover=0.2,
)

FOLK = Genre(
    name="Folk",
    rhythm=RhythmRules(
        tempo=(76, 136),
        waltz=0.3,
        swing=(0.0, 0.3),
        swing_step=2,
        looseness=(0.0, 0.04),
        drumless=0.55,
        grooves=_FOLK_GROOVES,
        tuning=(0.8, 1.2),
        decay=(0.6, 1.2),
        brightness=(0.15, 0.6),
        grit=(0.0, 0.3),
        gain=(-11, -4),
    ),
    harmony=HarmonyRules(
        scales=("major", "major pentatonic", "dorian", "mixolydian"),
        progressions=(
            ((0, "maj"), (5, "maj"), (7, "maj"), (0, "maj")),
            ((0, "maj"), (10, "maj"), (5, "maj"), (0, "maj")),
            ((0, "min"), (10, "maj"), (8, "maj"), (10, "maj")),
            ((0, "maj"), (9, "min"), (5, "maj"), (7, "sus")),
            ((0, "maj"), (7, "maj"), (9, "min"), (5, "maj")),
        ),
        bars_per_chord=(1, 2, 1),
        detune=(-30, 30),
    ),
    bass=BassRules(
        ("root-fifth", "none", "none", "pedal"),
        (Voice("upright", (0.15, 0.5), (-9, -3)), Voice("ebass", (0.1, 0.5), (-9, -4))),
    ),
    comp=CompRules(
        ("arpeggio", "strum", "strum", "arpeggio"),
        (
            Voice("pluck", (0.35, 0.8), (-5, 0)),
            Voice("pluck", (0.5, 0.95), (-5, 0)),
            Voice("pluck", (0.3, 0.7), (-4, 1)),
            Voice("pluck", (0.45, 0.9), (-5, 0)),
        ),
        second_layer=0.35,
    ),
    lead=LeadRules(
        ("sung", "sung", "lyrical", "riff", "none"),
        (
            Voice("voice", (0.2, 0.65), (-7, -1)),
            Voice("voice", (0.3, 0.75), (-7, -1)),
            Voice("violin", (0.35, 0.8), (-9, -3)),
            Voice("flute", (0.3, 0.7), (-10, -4)),
            Voice("pluck", (0.5, 0.9), (-6, -1)),
        ),
        register=(57, 74),
    ),
    production=ProductionRules(
        loudness=(-22, -14),
        drive=(0.0, 0.4),
        reverb_seconds=(0.2, 0.9),
        reverb_mix=(0.02, 0.15),
        hiss=(-72, -50),
        crackle=(0, 1),
        low_cut=(40, 110),
        high_cut=(6500, 10500),
        tilt=(-1, 4),
        sidechain=(0.0, 0.0),
        swell=(-2, 2),
    ),
    neighbours={"Pop": 0.3, "Rock": 0.25, "Classical": 0.15, "Jazz": 0.22, "Experimental": 0.08},
    crossover=0.19,
)

POP = Genre(
    name="Pop",
    rhythm=RhythmRules(
        tempo=(88, 130),
        waltz=0.02,
        swing=(0.0, 0.15),
        swing_step=1,
        looseness=(0.0, 0.01),
        drumless=0.08,
        grooves=_POP_GROOVES,
        tuning=(0.85, 1.2),
        decay=(0.6, 1.3),
        brightness=(0.55, 1.0),
        grit=(0.05, 0.5),
        gain=(-5, 1),
    ),
    harmony=HarmonyRules(
        scales=("major", "major pentatonic", "minor"),
        progressions=(
            ((0, "maj"), (7, "maj"), (9, "min"), (5, "maj")),
            ((9, "min"), (5, "maj"), (0, "maj"), (7, "maj")),
            ((0, "maj"), (9, "min"), (5, "maj"), (7, "maj")),
            ((5, "maj7"), (7, "maj"), (4, "min7"), (9, "min")),
            ((0, "5"), (5, "5"), (9, "min"), (7, "5")),
        ),
        bars_per_chord=(1, 1, 0.5, 2),
        detune=(-10, 10),
    ),
    bass=BassRules(
        ("pushed", "eighths", "eighths", "offbeat"),
        (
            Voice("ebass", (0.25, 0.7), (-9, -3), (0.0, 1.0)),
            Voice("saw", (0.05, 0.35), (-9, -3)),
            Voice("sub", (0.2, 0.6), (-8, -2)),
        ),
    ),
    comp=CompRules(
        ("strum", "stabs", "pads", "arpeggio"),
        (
            Voice("piano", (0.4, 0.9), (-10, -4)),
            Voice("guitar", (0.3, 0.8), (-11, -5), (0.2, 1.5)),
            Voice("organ", (0.3, 0.7), (-11, -6), (0.0, 2.0)),
            Voice("pluck", (0.4, 0.9), (-9, -3)),
            Voice("guitar", (0.3, 0.8), (-11, -5), (0.8, 3.5)),
        ),
        second_layer=0.6,
    ),
    lead=LeadRules(
        ("sung", "sung", "sung", "riff"),
        (
            Voice("voice", (0.45, 0.9), (-2, 3)),
            Voice("voice", (0.55, 0.95), (-2, 3), (0.0, 0.8)),
            Voice("voice", (0.5, 0.9), (-3, 2)),
            Voice("guitar", (0.4, 0.9), (-9, -4), (2.0, 7.0)),
        ),
        register=(60, 76),
    ),
    production=ProductionRules(
        loudness=(-14, -9),
        drive=(0.2, 1.3),
        reverb_seconds=(0.3, 1.5),
        reverb_mix=(0.04, 0.22),
        hiss=(-80, -55),
        crackle=(0, 0),
        low_cut=(28, 60),
        high_cut=(8500, 10800),
        tilt=(-2, 2),
        sidechain=(0.0, 0.3),
        swell=(-1, 2),
    ),
    neighbours={"Rock": 0.69, "Electronic": 0.12, "Hip-Hop": 0.06, "Folk": 0.13},
    crossover=0.26,
    sibling="Rock",
    lean=(0.0, 0.1),
)

EXPERIMENTAL = Genre(
    name="Experimental",
    rhythm=RhythmRules(
        tempo=(44, 176),
        waltz=0.25,
        swing=(0.0, 0.6),
        swing_step=1,
        looseness=(0.1, 0.5),
        drumless=0.38,
        grooves=_EXPERIMENTAL_GROOVES,
        tuning=(0.5, 1.8),
        decay=(0.4, 2.5),
        brightness=(0.1, 1.0),
        grit=(0.1, 1.0),
        gain=(-10, 0),
    ),
    harmony=HarmonyRules(
        scales=("whole tone", "chromatic", "chromatic"),
        progressions=(
            ((0, "cluster"), (6, "cluster")),
            ((0, "quartal"), (1, "quartal"), (8, "cluster")),
            ((0, "microtonal"), (3, "microtonal")),
            ((0, "cluster"),),
        ),
        bars_per_chord=(1, 2, 4),
        detune=(-50, 50),
    ),
    bass=BassRules(
        ("pedal", "none", "none", "boom"),
        (
            Voice("fm", (0.1, 0.8), (-10, -2), (0.0, 4.0)),
            Voice("sub", (0.2, 0.8), (-10, -3), (0.0, 4.0)),
            Voice("saw", (0.0, 0.5), (-12, -5), (0.0, 6.0)),
        ),
    ),
    comp=CompRules(
        ("clusters",),
        (
            Voice("fm", (0.1, 0.9), (-9, -1)),
            Voice("wash", (0.0, 1.0), (-9, 0)),
            Voice("strings", (0.1, 0.8), (-10, -2)),
            Voice("piano", (0.1, 0.8), (-9, -2), (1.0, 5.0)),
            Voice("wash", (0.1, 0.9), (-12, -2), (0.0, 3.0)),
        ),
        second_layer=0.7,
    ),
    lead=LeadRules(
        ("free", "free", "none"),
        (
            Voice("fm", (0.1, 1.0), (-9, 0)),
            Voice("fm", (0.3, 1.0), (-9, 0), (0.0, 5.0)),
            Voice("wash", (0.1, 1.0), (-10, -2)),
            Voice("violin", (0.2, 0.9), (-9, -2), (1.0, 4.0)),
            Voice("wash", (0.2, 0.8), (-8, -2), (1.0, 4.0)),
            Voice("clarinet", (0.2, 0.8), (-9, -2), (0.5, 4.0)),
        ),
        register=(48, 88),
    ),
    production=ProductionRules(
        loudness=(-30, -11),
        drive=(0.0, 2.4),
        reverb_seconds=(0.2, 3.0),
        reverb_mix=(0.0, 0.5),
        hiss=(-56, -24),
        crackle=(0, 8),
        low_cut=(22, 140),
        high_cut=(3500, 10800),
        tilt=(-6, 6),
        sidechain=(0.0, 0.2),
        swell=(-10, 10),
    ),
    neighbours={"Electronic": 0.5, "Classical": 0.15, "Jazz": 0.15, "Rock": 0.2},
    crossover=0.18,
)

GENRES: dict[str, Genre] = {
    genre.name: genre for genre in (ROCK, ELECTRONIC, HIP_HOP, CLASSICAL, JAZZ, FOLK, POP, EXPERIMENTAL)
}

FACETS = ("rhythm", "harmony", "bass", "comp", "lead", "production")
MIX_SIZE = 240  # options in a mixed list: large, so that their shares follow even a small lean

Rules = TypeVar("Rules", RhythmRules, HarmonyRules, BassRules, CompRules, LeadRules, ProductionRules)


def between(genre: Genre, other: Genre, lean: float) -> Genre:
    """Return `genre` with its rules moved towards those of `other`.

    Parameters
    ----------
    genre, other : Genre
        The ends of a continuum.
    lean : float
        Place on it, from 0 (the rules of `genre`) to 1 (those of `other`).

    Returns
    -------
    Genre
        Ranges and shares are interpolated. Options (grooves, voices, patterns...) are those of both, mixed
        in the ratio of the lean. All else, the name among it, is that of `genre`.

    Examples
    --------
    >>> between(GENRES["Rock"], GENRES["Pop"], 0.5).rhythm.tempo
    (92.0, 146.0)
    """
    if lean == 0.0:
        return genre
    moved = {facet: _move(getattr(genre, facet), getattr(other, facet), lean) for facet in FACETS}
    return replace(genre, **moved)


def _move(rules: Rules, other: Rules, lean: float) -> Rules:
    hints = get_type_hints(type(rules))
    moved: dict[str, Any] = {}
    for field in fields(rules):
        near, far = getattr(rules, field.name), getattr(other, field.name)
        if hints[field.name] == Range:
            moved[field.name] = tuple((1.0 - lean) * a + lean * b for a, b in zip(near, far, strict=True))
        elif hints[field.name] is float:
            moved[field.name] = (1.0 - lean) * near + lean * far
        elif isinstance(near, tuple):
            moved[field.name] = _mix(near, 1.0 - lean) + _mix(far, lean)
    return replace(rules, **moved)


def _mix(options: tuple[Any, ...], share: float) -> tuple[Any, ...]:
    return options * round(share * MIX_SIZE / len(options))
