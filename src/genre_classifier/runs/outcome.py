"""Write a model's results to its run folder. Networks and baselines share this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import from_numpy

from genre_classifier.data.duplicates import find_duplicates
from genre_classifier.data.splits import Split
from genre_classifier.data.table import FeatureTable
from genre_classifier.evaluation.calibration import measure_temperature_effect
from genre_classifier.evaluation.intervals import compute_intervals
from genre_classifier.evaluation.metrics import Evaluation
from genre_classifier.evaluation.reliability import compute_reliability
from genre_classifier.runs.folder import RunFolder


def write_outcome(
    folder: RunFolder, table: FeatureTable, split: Split, evaluations: Mapping[str, Evaluation]
) -> dict[str, Any]:
    """Write metrics.json, and predictions.csv if there are test rows. Return metrics.json's content.

    Parameters
    ----------
    folder : RunFolder
    table : FeatureTable
    split : Split
    evaluations : mapping of str to Evaluation
        By side. Only sides with rows have one.
    """
    outcome = build_outcome(table, split, evaluations)
    folder.write_metrics(outcome)
    if "test" in evaluations:
        folder.write_predictions(*_build_predictions(table, split, evaluations["test"]))
    return outcome


def build_outcome(table: FeatureTable, split: Split, evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    """Return the content of metrics.json, without its version.

    Parameters
    ----------
    table : FeatureTable
    split : Split
    evaluations : mapping of str to Evaluation
        By side, those with rows.
    """
    names = table.genre_names
    outcome: dict[str, Any] = {side: evaluation.as_dict() for side, evaluation in evaluations.items()}
    outcome |= {
        "split_protocol": split.protocol.as_dict(),
        "synthetic_data": table.source.synthetic,
        "f1_per_genre": {
            side: dict(zip(names, evaluation.scores.f1_per_genre.tolist(), strict=True))
            for side, evaluation in evaluations.items()
        },
        "confusion": {side: evaluation.confusion.tolist() for side, evaluation in evaluations.items()},
        "genre_names": list(names),
        "duplicates": find_duplicates(table, split).as_dict(),
    }
    if "test" in evaluations:
        outcome |= _evaluate_test_rows(table, split, evaluations)
    return outcome


def _evaluate_test_rows(
    table: FeatureTable, split: Split, evaluations: Mapping[str, Evaluation]
) -> dict[str, Any]:
    test = evaluations["test"]
    logits, genres = test.logits.cpu().double(), table.genres[split.test]
    groups = None if table.groups is None else table.groups[split.test]
    found = compute_intervals(logits.numpy(), genres, groups, table.group_name or "group")
    bins = compute_reliability(test.probabilities.cpu().double().numpy(), genres)
    about: dict[str, Any] = {
        "intervals": {} if found is None else {"test": found.as_dict()},
        "reliability": {
            "test": [[one.low, one.high, one.rows, one.confidence, one.accuracy] for one in bins]
        },
    }
    if "val" in evaluations:
        about["temperature"] = measure_temperature_effect(
            evaluations["val"].logits.cpu().double(),
            from_numpy(table.genres[split.val]),
            logits,
            from_numpy(genres),
        )
    return about


def _build_predictions(
    table: FeatureTable, split: Split, evaluation: Evaluation
) -> tuple[list[str], Iterator[list[Any]]]:
    names = table.genre_names
    header = ["id", "group", "true", "predicted", *(f"p_{name}" for name in names)]
    probabilities = evaluation.probabilities.tolist()
    predicted = evaluation.logits.argmax(dim=1).tolist()
    lines = (
        [
            table.ids[row],
            "" if table.groups is None else table.groups[row],
            names[table.genres[row]],
            names[predicted[position]],
            *(f"{p:.9g}" for p in probabilities[position]),
        ]
        for position, row in enumerate(split.test)
    )
    return header, lines
