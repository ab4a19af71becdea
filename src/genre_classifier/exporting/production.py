"""Make, check and publish the bundle of a chosen checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genre_classifier.bundle.format import (
    Bundle,
    BundleDetails,
    Calibration,
    ChecklistItem,
    RunReference,
    read_bundle,
    wrap_bundle,
)
from genre_classifier.bundle.writing import write_bundle, write_versioned_bundle
from genre_classifier.config.schema import ExportConfig
from genre_classifier.exporting import checklist
from genre_classifier.exporting.candidate import (
    Candidate,
    ReferenceAnswers,
    compute_reference_answers,
    describe_data,
    describe_evaluation,
    load_candidate,
    measure_outcome,
    read_candidate_rows,
    read_or_measure_outcome,
    select_splits,
)
from genre_classifier.exporting.checklist import AskService
from genre_classifier.exporting.choose import Choice
from genre_classifier.exporting.export import Export
from genre_classifier.exporting.refit import train_on_all_rows
from genre_classifier.exporting.staging import staging_folder
from genre_classifier.exporting.temperature import calibrate
from genre_classifier.features.sets import FeatureSetReference, recognise
from genre_classifier.runs.folder import shorten_path
from genre_classifier.runs.rows import RunRows


@dataclass(frozen=True, eq=False)
class _Content:
    """The content of the bundle."""

    candidate: Candidate
    metrics: Mapping[str, Any]
    details: BundleDetails


def produce(settings: ExportConfig, choice: Choice, ask_service: AskService | None) -> Export:
    """Make the production bundle of a chosen checkpoint.

    Raises
    ------
    CheckpointError, RunFolderError, ExportError, BundleError
        An existing bundle of this name does not change.
    """
    judged = candidate = load_candidate(choice)
    rows, why_not = read_candidate_rows(judged)
    answers = compute_reference_answers(judged, rows, why_not)
    outcome = read_or_measure_outcome(judged, rows)
    calibration = None
    if settings.temperature_scaling:
        candidate, calibration = calibrate(judged, rows, why_not)
        assert rows is not None
        outcome = measure_outcome(candidate, rows)
    metrics = select_splits(outcome)
    findings, folds = _check_run(settings, judged, metrics)
    if settings.strict:
        checklist.require(findings[1:] if settings.refit else findings)
    if folds is not None:
        metrics["cross_validation"] = folds
    if metrics:
        metrics["synthetic_data"] = bool(judged.data.get("synthetic"))
    if settings.refit:
        candidate = train_on_all_rows(judged, Path(settings.outputs_dir))
        findings[0] = checklist.check_full_dataset(candidate)
        metrics["held_out_model"] = {
            "run": _format_folder(judged),
            "note": "the metrics are of this run's model; the exported one was trained on all rows afterwards",
        }
    answers = _compute_final_answers(answers, judged, candidate, rows)
    content = _Content(candidate, metrics, _build_details(judged, candidate, calibration, outcome))
    findings += _rehearse(settings, content, answers, ask_service)
    if settings.strict:
        checklist.require(findings)
    details = replace(content.details, production_checklist=tuple(findings))
    name, paths = _publish(settings, replace(content, details=details), answers)
    return Export(
        name=name,
        paths=paths,
        choice=choice,
        refit_folder=candidate.folder.path if settings.refit and candidate.folder is not None else None,
        calibration=calibration,
        checklist=tuple(findings),
        synthetic=bool(judged.data.get("synthetic")),
    )


def _check_run(
    settings: ExportConfig, judged: Candidate, metrics: Mapping[str, Any]
) -> tuple[list[ChecklistItem], dict[str, Any] | None]:
    cross_validation, folds = checklist.check_cross_validation(judged)
    accuracy = checklist.check_test_accuracy(
        judged, metrics, settings.min_test_accuracy, refit=settings.refit is not None, folds=folds
    )
    return [checklist.check_full_dataset(judged), cross_validation, accuracy], folds


def _compute_final_answers(
    answers: ReferenceAnswers, judged: Candidate, final: Candidate, rows: RunRows | None
) -> ReferenceAnswers:
    """Return the same rows with the answers of the network that is exported."""
    if final is judged:
        return answers
    features = answers.features.astype(np.float32)
    probabilities = torch.softmax(final.compute_logits(features), dim=1).numpy()
    description = (
        f"{len(features)} rows" if rows is None else f"{len(features)} {rows.held_side} rows of the run"
    )
    return ReferenceAnswers(answers.features, probabilities, description)


def _rehearse(
    settings: ExportConfig, content: _Content, answers: ReferenceAnswers, ask_service: AskService | None
) -> list[ChecklistItem]:
    """Write the bundle to a temporary folder, use it there, and return the findings."""
    refit = settings.refit is not None
    with staging_folder() as folder:
        _write(settings, content, folder, settings.model_name)
        bundle = read_bundle(folder, settings.model_name)
        wrapper = wrap_bundle(bundle, type(content.candidate.network))
        difference = checklist.compare(bundle, wrapper, answers)
        return [
            checklist.check_scaler(content.candidate, bundle),
            checklist.check_metrics(bundle, refit=refit),
            checklist.record_verification(answers, difference),
            checklist.check_service(bundle, answers, ask_service),
            checklist.check_inference_time(wrapper, answers, settings.max_milliseconds),
        ]


def _publish(
    settings: ExportConfig, content: _Content, answers: ReferenceAnswers
) -> tuple[str, dict[str, Path]]:
    def verify(bundle: Bundle) -> None:
        checklist.compare(bundle, wrap_bundle(bundle, type(content.candidate.network)), answers)

    folder = Path(settings.save_dir)
    if not settings.versioned:
        return settings.model_name, _write(settings, content, folder, settings.model_name, verify)
    candidate = content.candidate
    return write_versioned_bundle(
        candidate.network,
        candidate.scaler,
        candidate.genre_names,
        content.metrics,
        folder,
        details=content.details,
        onnx=settings.onnx,
        verify=verify,
    )


def _write(
    settings: ExportConfig,
    content: _Content,
    folder: Path,
    name: str,
    verify: Callable[[Bundle], None] | None = None,
) -> dict[str, Path]:
    candidate = content.candidate
    return write_bundle(
        candidate.network,
        candidate.scaler,
        candidate.genre_names,
        content.metrics,
        folder,
        name,
        details=content.details,
        onnx=settings.onnx,
        verify=verify,
    )


def _build_details(
    judged: Candidate, final: Candidate, calibration: Calibration | None, outcome: Mapping[str, Any]
) -> BundleDetails:
    protocol = judged.protocol.get("description")
    if final.protocol is not judged.protocol:
        protocol = f"{final.protocol['description']}; the metrics are of the held-out model: {protocol}"
    return BundleDetails(
        feature_names=final.feature_names,
        feature_set=_find_feature_set(final),
        run=RunReference(
            folder=_format_folder(final),
            checkpoint=os.fspath(shorten_path(final.choice.checkpoint)),
            best_epoch=final.epoch,
            seed=final.seed,
            data_fingerprint=final.data.get("fingerprint"),
        ),
        split_protocol=protocol,
        calibration=calibration,
        data=describe_data(judged),
        evaluation=describe_evaluation(outcome, judged.genre_names),
    )


def _find_feature_set(candidate: Candidate) -> FeatureSetReference | None:
    """Return the feature set recorded with the run's table, else the set with the same feature names."""
    recorded = candidate.data.get("feature_set")
    if recorded is not None and "parameters" in recorded:
        return FeatureSetReference.from_dict(recorded)
    known = recognise(candidate.feature_names)
    return None if known is None else known.build_reference()


def _format_folder(candidate: Candidate) -> str:
    path = candidate.choice.checkpoint.parent if candidate.folder is None else candidate.folder.path
    return os.fspath(shorten_path(path))
