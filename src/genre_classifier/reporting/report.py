"""Write the report of a run's or a sweep's folder as one HTML file."""

from __future__ import annotations

from pathlib import Path

from genre_classifier.errors import RunFolderError
from genre_classifier.reporting.contents import read_contents
from genre_classifier.reporting.page import render_page, write_page
from genre_classifier.reporting.rows.embedding import Method
from genre_classifier.reporting.run_view import RunView, build_run_view
from genre_classifier.reporting.sweep_view import SweepView, build_sweep_view
from genre_classifier.runs.folder import RunFolder
from genre_classifier.runs.sweep_folder import SweepFolder

NAME = "report.html"


def write_report(
    folder: Path, out: Path | None = None, *, with_rows: bool = True, method: Method = "pca"
) -> tuple[Path, RunView | SweepView]:
    """Write the report of a run or sweep, and return its path and content.

    Parameters
    ----------
    folder : Path
    out : Path, optional
        Default ``report.html`` in the folder.
    with_rows : bool
        Whether to read the run's rows again. Importance, the map and a new grouped run need them.
    method : str
        Method of the map: ``pca`` or ``tsne``.

    Raises
    ------
    RunFolderError
        The folder holds neither a run nor a sweep, a file in it is damaged, or the report cannot be written.
    """
    view = _build_view(folder, with_rows=with_rows, method=method)
    path = folder / NAME if out is None else out
    write_page(path, render_page(view))
    return path, view


def _build_view(folder: Path, *, with_rows: bool, method: Method) -> RunView | SweepView:
    run, sweep = RunFolder(folder), SweepFolder(folder)
    if run.run_json.is_file():
        return build_run_view(read_contents(run), with_rows=with_rows, method=method)
    if sweep.sweep_json.is_file() or sweep.trials():
        return build_sweep_view(sweep, with_rows=with_rows, method=method)
    what = (
        "there is neither a run.json nor a sweep.json in it" if folder.is_dir() else "there is no such folder"
    )
    raise RunFolderError(
        f"{folder}: {what}; name the folder of a run or sweep, such as outputs/runs/DATE/TIME"
    )
