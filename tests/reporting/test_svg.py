"""Figures in the page."""

from __future__ import annotations

import numpy as np
import pytest

from genre_classifier.reporting.embedding import Map
from genre_classifier.reporting.figures import MARKERS, importance_figure, map_figure
from genre_classifier.reporting.from_rows import Places
from genre_classifier.reporting.importance import Drop
from genre_classifier.reporting.svg import PALETTE, drawn_name
from tests.reporting.parsed import Page


def test_two_figures_share_no_id() -> None:
    drops = [Drop("mfcc", 1, 0.1, 0.1, 0.01, 0.01)]

    pages = [Page(importance_figure(drops, key, "title", "meaning").svg) for key in ("a", "b")]

    ids = [{attrs["id"] for _, attrs in page.tags if "id" in attrs} for page in pages]
    assert ids[0]
    assert not ids[0] & ids[1]


@pytest.mark.parametrize(
    "name", ["<script>x</script>", "_hidden", "$\\frac{1}{2}$", "Ω\N{SNOWMAN}ロック", "a\nb"]
)
def test_any_name_can_be_drawn(name: str) -> None:
    svg = importance_figure([Drop(name, 1, 0.1, 0.1, 0.01, 0.01)], "key", name, name).svg

    assert "<script" not in svg
    assert drawn_name(name).strip() in Page(svg).text


def test_a_long_name_ends_in_an_ellipsis() -> None:
    assert drawn_name("x" * 100) == "x" * 31 + "…"


def test_many_genres_have_colour_and_marker_of_their_own() -> None:
    pairs = {(i % len(PALETTE), (i + i // len(PALETTE)) % len(MARKERS)) for i in range(40)}
    assert len(pairs) == 40
    genres = np.arange(40) % 20
    places = Places(Map(np.random.default_rng(0).normal(size=(40, 2)), "pca", (0.5, 0.2)), genres, genres, 90)

    figure = map_figure(places, [f"_genre {i}" for i in range(20)], "map")

    page = Page(figure.svg)
    assert all(f"_genre {i}" in page.text for i in range(20))
    assert "40 of the 90 test rows" in figure.meaning
