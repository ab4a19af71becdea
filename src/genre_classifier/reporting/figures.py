"""The report's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from genre_classifier.evaluation.drawing import (
    BAR,
    BLUE,
    INK,
    ORANGE,
    PALE,
    PALETTE,
    QUIET,
    drawing,
    new_figure,
    shorten_name,
)
from genre_classifier.evaluation.reliability import ReliabilityBin
from genre_classifier.reporting.rows.from_rows import Places
from genre_classifier.reporting.rows.importance import Drop
from genre_classifier.reporting.svg import Figure, convert_to_inline
from genre_classifier.runs.ranking.figure import draw_setting, find_swept, select_trials_with_setting
from genre_classifier.runs.ranking.leaderboard import Leaderboard

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Column = Sequence[tuple[float, float]]
WIDTH = 4.4  # inches; a phone shows this nearly in full size
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
CURVES = (
    ("loss", "Loss", "The mean cross entropy. If it rises for validation rows and falls for training rows, the "
     "network overfits."),
    ("f1", "Weighted F1", "Training rows are measured with dropout while the network learns, so their curve may be "
     "below that of the validation rows at first."),
)  # fmt: skip


def draw_curves(history: Mapping[str, Column], best_epoch: int | None, key: str) -> list[Figure]:
    """Draw loss and F1 by epoch for training and validation rows, and the learning rate where it changed."""
    found = []
    for name, title, meaning in CURVES:
        lines = {side: history.get(f"{side}/{name}", ()) for side in ("train", "val")}
        if any(lines.values()):
            found.append(_draw_curve(lines, best_epoch, f"{key}{name}", title, meaning))
    rate = history.get("learning_rate", ())
    if len({value for _, value in rate}) > 1:
        meaning = "The optimizer's step size at the end of each epoch, as the schedule moved it."
        found.append(_draw_curve({"learning rate": rate}, best_epoch, f"{key}rate", "Learning rate", meaning))
    return found


def _draw_curve(
    lines: Mapping[str, Column], best_epoch: int | None, key: str, title: str, meaning: str
) -> Figure:
    names = {"train": "training", "val": "validation"}
    with drawing():
        figure = new_figure(WIDTH, 2.7)
        axes = figure.subplots()
        for (side, column), colour in zip(lines.items(), (BLUE, ORANGE), strict=False):
            if column:
                epochs, values = zip(*column, strict=True)
                # A line through one point is invisible without a marker.
                marker = "o" if len(column) == 1 else ""
                axes.plot(epochs, values, color=colour, label=names.get(side), marker=marker)
        if best_epoch is not None:
            axes.axvline(
                best_epoch, color=QUIET, linewidth=0.9, linestyle="--", label=f"best epoch, {best_epoch}"
            )
        axes.set_xlabel("epoch")
        axes.grid(axis="y")
        axes.locator_params(axis="x", integer=True)
        axes.legend()
        return convert_to_inline(figure, key, title, meaning)


def draw_reliability(bins: Sequence[ReliabilityBin], key: str) -> Figure:
    """Draw accuracy against confidence by bin, above the number of rows of each bin."""
    title = "Reliability"
    meaning = (
        "Rows in bins by the confidence of their answer. If a bar ends below the diagonal, the model is too confident "
        "there; above it, too little. Bins of few rows vary by chance."
    )
    filled = [one for one in bins if one.confidence is not None and one.accuracy is not None]
    with drawing():
        figure = new_figure(WIDTH, 4.2)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        width = bins[0].high - bins[0].low
        middles = [(one.low + one.high) / 2 for one in bins]
        above.plot([0, 1], [0, 1], color=QUIET, linewidth=0.9, linestyle="--", label="calibrated")
        above.bar([(one.low + one.high) / 2 for one in filled], [one.accuracy or 0 for one in filled],
                  width * 0.9, color=BAR, label="accuracy")  # fmt: skip
        above.plot([one.confidence or 0 for one in filled], [one.accuracy or 0 for one in filled], "o",
                   color=BLUE, markersize=4, label="means of the bin")  # fmt: skip
        above.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1))
        above.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, columnspacing=1.2)
        counts = [one.rows for one in bins]
        below.bar(middles, counts, width * 0.9, color=PALE, edgecolor=QUIET, linewidth=0.5)
        for middle, count in zip(middles, counts, strict=True):
            if count:
                below.annotate(
                    str(count), (middle, count), (0, 2), textcoords="offset points", ha="center", fontsize=7
                )
        below.set(xlabel="confidence", ylabel="rows", ylim=(0, max(counts) * 1.3))
        below.locator_params(axis="y", nbins=3, integer=True)
        return convert_to_inline(figure, key, title, meaning)


def draw_importance(drops: Sequence[Drop], key: str, title: str, meaning: str) -> Figure:
    """Draw the drop of accuracy by feature or family, with its spread over the permutations."""
    with drawing():
        figure = new_figure(WIDTH, 0.24 * len(drops) + 0.75)
        axes = figure.subplots()
        places = np.arange(len(drops))
        axes.barh(places, [drop.accuracy for drop in drops], 0.72, color=BAR,
                  xerr=[drop.accuracy_deviation for drop in drops],
                  error_kw={"ecolor": INK, "elinewidth": 0.9, "capsize": 2})  # fmt: skip
        names = [
            shorten_name(drop.name) + (f" ({drop.features})" if drop.features > 1 else "") for drop in drops
        ]
        axes.set_yticks(places, names)
        axes.set_ylim(len(drops) - 0.4, -0.6)
        axes.axvline(0, color=QUIET, linewidth=0.7)
        axes.set_xlabel("drop of test accuracy")
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        return convert_to_inline(figure, key, title, meaning)


def draw_map(places: Places, genre_names: Sequence[str], key: str) -> Figure:
    """Draw the rows' places, with a colour and marker for each genre. Wrong answers are hollow."""
    with drawing():
        lines = -(-len(genre_names) // 3)
        figure = new_figure(WIDTH * 1.25, WIDTH + 0.2 * lines)
        axes = figure.subplots()
        handles = []
        for number, name in enumerate(genre_names):
            handles.append(_draw_genre(axes, places, number, shorten_name(name)))
        labels = {"pca": "component", "tsne": "t-SNE axis"}[places.map.method]
        shares = [f" ({share:.0%} of the variance)" for share in places.map.shares] or ["", ""]
        axes.set(xlabel=f"{labels} 1{shares[0]}", ylabel=f"{labels} 2{shares[1]}", xticks=[], yticks=[])
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(3, len(handles)), handletextpad=0.3
        )
        title = "Map of the last hidden layer"
        return convert_to_inline(figure, key, title, _describe_map(places))


def _draw_genre(axes: Axes, places: Places, number: int, name: str) -> object:
    from matplotlib.lines import Line2D

    colour = PALETTE[number % len(PALETTE)]
    marker = MARKERS[(number + number // len(PALETTE)) % len(MARKERS)]
    mine = places.genres == number
    right = places.predicted == places.genres
    for shown, face in ((mine & right, colour), (mine & ~right, "none")):
        if shown.any():
            spots = places.map.places[shown]
            axes.scatter(spots[:, 0], spots[:, 1], 15, marker=marker, facecolors=face, edgecolors=colour,
                         linewidths=0.9, alpha=0.8)  # fmt: skip
    return Line2D([], [], color=colour, marker=marker, linestyle="", markersize=5, label=name)


def _describe_map(places: Places) -> str:
    shown = len(places.genres)
    which = f"{shown} of the {places.total} test rows" if shown < places.total else "the test rows"
    how = (
        "principal components"
        if places.map.method == "pca"
        else "t-SNE, in which only neighbours mean anything"
    )
    return (
        f"The network's last hidden layer for {which}, in two dimensions ({how}). Genres that are far apart are easy "
        "to distinguish. Hollow marks are wrong answers."
    )


def draw_settings(board: Leaderboard, key: str) -> list[Figure]:
    """Draw the trials' metric against each setting in which they differ."""
    trials, settings = find_swept(board)
    found = []
    for number, setting in enumerate(settings if trials else ()):
        with drawing():
            figure = new_figure(WIDTH, 2.9)
            draw_setting(figure.subplots(), select_trials_with_setting(board, setting), setting, board.metric)
            meaning = "A dot a trial; the line joins the means of equal values."
            found.append(
                convert_to_inline(figure, f"{key}{number}", f"{board.metric} against {setting}", meaning)
            )
    return found
