"""Figures as inline SVG: text stays text, ids are unique in the page, nothing points outside of it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from genre_classifier.evaluation.figures import drawn_name as drawn_name
from genre_classifier.evaluation.figures import names_as_text
from genre_classifier.terminal import visible_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

INK, QUIET, PALE = "#1d2733", "#5b6875", "#dfe4ea"
# Okabe and Ito's palette, told apart with any colour vision; its yellow is too light for thin lines on white.
BLUE, ORANGE, GREEN, VERMILION = "#0072b2", "#e69f00", "#009e73", "#d55e00"
PALETTE = (BLUE, ORANGE, GREEN, VERMILION, "#cc79a7", "#56b4e9", "#000000", "#8c6d00")
FONT = "system-ui, 'Helvetica Neue', Arial, sans-serif"

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "genre-classifier",
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
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


@dataclass(frozen=True)
class Figure:
    """A figure in the page.

    Parameters
    ----------
    title : str
    meaning : str
        One sentence on what it shows.
    svg : str
        The markup, safe to put into the page as it is.
    """

    title: str
    meaning: str
    svg: str


@contextmanager
def drawing() -> Iterator[None]:
    """Let matplotlib draw in the report's style for as long as the block runs."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE), names_as_text():
        yield


def inline(drawing_: Drawing, key: str, title: str, meaning: str) -> Figure:
    """Return a matplotlib figure, drawn within `drawing`, as inline SVG.

    Parameters
    ----------
    drawing_ : matplotlib.figure.Figure
    key : str
        Letters and digits, another one for each figure of the page.
    title, meaning : str
        What it is and what it shows; a screen reader reads both.
    """
    stream = io.StringIO()
    with names_as_text():
        drawing_.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return Figure(title, meaning, _inlined(stream.getvalue(), key, title, meaning))


def _inlined(document: str, key: str, title: str, meaning: str) -> str:
    size = re.search(r'viewBox="([-\d. ]+)"', document)
    assert size is not None
    body = document[document.index(">", document.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, count=1, flags=re.DOTALL)
    # A style element would hold for the whole page, not for the figure alone.
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r"'DejaVu Sans'[^;\"]*", FONT, body)
    tags = re.compile(r"<[^>]*>")
    body = tags.sub(lambda tag: _renamed(tag.group(), key), body)
    label = f"{key}-title"
    opening = (
        f'<svg class="figure" role="img" aria-labelledby="{label} {key}-desc" viewBox="{size.group(1)}" '
        f'width="{float(size.group(1).split()[2]) * 4 / 3:.0f}">'
        f'<title id="{label}">{escape(title)}</title><desc id="{key}-desc">{escape(meaning)}</desc>'
    )
    return visible_lines(opening + re.sub(r"\s*\n\s*", "\n", body))


def _renamed(tag: str, key: str) -> str:
    """Put the figure's key before every id, and before every reference to one, of a tag."""
    tag = re.sub(r'\bid="', f'id="{key}-', tag)
    tag = re.sub(r'xlink:href="#', f'href="#{key}-', tag)
    return tag.replace("url(#", f"url(#{key}-")
