"""Figures of a run's metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from genre_classifier.evaluation.drawing import (
    BAR,
    BLUE,
    DARK,
    INK,
    LONGEST_TITLE,
    PALE,
    PALETTE,
    QUIET,
    SHARES,
    drawing,
    mark_unseen_name,
    new_figure,
    shorten_name,
)

HATCHES = ("", "//", "..", "xx", "\\\\", "oo")
"""Distinguish genres of the same colour."""

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_confusion(confusion: np.ndarray, genre_names: Sequence[str], title: str) -> Figure:
    """Draw a confusion matrix: counts as text, shares of the true genre's rows as colour.

    The row of a genre without rows is grey and says so.

    Parameters
    ----------
    confusion : np.ndarray [shape=(true genre, predicted genre)]
        Counts of rows.
    genre_names : sequence of str
        One name per genre, in the matrix's order.
    title : str
        Stands above the matrix.

    Raises
    ------
    ValueError
        The matrix is not square, or the number of names is not its number of genres.
    """
    n_genres = len(genre_names)
    if confusion.shape != (n_genres, n_genres):
        raise ValueError(f"confusion.shape={confusion.shape}: {n_genres} names need {(n_genres, n_genres)}")
    support = confusion.sum(axis=1, keepdims=True)
    shares = np.ma.masked_array(
        confusion / np.maximum(support, 1), np.broadcast_to(support == 0, confusion.shape)
    )
    cell = max(0.34, 0.09 * len(str(confusion.max())) + 0.1)  # inches
    side = max(2.4, cell * n_genres)
    names = [mark_unseen_name(name, i) for i, name in enumerate(genre_names)]
    reach = 0.08 * max(map(len, names))
    with drawing():
        figure = new_figure(side + reach + 1.6, side + 0.7 * reach + 0.9)
        axes = figure.subplots()
        axes.set_facecolor("#f0f0f0")
        cells = axes.pcolormesh(shares, cmap=SHARES, vmin=0, vmax=1, edgecolors=PALE, linewidth=0.7)
        axes.set_aspect("equal")
        axes.invert_yaxis()
        places = np.arange(n_genres) + 0.5  # middles of the cells
        written: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}
        axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(places, names)
        axes.set(xlabel="predicted genre", ylabel="true genre")
        axes.set_title(shorten_name(title, LONGEST_TITLE), wrap=True)
        for row, column in np.argwhere(confusion).tolist():
            colour = "white" if shares[row, column] > DARK else INK
            axes.text(places[column], places[row], str(confusion[row, column]), color=colour, **written)
        for row in np.flatnonzero(support == 0).tolist():
            axes.text(n_genres / 2, places[row], "no rows", color=QUIET, **written)
        figure.colorbar(cells, label="share of the true genre's rows", shrink=0.8)
    return figure


def draw_f1_per_genre(
    f1: Sequence[float], support: Sequence[int], genre_names: Sequence[str], title: str
) -> Figure:
    """Draw a bar of F1 per genre, with its number of rows.

    Parameters
    ----------
    f1 : sequence of float
        One F1 per genre, in [0, 1].
    support : sequence of int
        Each genre's number of rows.
    genre_names : sequence of str
        One name per genre, in the same order.
    title : str
        Stands above the bars.
    """
    labels = [
        f"{mark_unseen_name(name, i)} ({count})"
        for i, (name, count) in enumerate(zip(genre_names, support, strict=True))
    ]
    with drawing():
        figure = new_figure(6.4, 0.28 * len(labels) + 1.1)
        axes = figure.subplots()
        places = range(len(labels))
        bars = axes.barh(places, f1, 0.7, color=BLUE)
        axes.bar_label(bars, [f"{value:.2f}" for value in f1], padding=3, fontsize=8)
        axes.set_yticks(places, labels)
        axes.set(xlim=(0, 1), ylim=(len(labels) - 0.4, -0.6), xlabel="F1 (number of rows in brackets)")
        axes.set_title(shorten_name(title, LONGEST_TITLE), wrap=True)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    return figure


def draw_over_time(
    seconds: np.ndarray, probabilities: np.ndarray, genre_names: Sequence[str], window: float, title: str
) -> Figure:
    """Draw a song's genres over time as stacked bands, with the most probable genre at the bottom.

    Parameters
    ----------
    seconds : np.ndarray [shape=(time,)]
        Middles of the windows, at least two.
    probabilities : np.ndarray [shape=(time, genre)]
    genre_names : sequence of str
        One name per genre, in the same order.
    window : float
        Length of a window, in seconds.
    title : str
        Stands above the bands.
    """
    order = np.argsort(-probabilities.mean(axis=0), kind="stable")
    with drawing():
        figure = new_figure(9.0, max(4.0, 0.2 * len(order) + 1.0))
        axes = figure.subplots()
        bands = axes.stackplot(
            seconds,
            probabilities[:, order].T,
            labels=[mark_unseen_name(genre_names[genre], genre) for genre in order],
            colors=[PALETTE[place % len(PALETTE)] for place in range(len(order))],
            edgecolor="white",
            linewidth=0.3,
        )
        for place, band in enumerate(bands):
            band.set_hatch(HATCHES[place // len(PALETTE) % len(HATCHES)])
        axes.set(xlim=(seconds[0], seconds[-1]), ylim=(0, 1), ylabel="probability")
        axes.set_xlabel(f"seconds, middle of a window of {window:g} s")
        axes.set_title(shorten_name(title, LONGEST_TITLE), wrap=True)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), reverse=True)
    return figure


def draw_robustness(
    changes: Sequence[str], shares: np.ndarray, intervals: np.ndarray, confidence: np.ndarray, title: str
) -> Figure:
    """Draw what changes of the sound do: the share of clips with another genre, and the mean change of confidence.

    Parameters
    ----------
    changes : sequence of str
        One name per change.
    shares : np.ndarray [shape=(change,)]
        In [0, 1].
    intervals : np.ndarray [shape=(change, 2)]
        Lower and upper end of each share's interval.
    confidence : np.ndarray [shape=(change,)]
        In [-1, 1].
    title : str
        Stands above the bars.
    """
    places = np.arange(len(changes))
    with drawing():
        figure = new_figure(8.0, 0.32 * len(changes) + 1.3)
        left, right = figure.subplots(1, 2, sharey=True)
        left.barh(places, shares, 0.7, color=BAR)
        reach = np.abs(intervals - shares[:, None]).T  # (2, change)
        left.errorbar(shares, places, xerr=reach, fmt="none", ecolor=INK, elinewidth=1.0, capsize=2.5)
        left.set_yticks(places, [shorten_name(change) for change in changes])
        left.set(xlim=(0, 1), ylim=(len(changes) - 0.4, -0.6))
        left.set_xlabel("share of clips with another genre, 95 % interval")
        right.barh(places, confidence, 0.7, color=BLUE)
        right.axvline(0.0, color=INK, linewidth=0.7)
        furthest = max(0.1, float(np.abs(confidence).max(initial=0.0)))
        right.set_xlim(-1.1 * furthest, 1.1 * furthest)
        right.set_xlabel("mean change of confidence in the genre before")
        for axes in (left, right):
            axes.grid(axis="x")
            axes.tick_params(axis="y", length=0)
        figure.suptitle(shorten_name(title, LONGEST_TITLE), wrap=True)
    return figure
