"""The page as a reader gets it: every kind of folder, numbers against scikit-learn, nothing from outside."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from genre_classifier.errors import RunFolderError
from genre_classifier.reporting.report import write_report
from genre_classifier.runs.folder import RunFolder
from tests.conftest import rows_of_music, write_csv
from tests.reporting.conftest import Folders, train_into
from tests.reporting.parsed import Page

KINDS = ("run", "random", "failed", "folds", "sweep")
Copied = Callable[..., Path]


def report(folder: Path, tmp_path: Path, **options: object) -> Page:
    path, _ = write_report(folder, tmp_path / "page.html", **options)  # type: ignore[arg-type]
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def parsed(pages: dict[str, Path]) -> dict[str, Page]:
    """The pages, parsed."""
    return {kind: Page(path.read_text(encoding="utf-8")) for kind, path in pages.items()}


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_loads_nothing_from_outside(parsed: dict[str, Page], kind: str) -> None:
    page = parsed[kind]

    for tag, attrs in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "img", "base", "form"}
        for name, value in attrs.items():
            assert not name.startswith("on")
            if name in {"href", "src", "srcset", "xlink:href", "action", "data", "poster"}:
                assert value.startswith("#"), (tag, name, value)
            assert all(found.startswith("#") for found in re.findall(r"url\(['\"]?([^)]*)", value))
    assert "url(" not in page.styles
    assert "@import" not in page.styles


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_can_be_read_by_a_screen_reader_and_on_a_phone(parsed: dict[str, Page], kind: str) -> None:
    page = parsed[kind]
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]

    assert len(ids) == len(set(ids))
    assert page.attributes("html", "lang") == ["en"]
    assert any("width=device-width" in content for content in page.attributes("meta", "content"))
    for tag, attrs in page.tags:
        if tag == "svg":
            assert attrs["role"] == "img"
            assert set(attrs["aria-labelledby"].split()) <= set(ids)
        if tag == "th" and "axis" not in attrs.get("class", ""):
            assert attrs["scope"] in {"row", "col"}
        if tag == "use":
            assert attrs["href"].removeprefix("#") in ids


def test_the_genres_table_agrees_with_scikit_learn(folders: Folders, parsed: dict[str, Page]) -> None:
    rows = rows_of(folders.run)
    true, predicted = [row["true"] for row in rows], [row["predicted"] for row in rows]
    names = sorted(set(true) | set(predicted))

    table = parsed["run"].table("genre", "precision", "recall", "F1", "support")

    scores = precision_recall_fscore_support(true, predicted, labels=names, zero_division=0)
    for name, precision, recall, f1, support in zip(names, *scores, strict=True):
        shown = [0.0 if cell == "\N{EN DASH}" else float(cell) for cell in table[name]]
        assert shown == pytest.approx([precision, recall, f1, support], abs=5e-4)


def test_the_confusion_matrix_agrees_with_scikit_learn(folders: Folders, parsed: dict[str, Page]) -> None:
    rows = rows_of(folders.run)
    names = [name.removeprefix("p_") for name in rows[0] if name.startswith("p_")]
    expected = confusion_matrix(
        [row["true"] for row in rows], [row["predicted"] for row in rows], labels=names
    )

    (table,) = [table for table in parsed["run"].tables if table[1][0].strip() == "true genre"]

    for line, counts in zip(table[2:], expected, strict=True):
        for cell, count in zip(line[1:], counts, strict=True):
            share = f"{count / counts.sum() * 100:.0f}\N{NARROW NO-BREAK SPACE}%" if count else ""
            assert cell.strip() == f"{count}{share}"


def test_the_headline_has_the_metrics_with_their_intervals(folders: Folders, parsed: dict[str, Page]) -> None:
    rows = rows_of(folders.run)
    true, predicted = [row["true"] for row in rows], [row["predicted"] for row in rows]
    low, high = json.loads((folders.run / "metrics.json").read_text())["intervals"]["test"]["accuracy"]
    text = parsed["run"].text

    assert f"Test accuracy {accuracy_score(true, predicted):.3f} 95 %: {low:.3f} to {high:.3f}" in text
    assert f"Weighted F1, test {f1_score(true, predicted, average='weighted'):.3f}" in text
    assert "no artist on two sides" in text
    assert "artists. Whole artists are drawn" in text
    assert "Random split" not in text


def test_the_most_confident_mistakes_come_first(folders: Folders, parsed: dict[str, Page]) -> None:
    wrong = [row for row in rows_of(folders.random) if row["true"] != row["predicted"]]
    wrong.sort(key=lambda row: -float(row[f"p_{row['predicted']}"]))

    table = parsed["random"].table("row", "true", "predicted", "confidence")

    assert list(table) == [row["id"] for row in wrong[:15]]
    first = wrong[0]
    assert table[first["id"]][:3] == [
        first["true"],
        first["predicted"],
        f"{float(first['p_' + first['predicted']]):.3f}",
    ]
    assert table[first["id"]][-1] == first["group"]


def test_calibration_names_the_recorded_temperature(folders: Folders, parsed: dict[str, Page]) -> None:
    metrics = json.loads((folders.run / "metrics.json").read_text())

    text = parsed["run"].text

    assert f"Expected calibration error {metrics['test']['ece']:.3f}" in text
    if metrics["temperature"]["temperature"] is None:
        assert metrics["temperature"]["reason"] in text
    else:
        assert f"A temperature of {metrics['temperature']['temperature']:.2f}" in text


def test_a_run_shows_curves_importance_and_map(parsed: dict[str, Page]) -> None:
    text = parsed["run"].text

    for title in (
        "Loss",
        "Weighted F1",
        "Learning rate",
        "Importance of features",
        "Map of the last hidden layer",
    ):
        assert title in text
    for name in ("f0", "f1", "f2", "f3"):  # text in the figures stays text
        assert name in parsed["run"].texts
    assert "data.label=genre" in text
    assert "python train.py data=table" in text


def test_a_random_split_is_marked_and_asks_for_the_grouped_number(parsed: dict[str, Page]) -> None:
    text = parsed["random"].text

    assert "Random split. The rows of one artist are on several sides" in text
    assert "The grouped number is missing." in text
    assert "data.split.method=grouped" in text


def test_a_failed_run_says_why_and_shows_the_end_of_its_log(parsed: dict[str, Page]) -> None:
    text = parsed["failed"].text

    assert "This run failed. DivergedError: epoch 0" in text
    assert "line 99" in text
    assert "line 69 " not in text
    assert "Test accuracy" not in text


def test_a_running_run_says_so(folders: Folders, copied: Copied, tmp_path: Path) -> None:
    folder = copied(folders.run, "metrics.json", "predictions.csv")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"status": "running"}))
    with (folder / "history.csv").open("a") as stream:
        stream.write("12,")  # a line that a killed run has left half written

    page = report(folder, tmp_path)

    assert "This run is not finished." in page.text
    assert "Weighted F1" in page.text


def test_a_baseline_without_checkpoints_and_history_is_reported(
    folders: Folders, copied: Copied, tmp_path: Path
) -> None:
    folder = copied(folders.run, "checkpoints", "history.csv", ".hydra")
    record = json.loads((folder / "run.json").read_text())
    settings = {"model._target_": "sklearn.svm.SVC", "seed": 1}
    record |= {"epochs": None, "best_epoch": None, "baseline": {"name": "svc"}, "settings": settings}
    (folder / "run.json").write_text(json.dumps(record))

    page = report(folder, tmp_path)

    assert "svc, a baseline" in page.text
    assert "no checkpoint from which its network could be rebuilt" in page.text
    assert page.table("genre", "precision", "recall", "F1", "support")
    assert "Training" not in [text.strip() for text in page.texts]


def test_a_random_baseline_says_what_is_missing(folders: Folders, copied: Copied, tmp_path: Path) -> None:
    folder = copied(folders.random, "checkpoints", "history.csv", ".hydra")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"settings": {"seed": 1}}))

    page = report(folder, tmp_path)

    assert "Give the command that made this run again, with a grouped split." in page.text
    assert not (folder / "grouped").exists()


def test_a_run_of_an_earlier_version_is_computed_from_its_predictions(
    folders: Folders, copied: Copied, tmp_path: Path
) -> None:
    folder = copied(folders.run)
    metrics = json.loads((folder / "metrics.json").read_text())
    low, high = metrics["intervals"]["test"]["accuracy"]
    for key in (
        "intervals",
        "reliability",
        "temperature",
        "duplicates",
        "confusion",
        "genre_names",
        "f1_per_genre",
    ):
        del metrics[key]
    (folder / "metrics.json").write_text(json.dumps(metrics))

    text = report(folder, tmp_path, with_rows=False).text

    assert f"95 %: {low:.3f} to {high:.3f}" in text
    assert f"Expected calibration error {metrics['test']['ece']:.3f}" in text
    assert "The effect of temperature scaling is not recorded" in text
    assert "did not look for duplicates" in text


def test_duplicates_and_synthetic_data_are_warned_of(
    folders: Folders, copied: Copied, tmp_path: Path
) -> None:
    folder = copied(folders.run)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["duplicates"] |= {"rows": {"val": 0, "test": 2}, "examples": [["one", "test", "other", "train"]]}
    (folder / "metrics.json").write_text(json.dumps(metrics | {"synthetic_data": True}))

    text = report(folder, tmp_path, with_rows=False).text

    assert "Duplicates. 2 test rows have the same features as a training or validation row" in text
    assert "one = other" in text
    assert "Synthetic data. These numbers say nothing about music." in text


def test_a_changed_table_is_refused_in_words(folders: Folders, copied: Copied, tmp_path: Path) -> None:
    folder = copied(folders.run)
    table = tmp_path / "music.csv"
    config = RunFolder(folder).config_yaml
    path = re.search(r"path: (\S+)", config.read_text()).group(1)  # type: ignore[union-attr]
    table.write_text(Path(path).read_text().rpartition(",")[0] + ",9.5\n")  # one cell
    config.write_text(config.read_text().replace(path, str(table)))

    page = report(folder, tmp_path)

    assert "has changed since the run (another fingerprint)" in page.text
    assert "Importance of features and the map of the last hidden layer are missing" in page.text
    table.unlink()
    assert "cannot be read again" in report(folder, tmp_path).text


def test_a_checkpoint_of_another_run_is_refused_in_words(
    folders: Folders, copied: Copied, tmp_path: Path
) -> None:
    folder = copied(folders.run)
    other = copied(folders.random, name="other") / "checkpoints" / "best.ckpt"
    (folder / "checkpoints" / "best.ckpt").write_bytes(other.read_bytes())

    assert "the checkpoint gives probabilities that differ" in report(folder, tmp_path).text


HOSTILE = "<script>alert(1)</script>\x01$x_1$&\"'"


def test_hostile_names_are_shown_and_do_nothing(folders: Folders, copied: Copied, tmp_path: Path) -> None:
    folder = copied(folders.run)
    path = folder / "predictions.csv"
    with path.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    hostile = [[cell.replace("Ambient", HOSTILE) for cell in row] for row in (header, *rows)]
    rows_written = [[f"<img src=x onerror=1>{row[0]}", HOSTILE, *row[2:]] for row in hostile[1:]]
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([hostile[0], *rows_written])
    for name in ("metrics.json", "run.json"):
        record = (folder / name).read_text().replace('"Ambient"', json.dumps(HOSTILE))
        (folder / name).write_text(record.replace("no artist on", "<script> no artist on"))
    RunFolder(folder).overrides_yaml.write_text(json.dumps([f"data.path={HOSTILE}"]))

    path, _ = write_report(folder, tmp_path / "page.html")
    html = path.read_text(encoding="utf-8")
    page = Page(html)

    assert "<script" not in html
    assert "<img" not in html
    assert "\x01" not in html
    assert "<script>alert(1)</script>" in page.text


def test_a_cross_validation_leads_with_the_mean_over_folds(folders: Folders, parsed: dict[str, Page]) -> None:
    rows = [row for fold in range(3) for row in rows_of(folders.folds / str(fold))]
    values = [json.loads((folders.folds / str(fold) / "metrics.json").read_text()) for fold in range(3)]
    mean = np.mean([value["test"]["accuracy"] for value in values])
    pooled = np.mean([row["true"] == row["predicted"] for row in rows])

    page = parsed["folds"]

    accuracies = [value["test"]["accuracy"] for value in values]
    spread = f"min {min(accuracies):.3f}, max {max(accuracies):.3f}"
    assert f"Test accuracy, over folds {mean:.3f} {spread}" in page.text
    assert "fewer than 4 seeds or folds are too few for an interval" in page.text
    assert f"the model that had not seen it, the accuracy is {pooled:.3f}" in page.text
    support = page.table("genre", "precision", "recall", "F1", "support")["Ambient"][3]
    assert int(support) == sum(row["true"] == "Ambient" for row in rows)


def test_a_sweep_shows_its_leaderboard_its_failures_and_its_best(
    folders: Folders, parsed: dict[str, Page]
) -> None:
    page = parsed["sweep"]

    assert "4 of 5 trials finished, 1 failed" in page.text
    board = page.table("rank")
    assert "best" in board["1"]
    assert {"1", "2"} <= set(board)
    failures = page.table("trial", "settings", "status", "reason")
    assert failures["4"][1] == "failed"
    assert "DivergedError" in failures["4"][2]
    assert "val/f1 against model.dropout" in page.text
    assert "The best configuration's best trial" in page.text
    assert "python train.py -m data=table" in page.text


def test_a_sweep_of_failed_trials_says_so(folders: Folders, copied: Copied, tmp_path: Path) -> None:
    folder = copied(folders.sweep, "0", "1", "2", "3")

    page = report(folder, tmp_path)

    assert "There is no number." in page.text
    assert "0 of 5 trials finished, 1 failed" in page.text


def test_a_sweep_without_a_trial_is_refused(folders: Folders, copied: Copied) -> None:
    folder = copied(folders.sweep, "0", "1", "2", "3", "4")

    with pytest.raises(RunFolderError, match="no trial of this sweep has begun"):
        write_report(folder)


def test_damaged_predictions_are_refused_with_their_file(folders: Folders, copied: Copied) -> None:
    folder = copied(folders.run)
    (folder / "predictions.csv").write_text("id,group,true,predicted,p_a\nx,,Polka,a,0.5\n")

    with pytest.raises(RunFolderError, match=r"predictions\.csv: cannot be read \('Polka'\)"):
        write_report(folder)


def test_of_a_wide_table_only_families_are_shuffled(tmp_path: Path, music_overrides: list[str]) -> None:
    header, rows = rows_of_music(n_features=102)
    header[3:] = [f"{'low' if number < 50 else 'high'}_{number}" for number in range(102)]
    table = write_csv(tmp_path / "wide.csv", header, rows)
    train_into(tmp_path / "wide", [*music_overrides, f"data.path={table}", "trainer.max_epochs=1"])

    text = report(tmp_path / "wide", tmp_path).text

    assert "With 102 features, more than 100, they are shuffled by family only." in text
    assert "low (50)" in text
    assert "high (52)" in text
    assert "low_1" not in text
