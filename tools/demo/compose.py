"""Compose a track by the rules of its genre and the habits of its artist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from tools.demo.genres import (
    CHORDS,
    FACETS,
    GENRES,
    SCALES,
    BassRules,
    CompRules,
    Genre,
    Groove,
    HarmonyRules,
    LeadRules,
    ProductionRules,
    Range,
    RhythmRules,
    Voice,
    between,
)
from tools.demo.score import Hit, Kit, Note, Part, Production, Score
from tools.demo.streams import Stream

SECONDS = 8.0
STEPS_PER_BEAT = 4
STRAY = 0.22  # how far a track strays from its artist's habit, as a share of the genre's range
LOYALTY = 0.6  # probability that an artist takes the favourite among the genre's options
VELOCITIES = {"X": 1.0, "x": 0.75, "o": 0.45, "?": 0.4}
GOLDEN = 0.618034  # multiples of it, modulo 1, fill [0, 1) evenly however many are taken
SECTIONS = {"verse": 0.42, "chorus": 0.34, "intro": 0.12, "break": 0.12}

T = TypeVar("T")


@dataclass(frozen=True)
class Artist:
    """A synthetic artist: the group that must not be on both sides of a split.

    Parameters
    ----------
    seed : int
        Seed of the table.
    genre : Genre
        The genre the artist is filed under.
    number : int
        From 1, within the genre.
    neighbour : Genre
        The genre the artist borrows from.
    borrowing : float
        Probability that a facet of a track follows the neighbour's rules.
    lean : float
        How far the artist stands towards the genre's sibling, from 0 to 1; 0 if it has none.
    """

    seed: int
    genre: Genre
    number: int
    neighbour: Genre
    borrowing: float
    lean: float = 0.0

    @property
    def style(self) -> Genre:
        """The rules the artist follows if nothing is borrowed: the genre's, moved towards its sibling's."""
        sibling = self.genre.sibling
        return self.genre if sibling is None else between(self.genre, GENRES[sibling], self.lean)

    @property
    def id(self) -> str:
        """The artist's globally unique name, such as ``rock/artist-03``."""
        return f"{self.genre.slug}/artist-{self.number:02d}"

    def track_id(self, track: int) -> str:
        """The name of a track, such as ``rock/artist-03/track-07``."""
        return f"{self.id}/track-{track:02d}"


def meet_artist(seed: int, genre_name: str, number: int) -> Artist:
    """Return the artist with this number; the same for the same arguments."""
    genre = GENRES[genre_name]
    stream = Stream(seed, genre.name, number, "artist")
    neighbour = stream.choose(list(genre.neighbours), list(genre.neighbours.values()))
    # Most artists keep to their genre, a few are half in the next one.
    borrowing = genre.crossover * stream.uniform(0.0, 1.0) ** 3
    return Artist(seed, genre, number, GENRES[neighbour], borrowing, _lean(seed, genre, number))


def _lean(seed: int, genre: Genre, number: int) -> float:
    """Return an artist's place on the way to the sibling.

    The artists of a genre stand evenly along it. Independent draws would leave the overlap of the two genres
    to chance: among twenty artists, how many stand close to the other genre would differ from seed to seed.
    """
    low, high = genre.lean
    place = (Stream(seed, genre.name, "lean").uniform(0.0, 1.0) + number * GOLDEN) % 1.0
    return low + place * (high - low)


@dataclass(frozen=True)
class Habits:
    """An artist's ways with one facet of music, and one track's departures from them."""

    artist: Artist
    source: str  # the genre whose rules the facet follows
    facet: str
    track: Stream

    def value(self, name: str, limits: Range) -> float:
        """Return a number in `limits`: the artist's habit with the track's stray."""
        low, high = limits
        habit = self._habit(name).uniform(low, high)
        strayed = habit + self.track.uniform(-STRAY, STRAY) * (high - low)
        return min(max(strayed, low), high)

    def choice(self, name: str, options: Sequence[T]) -> T:
        """Return one of `options`: often the artist's favourite."""
        favourite = self._habit(name).choose(options)
        return favourite if self.track.chance(LOYALTY) else self.track.choose(options)

    def voice(self, name: str, voices: Sequence[Voice]) -> Voice:
        """Return a voice whose ranges have shrunk to one point each."""
        voice = self.choice(name, voices)
        points = {
            field: self.value(f"{name} {voice.instrument} {field}", getattr(voice, field))
            for field in ("brightness", "gain", "drive")
        }
        return Voice(voice.instrument, **{field: (point, point) for field, point in points.items()})

    def _habit(self, name: str) -> Stream:
        artist = self.artist
        return Stream(artist.seed, artist.genre.name, artist.number, "habit", self.source, self.facet, name)


@dataclass(frozen=True)
class Grid:
    """Where the steps of a bar fall in time."""

    tempo: float
    beats_per_bar: int
    swing: float
    swing_step: int
    looseness: float
    stream: Stream

    @property
    def beat(self) -> float:
        """Length of a beat in s."""
        return 60.0 / self.tempo

    @property
    def steps(self) -> int:
        """Sixteenth steps in a bar."""
        return self.beats_per_bar * STEPS_PER_BEAT

    @property
    def bars(self) -> int:
        """Bars that begin within the clip."""
        return int(SECONDS / (self.beat * self.beats_per_bar)) + 1

    def time(self, bar: float, step: float) -> float:
        """Return when a step begins, in s, with swing and the player's looseness."""
        beats = bar * self.beats_per_bar + step / STEPS_PER_BEAT
        if step % (2 * self.swing_step) == self.swing_step:
            beats += self.swing * self.swing_step / STEPS_PER_BEAT / 3.0  # full swing: two thirds of the pair
        beats += self.looseness * self.stream.uniform(-0.5, 0.5)
        return max(0.0, beats * self.beat)

    def gaps(self, steps: Sequence[int]) -> list[tuple[int, float]]:
        """Return each step with the time in s to the next one, or to the end of the bar."""
        following = [*steps[1:], self.steps]
        return [
            (step, (end - step) / STEPS_PER_BEAT * self.beat)
            for step, end in zip(steps, following, strict=False)
        ]


@dataclass(frozen=True)
class Chord:
    """A chord of `bars` bars from `bar` on: root as a MIDI pitch, intervals above it in semitones."""

    bar: float
    bars: float
    root: float
    intervals: tuple[float, ...]

    def pitches(self, low: float) -> list[float]:
        """Return the chord's pitches, the root being the lowest at or above `low`."""
        root = self.root + 12 * round((low + 6 - self.root) / 12)
        return [root + interval for interval in self.intervals]


def compose(seed: int, genre_name: str, artist_number: int, track_number: int) -> Score:
    """Compose one track.

    Parameters
    ----------
    seed : int
        Seed of the table.
    genre_name : str
        One of the eight genres.
    artist_number, track_number : int
        From 1.

    Returns
    -------
    Score
        Eight seconds of music; the same for the same arguments whatever was composed before.

    Examples
    --------
    >>> score = compose(1, "Jazz", 3, 7)
    >>> score.name, score == compose(1, "Jazz", 3, 7)
    ('1/jazz/artist-03/track-07', True)
    """
    artist = meet_artist(seed, genre_name, artist_number)
    sources = _facet_sources(artist, track_number)

    def habits(facet: str) -> Habits:
        stream = Stream(seed, genre_name, artist_number, track_number, facet)
        return Habits(artist, sources[facet].name, facet, stream)

    section = habits("section").track.choose(list(SECTIONS), list(SECTIONS.values()))
    grid, kit, drum_gain, hits = _rhythm(habits("rhythm"), sources["rhythm"].rhythm)
    scale, key, chords = _harmony(habits("harmony"), sources["harmony"].harmony, grid)
    bass = _bass(habits("bass"), sources["bass"].bass, grid, chords)
    comp = _comp(habits("comp"), sources["comp"].comp, grid, chords)
    lead = _lead(habits("lead"), sources["lead"].lead, grid, scale, key, chords)
    production = _production(habits("production"), sources["production"].production)

    if section == "intro":
        lead = []
    if section == "break" and (bass or comp or lead):
        hits = tuple(hit for hit in hits if hit.drum not in ("kick", "snare", "tom"))
        bass = bass if lead or not comp else []
    parts = [part for part in (*bass, *comp, *lead) if part.notes]
    if not parts:  # a lone rhythm is no track: the accompaniment holds its chords
        parts = _comp(habits("comp"), CompRules(("pads",), sources["comp"].comp.voices, 0.0), grid, chords)
    return Score(
        name=f"{seed}/{artist.track_id(track_number)}",
        seconds=SECONDS,
        tempo=grid.tempo,
        beats_per_bar=grid.beats_per_bar,
        section=section,
        parts=tuple(parts),
        kit=kit,
        drum_gain=drum_gain,
        hits=hits,
        production=production,
    )


def _facet_sources(artist: Artist, track: int) -> dict[str, Genre]:
    """Which genre's rules each facet of the track follows."""
    stream = Stream(artist.seed, artist.genre.name, artist.number, track, "sources")
    style = artist.style
    sources = {facet: artist.neighbour if stream.chance(artist.borrowing) else style for facet in FACETS}
    return sources | {"section": artist.genre}


def _rhythm(habits: Habits, rules: RhythmRules) -> tuple[Grid, Kit, float, tuple[Hit, ...]]:
    stream = habits.track
    beats = 3 if stream.chance(rules.waltz) else 4
    fitting = [groove for groove in rules.grooves if groove.beats == beats] or list(rules.grooves)
    groove = habits.choice(f"groove {beats}", fitting)
    grid = Grid(
        tempo=habits.value("tempo", rules.tempo),
        beats_per_bar=groove.beats,
        swing=habits.value("swing", rules.swing),
        swing_step=rules.swing_step,
        looseness=habits.value("looseness", rules.looseness),
        stream=stream,
    )
    kit = Kit(
        tuning=habits.value("tuning", rules.tuning),
        decay=habits.value("decay", rules.decay),
        brightness=habits.value("brightness", rules.brightness),
        grit=habits.value("grit", rules.grit),
    )
    gain = habits.value("gain", rules.gain)
    drumless = stream.chance(rules.drumless)
    return grid, kit, gain, () if drumless else _play_groove(grid, groove, stream)


def _play_groove(grid: Grid, groove: Groove, stream: Stream) -> tuple[Hit, ...]:
    hits = []
    for bar in range(grid.bars):
        for drum, strokes in groove.strokes.items():
            for step, stroke in enumerate(strokes):
                if stroke == "." or (stroke == "?" and stream.chance(0.5)):
                    continue
                velocity = VELOCITIES[stroke] * stream.uniform(0.85, 1.0)
                hits.append(Hit(grid.time(bar, step), drum, velocity))
    return tuple(sorted((hit for hit in hits if hit.start < SECONDS), key=lambda hit: (hit.start, hit.drum)))


def _harmony(habits: Habits, rules: HarmonyRules, grid: Grid) -> tuple[tuple[int, ...], float, list[Chord]]:
    stream = habits.track
    scale = SCALES[habits.choice("scale", rules.scales)]
    progression = habits.choice("progression", rules.progressions)
    length = habits.choice("length", rules.bars_per_chord)
    key = 48 + stream.integer(0, 11) + habits.value("detune", rules.detune) / 100.0
    first = stream.integer(0, len(progression) - 1)  # a clip may start anywhere in the song
    chords: list[Chord] = []
    bar = 0.0
    while bar < grid.bars:
        offset, quality = progression[(first + len(chords)) % len(progression)]
        chords.append(Chord(bar, length, key + offset, CHORDS[quality]))
        bar += length
    return scale, key, chords


def _chord_at(chords: Sequence[Chord], bar: float) -> Chord:
    return next(chord for chord in reversed(chords) if chord.bar <= bar + 1e-9)


BASS_STEPS = {
    "eighths": "X.x.x.x.x.x.x.x.",
    "sixteenths": "XoxoxoxoXoxoxoxo",
    "offbeat": "..X...X...X...X.",
    "walking": "X...x...x...x...",
    "root-fifth": "X.......x.......",
    "boom": "X.........x..?..",
    "pushed": "X.....x.x.....x.",
    "pedal": "X...............",
}


def _bass(habits: Habits, rules: BassRules, grid: Grid, chords: Sequence[Chord]) -> list[Part]:
    pattern = habits.choice("pattern", rules.patterns)
    voice = habits.voice("voice", rules.voices)
    if pattern == "none":
        return []
    stream = habits.track
    low = 24.0 + stream.integer(0, 6)
    notes = []
    for bar in range(grid.bars):
        strokes = [
            step
            for step, stroke in enumerate(BASS_STEPS[pattern][: grid.steps])
            if stroke != "." and (stroke != "?" or stream.chance(0.5))
        ]
        for step, gap in grid.gaps(strokes):
            chord = _chord_at(chords, bar + step / grid.steps)
            pitches = chord.pitches(low)
            pitch = pitches[0]
            if pattern == "walking" and step:
                pitch = stream.choose([*pitches[1:4], pitch + stream.choose([-2, -1, 1, 2])])
            elif pattern == "root-fifth" and step:
                pitch += 7
            elif pattern in ("pushed", "sixteenths") and stream.chance(0.15):
                pitch += stream.choose([7, 12, -5])
            velocity = VELOCITIES[BASS_STEPS[pattern][step]] * stream.uniform(0.85, 1.0)
            notes.append(Note(grid.time(bar, step), gap * 0.92, pitch, velocity))
    return [_part(voice, notes, ducked=True)]


COMP_STEPS = {
    "chug": ("X.x.x.x.X.x.x.x.", "XxxxX.x.XxxxX.x."),
    "strum": ("X...x.x...x.x.x.", "X.x.xox.x.x.xox.", "X.......x.x.x..."),
    "pads": ("X...............",),
    "stabs": ("X.....x.........", "......X.....x...", "X..x..x...x.....", "X...x...x...x..."),
    "offbeats": ("..X...X...X...X.", "...X..X....X..X."),
    "clusters": ("?..?....?.....?.", "?.......?......."),
}
ARPEGGIOS = ((0, 1, 2, 3, 2, 1), (0, 2, 1, 2), (0, 2, 3, 1), (0, 1, 2, 3))


def _comp(habits: Habits, rules: CompRules, grid: Grid, chords: Sequence[Chord]) -> list[Part]:
    layers = 2 if habits.track.chance(rules.second_layer) else 1
    parts = []
    for layer in range(layers):
        pattern = habits.choice(f"pattern {layer}", rules.patterns)
        voice = habits.voice(f"voice {layer}", rules.voices)
        if pattern == "none":
            continue
        play = _arpeggiate if pattern == "arpeggio" else _strike_chords
        parts.append(_part(voice, play(habits, pattern, grid, chords), ducked=True))
    return parts


def _strike_chords(habits: Habits, pattern: str, grid: Grid, chords: Sequence[Chord]) -> list[Note]:
    stream = habits.track
    strokes = habits.choice(f"steps {pattern}", COMP_STEPS[pattern])[: grid.steps]
    low = 40.0 + stream.integer(0, 5) if pattern in ("chug", "strum") else 48.0 + stream.integer(0, 10)
    roll = {"strum": 0.012, "chug": 0.004}.get(pattern, 0.0)  # s between the strings of a strum
    notes = []
    for bar in range(grid.bars):
        steps = [
            s for s, stroke in enumerate(strokes) if stroke != "." and (stroke != "?" or stream.chance(0.6))
        ]
        for step, gap in grid.gaps(steps):
            duration = {"chug": 0.55, "strum": 0.98, "pads": 1.0, "clusters": stream.uniform(0.3, 2.5)}.get(
                pattern
            )
            length = gap * duration if duration else min(gap * 0.6, 0.35)
            start = grid.time(bar, step)
            velocity = VELOCITIES[strokes[step]] * stream.uniform(0.8, 1.0)
            pitches = _chord_at(chords, bar + step / grid.steps).pitches(low)
            notes += [Note(start + roll * i, length, pitch, velocity) for i, pitch in enumerate(pitches)]
    return notes


def _arpeggiate(habits: Habits, pattern: str, grid: Grid, chords: Sequence[Chord]) -> list[Note]:
    stream = habits.track
    order = habits.choice(f"order {pattern}", ARPEGGIOS)
    stride = habits.choice("stride", (2, 2, 1)) if grid.tempo < 135 else 2
    low = 45.0 + stream.integer(0, 12)
    ring = stream.uniform(1.0, 3.0)  # steps a note rings, in strides
    notes = []
    for bar in range(grid.bars):
        for i, step in enumerate(range(0, grid.steps, stride)):
            pitches = _chord_at(chords, bar + step / grid.steps).pitches(low)
            pitch = pitches[order[i % len(order)] % len(pitches)]
            duration = ring * stride / STEPS_PER_BEAT * grid.beat
            velocity = (0.8 if step % 4 == 0 else 0.6) * stream.uniform(0.85, 1.1)
            notes.append(Note(grid.time(bar, step), duration, pitch, velocity))
    return notes


LEAD_STEPS = {
    "sung": ("x...x.x.x...x...", "..x.x.x.x.....x.", "x.x.x...x.x.....", "x.....x.x...x.x."),
    "riff": ("x..x..x.x..x..x.", "x.x...xxx.x.....", "x...x.x..x..x...", "xx.xx.x.xx.x..x."),
    "solo": ("x.x.x.x.x.x.x.x.", "x.x.xxx.x.x.x...", "..x.x.x.x.xxx.x.", "x.x.....x.x.x.x."),
    "lyrical": ("x.......x...x...", "x...........x...", "x.....x.x.......", "x...x...x......."),
    "rap": ("x.xxx.xxx.xxx.x.", "xxx.x.xxx.xxxxx.", "..xxx.x.xxxxx.xx", "x.x.xxxxx.x.x..."),
    "free": ("?....?....?.....", "..?..????.......", "?...............", ".?.?.?......?..."),
}
ARTICULATION = {"sung": 0.9, "riff": 0.7, "solo": 0.85, "lyrical": 1.02, "rap": 0.7, "free": 1.5}


def _lead(
    habits: Habits, rules: LeadRules, grid: Grid, scale: Sequence[int], key: float, chords: Sequence[Chord]
) -> list[Part]:
    pattern = habits.choice("pattern", rules.patterns)
    voice = habits.voice("voice", rules.voices)
    if pattern == "none":
        return []
    stream = habits.track
    centre = habits.value("register", rules.register)
    ladder = [key + 12 * octave + degree for octave in range(-2, 5) for degree in scale]
    place = min(range(len(ladder)), key=lambda i: abs(ladder[i] - centre))
    motif = habits.choice(f"motif {pattern}", LEAD_STEPS[pattern])
    repeat = [stream.integer(-2, 2) for _ in range(len(motif))]  # a riff says the same thing in every bar
    notes: list[Note] = []
    for bar in range(grid.bars):
        if pattern in ("sung", "rap", "solo") and bar and stream.chance(0.15):
            continue  # breath
        if pattern != "riff" and bar % 2:
            motif = stream.choose(LEAD_STEPS[pattern])
        steps = [
            s
            for s, stroke in enumerate(motif[: grid.steps])
            if stroke == "x" or (stroke == "?" and stream.chance(0.6))
        ]
        for i, (step, gap) in enumerate(grid.gaps(steps)):
            move = repeat[i] if pattern == "riff" else _melodic_move(pattern, stream)
            pull = round((centre - ladder[place]) / 7)  # keeps the line in its register
            place = min(max(place + move + pull, 0), len(ladder) - 1)
            pitch = ladder[place]
            if pattern in ("sung", "solo", "lyrical") and step % 8 == 0:
                pitch = _nearest_chord_tone(pitch, _chord_at(chords, bar + step / grid.steps))
            if pattern == "rap":
                pitch = centre + stream.uniform(-2.0, 2.0) - 1.5 * step / grid.steps
            velocity = stream.uniform(0.65, 1.0)
            notes.append(Note(grid.time(bar, step), gap * ARTICULATION[pattern], pitch, velocity))
    return [_part(voice, notes, ducked=False)]


def _melodic_move(pattern: str, stream: Stream) -> int:
    if pattern == "free":
        return stream.integer(-9, 9)
    if pattern == "solo":
        return stream.choose([-4, -2, -1, -1, 1, 1, 2, 3])
    return stream.choose([-2, -1, -1, 0, 1, 1, 2])


def _nearest_chord_tone(pitch: float, chord: Chord) -> float:
    tones = [chord.root + interval + 12 * octave for octave in range(-3, 5) for interval in chord.intervals]
    return min(tones, key=lambda tone: abs(tone - pitch))


def _part(voice: Voice, notes: Sequence[Note], *, ducked: bool) -> Part:
    audible = (note for note in notes if note.start < SECONDS - 0.03)
    return Part(
        instrument=voice.instrument,
        brightness=voice.brightness[0],
        gain=voice.gain[0],
        drive=voice.drive[0],
        ducked=ducked,
        notes=tuple(sorted(audible, key=lambda note: (note.start, note.pitch))),
    )


def _production(habits: Habits, rules: ProductionRules) -> Production:
    return Production(
        loudness=habits.value("loudness", rules.loudness),
        drive=habits.value("drive", rules.drive),
        reverb_seconds=habits.value("reverb_seconds", rules.reverb_seconds),
        reverb_mix=habits.value("reverb_mix", rules.reverb_mix),
        hiss=habits.value("hiss", rules.hiss),
        crackle=habits.value("crackle", rules.crackle),
        low_cut=habits.value("low_cut", rules.low_cut),
        high_cut=habits.value("high_cut", rules.high_cut),
        tilt=habits.value("tilt", rules.tilt),
        sidechain=habits.value("sidechain", rules.sidechain),
        swell=habits.value("swell", rules.swell),
    )
