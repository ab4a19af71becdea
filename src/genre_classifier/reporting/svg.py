"""Convert figures to inline SVG: text stays text, ids are unique in the page, and no link leaves the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from genre_classifier.evaluation.drawing import join_lines, render_svg
from genre_classifier.terminal import escape_lines

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
        One sentence about the content.
    svg : str
        The markup, which is safe in the page.
    """

    title: str
    meaning: str
    svg: str


def convert_to_inline(figure: Drawing, key: str, title: str, meaning: str) -> Figure:
    """Return a matplotlib figure as inline SVG.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    key : str
        Letters and digits. Each figure of a page needs another key.
    title, meaning : str
        Title and description. A screen reader reads both.
    """
    drawn = ElementTree.fromstring(render_svg(figure, key))
    view = drawn.attrib["viewBox"]
    root = ElementTree.Element("svg", {
        "class": "figure", "role": "img", "aria-labelledby": f"{key}-title {key}-desc",
        "viewBox": view, "width": f"{float(view.split()[2]) * 4 / 3:.0f}",
    })  # fmt: skip
    ElementTree.SubElement(root, "title", id=f"{key}-title").text = join_lines(title)
    ElementTree.SubElement(root, "desc", id=f"{key}-desc").text = join_lines(meaning)
    # Matplotlib's style is left out, because it would apply to the whole page. style.css has it for the figures.
    root.extend(part for part in drawn if part.find(f"{_NAMESPACE}style") is None)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_NAMESPACE)  # HTML needs no namespace
        if element.tag == "g":
            element.attrib.pop("id", None)  # the same in each figure, and no element refers to it
        if _LINK in element.attrib:
            element.set("href", element.attrib.pop(_LINK))
    ElementTree.indent(root, "")
    return Figure(title, meaning, escape_lines(ElementTree.tostring(root, encoding="unicode")))
