"""Run folders written without training, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genre_classifier.runs.folder import RunFolder

NETWORK = "genre_classifier.network.GenreClassifier"
PROTOCOL = {"name": "grouped", "description": "70/15/15 % holdout, no artist on two sides, seed 42"}


def made_trial(
    path: Path,
    val_f1: float | None,
    *,
    settings: Mapping[str, Any] | None = None,
    test_f1: float = 0.5,
    status: str = "finished",
    reason: str | None = None,
    data: str = "abc",
    rows: Mapping[str, int] | None = None,
    protocol: Mapping[str, Any] = PROTOCOL,
    baseline: Mapping[str, Any] | None = None,
    working_folder: str | None = None,
) -> RunFolder:
    """Write a run folder as a trial leaves it; `val_f1` is None for one without metrics.

    With `baseline` the settings of networks are left out.
    """
    folder = RunFolder(path)
    path.mkdir(parents=True)
    network = {"model._target_": NETWORK, "model.dropout": 0.3, "optimizer.lr": 1e-3}
    told = {
        "seed": 42,
        **(network if baseline is None else {}),
        "data.source": "demo",
        **(settings or {}),
    }
    folder.write_run(
        {
            "status": status,
            "reason": reason,
            "settings": told,
            "data": {
                "fingerprint": data,
                "synthetic": False,
                "rows_by_split": rows or {"train": 80, "test": 20},
            },
            "split_protocol": dict(protocol),
            "epochs": 10,
            "seconds": 2.0,
            "objective": val_f1,
            "baseline": baseline,
            "working_folder": working_folder,
        }
    )
    if val_f1 is not None:
        metrics = {"loss": 1.0, "accuracy": val_f1, "f1": val_f1, "f1_macro": val_f1, "top3": 1.0, "ece": 0.1}
        folder.write_metrics(
            {"val": metrics, "test": metrics | {"f1": test_f1, "accuracy": test_f1}, "synthetic_data": False}
        )
    return folder
