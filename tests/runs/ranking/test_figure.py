"""The metric against a setting, read from what matplotlib was given to draw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from genre_classifier.evaluation.drawing import drawing, new_figure, render_png
from genre_classifier.runs.folder import RunFolder
from genre_classifier.runs.ranking.figure import draw_setting
from genre_classifier.runs.ranking.leaderboard import Trial


def drawn(values: Sequence[Any], scores: Sequence[float]) -> Figure:
    trials = [
        Trial(RunFolder(Path("x")), "finished", None, {"some.setting": value}, {"val/f1": score},
              rows={}, data="", protocol="", epochs=1, seconds=1.0, synthetic=False)
        for value, score in zip(values, scores, strict=True)
    ]  # fmt: skip
    with drawing():
        figure = new_figure(4.0, 3.0)
        draw_setting(figure.subplots(), trials, "some.setting", "val/f1")
    assert render_png(figure).startswith(b"\x89PNG")
    return figure


def test_a_dot_per_trial_and_a_line_through_the_means() -> None:
    (axes,) = drawn([0.1, 0.1, 0.3], [0.5, 0.7, 0.9]).axes
    dots, line = axes.lines
    assert list(zip(*dots.get_data(), strict=True)) == [(0.1, 0.5), (0.1, 0.7), (0.3, 0.9)]
    assert list(line.get_xdata()) == [0.1, 0.3]
    assert list(line.get_ydata()) == pytest.approx([0.6, 0.9])
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale()) == ("some.setting", "val/f1", "linear")


def test_a_wide_range_has_a_logarithmic_axis_with_plain_labels() -> None:
    figure = drawn([10.0**-power for power in range(1, 9)], [0.5] * 8)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert {"0.1", "0.001", "1e-07"} <= {label.get_text() for label in axes.get_xticklabels()}


def test_other_values_are_short_text_side_by_side() -> None:
    (axes,) = drawn(["$x_1$.csv", None, [64, 32], "y" * 99, True], [0.1, 0.2, 0.3, 0.4, 0.5]).axes
    labels = axes.get_xticklabels()
    assert [label.get_text() for label in labels] == ["$x_1$.csv", "none", "[64, 32]", "y" * 31 + "…", "True"]
    assert not any(label.get_parse_math() for label in labels)
    assert list(axes.lines[0].get_xdata()) == [0, 1, 2, 3, 4]
