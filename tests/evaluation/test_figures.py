"""Figures, judged by their pixels: the tests find the cells and bars by what changes when a number changes."""

import io
from collections.abc import Sequence
from itertools import product

import matplotlib
import numpy as np
import pytest
from PIL import Image

from genre_classifier.evaluation.figures import confusion_figure, per_genre_f1_figure
from genre_classifier.evaluation.lettering import drawable, shortened, text_mask
from genre_classifier.evaluation.png import png

NAMES = ["Rock", "Jazz", "Folk"]
BLUES = (matplotlib.colormaps["Blues"](np.linspace(0, 1, 256))[:, :3] * 255).round()
Boxes = dict[tuple[int, int], tuple[slice, slice]]


def matrix(n_genres: int) -> np.ndarray:
    """Return the counts of 100 rows a genre, all right."""
    return np.eye(n_genres, dtype=np.int64) * 100


def changed(before: np.ndarray, after: np.ndarray) -> tuple[slice, slice]:
    """Return the box around the pixels in which two figures of one size differ."""
    assert before.shape == after.shape
    rows, columns = np.nonzero((before != after).any(axis=2))
    return slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)


def cell_boxes(n_genres: int) -> Boxes:
    """Return where each cell is, by its row and column: most of a genre's rows in one cell turn its ground dark."""
    names = [f"Genre {i}" for i in range(n_genres)]
    even = np.ones((n_genres, n_genres), dtype=np.int64)
    light = confusion_figure(even, names, "t").astype(int).sum(axis=2)
    boxes = {}
    for row, column in product(range(n_genres), repeat=2):
        counts = even.copy()
        counts[row, column] = 9
        dark = confusion_figure(counts, names, "t").astype(int).sum(axis=2)
        rows, columns = np.nonzero(light - dark > 150)
        boxes[row, column] = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    return boxes


def ground(figure: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
    """Return the commonest colour of a box."""
    colours, counts = np.unique(figure[box].reshape(-1, 3), axis=0, return_counts=True)
    return colours[counts.argmax()]


@pytest.fixture(scope="module")
def boxes() -> Boxes:
    return cell_boxes(3)


def confusion(counts: Sequence[Sequence[int]]) -> np.ndarray:
    return confusion_figure(np.array(counts), ["Genre 0", "Genre 1", "Genre 2"], "t")


def test_rows_are_true_genres_and_columns_predicted_ones(boxes: Boxes) -> None:
    sides = {(b[0].stop - b[0].start, b[1].stop - b[1].start) for b in boxes.values()}
    assert len(sides) == 1
    assert max(sides.pop()) > 30
    for row, column in boxes:
        assert boxes[row, column][0] == boxes[row, 0][0]
        assert boxes[row, column][1] == boxes[0, column][1]
    assert boxes[0, 0][0].stop <= boxes[1, 0][0].start < boxes[2, 0][0].start
    assert boxes[0, 0][1].stop <= boxes[0, 1][1].start < boxes[0, 2][1].start


def test_a_cell_has_matplotlibs_blue_for_its_share_of_the_true_genres_rows(boxes: Boxes) -> None:
    counts = [[50, 30, 20], [0, 7, 0], [1, 2, 97]]
    figure = confusion(counts)
    for (row, column), box in boxes.items():
        share = counts[row][column] / sum(counts[row])
        np.testing.assert_allclose(ground(figure, box), BLUES[round(share * 255)], atol=2)


def test_a_cell_darkens_as_its_share_grows(boxes: Boxes) -> None:
    lightness = [
        int(ground(confusion([[100 - wrong, wrong, 0], [0, 9, 0], [0, 0, 9]]), boxes[0, 1]).sum())
        for wrong in (0, 10, 30, 60, 99)
    ]
    assert lightness == sorted(set(lightness), reverse=True)


def test_counts_are_written_into_their_cells_and_zeros_are_not(boxes: Boxes) -> None:
    # The same shares, so the same ground: only the two counts' digits may differ.
    fives = confusion([[5, 0, 0], [0, 5, 0], [0, 0, 8]])
    threes = confusion([[3, 0, 0], [0, 3, 0], [0, 0, 8]])
    difference = fives != threes
    for place in ((0, 0), (1, 1)):
        assert difference[boxes[place]].any()
        difference[boxes[place]] = False
        np.testing.assert_array_equal(fives[boxes[place]], fives[boxes[0, 0]])
    assert not difference.any()
    assert len(np.unique(fives[boxes[0, 1]].reshape(-1, 3), axis=0)) == 1  # a zero: nothing but the ground


def test_a_count_is_white_on_dark_and_black_on_light_ground(boxes: Boxes) -> None:
    figure = confusion([[88, 12, 0], [0, 9, 0], [0, 0, 9]]).astype(int).sum(axis=2)
    dark, light = figure[boxes[0, 0]], figure[boxes[0, 1]]
    assert dark.max() > 700
    assert light.min() < 150


@pytest.mark.parametrize(("largest", "other"), [(9, 8), (12_345, 67_890), (987_654_321, 123_456_789)])
def test_the_largest_count_stays_inside_its_cell(largest: int, other: int) -> None:
    names = [f"Genre {i}" for i in range(12)]
    before = confusion_figure(np.eye(12, dtype=np.int64) * largest, names, "t")
    written = []
    for genre in (5, 6):
        counts = np.eye(12, dtype=np.int64) * largest
        counts[genre, genre] = other  # all rows of the genre either way, on the same ground
        written.append(changed(before, confusion_figure(counts, names, "t"))[1])
    pitch = written[1].start - written[0].start
    assert written[0].stop - written[0].start <= pitch - 6


def test_a_genre_without_rows_is_not_shown_as_a_genre_always_missed(boxes: Boxes) -> None:
    figure = confusion([[4, 1, 0], [0, 0, 0], [1, 0, 5]])
    red, green, blue = ground(figure, boxes[1, 0]).tolist()
    assert red == green == blue < 250
    assert figure[boxes[1, 1]].min() < 160  # says so
    assert tuple(ground(figure, boxes[0, 2])) == (247, 251, 255)


def test_a_figure_grows_with_its_genres() -> None:
    sizes = []
    for n_genres in (2, 5, 8, 16, 30, 40):
        names = [f"Genre {i}" for i in range(n_genres)]
        figure = confusion_figure(matrix(n_genres), names, "test rows")
        bars = per_genre_f1_figure([0.5] * n_genres, [100] * n_genres, names, "test rows")
        assert figure.dtype == bars.dtype == np.uint8
        sizes.append((figure.shape[0], figure.shape[1], bars.shape[0]))
    for dimension in zip(*sizes, strict=True):
        assert list(dimension) == sorted(set(dimension))


def test_every_name_stands_beside_its_row_and_below_its_column(boxes: Boxes) -> None:
    names = ["Genre 0", "Genre 1", "Genre 2"]
    bottom = boxes[2, 2][0].stop
    ends = []
    for i in range(3):
        renamed = [*names]
        renamed[i] = f"Genre {i + 7}"  # digits are equally wide, so all else stays where it is
        before, after = (confusion_figure(matrix(3), which, "t") for which in (names, renamed))
        rows, columns = changed(before[:bottom], after[:bottom])
        assert columns.stop <= boxes[i, 0][1].start
        assert rows.start >= boxes[i, 0][0].start
        assert rows.stop <= boxes[i, 0][0].stop
        below = changed(before[bottom:], after[bottom:])[1]
        middle = (boxes[0, i][1].start + boxes[0, i][1].stop) / 2
        ends.append(below.stop - middle)
    assert ends == pytest.approx([0, 0, 0], abs=10)  # the end of a slanted name is at its column's middle


def test_the_title_is_above_the_matrix(boxes: Boxes) -> None:
    before, after = (confusion_figure(matrix(3), NAMES, title) for title in ("test rows", "val rows"))
    assert changed(before, after)[0].stop < boxes[0, 0][0].start


def test_no_name_touches_the_edge_of_a_figure() -> None:
    names = ["Old-Time / Historic Americana Recordings", "A", "Música Popular Brasileira", "x" * 80]
    for figure in (
        confusion_figure(
            matrix(4), names, "every row by the model that had not seen it, and then some more words"
        ),
        per_genre_f1_figure([1.0, 0.0, 0.5, 0.99], [1_000_000, 0, 5, 7], names, "w" * 200),
    ):
        for edge in (figure[:3], figure[-3:], figure[:, :3], figure[:, -3:]):
            assert (edge == 255).all()


def test_bars_are_as_long_as_their_f1() -> None:
    values = [0.0, 0.25, 0.5, 1.0]
    figure = per_genre_f1_figure(values, [4, 8, 2, 1], ["A", "B", "C", "D"], "test rows")
    bar = (figure == (59, 117, 175)).all(axis=2)
    by_row = bar.sum(axis=1)
    starts = np.flatnonzero((by_row[1:] > 0) & (by_row[:-1] == 0)) + 1
    lengths = by_row[starts]
    assert len(lengths) == 3  # none for 0
    np.testing.assert_allclose(lengths / lengths[-1], values[1:], atol=0.005)


def test_a_bars_value_and_number_of_rows_are_written_beside_it() -> None:
    before = per_genre_f1_figure([0.5, 0.5045], [40, 70], ["Rock", "Jazz"], "test rows")
    value = per_genre_f1_figure([0.5, 0.5051], [40, 70], ["Rock", "Jazz"], "test rows")
    support = per_genre_f1_figure([0.5, 0.5045], [40, 90], ["Rock", "Jazz"], "test rows")
    first_of_second_bar = changed(before, support)[0].start
    bar = (before == (59, 117, 175)).all(axis=2)
    left, right = np.flatnonzero(bar.any(axis=0))[[0, -1]]
    assert changed(before, value)[1].start >= right
    assert changed(before, support)[1].stop <= left
    assert bar[:first_of_second_bar].any()
    assert before.shape == value.shape == support.shape


@pytest.mark.parametrize(
    "name",
    ["Électro", "Música", "Łódź", "рок", "ροκ", "演歌", "🎸", "e\u0301", "a\nb\tc", "", "\ud800", "\x00"],
)
def test_any_name_can_be_drawn(name: str) -> None:
    names = [name, "Rock"]
    assert confusion_figure(matrix(2), names, "t").shape[2] == 3
    assert per_genre_f1_figure([0.5, 0.7], [1, 2], names, "t").shape[2] == 3


def test_accents_are_letters_and_what_the_font_lacks_keeps_names_apart() -> None:
    assert drawable("Música", 4) == "Música"
    assert drawable("Mu\u0301sica", 4) == "Música"
    assert drawable("two\n words", 4) == "two words"
    assert drawable("рок", 4) == "рок"
    assert drawable("演歌", 4) == "4: □□"
    assert drawable("音楽", 5) == "5: □□"
    assert np.asarray(text_mask("é", 15)).sum() > np.asarray(text_mask("e", 15)).sum()


def test_a_long_name_ends_in_an_ellipsis_and_fits() -> None:
    assert shortened("Rock", 15, 100) == "Rock"
    short = shortened("Old-Time / Historic", 15, 100)
    assert short.endswith("...")
    assert "Old-Time / Historic".startswith(short[:-3])
    assert len(short) > 8
    assert text_mask(short, 15).width <= 103
    assert text_mask(shortened("W" * 500, 15, 100), 15).width <= 103


def test_a_matrix_that_does_not_fit_its_names_is_refused() -> None:
    with pytest.raises(ValueError, match=r"confusion.shape=\(3, 3\): 2 names need \(2, 2\)"):
        confusion_figure(matrix(3), ["Rock", "Jazz"], "t")


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 300, 3), (300, 7, 3)])
def test_a_png_holds_the_very_pixels(shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    with Image.open(io.BytesIO(png(pixels))) as image:
        image.load()
        assert (image.format, image.mode) == ("PNG", "RGB")
        np.testing.assert_array_equal(np.asarray(image), pixels)
