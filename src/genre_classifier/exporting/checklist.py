"""The production checklist. Each item says whether it is met, and the evidence."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from genre_classifier.bundle.format import TOLERANCE, Bundle, ChecklistItem
from genre_classifier.bundle.predictor import Predictor
from genre_classifier.config.settings import replicate_hash
from genre_classifier.data.scaler_state import ScalerStatistics
from genre_classifier.errors import ExportError, GenreClassifierError, RunFolderError
from genre_classifier.exporting.candidate import Candidate, ReferenceAnswers
from genre_classifier.runs.folder import shorten_path
from genre_classifier.runs.listing import read_each
from genre_classifier.runs.ranking.leaderboard import Trial, estimate_metric, read_trial
from genre_classifier.runs.sweep_folder import SweepFolder

# Takes a bundle's folder and name, and raw rows. Returns the service's answer to each row, with all probabilities.
AskService = Callable[[Path, str, Sequence[Sequence[float]]], Sequence[Mapping[str, Any]]]

TIMED_PREDICTIONS = 200
ROWS_FOR_THE_SERVICE = 32

FULL_DATASET = "trained on the full dataset"
CROSS_VALIDATION = "cross-validation performed"


def check_full_dataset(candidate: Candidate) -> ChecklistItem:
    """Compare the number of training rows with the number of all rows."""
    trained = int(candidate.scaler.n_samples_seen_)
    total = int(candidate.data.get("rows", trained))
    if candidate.protocol.get("name") == "all" and _saw_every_batch(candidate):
        left_out = f"; the split's files leave out {total - trained:,} more" if total > trained else ""
        return ChecklistItem(FULL_DATASET, True, f"all {trained:,} rows train{left_out}")
    if not _saw_every_batch(candidate):
        return ChecklistItem(
            FULL_DATASET, False, "trainer.limit_train_batches or overfit_batches kept rows from training"
        )
    evidence = f"{trained:,} of {total:,} rows train, the others are held out; refit=full trains on all"
    return ChecklistItem(FULL_DATASET, False, evidence)


def _saw_every_batch(candidate: Candidate) -> bool:
    try:
        trainer = {} if candidate.folder is None else candidate.folder.read_settings().get("trainer", {})
    except RunFolderError:
        return True
    return trainer.get("limit_train_batches") is None and not trainer.get("overfit_batches")


def check_cross_validation(candidate: Candidate) -> tuple[ChecklistItem, dict[str, Any] | None]:
    """Look for finished runs in the same sweep that differ only in fold and seed.

    Returns
    -------
    tuple of ChecklistItem, and dict or None
        The item, and the metrics over the folds for the metadata. The metrics are None if a fold is missing.
    """
    unmet = "no runs of other folds beside it; python train.py -m hparams_search=cross_validation"
    folder = candidate.folder
    if folder is None:
        return ChecklistItem(CROSS_VALIDATION, False, "the checkpoint lies outside of a run's folder"), None
    try:
        own = read_trial(folder)
    except RunFolderError:
        return ChecklistItem(CROSS_VALIDATION, False, "the run's settings cannot be read"), None
    folds = own.settings.get("data.split.folds")
    if folds is None:
        return ChecklistItem(CROSS_VALIDATION, False, unmet), None
    where = shorten_path(folder.path.absolute().parent)
    replicates = _find_replicates(own)
    tested = {trial.fold for trial in replicates if trial.settings.get("seed") == own.settings.get("seed")}
    if len(tested) < folds:
        evidence = f"{len(tested)} of {folds} folds are finished in {where}; train the others in one sweep"
        return ChecklistItem(CROSS_VALIDATION, False, evidence), None
    return _summarize_folds(replicates, int(folds), where)


def _find_replicates(own: Trial) -> list[Trial]:
    beside = SweepFolder(own.folder.path.absolute().parent).trials()
    key = replicate_hash(own.settings)
    return [
        trial
        for trial in read_each(beside, read_trial)
        if trial.status == "finished" and trial.data == own.data and replicate_hash(trial.settings) == key
    ]


def _summarize_folds(
    trials: Sequence[Trial], folds: int, where: Path
) -> tuple[ChecklistItem, dict[str, Any] | None]:
    if any("test/accuracy" not in trial.metrics for trial in trials):
        return ChecklistItem(CROSS_VALIDATION, False, f"a fold in {where} has no test metrics"), None
    names = [name for name in trials[0].metrics if name.startswith("test/")]
    estimates = {
        name: estimate_metric(name, {trial: trial.metrics[name] for trial in trials}) for name in names
    }
    accuracy, f1 = estimates["test/accuracy"], estimates["test/f1"]
    seeds = len({trial.settings.get("seed") for trial in trials})
    evidence = (
        f"{folds} folds{f' with {seeds} seeds' if seeds > 1 else ''} in {where}: test accuracy {accuracy.mean:.3f} "
        f"(standard deviation {accuracy.deviation:.3f}), F1 {f1.mean:.3f} ({f1.deviation:.3f})"
    )
    record = {
        "folds": folds,
        "seeds": seeds,
        "protocol": trials[0].protocol,
        "test": {name.partition("/")[2]: asdict(estimate) for name, estimate in estimates.items()},
    }
    return ChecklistItem(CROSS_VALIDATION, True, evidence), record


def check_test_accuracy(
    candidate: Candidate,
    metrics: Mapping[str, Mapping[str, float]],
    threshold: float,
    *,
    refit: bool,
    folds: Mapping[str, Any] | None = None,
) -> ChecklistItem:
    """Compare the accuracy on test rows with the threshold, and name the split protocol.

    After a cross-validation the mean over the folds counts. The candidate may be the best of them, and its own accuracy
    says too much.
    """
    item = f"test accuracy above {threshold:.4g}"
    if folds is not None:
        mean = float(folds["test"]["accuracy"]["mean"])
        synthetic = (
            "; synthetic data, which says nothing about music" if candidate.data.get("synthetic") else ""
        )
        evidence = f"{mean:.3f}, the mean over {folds['folds']} folds; {folds['protocol']}{synthetic}"
        return ChecklistItem(item, mean > threshold, evidence)
    accuracy = metrics.get("test", {}).get("accuracy")
    if accuracy is None:
        return ChecklistItem(item, False, "no metric on test rows is known")
    rows = ((candidate.run or {}).get("data") or {}).get("rows_by_split", {}).get("test")
    counted = f"{rows:,} test rows" if rows else "the test rows"
    model = " of the held-out model" if refit else ""
    synthetic = "; synthetic data, which says nothing about music" if candidate.data.get("synthetic") else ""
    protocol = candidate.protocol.get("description", "split protocol unknown")
    evidence = f"{accuracy:.3f}{model} on {counted}; {protocol}{synthetic}"
    return ChecklistItem(item, accuracy > threshold, evidence)


def check_scaler(candidate: Candidate, bundle: Bundle) -> ChecklistItem:
    """Compare the bundle's scaler with the checkpoint's, number by number."""
    difference = ScalerStatistics.of(candidate.scaler).describe_difference(bundle.scaler)
    samples = int(candidate.scaler.n_samples_seen_)
    evidence = difference or (
        f"StandardScaler of {bundle.scaler.n_features} features, fitted on {samples:,} training rows; the "
        "checkpoint's, number by number"
    )
    return ChecklistItem("scaler saved with the model", difference is None, evidence)


def check_metrics(bundle: Bundle, *, refit: bool) -> ChecklistItem:
    """Look for metrics in the written metadata."""
    found = [split for split in ("train", "val", "test") if bundle.metadata["metrics"].get(split)]
    model = " of the held-out model" if refit else ""
    evidence = (
        f"{', '.join(found)}{model}" if found else "none; the checkpoint lies outside of a finished run"
    )
    return ChecklistItem("metadata includes metrics", bool(found), evidence)


def record_verification(answers: ReferenceAnswers, difference: float) -> ChecklistItem:
    """Record the difference from the checkpoint. `compare` has already refused a larger one."""
    evidence = (
        f"{answers.description}: largest difference of a probability from the checkpoint {difference:.2g}"
    )
    return ChecklistItem("bundle verified", True, evidence)


def compare(bundle: Bundle, wrapper: Predictor, answers: ReferenceAnswers) -> float:
    """Return the largest difference between the checkpoint's probabilities and those of a bundle and its ONNX file.

    Raises
    ------
    ExportError
        The difference is above 1e-6.
    """
    difference = _compute_difference(wrapper, answers, f"the written {bundle.path('model').name}")
    if bundle.onnx_file is None or find_spec("onnxruntime") is None:
        return difference
    from genre_classifier.bundle.onnx.inference import OnnxPredictor

    predictor = OnnxPredictor(bundle.onnx_file, bundle.scaler, bundle.genre_names, bundle.feature_names)
    return max(difference, _compute_difference(predictor, answers, f"the written {bundle.path('onnx').name}"))


def _compute_difference(predictor: Predictor, answers: ReferenceAnswers, what: str) -> float:
    found = predictor._compute_probabilities(answers.features)
    difference = float(np.abs(found - answers.probabilities).max())
    if not difference < TOLERANCE:
        raise ExportError(
            f"{what} gives probabilities that differ by {difference:.3g} from the checkpoint's on "
            f"{answers.description}, more than {TOLERANCE:g}; nothing was published"
        )
    return difference


def check_service(bundle: Bundle, reference: ReferenceAnswers, ask: AskService | None) -> ChecklistItem:
    """Send rows to the service in this process and compare its answers with the checkpoint's."""
    item = "service answered with the same result"
    if ask is None:
        return ChecklistItem(item, False, "no service was asked")
    rows = reference.features[:ROWS_FOR_THE_SERVICE].tolist()
    try:
        answers = ask(bundle.folder, bundle.name, rows)
    except GenreClassifierError as error:
        return ChecklistItem(item, False, str(error).replace(f"{bundle.folder}/", ""))
    if len(answers) != len(rows) or any(answer.get("bundle") != bundle.digest for answer in answers):
        return ChecklistItem(item, False, "it answered from another bundle")
    found = [[answer["all_probabilities"][name] for name in bundle.genre_names] for answer in answers]
    difference = float(np.abs(np.array(found) - reference.probabilities[: len(rows)]).max())
    evidence = f"{len(rows)} requests in this process: largest difference of a probability {difference:.2g}"
    return ChecklistItem(item, difference < TOLERANCE, evidence)


def check_inference_time(predictor: Predictor, answers: ReferenceAnswers, limit: float) -> ChecklistItem:
    """Measure the median time of single predictions."""
    rows = answers.features[:TIMED_PREDICTIONS]
    seconds = []
    for number in range(TIMED_PREDICTIONS):
        row = rows[number % len(rows)]
        start = time.perf_counter()
        predictor.predict(row)
        seconds.append(time.perf_counter() - start)
    milliseconds = median(seconds) * 1000
    digits = max(0, 1 - math.floor(math.log10(milliseconds)))
    evidence = f"{milliseconds:.{digits}f} ms, median of {TIMED_PREDICTIONS} predictions on this machine"
    return ChecklistItem(f"inference under {limit:g} ms a sample", milliseconds < limit, evidence)


def find_unmet(items: Sequence[ChecklistItem]) -> list[ChecklistItem]:
    """Return the items that are not met."""
    return [item for item in items if not item.met]


def require(items: Sequence[ChecklistItem]) -> None:
    """Raise ExportError if any item is not met. The message lists these items."""
    if missing := find_unmet(items):
        lines = "\n".join(f"  - {item.item}: {item.evidence}" for item in missing)
        raise ExportError(
            f"strict=true: {len(missing)} item{'s' if len(missing) > 1 else ''} of the production checklist "
            f"{'are' if len(missing) > 1 else 'is'} not met, nothing was published:\n{lines}"
        )
