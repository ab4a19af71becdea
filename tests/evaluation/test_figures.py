"""Figures, read from what matplotlib was given to draw, and once from the pixels that it makes of it."""

import io
import warnings
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from genre_classifier.evaluation.drawing import (
    drawing,
    get_share_colour,
    mark_unseen_name,
    render_png,
    render_svg,
    shorten_name,
)
from genre_classifier.evaluation.figures import draw_confusion, draw_f1_per_genre, draw_over_time

NAMES = ["Rock", "Jazz", "Folk"]
COUNTS = np.array([[50, 30, 20], [0, 0, 0], [1, 0, 97]])
ANY_NAME = [
    "Électro", "Łódź", "рок", "演歌", "🎸", "e\u0301", "a\nb\tc", "", "\ud800", "\x00", "_hidden", "x" * 300,
    "$x^2$", "$", r"$\frac{1}{$", r"\textbf{a}", "<script>alert(1)</script>", "&amp;",
]  # fmt: skip


def opened(figure: Figure) -> np.ndarray:
    """Return a figure's pixels, as its PNG has them."""
    with Image.open(io.BytesIO(render_png(figure))) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def test_rows_are_true_genres_and_colours_their_shares() -> None:
    axes, bar = draw_confusion(COUNTS, NAMES, "test rows").axes
    (cells,) = axes.collections
    shares: Any = cells.get_array()
    np.testing.assert_allclose(shares[[0, 2]], [[0.5, 0.3, 0.2], [1 / 98, 0, 97 / 98]])
    assert cells.get_clim() == (0, 1)
    np.testing.assert_allclose(cells.to_rgba(shares)[0, 1], mpl.colormaps["Blues"](0.3), atol=1 / 255)
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true genre", "predicted genre")
    assert [label.get_text() for label in axes.get_yticklabels()] == NAMES
    assert [label.get_text() for label in axes.get_xticklabels()] == NAMES
    low, high = axes.get_ylim()
    assert low > high  # the first genre's row is the top one
    assert bar.get_ylabel() == "share of the true genre's rows"
    assert axes.get_title() == "test rows"


def test_each_count_is_readable_in_its_cell_and_zeros_are_not_drawn() -> None:
    axes = draw_confusion(COUNTS, NAMES, "test rows").axes[0]
    written = {text.get_position(): (text.get_text(), text.get_color()) for text in axes.texts}
    counts = {place: text for place, (text, _) in written.items() if text != "no rows"}
    assert counts == {(0.5, 0.5): "50", (1.5, 0.5): "30", (2.5, 0.5): "20", (0.5, 2.5): "1", (2.5, 2.5): "97"}
    assert written[2.5, 2.5][1] == "white"
    assert written[0.5, 2.5][1] != "white"


def test_a_genre_without_rows_is_not_shown_as_a_genre_always_missed() -> None:
    axes = draw_confusion(COUNTS, NAMES, "test rows").axes[0]
    shares: Any = axes.collections[0].get_array()
    assert np.ma.getmaskarray(shares).tolist() == [[False] * 3, [True] * 3, [False] * 3]
    assert ("no rows", 1.5) in [(text.get_text(), text.get_position()[1]) for text in axes.texts]


@pytest.mark.parametrize("largest", [9, 12_345, 987_654_321])
def test_the_largest_count_stays_inside_its_cell(largest: int) -> None:
    figure = draw_confusion(np.eye(12, dtype=np.int64) * largest, [f"Genre {i}" for i in range(12)], "t")
    with drawing():
        figure.draw_without_rendering()
    axes = figure.axes[0]
    (left, _), (right, _) = axes.transData.transform([(0, 0), (1, 0)])
    assert max(text.get_window_extent().width for text in axes.texts) < right - left


def test_a_matrix_that_does_not_fit_its_names_is_refused() -> None:
    with pytest.raises(ValueError, match=r"confusion.shape=\(3, 3\): 2 names need \(2, 2\)"):
        draw_confusion(np.eye(3), ["Rock", "Jazz"], "t")


def test_bars_have_the_length_of_their_f1_and_show_it_with_their_rows() -> None:
    values = [0.0, 0.25, 1.0]
    (axes,) = draw_f1_per_genre(values, [4, 8, 2], NAMES, "test rows").axes
    assert [bar.get_width() for bar in axes.patches] == values
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Rock (4)", "Jazz (8)", "Folk (2)"]
    assert [text.get_text() for text in axes.texts] == ["0.00", "0.25", "1.00"]
    assert axes.get_xlim() == (0, 1)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_a_song_is_stacked_from_its_most_probable_genre_upwards() -> None:
    probabilities = np.array([[0.2, 0.7, 0.1], [0.3, 0.6, 0.1]])
    figure = draw_over_time(np.array([1.5, 2.5]), probabilities, NAMES, 3.0, "a $song$.mp3")
    (axes,) = figure.axes
    bands = {band.get_label(): band.get_paths()[0].get_extents() for band in axes.collections}
    assert list(bands) == ["Jazz", "Rock", "Folk"]
    assert bands["Jazz"].ymin == 0
    assert bands["Jazz"].ymax == pytest.approx(0.7)
    assert bands["Folk"].ymin == pytest.approx(0.9)
    assert axes.get_title() == "a $song$.mp3"
    assert axes.get_xlim() == (1.5, 2.5)


def test_genres_of_one_colour_differ_in_their_hatching() -> None:
    figure = draw_over_time(np.arange(2), np.full((2, 40), 1 / 40), [str(i) for i in range(40)], 3.0, "t")
    looks = {(tuple(band.get_facecolor()[0]), band.get_hatch()) for band in figure.axes[0].collections}
    assert len(looks) == 40


@pytest.mark.parametrize("kind", ["confusion", "bars", "song"])
def test_any_name_is_drawn_as_text(kind: str) -> None:
    n_genres, title = len(ANY_NAME), "".join(ANY_NAME)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if kind == "confusion":
            figure = draw_confusion(np.eye(n_genres, dtype=np.int64), ANY_NAME, title)
        elif kind == "bars":
            figure = draw_f1_per_genre([0.5] * n_genres, range(n_genres), ANY_NAME, title)
        else:
            shares = np.full((2, n_genres), 1 / n_genres)
            figure = draw_over_time(np.arange(2), shares, ANY_NAME, 3.0, title)
        pixels = opened(figure)
        document = render_svg(figure, "key")
    assert (pixels[:2] == 255).all()
    assert (pixels[:, :2] == 255).all()
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    for number, name in enumerate(ANY_NAME):
        assert any(mark_unseen_name(name, number) in text.get_text() for text in texts)
    assert not any(text.get_parse_math() for text in texts)
    assert "<script" not in document


def test_names_are_short_lines_and_distinct_if_the_font_lacks_their_letters() -> None:
    assert shorten_name("two\n words") == "two words"
    assert shorten_name("x" * 100) == "x" * 31 + "…"
    assert mark_unseen_name("Música", 4) == "Música"
    assert mark_unseen_name("рок", 4) == "рок"
    assert (mark_unseen_name("演歌", 4), mark_unseen_name("音楽", 5)) == ("4: 演歌", "5: 音楽")


def test_a_figure_grows_with_its_genres() -> None:
    sizes = []
    for n_genres in (2, 8, 16):
        names = [f"Genre {i}" for i in range(n_genres)]
        confusion = opened(draw_confusion(np.eye(n_genres, dtype=np.int64), names, "t"))
        bars = opened(draw_f1_per_genre([0.5] * n_genres, [100] * n_genres, names, "t"))
        sizes.append((*confusion.shape[:2], bars.shape[0]))
        assert max(confusion.shape) < 2000
    for dimension in zip(*sizes, strict=True):
        assert list(dimension) == sorted(set(dimension))


def test_a_png_has_the_colours_of_its_shares() -> None:
    pixels = opened(draw_confusion(np.array([[7, 3], [0, 5]]), ["a", "b"], "t"))
    for share in (0.7, 0.3, 1.0):
        red, green, blue = (int(get_share_colour(share)[i : i + 2], 16) for i in (1, 3, 5))
        assert (np.abs(pixels - (red, green, blue)).max(axis=2) <= 1).sum() > 1000


def test_drawing_leaves_matplotlib_as_it_was_and_takes_nothing_from_a_users_style() -> None:
    plain = render_png(draw_f1_per_genre([0.5], [1], ["Rock"], "t"))
    with mpl.rc_context({"font.size": 30, "savefig.facecolor": "red", "axes.grid": True}):
        before = dict(mpl.rcParams)
        assert render_png(draw_f1_per_genre([0.5], [1], ["Rock"], "t")) == plain
        assert dict(mpl.rcParams) == before
