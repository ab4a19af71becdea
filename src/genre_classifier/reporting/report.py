"""``write_report``: a run's or a sweep's folder, as one HTML file."""

from __future__ import annotations

from pathlib import Path

from genre_classifier.errors import RunFolderError
from genre_classifier.reporting.contents import read_contents
from genre_classifier.reporting.page import page, write_page
from genre_classifier.reporting.rows.embedding import Method
from genre_classifier.reporting.run_view import RunView, run_view
from genre_classifier.reporting.sweep_view import SweepView, sweep_view
from genre_classifier.runs.folder import RunFolder
from genre_classifier.runs.sweep_folder import SweepFolder

NAME = "report.html"


def write_report(
    folder: Path, out: Path | None = None, *, with_rows: bool = True, method: Method = "pca"
) -> tuple[Path, RunView | SweepView]:
    """Write the report of a run or sweep, and return where it is and what it says.

    Parameters
    ----------
    folder : Path
    out : Path, optional
        Default ``report.html`` in the folder.
    with_rows : bool
        Whether the run's rows are read again, for importance, the map and the grouped number.
    method : str
        Of the map: ``pca`` or ``tsne``.

    Raises
    ------
    RunFolderError
        The folder holds neither a run nor a sweep, a file in it is damaged, or the report cannot be written.
    """
    view = _view(folder, with_rows=with_rows, method=method)
    path = folder / NAME if out is None else out
    write_page(path, page(view))
    return path, view


def _view(folder: Path, *, with_rows: bool, method: Method) -> RunView | SweepView:
    run, sweep = RunFolder(folder), SweepFolder(folder)
    if run.run_json.is_file():
        return run_view(read_contents(run), with_rows=with_rows, method=method)
    if sweep.sweep_json.is_file() or sweep.trials():
        return sweep_view(sweep, with_rows=with_rows, method=method)
    what = (
        "there is neither a run.json nor a sweep.json in it" if folder.is_dir() else "there is no such folder"
    )
    raise RunFolderError(
        f"{folder}: {what}; name the folder of a run or sweep, such as outputs/runs/DATE/TIME"
    )
