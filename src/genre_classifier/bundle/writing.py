"""Write the production bundle: encode its files, publish them in one step, and check the answers before that."""

from __future__ import annotations

import copy
import io
import json
import logging
import math
import pickle
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from genre_classifier.bundle.format import (
    DEFAULT_FOLDER,
    DEFAULT_NAME,
    FORMAT_VERSION,
    SUFFIXES,
    Bundle,
    BundleDetails,
    build_file_name,
    check_feature_names,
    check_name,
    compare_answers,
    compute_metadata_digest,
    compute_sha256,
    make_typical_rows,
    parse_files,
    wrap_bundle,
)
from genre_classifier.bundle.predictor import check_genre_names
from genre_classifier.bundle.publication import locked, publish
from genre_classifier.data.scaler_state import PICKLE_PROTOCOL, ScalerStatistics
from genre_classifier.errors import BundleError

if TYPE_CHECKING:
    from torch import nn

_LIBRARIES: Final = ("torch", "numpy", "scikit-learn", "genre-classifier")
_MAX_DEPTH: Final = 50  # of lists and objects in the metadata

_log = logging.getLogger(__name__)


def write_bundle(
    model: nn.Module,
    scaler: Any,
    genre_names: Sequence[str],
    metrics: Mapping[str, Any],
    folder: str | Path = DEFAULT_FOLDER,
    name: str = DEFAULT_NAME,
    *,
    details: BundleDetails | None = None,
    onnx: bool | None = None,
    verify: Callable[[Bundle], None] | None = None,
) -> dict[str, Path]:
    """Write a bundle. It replaces a bundle of the same name in one step.

    Parameters
    ----------
    model : nn.Module
        The trained network. A calibration's temperature is already part of its weights.
    scaler : StandardScaler
        Fitted on the training rows.
    genre_names : Sequence[str]
        Genre of each output.
    metrics : Mapping[str, Any]
        Numbers, text, and lists and mappings of them. Numbers of numpy become numbers of Python.
    folder : str or Path
        It is made if it does not exist.
    name : str
        Letters, digits and ``. _ + -``.
    details : BundleDetails or None
        More metadata. Feature names default to those of the scaler.
    onnx : bool or None
        Whether to write NAME.onnx. None: if the packages are installed and the network allows it.
    verify : callable or None
        Called with the bundle as read from disk, before it is published. An exception stops the export.

    Returns
    -------
    dict of str to Path
        The documented paths: ``model``, ``scaler``, ``metadata``, and ``onnx`` if it was written.

    Raises
    ------
    BundleError
        The parts do not fit together, the written bundle answers otherwise than the model, or the disk refuses. An
        earlier bundle of this name stays as it was.
    """
    check_name(name)
    folder = Path(folder)
    contents = _encode(model, scaler, genre_names, metrics, name, details or BundleDetails(), onnx)
    with locked(folder):
        return _publish(folder, name, contents, model, scaler, verify)


def write_versioned_bundle(
    model: nn.Module,
    scaler: Any,
    genre_names: Sequence[str],
    metrics: Mapping[str, Any],
    folder: str | Path = DEFAULT_FOLDER,
    *,
    details: BundleDetails | None = None,
    onnx: bool | None = None,
    verify: Callable[[Bundle], None] | None = None,
    now: datetime | None = None,
) -> tuple[str, dict[str, Path]]:
    """Write a bundle under a new name, ``genre_classifier_v{version}_{timestamp}``. Nothing is overwritten.

    Parameters
    ----------
    model, scaler, genre_names, metrics, folder, details, onnx, verify
        As in :func:`write_bundle`.
    now : datetime or None
        Time in the name; None: the present, in UTC.

    Returns
    -------
    tuple of str and dict of str to Path
        The name, and the paths as in :func:`write_bundle`. The version is one above the highest in the folder.
    """
    folder = Path(folder)
    with locked(folder):
        name = next_version_name(folder, now or datetime.now(UTC))
        contents = _encode(model, scaler, genre_names, metrics, name, details or BundleDetails(), onnx)
        return name, _publish(folder, name, contents, model, scaler, verify)


def next_version_name(folder: Path, now: datetime) -> str:
    """Return ``genre_classifier_v{version}_{timestamp}``. The version is one above the highest in the folder."""
    pattern = re.compile(r"genre_classifier_v(\d+)_.*")
    found = [match for entry in folder.iterdir() if (match := pattern.fullmatch(entry.name))]
    highest = max((int(match.group(1)) for match in found), default=0)
    return f"genre_classifier_v{highest + 1}_{now:%Y%m%d_%H%M%S}"


def _encode(
    model: nn.Module,
    scaler: Any,
    genre_names: Sequence[str],
    metrics: Mapping[str, Any],
    name: str,
    details: BundleDetails,
    onnx: bool | None,
) -> dict[str, bytes]:
    """Return the content of each file of a new bundle, by part."""
    from genre_classifier.bundle.inference import list_linear_steps

    statistics = ScalerStatistics.of(scaler)
    try:
        genres = check_genre_names(genre_names)
    except ValueError as error:
        raise BundleError(str(error)) from error
    feature_names = details.feature_names if details.feature_names is not None else statistics.feature_names
    check_feature_names(feature_names, details.feature_set, statistics, "feature_names")
    contents = {
        "model": _encode_model(model),
        "scaler": pickle.dumps(scaler, protocol=PICKLE_PROTOCOL),
    }
    onnx_file = _encode_onnx(model, statistics, genres, feature_names, onnx)
    if onnx_file is not None:
        contents["onnx"] = onnx_file
    content: dict[str, Any] = {
        "model_name": name,
        "genre_names": list(genres),
        "metrics": to_plain(dict(metrics), "metrics"),
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "model_architecture": type(model).__name__,
        "plain_chain": list_linear_steps(model) is not None,
        "format_version": FORMAT_VERSION,
        "feature_names": None if feature_names is None else list(feature_names),
        "scaler": statistics.to_metadata(),
        "library_versions": _collect_library_versions(),
        "temperature": None
        if details.calibration is None
        else to_plain(details.calibration.temperature, "temperature"),
    }
    for key in (
        "feature_set",
        "run",
        "split_protocol",
        "calibration",
        "production_checklist",
        "data",
        "evaluation",
    ):
        content[key] = to_plain(_as_plain(getattr(details, key)), key)
    content["sha256"] = {part: compute_sha256(contents[part]) for part in contents}
    content["sha256"]["metadata"] = compute_metadata_digest(content)
    contents["metadata"] = (
        json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    ).encode()
    return contents


def _encode_model(model: nn.Module) -> bytes:
    import torch

    describe = getattr(model, "get_config", None)
    config = describe() if callable(describe) else {}
    state = {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}
    for key, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise BundleError(f"the network's {key} has values that are not finite; it cannot be exported")
    buffer = io.BytesIO()
    torch.save({"model_state_dict": state, "model_config": to_plain(config, "model_config")}, buffer)
    return buffer.getvalue()


def _encode_onnx(
    model: nn.Module,
    statistics: ScalerStatistics,
    genres: tuple[str, ...],
    feature_names: tuple[str, ...] | None,
    wanted: bool | None,
) -> bytes | None:
    if wanted is False:
        return None
    from genre_classifier.bundle.onnx.export import build_onnx, can_export, is_available

    if wanted is None and not (is_available() and can_export(model)):
        reason = (
            f"{type(model).__name__} is not a chain of layers" if is_available() else "onnx is not installed"
        )
        _log.info("no ONNX file: %s", reason)
        return None
    return build_onnx(model, statistics, genre_names=genres, feature_names=feature_names)


def _publish(
    folder: Path,
    name: str,
    contents: Mapping[str, bytes],
    model: nn.Module,
    scaler: Any,
    verify: Callable[[Bundle], None] | None,
) -> dict[str, Path]:
    known_names = {build_file_name(name, part): part for part in SUFFIXES}

    def check(written: Mapping[str, bytes]) -> None:
        bundle = parse_files({known_names[key]: content for key, content in written.items()}, folder, name)
        _check_answers(bundle, model, scaler)
        if verify is not None:
            verify(bundle)

    files = {build_file_name(name, part): content for part, content in contents.items()}
    publish(folder, name, files, list(known_names), check)
    return {part: folder / build_file_name(name, part) for part in SUFFIXES if part in contents}


def _check_answers(bundle: Bundle, model: nn.Module, scaler: Any) -> None:
    """Raise BundleError if a bundle's network or ONNX file gives other probabilities than the model in memory."""
    from genre_classifier.bundle.inference import ModelWrapper

    try:
        # A copy, because wrapping moves a model to the wrapper's device.
        original = ModelWrapper(copy.deepcopy(model), scaler, bundle.genre_names)
    except ValueError as error:
        raise BundleError(f"the parts of the bundle do not fit together: {error}") from error
    rows = make_typical_rows(bundle.scaler)
    expected = original._compute_probabilities(rows)
    answers = {bundle.path("model"): wrap_bundle(bundle, type(model))._compute_probabilities(rows)}
    if bundle.onnx_file is not None:
        from genre_classifier.bundle.onnx.inference import OnnxPredictor

        predictor = OnnxPredictor(bundle.onnx_file, bundle.scaler, bundle.genre_names, bundle.feature_names)
        answers[bundle.path("onnx")] = predictor._compute_probabilities(rows)
    for path, found in answers.items():
        compare_answers(path, found, expected)


def _as_plain(value: Any) -> Any:
    """Return the dictionary of a dataclass, or a list of them."""
    if isinstance(value, tuple):
        return [_as_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return asdict(value)
    return value


def to_plain(value: Any, where: str, depth: int = 0) -> Any:
    """Return `value` made of what JSON has; BundleError names the place of anything else."""
    if depth > _MAX_DEPTH:
        raise BundleError(f"{where}: nested more than {_MAX_DEPTH} deep")
    if isinstance(value, np.generic) or (hasattr(value, "item") and getattr(value, "ndim", 1) == 0):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BundleError(f"{where} is {value}; expected a finite number, or None if it is not known")
        return float(value)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise BundleError(
                f"{where}: expected text for keys, found {[k for k in value if not isinstance(k, str)]!r}"
            )
        return {key: to_plain(item, f"{where}[{key!r}]", depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    raise BundleError(f"{where} is a {type(value).__name__}; expected numbers, text, lists and mappings")


def _collect_library_versions() -> dict[str, str | None]:
    from importlib.metadata import (  # only a writer needs it, and it is slow to import
        PackageNotFoundError,
        version,
    )

    found: dict[str, str | None] = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = None
    return found
