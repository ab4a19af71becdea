"""The production bundle on disk: its file names, its format, and all checks when it is read.

A bundle is NAME.pt, NAME_scaler.pkl and NAME_metadata.json, and NAME.onnx if the network can be exported. Services
that know only these names and their documented content can read it. This module adds checksums to the metadata.
They prove, before a file is parsed, that the files belong together and are undamaged.

Importing this module loads neither torch nor scikit-learn. Only functions that build a network or a scaler do.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from genre_classifier.bundle.chain import ChainPredictor, Layer
from genre_classifier.bundle.onnx.graph import OnnxGraph, OnnxGraphError, read_graph
from genre_classifier.bundle.predictor import Predictor, check_genre_names
from genre_classifier.bundle.publication import compute_fingerprint, read_files
from genre_classifier.data.scaler_state import MAX_PICKLE_BYTES, ScalerStatistics
from genre_classifier.errors import BundleError
from genre_classifier.features.sets import (
    FEATURE_SETS,
    FeatureSetReference,
    describe_mismatch,
    recognise,
)
from genre_classifier.files.documents import MAX_JSON_BYTES, parse_json
from genre_classifier.files.torch_file import MAX_BYTES, StoredTensor, check_plain, read_torch_file

if TYPE_CHECKING:
    import torch
    from torch import nn

    from genre_classifier.bundle.inference import ModelWrapper

    ModelT = TypeVar("ModelT", bound=nn.Module)

DEFAULT_NAME: Final = "genre_classifier_production"
DEFAULT_FOLDER: Final = "trained_models"
FORMAT_VERSION: Final = 1
TOLERANCE: Final = 1e-6  # largest allowed difference between a written bundle's probabilities and the model's

SUFFIXES: Final = {"model": ".pt", "scaler": "_scaler.pkl", "metadata": "_metadata.json", "onnx": ".onnx"}
_MAX_BYTES: Final = {
    "model": MAX_BYTES,
    "scaler": MAX_PICKLE_BYTES,
    "metadata": MAX_JSON_BYTES,
    "onnx": MAX_BYTES,
}
_NEEDED: Final = ("model", "scaler", "metadata")
_CONTRACT_KEYS: Final = ("model_name", "genre_names", "metrics", "timestamp", "model_architecture")
_OUR_KEYS: Final = ("format_version", "sha256", "scaler")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunReference:
    """The run that a model came from.

    Parameters
    ----------
    folder : str
        Folder of the training run.
    checkpoint : str or None
        File of the checkpoint.
    best_epoch : int or None
        Epoch of the checkpoint.
    seed : int or None
        Seed of the run.
    data_fingerprint : str or None
        Fingerprint of the table it was trained on.
    """

    folder: str
    checkpoint: str | None = None
    best_epoch: int | None = None
    seed: int | None = None
    data_fingerprint: str | None = None


@dataclass(frozen=True)
class Calibration:
    """A temperature that was fitted and is already part of the exported weights.

    Parameters
    ----------
    temperature : float
        The logits were divided by it.
    ece_before, ece_after : float or None
        Expected calibration error on the rows it was fitted on, without and with the temperature.
    n_rows : int or None
        Number of these rows.
    """

    temperature: float
    ece_before: float | None = None
    ece_after: float | None = None
    n_rows: int | None = None


@dataclass(frozen=True)
class ChecklistItem:
    """One line of the production checklist.

    Parameters
    ----------
    item : str
        The requirement.
    met : bool or None
        Whether it is met; None if there is no evidence.
    evidence : str
        The evidence for it.
    """

    item: str
    met: bool | None
    evidence: str


@dataclass(frozen=True)
class BundleDetails:
    """Metadata of a model beyond the contract. Unknown fields are None, and null in the file."""

    feature_names: tuple[str, ...] | None = None
    feature_set: FeatureSetReference | None = None
    run: RunReference | None = None
    split_protocol: str | None = None
    calibration: Calibration | None = None
    production_checklist: tuple[ChecklistItem, ...] | None = None
    data: Mapping[str, Any] | None = None  # the rows it was trained and judged on: origin, licence, counts
    evaluation: Mapping[str, Any] | None = None  # of the held-out rows: intervals, confusion, reliability


@dataclass(frozen=True)
class Bundle:
    """A bundle's files, read from one version and checked against each other.

    Parameters
    ----------
    name : str
        Name under which it was read.
    folder : Path
        Folder it was read from.
    digest : str
        SHA-256 of all its files. Two bundles with the same digest give the same answers.
    metadata : Mapping[str, Any]
        Content of the metadata file.
    genre_names : tuple of str
        Genre of each output.
    feature_names : tuple of str or None
        Names of the features in order; None if the bundle does not name them.
    scaler : ScalerStatistics
        Means and scales of the features.
    model_file : bytes
        Content of the .pt file.
    onnx_file : bytes or None
        Content of the .onnx file; None if there is none, or if its origin is not proven.
    """

    name: str
    folder: Path
    digest: str
    metadata: Mapping[str, Any]
    genre_names: tuple[str, ...]
    feature_names: tuple[str, ...] | None
    scaler: ScalerStatistics
    model_file: bytes
    onnx_file: bytes | None

    def path(self, part: str) -> Path:
        """Return the documented path of `part`: model, scaler, metadata or onnx."""
        return self.folder / build_file_name(self.name, part)


def build_file_name(name: str, part: str) -> str:
    """Return the documented file name of a bundle's part: model, scaler, metadata or onnx."""
    return f"{name}{SUFFIXES[part]}"


def read_bundle(folder: str | Path = DEFAULT_FOLDER, name: str = DEFAULT_NAME) -> Bundle:
    """Read a bundle's files from one version and check them against each other. Nothing in them is executed.

    Parameters
    ----------
    folder : str or Path
        Folder of the bundle.
    name : str
        Name of the bundle.

    Returns
    -------
    Bundle
        The checked files. :func:`build_model` builds the network.

    Raises
    ------
    BundleError
        A file is missing, damaged, of a future format, or contradicts another. The message names the file.
    """
    check_name(name)
    folder = Path(folder)
    file_names = {part: build_file_name(name, part) for part in SUFFIXES}
    needed = [file_names[part] for part in _NEEDED]
    limits = {file_names[part]: _MAX_BYTES[part] for part in SUFFIXES}
    found = read_files(folder, name, limits, needed)
    contents = {part: found[wanted] for part, wanted in file_names.items() if wanted in found}
    return parse_files(contents, folder, name)


def compute_bundle_fingerprint(folder: str | Path, name: str) -> tuple:
    """Return a value that changes when a bundle is replaced. It is cheap enough to compute every second."""
    return compute_fingerprint(Path(folder), [build_file_name(name, part) for part in SUFFIXES])


def build_model(bundle: Bundle, model_class: type[ModelT], device: str | torch.device = "cpu") -> ModelT:
    """Build a bundle's network, ready to predict.

    Parameters
    ----------
    bundle : Bundle
        From :func:`read_bundle`.
    model_class : type
        Class of the network. It has ``from_config``, or takes the configuration's entries as arguments.
    device : str or torch.device
        Where to put it.

    Returns
    -------
    nn.Module
        In evaluation mode.

    Raises
    ------
    BundleError
        The .pt file is damaged, holds something else, or does not fit the class, the scaler or the genres.
    """
    import torch

    path = bundle.path("model")
    state, config = _read_model_file(bundle.model_file, path)
    # First without memory: a configuration may name any size, but the weights in the file have a known size.
    with torch.device("meta"):
        skeleton = _construct(model_class, config, path)
    _check_shapes(state, {key: value.shape for key, value in skeleton.state_dict().items()}, path)
    del skeleton
    with torch.random.fork_rng(
        devices=[]
    ):  # new weights are drawn and overwritten; the caller's random numbers must not change
        model = _construct(model_class, config, path)
    try:
        model.load_state_dict({key: value.to_torch() for key, value in state.items()}, strict=True)
    except (RuntimeError, TypeError) as error:
        raise BundleError(f"{path}: the weights do not fit {model_class.__name__}: {error}") from error
    model.eval()
    _wrap(model, bundle, None)  # raises if outputs and genres, or inputs and scaler, differ
    return model.to(device)


def wrap_bundle(
    bundle: Bundle, model_class: type[nn.Module], device: str | torch.device = "cpu"
) -> ModelWrapper:
    """Return a ModelWrapper over a bundle's network, with its scaler, genres and feature names."""
    return _wrap(build_model(bundle, model_class, device), bundle, device)


def find_feature_set(
    metadata: Mapping[str, Any], feature_names: Sequence[str] | None
) -> FeatureSetReference | None:
    """Return how a model's features were made; None if that is not known.

    Parameters
    ----------
    metadata : Mapping[str, Any]
        Metadata of a bundle. Without a record, the feature set with these names is assumed.
    feature_names : Sequence[str] or None
    """
    recorded = metadata.get("feature_set")
    if recorded is not None:
        try:
            return FeatureSetReference.from_dict(recorded)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"the metadata's feature_set is {recorded!r:.80}: {error!r}") from error
    known = None if feature_names is None else recognise(feature_names)
    return None if known is None else known.build_reference()


def make_predictor(bundle: Bundle) -> Predictor:
    """Return the fastest predictor of a bundle: its weights in numpy if possible, else its network in torch.

    For a GenreClassifier neither torch nor scikit-learn is imported. The ONNX file is for other programs. It is never
    run here.
    """
    # An edited network class has the same keys, so the metadata says if it is a plain chain. Older bundles do not.
    layers = _read_chain(bundle) if bundle.metadata.get("plain_chain", True) is True else None
    if layers is not None:
        return ChainPredictor(layers, bundle.scaler, bundle.genre_names, bundle.feature_names)
    from genre_classifier.network import GenreClassifier

    return wrap_bundle(bundle, GenreClassifier)


def verify_bundle(bundle: Bundle) -> list[tuple[str, str]]:
    """Build a bundle's network, compare all its predictors, and return each check with its finding.

    Raises
    ------
    BundleError
        The network cannot be built, numpy answers otherwise than torch, or the ONNX file has other weights.
    """
    from genre_classifier.network import GenreClassifier

    rows = make_typical_rows(bundle.scaler)
    wrapper = wrap_bundle(bundle, GenreClassifier)
    expected = wrapper._compute_probabilities(rows)
    difference = compare_answers(
        bundle.path("model"), make_predictor(bundle)._compute_probabilities(rows), expected
    )
    checks = [
        ("network", f"{expected.shape[1]} probabilities for each of {len(rows)} rows"),
        ("numpy", f"largest difference of a probability {difference:.2g}"),
    ]
    if bundle.onnx_file is None:
        return [*checks, ("onnx", "none")]
    from genre_classifier.bundle.onnx.export import build_graph

    graph = _read_onnx(bundle.onnx_file, bundle.path("onnx"), bundle.scaler, bundle.genre_names)
    if other := graph.describe_difference(build_graph(wrapper.model, bundle.scaler)):
        raise BundleError(
            f"{bundle.path('onnx')}: not the network in {bundle.path('model').name}: {other} differs"
        )
    return [*checks, ("onnx", "this program's graph, with exactly the weights of the network")]


def _read_onnx(content: bytes, path: Path, scaler: ScalerStatistics, genre_names: Sequence[str]) -> OnnxGraph:
    try:
        return read_graph(content, scaler.n_features, len(genre_names))
    except OnnxGraphError as error:
        raise BundleError(f"{path}: not an ONNX graph of this program: it {error}") from error


def _wrap(model: nn.Module, bundle: Bundle, device: str | torch.device | None) -> ModelWrapper:
    from genre_classifier.bundle.inference import ModelWrapper

    try:
        return ModelWrapper(
            model,
            bundle.scaler.build(),
            bundle.genre_names,
            device or "cpu",
            feature_names=bundle.feature_names,
        )
    except ValueError as error:
        raise BundleError(f"{bundle.path('model')}: {error}") from error


def check_name(name: str) -> None:
    """Raise BundleError unless `name` is allowed as a bundle's name."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > 200:
        raise BundleError(
            f"model_name={name!r}: expected letters, digits, '.', '_', '+' or '-', a letter or digit first"
        )


def compare_answers(path: Path, found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference of a probability. BundleError names `path` if it is above the tolerance."""
    difference = float(np.abs(found - expected).max())
    if not difference < TOLERANCE:
        raise BundleError(
            f"{path}: gives probabilities that differ from the model's by {difference:.3g}, more than "
            f"{TOLERANCE:g}"
        )
    return difference


def make_typical_rows(scaler: ScalerStatistics) -> np.ndarray:
    """Return random rows, float64 (row, feature), with the means and scales of the training rows."""
    deviations = np.random.default_rng(0).normal(size=(64, scaler.n_features))
    scale = np.ones(scaler.n_features) if scaler.scale is None else np.array(scaler.scale)
    mean = np.zeros(scaler.n_features) if scaler.mean is None else np.array(scaler.mean)
    return mean + deviations * scale


def parse_files(contents: Mapping[str, bytes], folder: Path, name: str) -> Bundle:
    """Return a bundle made from its files' contents, after checking them against each other."""
    paths = {part: folder / build_file_name(name, part) for part in SUFFIXES}
    missing = [str(paths[part]) for part in _NEEDED if part not in contents]
    if missing:
        raise BundleError(f"{', '.join(missing)}: no such file; export a bundle there, or name another one")
    metadata = _read_metadata(contents["metadata"], paths["metadata"])
    is_ours = any(key in metadata for key in _OUR_KEYS)
    if is_ours:
        _check_digests(metadata, contents, paths)
    genres = _check_contract(metadata, paths["metadata"])
    pickled = ScalerStatistics.from_pickle(contents["scaler"], str(paths["scaler"]))
    scaler = pickled
    if is_ours:
        scaler = ScalerStatistics.from_metadata(metadata["scaler"], str(paths["metadata"]))
        if difference := scaler.describe_difference(pickled):
            raise BundleError(
                f"{paths['scaler']}: not the scaler that {paths['metadata'].name} describes: {difference}"
            )
    feature_names = _read_feature_names(metadata, paths["metadata"], scaler)
    if is_ours and "onnx" in contents:  # so that no user of the bundle runs an unknown program
        _read_onnx(contents["onnx"], paths["onnx"], scaler, genres)
    digests = "".join(f"{part} {compute_sha256(contents[part])}\n" for part in SUFFIXES if part in contents)
    if not is_ours and "onnx" in contents:
        _log.warning("%s is ignored; the metadata does not say which model it belongs to", paths["onnx"])
    return Bundle(
        name=name,
        folder=folder,
        digest=compute_sha256(digests.encode()),
        metadata=metadata,
        genre_names=genres,
        feature_names=feature_names,
        scaler=scaler,
        model_file=contents["model"],
        onnx_file=contents.get("onnx") if is_ours else None,
    )


def _read_metadata(content: bytes, path: Path) -> dict[str, Any]:
    metadata = parse_json(content, path, BundleError)
    if not isinstance(metadata, dict):
        raise BundleError(f"{path}: expected an object with the keys {', '.join(_CONTRACT_KEYS)}")
    written = metadata.get("format_version", FORMAT_VERSION)
    if type(written) is not int or written < 1:
        raise BundleError(f"{path}: format_version is {written!r}, expected a whole number")
    if written > FORMAT_VERSION:
        raise BundleError(
            f"{path}: format {written} is newer than this program, which reads up to {FORMAT_VERSION}; "
            "upgrade genre-classifier"
        )
    return metadata


def _check_digests(
    metadata: Mapping[str, Any], contents: Mapping[str, bytes], paths: Mapping[str, Path]
) -> None:
    """Raise BundleError unless the files have the checksums in the metadata."""
    path = paths["metadata"]
    missing = [key for key in _OUR_KEYS if key not in metadata]
    if missing:
        raise BundleError(f"{path}: lacks {', '.join(missing)}; the file was changed after it was written")
    digests = metadata["sha256"]
    if not isinstance(digests, dict) or not {*_NEEDED} <= digests.keys() <= {*SUFFIXES}:
        raise BundleError(f"{path}: sha256 does not list the bundle's files; the file was changed")
    if digests["metadata"] != compute_metadata_digest(metadata):
        raise BundleError(f"{path}: its content does not match its own SHA-256; the file was changed")
    for part, expected in digests.items():
        if part == "metadata":
            continue
        if part not in contents:
            raise BundleError(
                f"{paths[part]}: no such file, but {path.name} lists it; export the bundle again"
            )
        found = compute_sha256(contents[part])
        if found != expected:
            raise BundleError(
                f"{paths[part]}: SHA-256 is {found}, {path.name} has {expected}; the file is damaged or "
                "belongs to another bundle; export again, or copy all files together"
            )
    if "onnx" in contents and "onnx" not in digests:
        raise BundleError(
            f"{paths['onnx']}: {path.name} does not list it; it belongs to another bundle, remove it"
        )


def _check_contract(metadata: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Return the genre names. Raise BundleError unless the metadata has the documented keys and types."""
    missing = [key for key in _CONTRACT_KEYS if key not in metadata]
    if missing:
        raise BundleError(f"{path}: lacks the key {', '.join(missing)}")
    for key, kind in (("model_name", str), ("genre_names", list), ("metrics", dict), ("timestamp", str)):
        if not isinstance(metadata[key], kind):
            raise BundleError(f"{path}: {key} is {metadata[key]!r:.60}, expected a {kind.__name__}")
    try:
        datetime.fromisoformat(metadata["timestamp"])
    except ValueError as error:
        raise BundleError(f"{path}: timestamp {metadata['timestamp']!r} is not ISO 8601") from error
    try:
        return check_genre_names(metadata["genre_names"])
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from error


def _read_feature_names(
    metadata: Mapping[str, Any], path: Path, scaler: ScalerStatistics
) -> tuple[str, ...] | None:
    names = metadata.get("feature_names")
    if names is None:
        return scaler.feature_names
    if not isinstance(names, list):
        raise BundleError(f"{path}: feature_names is {names!r:.60}, expected a list")
    check_feature_names(tuple(names), None, scaler, f"{path}: feature_names")
    return tuple(names)


def check_feature_names(
    names: tuple[str, ...] | None,
    feature_set: FeatureSetReference | None,
    scaler: ScalerStatistics,
    where: str,
) -> None:
    """Raise BundleError, which begins with `where`, unless the names fit the scaler and the feature set."""
    if names is None:
        return
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise BundleError(f"{where}: expected different strings")
    if len(names) != scaler.n_features:
        raise BundleError(
            f"{where}: {len(names)} names, the scaler was fitted on {scaler.n_features} features"
        )
    if scaler.feature_names is not None and (difference := describe_mismatch(scaler.feature_names, names)):
        raise BundleError(f"{where}: not those the scaler was fitted with: {difference}")
    known = None if feature_set is None else FEATURE_SETS.get(feature_set.name)
    if known is None or feature_set is None or known.version != feature_set.version:
        return
    # A selection may be in any order, the whole set only in its own.
    if not set(names) < set(known.features) and (difference := describe_mismatch(known.features, names)):
        raise BundleError(f"{where}: not those of feature set {known.name}: {difference}")


def _read_model_file(content: bytes, path: Path) -> tuple[dict[str, StoredTensor], dict[str, Any]]:
    """Return state dict and configuration of a .pt file, read as data and without torch."""
    saved = read_torch_file(content, path, BundleError)
    if not isinstance(saved, dict) or not {"model_state_dict", "model_config"} <= saved.keys():
        raise BundleError(f"{path}: expected model_state_dict and model_config inside")
    state, config = saved["model_state_dict"], saved["model_config"]
    if not isinstance(state, dict) or not isinstance(config, dict):
        raise BundleError(f"{path}: model_state_dict and model_config are to be mappings")
    try:
        check_plain(config, "model_config")
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from error
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, StoredTensor):
            raise BundleError(f"{path}: {str(key)!r:.80} is not a plain tensor")
        if value.is_floating_point and not np.isfinite(value.to_numpy()).all():
            raise BundleError(f"{path}: {key:.80} has values that are not finite")
    return state, config


def _read_chain(bundle: Bundle) -> list[Layer] | None:
    """Return the layers of a bundle's GenreClassifier, ready for numpy; None for every other network.

    Whatever is None here is built by torch, which says what is wrong with it.
    """
    state, config = _read_model_file(bundle.model_file, bundle.path("model"))
    widths = config.get("hidden_dims")
    if not isinstance(widths, list | tuple) or not all(type(width) is int for width in widths):
        return None
    sizes = [bundle.scaler.n_features, *widths, len(bundle.genre_names)]
    if [config.get("input_dim"), *widths, config.get("num_classes")] != sizes:
        return None
    layers, keys, position = [], set(), 0
    for number, (n_inputs, n_outputs) in enumerate(pairwise(sizes)):
        weight, bias = state.get(f"network.{position}.weight"), state.get(f"network.{position}.bias")
        keys |= {f"network.{position}.weight", f"network.{position}.bias"}
        for value, shape in ((weight, (n_outputs, n_inputs)), (bias, (n_outputs,))):
            if value is None or value.kind != "float32" or value.values.shape != shape:
                return None
        assert weight is not None and bias is not None  # noqa: PT018 - for the type checker
        layers.append(Layer(np.ascontiguousarray(weight.values), bias.values, number < len(widths)))
        # Linear and ReLU, and dropout after every hidden layer but the last.
        position += 3 if number < len(widths) - 1 else 2
    return layers if state.keys() == keys else None


def _construct(model_class: type[ModelT], config: dict[str, Any], path: Path) -> ModelT:
    try:
        rebuild = getattr(model_class, "from_config", None)
        return model_class(**config) if rebuild is None else rebuild(config)
    except Exception as error:
        raise BundleError(
            f"{path}: model_config {config!r:.200} does not fit {model_class.__name__}: {error}"
        ) from error


def _check_shapes(state: Mapping[str, StoredTensor], wanted: Mapping[str, Sequence[int]], path: Path) -> None:
    missing = sorted(wanted.keys() - state.keys())
    extra = sorted(state.keys() - wanted.keys())
    if missing or extra:
        differences = [
            f"{word} {', '.join(keys[:6])}"
            for word, keys in (("lacks", missing), ("has unknown", extra))
            if keys
        ]
        raise BundleError(f"{path}: model_state_dict {' and '.join(differences)}")
    for key, value in state.items():
        if value.values.shape != tuple(wanted[key]):
            raise BundleError(
                f"{path}: {key} has shape {value.values.shape}, model_config asks for {tuple(wanted[key])}"
            )


def compute_metadata_digest(metadata: Mapping[str, Any]) -> str:
    """Return the SHA-256 of metadata without the digest of itself, whatever its spacing and order of keys."""
    content = dict(metadata)
    content["sha256"] = {part: digest for part, digest in metadata["sha256"].items() if part != "metadata"}
    return compute_sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def compute_sha256(content: bytes) -> str:
    """Return the SHA-256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
