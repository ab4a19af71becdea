"""Figures of a run; drawn without pyplot, so that nothing global is touched."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def confusion_figure(confusion: np.ndarray, genre_names: Sequence[str], title: str) -> Figure:
    """Draw a confusion matrix: counts as text, shares of the true genre's rows as colour.

    Parameters
    ----------
    confusion : np.ndarray [shape=(true genre, predicted genre)]
        Counts of rows.
    """
    size = max(5.0, 1.5 + 0.55 * len(genre_names))
    figure = new_figure(size + 1.0, size)
    axes = figure.add_subplot()
    support = np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    shares = confusion / support
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for row, column in product(range(len(confusion)), repeat=2):
        if confusion[row, column]:
            colour = "white" if shares[row, column] > 0.55 else "black"
            axes.text(
                column,
                row,
                str(int(confusion[row, column])),
                ha="center",
                va="center",
                color=colour,
                fontsize=9,
            )
    ticks = np.arange(len(genre_names))
    axes.set_xticks(ticks, genre_names, rotation=45, ha="right")
    axes.set_yticks(ticks, genre_names)
    axes.set_xlabel("predicted genre")
    axes.set_ylabel("true genre")
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label="share of the true genre's rows", shrink=0.8)
    return figure


def per_genre_f1_figure(
    f1: Sequence[float], support: Sequence[int], genre_names: Sequence[str], title: str
) -> Figure:
    """Draw a bar of F1 a genre, with its number of rows."""
    figure = new_figure(6.5, 1.4 + 0.36 * len(genre_names))
    axes = figure.add_subplot()
    positions = np.arange(len(genre_names))
    axes.barh(positions, f1, color="#3b75af")
    for position, value in enumerate(f1):
        axes.text(min(value + 0.01, 0.93), position, f"{value:.2f}", va="center", fontsize=9)
    axes.set_yticks(
        positions, [f"{name} ({count})" for name, count in zip(genre_names, support, strict=True)]
    )
    axes.invert_yaxis()
    axes.set_xlim(0.0, 1.0)
    axes.set_xlabel("F1 (number of rows in brackets)")
    axes.set_title(title)
    return figure
