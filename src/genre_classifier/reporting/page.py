"""Render a view with its template, and write the page in one step."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from genre_classifier import __version__
from genre_classifier.config.metrics import METRICS
from genre_classifier.errors import RunFolderError
from genre_classifier.files.atomic import write_text
from genre_classifier.reporting.run_view import RunView
from genre_classifier.reporting.sweep_view import SweepView
from genre_classifier.terminal import escape_lines


def render_page(view: RunView | SweepView) -> str:
    """Return the report as one HTML document without links to other files."""
    template = _build_environment().get_template("run.html" if isinstance(view, RunView) else "sweep.html")
    return template.render(
        view=view,
        metric_names=[metric.heading for metric in METRICS],
        version=__version__,
        written=f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
    )


def write_page(path: Path, text: str) -> None:
    """Write the document in one step. A reader sees either the old or the new one.

    Raises
    ------
    RunFolderError
        It cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise RunFolderError(
            f"cannot write {path}: {error.strerror or error}; choose another place with --out FILE"
        ) from error


def _build_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("genre_classifier.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_make_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"digits": _format_number, "percent": _format_percent}
    return environment


def _format_number(value: float | None, digits: int = 3) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.{digits}f}"


def _format_percent(value: float | None) -> str:
    return "" if value is None else f"{value * 100:.0f}\N{NARROW NO-BREAK SPACE}%"


def _make_printable(value: object) -> object:
    """Return a text with its control, reversing and invisible letters written out. Other values are unchanged."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return escape_lines(value)
