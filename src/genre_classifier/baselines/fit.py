"""Fit and judge a baseline with the rows, scaler and metrics of a network's run, and write its run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from genre_classifier.baselines.models import Baseline, Float64, Int64, fit_baseline
from genre_classifier.config.schema import DataConfig
from genre_classifier.config.settings import flatten_settings
from genre_classifier.data.scaling import fit_scaler, save_scaler, standardise
from genre_classifier.data.splits import Split, make_split
from genre_classifier.data.table import FeatureTable
from genre_classifier.errors import SplitError
from genre_classifier.evaluation.metrics import evaluate_logits
from genre_classifier.runs.folder import RunFolder, writing
from genre_classifier.runs.outcome import write_outcome
from genre_classifier.runs.record import Record


@dataclass(frozen=True)
class DividedTable:
    """A table with its split and scaler.

    Parameters
    ----------
    table : FeatureTable
    split : Split
    """

    table: FeatureTable
    split: Split

    @cached_property
    def scaler(self) -> StandardScaler:
        """The StandardScaler, fitted on the training rows only."""
        return fit_scaler(self.table.features, self.split.train)

    def side(self, name: str) -> tuple[Float64, Int64]:
        """Return the standardised features (row, feature) and genres (row,) of ``train``, ``val`` or ``test``.

        The features are rounded to float32, as a network has them.
        """
        rows = self.split.sides()[name]
        return standardise(self.scaler, self.table.features, rows).astype(np.float64), self.table.genres[rows]


def divide_table(table: FeatureTable, data: DataConfig) -> DividedTable:
    """Return a table with the split and scaler that a network's run would use.

    Raises
    ------
    SplitError
        The rows cannot be divided as asked, or no row is held out.
    """
    split = make_split(table, data.split)
    if not len(split.test):
        raise SplitError(
            f"{table.where}: {split.protocol.description}, so there is nothing to compare models on; leave out "
            "data/split=all, or give data.split.test a share"
        )
    return DividedTable(table, split)


def build_baseline_config(cfg: DictConfig, baseline: Baseline, seed: int, folder: Path) -> DictConfig:
    """Return a network's configuration without the settings that a baseline does not have.

    Parameters
    ----------
    cfg : DictConfig
        The configuration of a network's run on the same rows.
    baseline : Baseline
    seed : int
    folder : Path
    """
    return OmegaConf.create(
        {
            "data": cfg.data,
            "model": {"_target_": baseline.target},
            "seed": seed,
            "optimized_metric": cfg.optimized_metric,
            "run_dir": str(folder),
        }
    )


def run_baseline(baseline: Baseline, cfg: DictConfig, rows: DividedTable, *, jobs: int = 1) -> dict[str, Any]:
    """Choose, fit and judge a baseline, and write its run folder; return run.json's content.

    Parameters
    ----------
    baseline : Baseline
    cfg : DictConfig
        See `build_baseline_config`.
    rows : DividedTable
    jobs : int
        Number of processes, and of threads.

    Raises
    ------
    Exception
        Any exception of the model. run.json then says ``failed`` and why.
    """
    folder = RunFolder(Path(cfg.run_dir))
    record = Record(folder, flatten_settings(cfg))
    content: dict[str, Any] = {"name": baseline.name, "seeded": baseline.seeded}
    record.content["baseline"] = content
    if baseline.extra is not None:
        record.content["versions"][baseline.package] = version(baseline.package)
    with record.kept():
        folder.write_config(cfg)
        record.describe(rows.table, rows.split)
        with writing(folder.scaler):
            save_scaler(rows.scaler, folder.scaler)
        features, genres = rows.side("train")
        groups = None if rows.table.groups is None else rows.table.groups[rows.split.train]
        with threadpool_limits(jobs):
            fitted = fit_baseline(
                baseline, features, genres, groups, seed=cfg.seed, fold_seed=cfg.data.split.seed, jobs=jobs
            )
            content |= fitted.selection.as_dict()
            evaluations = {
                name: evaluate_logits(
                    fitted.compute_logits(rows.side(name)[0]), torch.from_numpy(rows.table.genres[held])
                )
                for name, held in rows.split.sides().items()
                if len(held)
            }
        outcome = write_outcome(folder, rows.table, rows.split, evaluations)
        record.finish(_get_value(outcome, cfg.optimized_metric), record.measure_seconds(), None, None)
    return record.content


def _get_value(outcome: Mapping[str, Any], metric: str) -> float:
    side, _, name = metric.partition("/")
    return float(outcome.get(side, {}).get(name, float("nan")))
