"""What a person reads when an export is done."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from genre_classifier.bundle import ChecklistItem
from genre_classifier.commands import command
from genre_classifier.exporting.export import Export
from genre_classifier.run_folder import relative

MARKS = {True: "yes", False: "NO", None: "?"}


def show(export: Export) -> None:
    """Print the production checklist, where the bundle is, and what can be done next."""
    console = Console(highlight=False)

    def line(what: str, text: str) -> None:
        console.print(f"{what:<12} {text}", soft_wrap=True, markup=False)

    if export.calibration is not None:
        fitted = export.calibration
        line(
            "temperature",
            f"{fitted.temperature:.4f}, fitted on {fitted.n_rows} validation rows: ECE {fitted.ece_before:.3f} "
            f"before, {fitted.ece_after:.3f} after",
        )
    console.print(_table(export))
    for part, path in export.paths.items():
        line(part, str(relative(path)))
    bundle = relative(export.paths["model"]).with_suffix("")
    line("verify it", command("genre-classifier", "verify", bundle))
    line("serve it", command("genre-classifier", "serve", "--bundle", bundle))


def _table(export: Export) -> Table:
    note = " (synthetic data, not music)" if export.synthetic else ""
    met = sum(item.met is True for item in export.checklist)
    table = Table(
        title=f"production checklist, {met} of {len(export.checklist)} met{note}",
        title_justify="left",
        show_lines=False,
    )
    table.add_column("item")
    table.add_column("met")
    table.add_column("evidence", overflow="fold")
    for item in export.checklist:
        table.add_row(item.item, _mark(item), item.evidence)
    return table


def _mark(item: ChecklistItem) -> str:
    return MARKS[item.met]
