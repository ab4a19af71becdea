"""Draw a sweep: the metric against each swept setting."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from genre_classifier.config.settings import REPLICATE_KEYS
from genre_classifier.errors import RunFolderError
from genre_classifier.evaluation.drawing import BLUE, INK, drawing, new_figure, shorten_name
from genre_classifier.files.documents import parse_json
from genre_classifier.runs.ranking.leaderboard import Leaderboard, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
# A range of values wider than this is drawn on a logarithmic axis.
WIDE = 20.0
# Beyond this ratio only powers of ten have labels.
DECADES = 200.0
LARGEST = 1e100
# Up to this number of values, each one has a tick.
MOST_TICKS = 6


def find_swept(board: Leaderboard) -> tuple[list[Trial], list[str]]:
    """Return the finished trials, and the settings in which they differ, seed and fold last."""
    trials = [trial for row in board.rows for trial in row.finished if board.metric in trial.metrics]
    keys = list(board.keys)
    for key in REPLICATE_KEYS:
        if len({trial.settings.get(key) for trial in trials}) > 1:
            keys.append(key)
    return trials, keys


def draw_sweep(board: Leaderboard) -> Figure | None:
    """Draw each finished trial's metric against each setting in which trials differ; None if they do not differ."""
    trials, keys = find_swept(board)
    if not trials or not keys:
        return None
    columns = min(COLUMNS, len(keys))
    rows = -(-len(keys) // columns)
    with drawing():
        figure = new_figure(4.2 * columns, 3.2 * rows + 0.5)
        note = "synthetic data; " if board.synthetic else ""
        figure.suptitle(f"{note}{len(trials)} trials; the line joins the means")
        all_axes = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
        for axes, key in zip(all_axes, keys, strict=False):
            draw_setting(axes, select_trials_with_setting(board, key), key, board.metric)
        for axes in all_axes[len(keys) :]:
            axes.set_visible(False)
    return figure


def select_trials_with_setting(board: Leaderboard, key: str) -> list[Trial]:
    """Return the finished trials that have a setting. Some kinds of model may not have it."""
    return [
        trial
        for row in board.rows
        for trial in row.finished
        if board.metric in trial.metrics and (key in row.settings or key in REPLICATE_KEYS)
    ]


def draw_setting(axes: Axes, trials: Sequence[Trial], key: str, metric: str) -> None:
    """Draw finished trials' metric against one setting, and a line through the means of equal values.

    Call this within `drawing`.
    """
    points: list[tuple[Any, float]] = [(trial.get_setting(key), trial.metrics[metric]) for trial in trials]
    numeric = all(_has_a_place(value) for value, _ in points)
    if numeric:
        values = sorted({float(value) for value, _ in points})
        places = {json.dumps(value): float(value) for value, _ in points}
        if values[0] > 0 and values[-1] / values[0] > WIDE:
            _use_logarithmic_axis(axes, values[-1] / values[0])
        if len(values) <= MOST_TICKS:
            axes.set_xticks(values, [f"{value:g}" for value in values])
            axes.minorticks_off()
    else:
        names = list(dict.fromkeys(json.dumps(value) for value, _ in points))
        places = {name: float(number) for number, name in enumerate(names)}
        axes.set_xticks(
            list(places.values()), [_format_value(name) for name in names], rotation=20, ha="right"
        )
        axes.set_xlim(-0.5, len(names) - 0.5)
    axes.plot(
        [places[json.dumps(value)] for value, _ in points],
        [score for _, score in points],
        "o",
        alpha=0.55,
        color=BLUE,
    )
    if len(places) < len(points):
        _join_means(axes, points, places)
    axes.set_xlabel(shorten_name(key))
    axes.set_ylabel(metric)
    axes.grid()


def _use_logarithmic_axis(axes: Axes, ratio: float) -> None:
    """Make an axis logarithmic, with labels that do not touch each other."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if ratio > DECADES else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _join_means(axes: Axes, points: Sequence[tuple[Any, float]], places: dict[str, float]) -> None:
    by_value: dict[str, list[float]] = {}
    for value, score in points:
        by_value.setdefault(json.dumps(value), []).append(score)
    line = sorted((places[name], sum(scores) / len(scores)) for name, scores in by_value.items())
    axes.plot([place for place, _ in line], [mean for _, mean in line], "-", color=INK, linewidth=1)


def _format_value(name: str) -> str:
    value = parse_json(name, "a setting", RunFolderError, allow_nan=True)
    return "none" if value is None else shorten_name(value)


def _has_a_place(value: Any) -> bool:
    """Return whether a value is a number that fits on an axis."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST
