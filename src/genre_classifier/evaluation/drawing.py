"""The style and file formats of all figures: colours, fonts, names as text, PNG and SVG by matplotlib.

matplotlib is imported when a figure is drawn. pyplot is not used: a figure needs no display and no global state.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from genre_classifier.terminal import format_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, QUIET, PALE = "#1d2733", "#5b6875", "#dfe4ea"
# Okabe and Ito's palette is distinct for every kind of colour vision. Its yellow is too light for thin lines on white.
BLUE, ORANGE, GREEN, VERMILION = "#0072b2", "#e69f00", "#009e73", "#d55e00"
PALETTE = (BLUE, ORANGE, GREEN, VERMILION, "#cc79a7", "#56b4e9", "#000000", "#8c6d00")
BAR = "#9cc7e6"
LONGEST_NAME, LONGEST_TITLE = 32, 60
FONT = "DejaVu Sans"
SHARES = "Blues"
"""matplotlib's colours for shares from 0 to 1."""
DARK = 0.55
"""Text on the colour of a larger share is white."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": [FONT],
    "font.size": 9,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "figure.titlesize": 10,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": PALE,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "lines.linewidth": 1.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Let matplotlib draw in this style within the block. The user's matplotlibrc has no effect."""
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        # matplotlib draws a missing letter as a box in a PNG. An SVG uses the reader's fonts.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph .* missing from.*")
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches. Call it, and draw, within `drawing`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def render_png(figure: Figure) -> bytes:
    """Return a figure as the content of a PNG file, 100 pixels per inch."""
    stream = io.BytesIO()
    with drawing():
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def render_svg(figure: Figure, key: str) -> str:
    """Return a figure as an SVG document. Its text stays text.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    key : str
        Part of the ids in the document. Different keys give different ids.
    """
    import matplotlib as mpl

    stream = io.StringIO()
    with drawing(), mpl.rc_context({"svg.hashsalt": key}):
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return stream.getvalue()


def join_lines(text: object) -> str:
    """Return a text on one line, with every letter visible."""
    return format_name(" ".join(str(text).split()), None)


def shorten_name(name: object, longest: int = LONGEST_NAME) -> str:
    """Return a name that fits into a figure: one line of at most `longest` letters."""
    text = format_name(" ".join(str(name)[: 10 * longest].split()), longest)
    # matplotlib omits labels that start with an underscore from a legend.
    return f" {text}" if text.startswith("_") else text


def mark_unseen_name(name: object, position: int) -> str:
    """Return a genre's name for a PNG.

    Names in a script that the font lacks look alike, so the genre's position is put before such a name.
    """
    text = shorten_name(name)
    return text if {ord(letter) for letter in text} <= _read_letters() else f"{position}: {text}"


def get_share_colour(share: float) -> str:
    """Return the colour of a share in [0, 1], as CSS and matplotlib write it."""
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    return to_hex(mpl.colormaps[SHARES](share))


@cache
def _read_letters() -> frozenset[int]:
    """Return the code points that the font has."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont(FONT)).get_charmap())
