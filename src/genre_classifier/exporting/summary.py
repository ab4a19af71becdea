"""Print the summary of an export."""

from __future__ import annotations

from genre_classifier.commands import format_command
from genre_classifier.exporting.export import Export
from genre_classifier.runs.folder import shorten_path
from genre_classifier.terminal import say, say_table

MARKS = {True: "yes", False: "NO", None: "?"}


def show(export: Export) -> None:
    """Print the production checklist, the bundle's files, and the next commands."""

    def say_line(what: str, text: str) -> None:
        say(f"{what:<12} {text}")

    if export.calibration is not None:
        fitted = export.calibration
        say_line(
            "temperature",
            f"{fitted.temperature:.4f}, fitted on {fitted.n_rows} validation rows: ECE {fitted.ece_before:.3f} "
            f"before, {fitted.ece_after:.3f} after",
        )
    _say_checklist(export)
    for part, path in export.paths.items():
        say_line(part, str(shorten_path(path)))
    bundle = shorten_path(export.paths["model"]).with_suffix("")
    say_line("verify it", format_command("genre-classifier", "verify", bundle))
    say_line("serve it", format_command("genre-classifier", "serve", "--bundle", bundle))


def _say_checklist(export: Export) -> None:
    note = " (synthetic data, not music)" if export.synthetic else ""
    met = sum(item.met is True for item in export.checklist)
    say_table(
        f"production checklist, {met} of {len(export.checklist)} met{note}",
        [("item", "prose"), ("met", "name"), ("evidence", "prose")],
        [(item.item, MARKS[item.met], item.evidence) for item in export.checklist],
    )
