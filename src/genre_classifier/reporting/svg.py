"""Figures as inline SVG: text stays text, ids are unique in the page, nothing points outside of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from genre_classifier.evaluation.drawing import one_line, svg
from genre_classifier.terminal import visible_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_NAMESPACE = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"


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


def inline(figure: Drawing, key: str, title: str, meaning: str) -> Figure:
    """Return a matplotlib figure as inline SVG.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    key : str
        Letters and digits, another one for each figure of the page.
    title, meaning : str
        What it is and what it shows; a screen reader reads both.
    """
    drawn = ElementTree.fromstring(svg(figure, key))
    view = drawn.attrib["viewBox"]
    root = ElementTree.Element("svg", {
        "class": "figure", "role": "img", "aria-labelledby": f"{key}-title {key}-desc",
        "viewBox": view, "width": f"{float(view.split()[2]) * 4 / 3:.0f}",
    })  # fmt: skip
    ElementTree.SubElement(root, "title", id=f"{key}-title").text = one_line(title)
    ElementTree.SubElement(root, "desc", id=f"{key}-desc").text = one_line(meaning)
    # Left out is matplotlib's style, which would hold for the whole page; style.css has it for the figures.
    root.extend(part for part in drawn if part.find(f"{_NAMESPACE}style") is None)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_NAMESPACE)  # HTML knows svg and what is in it
        if element.tag == "g":
            element.attrib.pop("id", None)  # numbered from 1 in each figure, and nothing refers to it
        if _LINK in element.attrib:
            element.set("href", element.attrib.pop(_LINK))
    ElementTree.indent(root, "")
    return Figure(title, meaning, visible_lines(ElementTree.tostring(root, encoding="unicode")))
