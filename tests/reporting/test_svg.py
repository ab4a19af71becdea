"""Figures in the page."""

from __future__ import annotations

import re

import numpy as np
import pytest

from genre_classifier.evaluation.drawing import PALETTE, shorten_name
from genre_classifier.evaluation.reliability import ReliabilityBin
from genre_classifier.reporting.figures import (
    MARKERS,
    draw_curves,
    draw_importance,
    draw_map,
    draw_reliability,
)
from genre_classifier.reporting.rows.embedding import Map
from genre_classifier.reporting.rows.from_rows import Places
from genre_classifier.reporting.rows.importance import Drop
from genre_classifier.reporting.svg import Figure
from tests.reporting.parsed import Page

DROP = Drop("mfcc", 1, 0.1, 0.1, 0.01, 0.01)


def figures(key: str) -> list[Figure]:
    """One of each kind."""
    genres = np.arange(40) % 20
    places = Places(Map(np.random.default_rng(0).normal(size=(40, 2)), "pca", (0.5, 0.2)), genres, genres, 90)
    history = {"train/loss": [(0, 1.0), (1, 0.5)], "val/loss": [(0, 1.1), (1, 0.9)]}
    bins = [ReliabilityBin(0.0, 0.5, 3, 0.4, 0.3), ReliabilityBin(0.5, 1.0, 0, None, None)]
    return [
        draw_importance([DROP], f"{key}importance", "title", "meaning"),
        draw_map(places, [f"_genre {i}" for i in range(20)], f"{key}map"),
        draw_reliability(bins, f"{key}reliability"),
        *draw_curves(history, 1, f"{key}curve"),
    ]


@pytest.fixture(scope="module")
def drawn() -> list[Figure]:
    return figures("a")


def test_no_two_figures_share_an_id_even_where_they_show_the_same(drawn: list[Figure]) -> None:
    pages = [Page(figure.svg) for figure in (*drawn, *figures("b"))]

    ids = [attrs["id"] for page in pages for _, attrs in page.tags if "id" in attrs]
    assert len(ids) > 3 * len(pages)
    assert len(ids) == len(set(ids))


def test_a_figure_refers_to_what_it_has_itself_and_to_nothing_else(drawn: list[Figure]) -> None:
    for figure in drawn:
        page = Page(figure.svg)
        ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
        targets = [value for _, attrs in page.tags for name, value in attrs.items() if "href" in name]
        targets += re.findall(r"url\(([^)]*)\)", figure.svg)
        assert targets
        assert all(target.startswith("#") for target in targets)
        assert {target.removeprefix("#") for target in targets} <= ids


def test_a_figure_says_what_it_is_and_changes_nothing_else_in_the_page(drawn: list[Figure]) -> None:
    known = {"svg", "title", "desc", "g", "defs", "clippath", "rect", "path", "use", "text"}
    for figure in drawn:
        page = Page(figure.svg)
        tag, attrs = page.tags[0]
        assert (tag, attrs["role"], attrs["class"]) == ("svg", "img", "figure")
        assert page.text.startswith(f"{figure.title} {figure.meaning}")
        assert {tag for tag, _ in page.tags} <= known
        assert not {"<!", "<?", "xmlns", "<style"} & set(re.findall(r"<[!?]|xmlns|<style", figure.svg))


@pytest.mark.parametrize(
    "name",
    [
        "<script>x</script>",
        "</svg><img src=x>",
        "_hidden",
        "$\\frac{1}{2}$",
        "Ω\N{SNOWMAN}ロック",
        "a\nb",
        "\x01\ud800x",
    ],
)
def test_any_name_can_be_drawn(name: str) -> None:
    svg = draw_importance([Drop(name, 1, 0.1, 0.1, 0.01, 0.01)], "key", name, name).svg

    page = Page(svg)
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert shorten_name(name).strip() in page.text
    svg.encode()  # no half of a character
    assert "\x01" not in svg


def test_many_genres_have_distinct_colours_and_markers(drawn: list[Figure]) -> None:
    pairs = {(i % len(PALETTE), (i + i // len(PALETTE)) % len(MARKERS)) for i in range(40)}
    assert len(pairs) == 40

    page = Page(drawn[1].svg)
    assert all(f"_genre {i}" in page.text for i in range(20))
    assert "40 of the 90 test rows" in drawn[1].meaning


def test_the_same_figure_is_the_same_text_every_time(drawn: list[Figure]) -> None:
    assert figures("a") == drawn
