"""The network to be exported, with its metadata, and the rows to test its bundle on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from genre_classifier.bundle.format import TOLERANCE, make_typical_rows
from genre_classifier.data.scaler_state import ScalerStatistics
from genre_classifier.data.scaling import standardise
from genre_classifier.errors import ExportError
from genre_classifier.evaluation.metrics import evaluate
from genre_classifier.exporting.choose import Choice
from genre_classifier.runs.folder import RunFolder, read_checkpoint, shorten_path
from genre_classifier.runs.outcome import build_outcome
from genre_classifier.runs.predictions import compute_scores_per_genre
from genre_classifier.runs.rows import RunRows, read_rows
from genre_classifier.training.lit_module import GenreLitModule

Float64 = npt.NDArray[np.float64]
SPLITS = ("train", "val", "test")
BLOCK_ROWS = 8192
DATA_KEYS = (
    "source",
    "origin",
    "licence",
    "citation",
    "synthetic",
    "rows",
    "rows_by_split",
    "groups",
    "group_name",
)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A checkpoint with its network, scaler and metadata.

    Parameters
    ----------
    choice : Choice
    network : nn.Module
        From standardised features to logits, in evaluation mode.
    scaler : StandardScaler
    genre_names, feature_names : tuple of str
    epoch : int
        From 0.
    seed : int
    data, protocol : mapping
        Describe the rows and the split.
    run : mapping or None
        Content of run.json; None for a checkpoint outside a run's folder.
    """

    choice: Choice
    network: nn.Module
    scaler: StandardScaler
    genre_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    epoch: int
    seed: int
    data: Mapping[str, Any]
    protocol: Mapping[str, Any]
    run: Mapping[str, Any] | None

    @property
    def folder(self) -> RunFolder | None:
        """The run's folder; None for a checkpoint outside a run's folder."""
        return self.choice.folder

    @property
    def is_best_epoch(self) -> bool:
        """Whether the run's metrics and predictions belong to this checkpoint."""
        finished = self.run is not None and self.run.get("status") == "finished"
        return finished and self.run is not None and self.run.get("best_epoch") == self.epoch

    def compute_logits(self, features: npt.NDArray[np.float32]) -> Tensor:
        """Return logits, float64 (row, genre), of raw features (row, feature), computed as in training."""
        standardised = torch.from_numpy(standardise(self.scaler, features, np.arange(len(features))))
        with torch.no_grad():
            return torch.cat([self.network(block) for block in standardised.split(BLOCK_ROWS)]).double()


@dataclass(frozen=True, eq=False)
class ReferenceAnswers:
    """Rows and the checkpoint's answers for them. A bundle must give the same answers.

    Parameters
    ----------
    features : np.ndarray [shape=(row, feature), dtype=float64]
        Not standardised.
    probabilities : np.ndarray [shape=(row, genre), dtype=float64]
    description : str
        Says which rows these are, and why if they are not the run's.
    """

    features: Float64
    probabilities: Float64
    description: str


def load_candidate(choice: Choice) -> Candidate:
    """Return the network and metadata of a checkpoint. Nothing in the file is executed.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, or no checkpoint of this project.
    """
    module = GenreLitModule.load(choice.checkpoint)
    return Candidate(
        choice=choice,
        network=module.network.eval(),
        scaler=module.scaler,
        genre_names=tuple(module.genre_names),
        feature_names=tuple(module.feature_names),
        epoch=int(read_checkpoint(choice.checkpoint)["epoch"]),
        seed=int(module.hparams["seed"]),
        data=module.hparams["data"] or {},
        protocol=module.hparams["protocol"] or {},
        run=None if choice.folder is None else choice.folder.read_run(),
    )


def read_candidate_rows(candidate: Candidate) -> tuple[RunRows | None, str]:
    """Return the run's rows, read again.

    Returns
    -------
    tuple of RunRows or None, and str
        The rows, or None if they are missing or changed, with the reason.
    """
    if candidate.folder is None:
        return None, "the checkpoint lies outside of a run's folder, which knows where its rows are"
    return read_rows(candidate.folder, candidate.data.get("fingerprint"))


def read_or_measure_outcome(candidate: Candidate, rows: RunRows | None) -> Mapping[str, Any]:
    """Return what metrics.json says of a candidate: the run's own file, else measured here, else nothing."""
    if candidate.is_best_epoch and candidate.folder is not None:
        return candidate.folder.read_metrics()
    return {} if rows is None else measure_outcome(candidate, rows)


def measure_outcome(candidate: Candidate, rows: RunRows) -> Mapping[str, Any]:
    """Return what metrics.json would say of a candidate, measured on the rows."""
    evaluations = {}
    for split in SPLITS:
        features, genres = rows.side(split)
        if len(genres):
            standardised = standardise(candidate.scaler, features, np.arange(len(features)))
            evaluations[split] = evaluate(candidate.network, torch.from_numpy(standardised), genres)
    return build_outcome(rows.table, rows.split, evaluations)


def select_splits(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of each split that has rows."""
    return {split: dict(outcome[split]) for split in SPLITS if outcome.get(split)}


def describe_evaluation(outcome: Mapping[str, Any], genre_names: Sequence[str]) -> dict[str, Any] | None:
    """Return the evaluation of the test rows, else of the validation rows; None if neither was counted.

    Parameters
    ----------
    outcome : mapping
        Content of metrics.json.
    genre_names : sequence of str
        Order of the genres in the confusion matrix, which is (true genre, predicted genre).
    """
    if outcome.get("genre_names") != list(genre_names):
        return None
    for split in ("test", "val"):
        counts = np.array((outcome.get("confusion") or {}).get(split) or [], dtype=np.int64)
        if counts.shape != (len(genre_names), len(genre_names)) or not counts.sum():
            continue
        return {
            "split": split,
            "rows": int(counts.sum()),
            "intervals": (outcome.get("intervals") or {}).get(split),
            "f1_per_genre": {
                scores.name: scores.f1 for scores in compute_scores_per_genre(counts, genre_names)
            },
            "confusion": counts.tolist(),
            "reliability": (outcome.get("reliability") or {}).get(split),
        }
    return None


def describe_data(candidate: Candidate) -> dict[str, Any] | None:
    """Return what a bundle says of its rows: origin, licence and counts, but no path of this machine."""
    described = {**candidate.data, **((candidate.run or {}).get("data") or {})}
    return {key: described.get(key) for key in DATA_KEYS} if described else None


def compute_reference_answers(candidate: Candidate, rows: RunRows | None, why_not: str) -> ReferenceAnswers:
    """Return the rows to test a bundle on, and the checkpoint's answers.

    Raises
    ------
    ExportError
        The checkpoint's probabilities differ from those in the run's predictions.csv.
    """
    if rows is None:
        statistics = ScalerStatistics.of(candidate.scaler)
        features = make_typical_rows(statistics).astype(np.float32)
        description = f"{len(features)} typical rows made from the scaler's statistics, because {why_not}"
    else:
        features, _ = rows.side(rows.held_side)
        description = f"{len(features)} {rows.held_side} rows"
    probabilities = torch.softmax(candidate.compute_logits(features), dim=1).numpy()
    answers = ReferenceAnswers(features.astype(np.float64), probabilities, description)
    if rows is None or rows.held_side != "test" or not candidate.is_best_epoch:
        return answers
    return _compare_with_file(candidate, rows, answers)


def _compare_with_file(candidate: Candidate, rows: RunRows, answers: ReferenceAnswers) -> ReferenceAnswers:
    folder = candidate.folder
    if folder is None or not folder.predictions_csv.is_file():
        return replace(
            answers, description=f"{answers.description} (there is no predictions.csv to compare with)"
        )
    where = shorten_path(folder.predictions_csv)
    recorded = folder.read_predictions()
    ids = [str(rows.table.ids[row]) for row in rows.split.test]
    if set(ids) != set(recorded):
        raise ExportError(
            f"{where}: lists {len(recorded)} rows, not the {len(ids)} test rows that the run's configuration gives; "
            "the files of the run do not belong together"
        )
    expected = np.array([recorded[name][1] for name in ids])
    if expected.shape != answers.probabilities.shape:
        raise ExportError(f"{where}: {expected.shape[-1]} probabilities per row, not one per genre")
    differences = np.abs(expected - answers.probabilities).max(axis=1)
    worst = int(differences.argmax())
    if not differences[worst] < TOLERANCE:
        raise ExportError(
            f"{where}: id {ids[worst]!r} has probabilities that differ by {differences[worst]:.3g} from those of "
            f"{shorten_path(candidate.choice.checkpoint)}; the files of the run do not belong together"
        )
    return replace(answers, description=f"{answers.description}, the same as in predictions.csv")
