"""Figures of a run, as arrays of pixels: a run draws four of them, and may itself take no more than a second."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from genre_classifier.evaluation.lettering import drawable, number_mask, shortened, slanted_mask, text_mask
from genre_classifier.terminal import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE, LABEL, COUNT = 18, 15, 13
"""Font sizes, in pixels."""
LONGEST_NAME = 170
"""Widest name of a genre, in pixels; a longer one ends in an ellipsis."""
LONGEST_DRAWN = 32
"""Most letters of a name in a figure of matplotlib's."""
MARGIN, GAP = 16, 8
BLACK, GREY, PALE, WHITE = (20, 20, 20), (110, 110, 110), (225, 225, 225), (255, 255, 255)
BAR_COLOUR = (59, 117, 175)

# ColorBrewer's nine Blues, and the 256 steps between them.
_BLUES = [
    (247, 251, 255),
    (222, 235, 247),
    (198, 219, 239),
    (158, 202, 225),
    (107, 174, 214),
    (66, 146, 198),
    (33, 113, 181),
    (8, 81, 156),
    (8, 48, 107),
]
SCALE = np.stack(
    [np.interp(np.linspace(0, 8, 256), range(9), channel) for channel in zip(*_BLUES, strict=True)], axis=1
)
SCALE = SCALE.round().astype(np.uint8)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty matplotlib figure of a size in inches, made without pyplot: nothing global is touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@contextmanager
def names_as_text() -> Iterator[None]:
    """Let matplotlib draw and save a figure whose names are text, not mathematics between dollars."""
    import matplotlib as mpl

    with mpl.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        # Letters that matplotlib's own font lacks are drawn as boxes, or by the reader's font.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph .* missing from.*")
        yield


def drawn_name(name: object) -> str:
    """Return a name as it fits into a figure: on one line and not too long."""
    text = shown(name, LONGEST_DRAWN)
    # matplotlib leaves labels that start with an underscore out of a legend.
    return f" {text}" if text.startswith("_") else text


def confusion_figure(confusion: np.ndarray, genre_names: Sequence[str], title: str) -> np.ndarray:
    """Draw a confusion matrix: counts as text, shares of the true genre's rows as colour.

    A genre without rows has no shares; its row is grey and says so.

    Parameters
    ----------
    confusion : np.ndarray [shape=(true genre, predicted genre)]
        Counts of rows.
    genre_names : sequence of str
        One name a genre, in the matrix's order.
    title : str
        Stands above the matrix.

    Returns
    -------
    np.ndarray [shape=(height, width, 3), dtype=uint8]
        RGB.

    Raises
    ------
    ValueError
        The matrix is not square, or has another number of genres than there are names.
    """
    n_genres = len(genre_names)
    if confusion.shape != (n_genres, n_genres):
        raise ValueError(f"confusion.shape={confusion.shape}: {n_genres} names need {(n_genres, n_genres)}")
    names = _labels(genre_names)
    slanted = [slanted_mask(name, LABEL) for name in names]
    cell = _cell_size(confusion)
    side = cell * n_genres

    left = MARGIN + 2 * LABEL + max(text_mask(name, LABEL).width for name in names) + GAP
    left = max(left, MARGIN + max(end_x - cell * i - cell // 2 for i, (_, (end_x, _)) in enumerate(slanted)))
    top = MARGIN + 2 * TITLE
    below = max(mask.height - end_y for mask, (_, end_y) in slanted) + GAP
    bar_left = left + side + 24
    width = bar_left + 110
    canvas = Image.new("RGB", (width, top + side + below + 2 * LABEL + MARGIN // 2), WHITE)

    _draw_cells(canvas, confusion, (left, top), cell)
    for i, name in enumerate(names):
        middle = cell * i + cell // 2
        _write(canvas, text_mask(name, LABEL), right=left - GAP, middle=top + middle)
        mask, (end_x, end_y) = slanted[i]
        canvas.paste(BLACK, (left + middle - end_x, top + side + GAP - end_y), mask)
    _write(canvas, text_mask("predicted genre", LABEL), centre=left + side // 2, middle=canvas.height - LABEL)
    _write(canvas, _upright("true genre"), centre=MARGIN + LABEL // 2, middle=top + side // 2)
    _draw_colour_bar(canvas, bar_left, top, side)
    _write_title(canvas, title, centre=left + side // 2)
    return np.asarray(canvas)


def per_genre_f1_figure(
    f1: Sequence[float], support: Sequence[int], genre_names: Sequence[str], title: str
) -> np.ndarray:
    """Draw a bar of F1 a genre, with its number of rows.

    Parameters
    ----------
    f1 : sequence of float
        One F1 a genre, in [0, 1].
    support : sequence of int
        Each genre's number of rows.
    genre_names : sequence of str
        One name a genre, in the same order.
    title : str
        Stands above the bars.

    Returns
    -------
    np.ndarray [shape=(height, width, 3), dtype=uint8]
        RGB.
    """
    pitch, thickness, length = 30, 20, 460
    labels = [f"{name} ({count})" for name, count in zip(_labels(genre_names), support, strict=True)]
    left = MARGIN + max(text_mask(label, LABEL).width for label in labels) + GAP
    top = MARGIN + 2 * TITLE
    bottom = top + pitch * len(labels) + GAP
    canvas = Image.new("RGB", (left + length + 60, bottom + 70), WHITE)
    draw = ImageDraw.Draw(canvas)

    for fifth in range(6):
        x = left + length * fifth // 5
        draw.line((x, top, x, bottom), fill=PALE)
        _write(canvas, text_mask(f"{fifth / 5:.1f}", COUNT), centre=x, middle=bottom + 14)
    for i, (label, value) in enumerate(zip(labels, f1, strict=True)):
        middle = top + GAP // 2 + pitch * i + pitch // 2
        end = left + round(length * value)
        if end > left:
            draw.rectangle(
                (left, middle - thickness // 2, end - 1, middle + thickness // 2 - 1), fill=BAR_COLOUR
            )
        _write(canvas, text_mask(label, LABEL), right=left - GAP, middle=middle)
        _write(canvas, text_mask(f"{value:.2f}", COUNT), left=end + 5, middle=middle)
    draw.line((left, top, left, bottom), fill=GREY)
    draw.line((left, bottom, left + length, bottom), fill=GREY)
    _write(
        canvas,
        text_mask("F1 (number of rows in brackets)", LABEL),
        centre=left + length // 2,
        middle=canvas.height - 22,
    )
    _write_title(canvas, title, centre=left + length // 2)
    return np.asarray(canvas)


def _labels(genre_names: Sequence[str]) -> list[str]:
    return [shortened(drawable(name, i), LABEL, LONGEST_NAME) for i, name in enumerate(genre_names)]


def _cell_size(confusion: np.ndarray) -> int:
    """Return a cell's side in pixels: large where genres are few, and never too small for the largest count."""
    n_genres = len(confusion)
    by_genres = max(32, 52 - max(0, n_genres - 10), 200 // n_genres + 20)
    return max(by_genres, number_mask(int(confusion.max()), COUNT).width + 8)


def _draw_cells(canvas: Image.Image, confusion: np.ndarray, corner: tuple[int, int], cell: int) -> None:
    left, top = corner
    side = cell * len(confusion)
    support = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(support, 1)
    colours = SCALE[np.rint(shares * 255).astype(int)]  # (true genre, predicted genre, 3)
    colours[support[:, 0] == 0] = (240, 240, 240)
    canvas.paste(Image.fromarray(colours).resize((side, side), Image.Resampling.NEAREST), corner)

    draw = ImageDraw.Draw(canvas)
    for offset in range(0, side + 1, cell):
        draw.line((left + offset, top, left + offset, top + side), fill=PALE)
        draw.line((left, top + offset, left + side, top + offset), fill=PALE)
    for row, column in np.argwhere(confusion).tolist():
        mask = number_mask(int(confusion[row, column]), COUNT)
        x = left + cell * column + (cell - mask.width) // 2
        y = top + cell * row + (cell - mask.height) // 2
        draw.bitmap((x, y), mask, fill=WHITE if shares[row, column] > 0.55 else BLACK)
    for row in np.flatnonzero(support == 0).tolist():
        middle = top + cell * row + cell // 2
        _write(canvas, text_mask("no rows", COUNT), centre=left + side // 2, middle=middle, colour=GREY)


def _draw_colour_bar(canvas: Image.Image, left: int, top: int, side: int) -> None:
    """Draw the scale of shares from 0 at the bottom to 1 at the top, beside the matrix."""
    thickness, height = 18, max(240, side * 4 // 5)
    top += (side - height) // 2
    bar = Image.fromarray(SCALE[::-1, None]).resize((thickness, height), Image.Resampling.NEAREST)
    canvas.paste(bar, (left, top))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((left, top, left + thickness, top + height), outline=PALE)
    for quarter in range(5):
        y = top + height - height * quarter // 4
        draw.line((left + thickness, y, left + thickness + 4, y), fill=GREY)
        _write(canvas, text_mask(f"{quarter / 4:g}", COUNT), left=left + thickness + 6, middle=y)
    _write(canvas, _upright("share of the true genre's rows"), centre=left + 80, middle=top + height // 2)


def _write_title(canvas: Image.Image, title: str, centre: int) -> None:
    """Write the title above the plot, moved or shortened where the figure is too narrow for it there."""
    mask = text_mask(shortened(title, TITLE, canvas.width - 2 * MARGIN), TITLE)
    half = mask.width // 2 + MARGIN
    _write(canvas, mask, centre=min(max(centre, half), canvas.width - half), middle=MARGIN + TITLE // 2)


def _upright(text: str) -> Image.Image:
    return text_mask(text, LABEL).transpose(Image.Transpose.ROTATE_90)


def _write(
    canvas: Image.Image,
    mask: Image.Image,
    *,
    middle: int,
    left: int | None = None,
    centre: int | None = None,
    right: int | None = None,
    colour: tuple[int, int, int] = BLACK,
) -> None:
    """Put text on the canvas by its vertical middle and one of its left end, centre and right end, in pixels."""
    if right is not None:
        x = right - mask.width
    elif centre is not None:
        x = centre - mask.width // 2
    else:
        x = left or 0
    canvas.paste(colour, (x, middle - mask.height // 2), mask)
