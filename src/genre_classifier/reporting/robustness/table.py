"""What came out of a check, change by change: in numbers, as CSV and as a picture."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genre_classifier.features.measure import Failure
from genre_classifier.features.names import fold_name
from genre_classifier.files.atomic import replacing, write_text
from genre_classifier.files.csv_files import format_csv
from genre_classifier.reporting.robustness.check import Robustness, Song

PICTURES = (".png", ".svg")


@dataclass(frozen=True)
class Row:
    """What one change does.

    Parameters
    ----------
    change : str
        Its name.
    n_clips : int
        Files that were measured after it.
    n_changed : int
        How many of them have another genre than before.
    interval : tuple of float or None
        95 % interval of their share (Wilson's); None if there are no clips.
    confidence_change : float or None
        Mean change of the probability of the genre that the clip had before.
    n_labelled : int
        Clips whose genre is known and one of the bundle's.
    accuracy_before, accuracy_after : float or None
        Share of those that are right; None if there are none.
    left_out : dict of str to int
        How many files could not be measured after it, by kind.
    n_clipped : int
        Clips whose peaks it has cut off at full scale.
    """

    change: str
    n_clips: int
    n_changed: int
    interval: tuple[float, float] | None
    confidence_change: float | None
    n_labelled: int
    accuracy_before: float | None
    accuracy_after: float | None
    left_out: dict[str, int]
    n_clipped: int

    @property
    def share_changed(self) -> float | None:
        """The share of clips that have another genre than before."""
        return self.n_changed / self.n_clips if self.n_clips else None


def summarize(found: Robustness) -> list[Row]:
    """Return a row for each change."""
    index_of = {fold_name(name): index for index, name in enumerate(found.genre_names)}
    index_of |= {name: index for index, name in enumerate(found.genre_names)}
    genres = [_find_genre(song, index_of) for song in found.songs]
    return [_summarize_change(change, found.songs, genres) for change in found.changes]


def _find_genre(song: Song, index_of: dict[str, int]) -> int | None:
    genre = song.file.genre
    return None if genre is None else index_of.get(genre, index_of.get(fold_name(genre)))


def _summarize_change(change: str, songs: list[Song], genres: list[int | None]) -> Row:
    from scipy.stats import binomtest

    outcomes = [song.changed[change] for song in songs]
    left_out = Counter(outcome.kind for outcome in outcomes if isinstance(outcome, Failure))
    kept = [
        (song, outcome, genre)
        for song, outcome, genre in zip(songs, outcomes, genres, strict=True)
        if not isinstance(outcome, Failure)
    ]
    n_clips = len(kept)
    before = np.array([song.original.argmax() for song, _, _ in kept], dtype=int)
    after = np.array([probabilities.argmax() for _, probabilities, _ in kept], dtype=int)
    moves = [p[g] - song.original[g] for (song, p, _), g in zip(kept, before, strict=True)]
    n_changed = int((before != after).sum())
    interval = None
    if n_clips:
        ends = binomtest(n_changed, n_clips).proportion_ci(method="wilson")
        interval = float(ends.low), float(ends.high)
    labelled = np.array([genre is not None for _, _, genre in kept], dtype=bool)
    true = np.array([-1 if genre is None else genre for _, _, genre in kept], dtype=int)
    any_labelled = bool(labelled.any())
    return Row(
        change=change,
        n_clips=n_clips,
        n_changed=n_changed,
        interval=interval,
        confidence_change=float(np.mean(moves)) if moves else None,
        n_labelled=int(labelled.sum()),
        accuracy_before=float((before == true)[labelled].mean()) if any_labelled else None,
        accuracy_after=float((after == true)[labelled].mean()) if any_labelled else None,
        left_out=dict(left_out),
        n_clipped=sum(change in song.clipped for song, _, _ in kept),
    )


def write_csv(rows: list[Row], path: Path) -> None:
    """Write a line for each change, whole or not at all. What is not known is empty."""
    header = [
        "change",
        "clips",
        "genre_changed",
        "share",
        "low",
        "high",
        "confidence_change",
        "labelled_clips",
    ]
    header += ["accuracy_before", "accuracy_after", "left_out", "clipped"]
    lines = [
        [
            *(row.change, row.n_clips, row.n_changed),
            *map(_format_number, (row.share_changed, *(row.interval or (None, None)), row.confidence_change)),
            row.n_labelled,
            *map(_format_number, (row.accuracy_before, row.accuracy_after)),
            *(sum(row.left_out.values()), row.n_clipped),
        ]
        for row in rows
    ]
    write_text(path, format_csv(header, lines))


def _format_number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def write_figure(rows: list[Row], title: str, path: Path) -> None:
    """Draw the table as PNG or SVG, by the path's suffix; the file is whole or not there at all."""
    from genre_classifier.evaluation.drawing import render_png, render_svg
    from genre_classifier.evaluation.figures import draw_robustness

    drawn = [row for row in rows if row.n_clips]
    figure = draw_robustness(
        [f"{row.change} ({row.n_clips})" for row in drawn],
        np.array([row.share_changed for row in drawn], dtype=float),
        np.array([row.interval for row in drawn], dtype=float).reshape(-1, 2),
        np.array([row.confidence_change for row in drawn], dtype=float),
        title,
    )
    content = (
        render_png(figure) if path.suffix.lower() == ".png" else render_svg(figure, "robustness").encode()
    )
    with replacing(path) as temporary:
        temporary.write_bytes(content)
