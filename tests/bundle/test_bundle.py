from __future__ import annotations

import io
import json
import logging
import pickle
import shutil
import subprocess
import sys
import warnings
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn

from genre_classifier import GenreClassifier
from genre_classifier.bundle import format as bundle
from genre_classifier.bundle import writing
from genre_classifier.bundle.format import (
    BundleDetails,
    Calibration,
    ChecklistItem,
    FeatureSetReference,
    RunReference,
    build_model,
    compute_bundle_fingerprint,
    read_bundle,
    wrap_bundle,
)
from genre_classifier.bundle.writing import write_bundle, write_versioned_bundle
from genre_classifier.errors import BundleError
from genre_classifier.model_utils import load_production_model, save_model_for_production
from tests.data.test_scaler_state import malicious
from tests.example_models import (
    FEATURES,
    GENRES,
    METRICS,
    make_model,
    make_rows,
    make_scaler,
    reference_probabilities,
)

NAME = "genre_classifier_production"
ROWS = make_rows()
MODEL = make_model()
SCALER = make_scaler(ROWS)
EXPECTED = reference_probabilities(MODEL, SCALER, ROWS)
DETAILS = BundleDetails(
    feature_names=FEATURES,
    feature_set=FeatureSetReference("core20", 1, {"sample_rate": 22_050}),
    run=RunReference("outputs/runs/2026-11-23/14-05-09", "checkpoints/best.ckpt", 12, 42, "ab12"),
    split_protocol="grouped by artist",
    calibration=Calibration(1.25, 0.08, 0.03, 120),
    production_checklist=(ChecklistItem("scaler saved with the model", True, "statistics in the metadata"),),
)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Return a folder with a bundle that says everything it can."""
    folder = tmp_path_factory.mktemp("bundle")
    write_bundle(MODEL, SCALER, GENRES, METRICS, folder, details=DETAILS, onnx=False)
    return folder


@pytest.fixture
def copied(written, tmp_path) -> Path:
    """Return a copy with plain files, free to be damaged."""
    for path in written.glob(f"{NAME}*"):
        if path.is_file():
            shutil.copyfile(path, tmp_path / path.name)
    return tmp_path


def plain_bundle(folder: Path, **changes) -> Path:
    """Write the three files as other code does that knows the contract only."""
    parts = {
        "state": MODEL.state_dict(),
        "config": MODEL.get_config(),
        "scaler": pickle.dumps(SCALER),
        "metadata": {
            "model_name": NAME,
            "genre_names": GENRES,
            "metrics": METRICS,
            "timestamp": "2026-11-23T14:05:09.123456",
            "model_architecture": "GenreClassifier",
        },
    } | changes
    torch.save({"model_state_dict": parts["state"], "model_config": parts["config"]}, folder / f"{NAME}.pt")
    (folder / f"{NAME}_scaler.pkl").write_bytes(parts["scaler"])
    (folder / f"{NAME}_metadata.json").write_text(json.dumps(parts["metadata"]))
    return folder


def edit_metadata(folder: Path, change, *, sign: bool = True) -> None:
    """Change the metadata, by default with digests that match the change, as a forger would."""
    path = folder / f"{NAME}_metadata.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    if sign and isinstance(metadata.get("sha256"), dict):
        for part, suffix in (("model", ".pt"), ("scaler", "_scaler.pkl")):
            metadata["sha256"][part] = bundle.compute_sha256((folder / f"{NAME}{suffix}").read_bytes())
        metadata["sha256"]["metadata"] = bundle.compute_metadata_digest(metadata)
    path.write_text(json.dumps(metadata))


def test_round_trip(written):
    model, scaler, genres, metadata = load_production_model(GenreClassifier, written, NAME)
    assert genres == GENRES
    assert isinstance(scaler, StandardScaler)
    assert not model.training
    assert metadata["metrics"] == METRICS
    for key, value in model.state_dict().items():
        assert torch.equal(value, MODEL.state_dict()[key])
    assert np.array_equal(scaler.transform(ROWS), SCALER.transform(ROWS))
    with torch.no_grad():
        found = model.predict_proba(torch.tensor(scaler.transform(ROWS), dtype=torch.float32)).numpy()
    assert np.abs(found - EXPECTED).max() < 1e-6


def test_the_contract_key_by_key(written):
    saved = torch.load(written / f"{NAME}.pt", weights_only=True)
    assert list(saved) == ["model_state_dict", "model_config"]
    assert list(saved["model_state_dict"]) == [
        f"network.{layer}.{kind}" for layer in (0, 3, 6, 8) for kind in ("weight", "bias")
    ]
    assert saved["model_config"] == {
        "input_dim": 20,
        "hidden_dims": [128, 64, 32],
        "num_classes": 8,
        "dropout": 0.3,
    }
    scaler = pickle.loads((written / f"{NAME}_scaler.pkl").read_bytes())
    assert type(scaler) is StandardScaler
    metadata = json.loads((written / f"{NAME}_metadata.json").read_text())
    assert metadata["model_name"] == NAME
    assert metadata["genre_names"] == GENRES
    assert metadata["metrics"] == METRICS
    assert datetime.fromisoformat(metadata["timestamp"]).tzinfo is not None
    assert metadata["model_architecture"] == "GenreClassifier"


def test_known_details_are_in_the_metadata(written):
    metadata = json.loads((written / f"{NAME}_metadata.json").read_text())
    assert metadata["format_version"] == 1
    assert metadata["feature_names"] == list(FEATURES)
    assert metadata["feature_set"] == {"name": "core20", "version": 1, "parameters": {"sample_rate": 22_050}}
    assert metadata["scaler"]["mean"] == SCALER.mean_.tolist()
    assert metadata["scaler"]["scale"] == SCALER.scale_.tolist()
    assert metadata["run"]["folder"] == "outputs/runs/2026-11-23/14-05-09"
    assert metadata["run"]["best_epoch"] == 12
    assert metadata["split_protocol"] == "grouped by artist"
    assert metadata["temperature"] == 1.25
    assert metadata["calibration"] == {
        "temperature": 1.25,
        "ece_before": 0.08,
        "ece_after": 0.03,
        "n_rows": 120,
    }
    assert metadata["production_checklist"][0]["met"] is True
    assert metadata["library_versions"]["torch"] == torch.__version__
    for part, suffix in (("model", ".pt"), ("scaler", "_scaler.pkl")):
        content = (written / f"{NAME}{suffix}").read_bytes()
        assert metadata["sha256"][part] == __import__("hashlib").sha256(content).hexdigest()


def test_unknown_details_are_null(tmp_path):
    write_bundle(MODEL, SCALER, GENRES, {}, tmp_path, onnx=False)
    metadata = read_bundle(tmp_path).metadata
    for key in (
        "feature_names",
        "feature_set",
        "run",
        "split_protocol",
        "temperature",
        "calibration",
        "production_checklist",
    ):
        assert metadata[key] is None


def test_feature_names_that_the_scaler_was_fitted_with_are_kept(tmp_path):
    import pandas as pd

    scaler = StandardScaler().fit(pd.DataFrame(ROWS, columns=list(FEATURES)))
    write_bundle(MODEL, scaler, GENRES, {}, tmp_path, onnx=False)
    found = read_bundle(tmp_path)
    assert found.feature_names == FEATURES
    assert list(found.scaler.build().feature_names_in_) == list(FEATURES)
    row = dict(zip(FEATURES[::-1], ROWS[0][::-1], strict=True))
    answer = wrap_bundle(found, GenreClassifier).predict(row)
    assert answer["predicted_index"] == EXPECTED[0].argmax()


CONSUMER = """
import json, pickle, sys, warnings
warnings.simplefilter("error")
import numpy as np, torch
folder, name = sys.argv[1], "genre_classifier_production"
saved = torch.load(f"{folder}/{name}.pt", map_location="cpu", weights_only=True)
config = saved["model_config"]
layers, fan_in = [], config["input_dim"]
for position, width in enumerate(config["hidden_dims"]):
    layers += [torch.nn.Linear(fan_in, width), torch.nn.ReLU()]
    if position < len(config["hidden_dims"]) - 1:
        layers.append(torch.nn.Dropout(config["dropout"]))
    fan_in = width
layers.append(torch.nn.Linear(fan_in, config["num_classes"]))
model = torch.nn.Sequential()
model.network = torch.nn.Sequential(*layers)
model.load_state_dict(saved["model_state_dict"])
model.eval()
scaler = pickle.load(open(f"{folder}/{name}_scaler.pkl", "rb"))
metadata = json.load(open(f"{folder}/{name}_metadata.json"))
rows = scaler.transform(np.array(json.load(sys.stdin)))
with torch.no_grad():
    logits = model.network(torch.tensor(rows, dtype=torch.float32))
probabilities = torch.softmax(logits, dim=1)
assert len(metadata["genre_names"]) == probabilities.shape[1]
assert "genre_classifier" not in sys.modules
json.dump(probabilities.tolist(), sys.stdout)
"""


def test_a_consumer_written_from_the_contract_alone_gets_the_same_probabilities(written):
    done = subprocess.run(
        [sys.executable, "-c", CONSUMER, str(written)],
        input=json.dumps(ROWS.tolist()), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert np.abs(np.array(json.loads(done.stdout)) - EXPECTED).max() < 1e-6


def test_a_bundle_that_other_code_wrote_loads_without_a_warning(tmp_path):
    plain_bundle(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, scaler, genres, metadata = load_production_model(GenreClassifier, tmp_path, NAME)
    assert genres == GENRES
    assert metadata["timestamp"] == "2026-11-23T14:05:09.123456"
    assert np.array_equal(scaler.transform(ROWS), SCALER.transform(ROWS))
    assert torch.equal(model.network[0].weight, MODEL.network[0].weight)


def test_an_onnx_file_of_unproven_origin_is_left_aside(tmp_path, caplog):
    plain_bundle(tmp_path)
    (tmp_path / f"{NAME}.onnx").write_bytes(b"whatever")
    with caplog.at_level(logging.WARNING):
        assert read_bundle(tmp_path).onnx_file is None
    assert "does not say which model it belongs to" in caplog.text


def test_writing_over_a_bundle_of_other_code_keeps_it_as_a_version(tmp_path):
    plain_bundle(tmp_path)
    old = read_bundle(tmp_path)
    write_bundle(make_model(seed=5), SCALER, GENRES, METRICS, tmp_path, onnx=False)
    new = read_bundle(tmp_path)
    assert new.digest != old.digest
    assert (tmp_path / f"{NAME}.versions" / "000001" / f"{NAME}.pt").read_bytes() == old.model_file


def test_a_copy_with_plain_files_is_the_same_bundle(written, copied):
    assert read_bundle(copied).digest == read_bundle(written).digest


def test_a_renamed_copy_loads(copied):
    for path in list(copied.iterdir()):
        path.rename(copied / path.name.replace(NAME, "other"))
    assert read_bundle(copied, "other").genre_names == tuple(GENRES)


def test_importing_the_bundle_loads_neither_torch_nor_scikit_learn(written):
    code = (
        "import sys; from genre_classifier.bundle.format import read_bundle; read_bundle(sys.argv[1]);"
        "assert not {'torch', 'sklearn', 'pandas', 'lightning'} & sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(written)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_loading_leaves_the_random_state_alone(written):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    build_model(read_bundle(written), GenreClassifier)
    assert torch.equal(torch.rand(3), expected)


class Other(nn.Module):
    """A network of another class, rebuilt from keyword arguments."""

    def __init__(self, width: int = 7) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            nn.Linear(20, width), nn.Tanh(), nn.BatchNorm1d(width), nn.Linear(width, 8)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layers(features)

    def get_config(self) -> dict:
        return {"width": self.width}


def test_a_network_of_another_class_round_trips_and_has_no_onnx(tmp_path):
    model = Other(9).eval()
    paths = write_bundle(model, SCALER, GENRES, {}, tmp_path)
    assert "onnx" not in paths
    loaded, *_ = load_production_model(Other, tmp_path)
    assert loaded.width == 9
    assert torch.equal(loaded.layers[0].weight, model.layers[0].weight)
    with pytest.raises(BundleError, match="does not fit GenreClassifier"):
        load_production_model(GenreClassifier, tmp_path)


def replace_model(folder: Path, state=None, config=None, **extra) -> None:
    state = MODEL.state_dict() if state is None else state
    config = MODEL.get_config() if config is None else config
    torch.save({"model_state_dict": state, "model_config": config} | extra, folder / f"{NAME}.pt")


def put_metadata(content: str | bytes):
    """Return what replaces the metadata by `content`."""
    content = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / f"{NAME}_metadata.json").write_bytes(content)


def without(mapping, key):
    return {name: value for name, value in mapping.items() if name != key}


def lazy_tensor() -> torch.Tensor:
    return torch.zeros(1).expand(10**9)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / f"{NAME}.pt").unlink(), r"production\.pt: no such file"),
        (lambda f: (f / f"{NAME}_scaler.pkl").unlink(), r"_scaler\.pkl: no such file"),
        (lambda f: (f / f"{NAME}_metadata.json").unlink(), r"_metadata\.json: no such file"),
        (lambda f: (f / f"{NAME}.onnx").write_bytes(b"x"), r"\.onnx: .*does not list it"),
        (put_metadata("{"), r"_metadata\.json: cannot be read as JSON"),
        (put_metadata("[]"), r"expected an object with the keys model_name"),
        (put_metadata("[" * 100_000), r"cannot be read as JSON"),
        (put_metadata(b"\xff\xfe{}"), r"cannot be read as JSON"),
        (put_metadata('{"metrics": NaN}'), r"holds NaN, which is not JSON"),
        (put_metadata('{"a": 1, "a": 2}'), r"key 'a' stands more than once"),
        (lambda f: edit_metadata(f, lambda m: m.update(format_version=2)), r"format 2 is newer .* up to 1"),
        (lambda f: edit_metadata(f, lambda m: m.update(format_version="x")), r"format_version is 'x'"),
        (lambda f: edit_metadata(f, lambda m: m.pop("sha256")), r"lacks sha256; the file was changed"),
        (lambda f: edit_metadata(f, lambda m: m.pop("format_version")), r"lacks format_version"),
        (lambda f: edit_metadata(f, lambda m: m.update(sha256={}), sign=False), r"does not list the bundle"),
        (
            lambda f: edit_metadata(f, lambda m: m["genre_names"].reverse(), sign=False),
            r"does not match its own SHA-256",
        ),
        (lambda f: edit_metadata(f, lambda m: m.pop("metrics")), r"lacks the key metrics"),
        (lambda f: edit_metadata(f, lambda m: m.update(metrics=[])), r"metrics is \[\], expected a dict"),
        (lambda f: edit_metadata(f, lambda m: m.update(timestamp="today")), r"'today' is not ISO 8601"),
        (lambda f: edit_metadata(f, lambda m: m.update(genre_names=[1] * 8)), r"genre_names\[0\]=1"),
        (lambda f: edit_metadata(f, lambda m: m.update(genre_names=["a"] * 8)), r"'a' repeated"),
        (lambda f: edit_metadata(f, lambda m: m["genre_names"].pop()), r"genre_names are 7, the model has 8"),
        (lambda f: edit_metadata(f, lambda m: m.update(feature_names=["a"])), r"1 names, .* 20 features"),
        (lambda f: edit_metadata(f, lambda m: m.update(feature_names=3)), r"feature_names is 3"),
        (
            lambda f: edit_metadata(f, lambda m: m["scaler"]["mean"].__setitem__(2, 0.5)),
            r"_scaler\.pkl: not the scaler that .*_metadata\.json describes: mean\[2\] is 0\.5",
        ),
        (lambda f: (f / f"{NAME}.pt").write_bytes(b"x"), r"production\.pt: SHA-256 is [0-9a-f]{64}"),
        (
            lambda f: (f / f"{NAME}_scaler.pkl").write_bytes(pickle.dumps(SCALER, protocol=2)),
            r"_scaler\.pkl: SHA-256 is",
        ),
    ],
)  # fmt: skip
def test_a_damaged_bundle_is_refused_by_the_file_at_fault(copied, damage, message):
    damage(copied)
    with pytest.raises(BundleError, match=message) as refused:
        build_model(read_bundle(copied), GenreClassifier)
    assert str(copied) in str(refused.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / f"{NAME}.pt").write_bytes(b""), r"truncated, or not a file that torch\.save writes"),
        (lambda f: (f / f"{NAME}.pt").write_bytes(b"x" * 1000), r"not a file that torch\.save writes"),
        (lambda f: replace_model(f, state=without(MODEL.state_dict(), "network.0.bias")), r"lacks network"),
        (lambda f: replace_model(f, state=MODEL.state_dict() | {"x": torch.ones(1)}), r"has unknown x"),
        (
            lambda f: replace_model(f, state=make_model(n_genres=9).state_dict()),
            r"network\.8\.weight has shape \(9, 32\), model_config asks for \(8, 32\)",
        ),
        (lambda f: replace_model(f, config=MODEL.get_config() | {"num_classes": 9}), r"asks for \(9, 32\)"),
        (lambda f: replace_model(f, config=MODEL.get_config() | {"input_dim": 10**12}), r"shape \(128, 20\)"),
        (lambda f: replace_model(f, config=MODEL.get_config() | {"depth": 3}), r"does not fit Genre"),
        (lambda f: replace_model(f, config=MODEL.get_config() | {"dropout": 2.0}), r"dropout=2\.0"),
        (lambda f: replace_model(f, config=[1]), r"are to be mappings"),
        (lambda f: replace_model(f, state=MODEL.state_dict() | {"network.0.bias": 3}), r"not a plain tensor"),
        (
            lambda f: replace_model(f, state=MODEL.state_dict() | {"network.0.bias": lazy_tensor()}),
            r"a tensor of shape \(1000000000,\), where the file has 1 numbers",
        ),
        (
            lambda f: replace_model(
                f, state=MODEL.state_dict() | {"network.0.bias": torch.full((128,), torch.nan)}
            ),
            r"network\.0\.bias has values that are not finite",
        ),
        (lambda f: torch.save([1], f / f"{NAME}.pt"), r"expected model_state_dict and model_config inside"),
        (lambda f: torch.save(MODEL, f / f"{NAME}.pt"), r"asks for genre_classifier\.network\.GenreClassifier"),
        (
            lambda f: torch.save(
                {"model_state_dict": {}}, f / f"{NAME}.pt", _use_new_zipfile_serialization=False
            ),
            r"not a file that torch\.save writes",
        ),
        (
            lambda f: plain_bundle(f, scaler=pickle.dumps(make_scaler(make_rows(n_features=5)))),
            r"the model's first layer 20, the model's input_dim 20, the scaler 5",
        ),
    ],
)  # fmt: skip
def test_a_bundle_of_other_code_is_checked_as_well(tmp_path, damage, message):
    plain_bundle(tmp_path)
    damage(tmp_path)
    with pytest.raises(BundleError, match=message) as refused:
        build_model(read_bundle(tmp_path), GenreClassifier)
    assert str(tmp_path) in str(refused.value)


def test_a_compressed_model_file_is_refused(tmp_path):
    plain_bundle(tmp_path)
    path = tmp_path / f"{NAME}.pt"
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(BundleError, match="holds compressed records"):
        build_model(read_bundle(tmp_path), GenreClassifier)


class TouchOnLoad:
    """Would make a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("kind", ["os.system", "eval, protocol 4", "inside an attribute", "INST first"])
@pytest.mark.parametrize("is_signed", [False, True])
def test_a_bundle_with_a_malicious_scaler_runs_nothing(copied, tmp_path, kind, is_signed):
    sentinel = tmp_path / "sentinel"
    content, message = malicious(sentinel)[kind]
    if is_signed:
        (copied / f"{NAME}_scaler.pkl").write_bytes(content)
        edit_metadata(copied, dict)
    else:
        plain_bundle(tmp_path, scaler=content)
    with pytest.raises(BundleError, match=message):
        load_production_model(GenreClassifier, tmp_path, NAME)
    assert not sentinel.exists()


def test_a_malicious_model_file_runs_nothing(tmp_path):
    sentinel = tmp_path / "sentinel"
    plain_bundle(tmp_path)
    replace_model(tmp_path, extra=TouchOnLoad(sentinel))
    with pytest.raises(BundleError, match=r"\.pt: refused; the pickle asks for __builtin__\.getattr"):
        load_production_model(GenreClassifier, tmp_path, NAME)
    assert not sentinel.exists()
    torch.load(tmp_path / f"{NAME}.pt", weights_only=False)
    assert sentinel.exists()


def parts_of(folder: Path) -> dict[str, bytes]:
    return {
        part: (folder / bundle.build_file_name(NAME, part)).read_bytes()
        for part in ("model", "scaler", "metadata")
    }


def test_every_flipped_or_missing_byte_gives_a_named_error_or_the_same_bundle(written):
    parts = parts_of(written)
    intact = bundle.parse_files(parts, written, NAME)
    generator = np.random.default_rng(1)
    for part, content in parts.items():
        everywhere = range(len(content))
        positions = (
            everywhere if len(content) < 2000 else sorted(generator.choice(everywhere, 1000, replace=False))
        )
        for position in positions:
            flipped = bytearray(content)
            flipped[position] ^= int(generator.integers(1, 256))
            for damaged in (bytes(flipped), content[:position]):
                try:
                    found = bundle.parse_files(parts | {part: damaged}, written, NAME)
                except BundleError as error:
                    assert NAME in str(error)  # noqa: PT017
                    continue
                # Only the spelling of the JSON may differ: white space, or an escape for the same letter.
                assert part == "metadata"
                assert found.metadata == intact.metadata


def test_every_flipped_byte_of_a_plain_bundles_model_is_refused_or_harmless(tmp_path):
    plain_bundle(tmp_path)
    parts = parts_of(tmp_path)
    generator = np.random.default_rng(2)
    for position in generator.choice(len(parts["model"]), 300, replace=False):
        flipped = bytearray(parts["model"])
        flipped[position] ^= int(generator.integers(1, 256))
        for damaged in (bytes(flipped), parts["model"][:position]):
            try:
                model = build_model(
                    bundle.parse_files(parts | {"model": damaged}, tmp_path, NAME), GenreClassifier
                )
            except BundleError as error:
                assert f"{NAME}.pt" in str(error)  # noqa: PT017
                continue
            for key, value in model.state_dict().items():
                assert torch.equal(value, MODEL.state_dict()[key])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scaler": None}, r"scaler is a NoneType; a bundle needs a fitted scikit-learn StandardScaler"),
        ({"scaler": StandardScaler()}, r"never fitted"),
        ({"scaler": make_scaler(make_rows(n_features=5))}, r"the scaler 5"),
        ({"genre_names": GENRES[:7]}, r"genre_names are 7, the model has 8 outputs"),
        ({"genre_names": ["a"] * 8}, r"'a' repeated"),
        ({"metrics": {"test": {"f1": float("nan")}}}, r"metrics\['test'\]\['f1'\] is nan; expected a finite"),
        ({"metrics": {"model": MODEL}}, r"metrics\['model'\] is a GenreClassifier"),
        ({"metrics": {1: 2}}, r"expected text for keys, found \[1\]"),
        ({"name": "../elsewhere"}, r"model_name='\.\./elsewhere': expected letters"),
        ({"name": ""}, r"model_name=''"),
        ({"name": ".hidden"}, r"model_name='\.hidden'"),
        ({"details": BundleDetails(feature_names=("a", "b"))}, r"2 names, the scaler was fitted on 20"),
        ({"details": BundleDetails(feature_names=FEATURES[:19] + FEATURES[:1])}, r"different strings"),
        (
            {
                "details": BundleDetails(
                    feature_names=FEATURES[::-1], feature_set=FeatureSetReference("core20", 1, {})
                )
            },
            r"not those of feature set core20: out of place",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_not_written(tmp_path, arguments, message):
    call = {"scaler": SCALER, "genre_names": GENRES, "metrics": {}, "name": NAME, "onnx": False} | arguments
    with pytest.raises(BundleError, match=message):
        write_bundle(MODEL, folder=tmp_path / "new", **call)
    assert list(tmp_path.rglob("*.*")) == []


def test_a_network_with_values_that_are_not_finite_is_not_written(tmp_path):
    model = make_model()
    with torch.no_grad():
        model.network[3].weight[0, 0] = torch.inf
    with pytest.raises(BundleError, match=r"network\.3\.weight has values that are not finite"):
        write_bundle(model, SCALER, GENRES, {}, tmp_path, onnx=False)


def test_a_failing_verification_publishes_nothing(tmp_path):
    write_bundle(MODEL, SCALER, GENRES, METRICS, tmp_path, onnx=False)
    before = read_bundle(tmp_path).digest
    seen = []

    def verify(found):
        seen.append(wrap_bundle(found, GenreClassifier).predict(ROWS[0])["predicted_index"])
        raise BundleError("differs on held rows")

    with pytest.raises(BundleError, match="differs on held rows"):
        write_bundle(make_model(seed=4), SCALER, GENRES, METRICS, tmp_path, onnx=False, verify=verify)
    assert len(seen) == 1
    assert read_bundle(tmp_path).digest == before


def test_a_bundle_that_answers_differently_is_not_published(tmp_path, monkeypatch):
    encode = writing._encode_model
    other = make_model(seed=8)
    monkeypatch.setattr(writing, "_encode_model", lambda _: encode(other))
    with pytest.raises(BundleError, match=r"probabilities that differ from the model's by"):
        write_bundle(MODEL, SCALER, GENRES, METRICS, tmp_path, onnx=False)
    assert list(tmp_path.iterdir()) == []


def test_numpy_values_become_built_in_types(tmp_path):
    metrics = {
        "a": np.float32(0.5),
        "b": np.int64(3),
        "c": np.arange(3),
        "d": {"e": torch.tensor(2.0)},
        "f": (1, None),
    }
    write_bundle(MODEL, SCALER, GENRES, metrics, tmp_path, onnx=False)
    assert read_bundle(tmp_path).metadata["metrics"] == {
        "a": 0.5,
        "b": 3,
        "c": [0, 1, 2],
        "d": {"e": 2.0},
        "f": [1, None],
    }


def test_versioned_names_count_up_and_never_overwrite(tmp_path):
    now = datetime(2026, 11, 23, 14, 5, 9, tzinfo=UTC)
    names = [
        write_versioned_bundle(MODEL, SCALER, GENRES, METRICS, tmp_path, onnx=False, now=now)[0]
        for _ in range(3)
    ]
    assert names == [f"genre_classifier_v{version}_20261123_140509" for version in (1, 2, 3)]
    (tmp_path / "genre_classifier_v41_old.pt").write_bytes(b"kept")
    name, paths = write_versioned_bundle(MODEL, SCALER, GENRES, METRICS, tmp_path, onnx=False, now=now)
    assert name == "genre_classifier_v42_20261123_140509"
    assert paths["model"] == tmp_path / f"{name}.pt"
    assert read_bundle(tmp_path, name).metadata["model_name"] == name
    assert len({read_bundle(tmp_path, each).digest for each in names}) == 3


def test_the_fingerprint_follows_the_bundle(tmp_path):
    before = compute_bundle_fingerprint(tmp_path, NAME)
    save_model_for_production(MODEL, SCALER, GENRES, METRICS, tmp_path, NAME, onnx=False)
    first = compute_bundle_fingerprint(tmp_path, NAME)
    save_model_for_production(MODEL, SCALER, GENRES, METRICS, tmp_path, NAME, onnx=False)
    assert len({before, first, compute_bundle_fingerprint(tmp_path, NAME)}) == 3


def test_documented_paths_come_back(tmp_path):
    paths = save_model_for_production(MODEL, SCALER, GENRES, METRICS, tmp_path, NAME)
    assert paths == {
        "model": str(tmp_path / f"{NAME}.pt"),
        "scaler": str(tmp_path / f"{NAME}_scaler.pkl"),
        "metadata": str(tmp_path / f"{NAME}_metadata.json"),
    }


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_bundle_with_a_scaler_of_an_older_version_loads_without_a_warning(tmp_path, protocol):
    scalers = Path(__file__).parents[1] / "formats" / "scalers"
    content = (scalers / f"sklearn-1.3.2-numpy-1.26.4-protocol{protocol}.pkl").read_bytes()
    expected = json.loads((scalers / "sklearn-1.3.2-numpy-1.26.4.json").read_text())
    plain_bundle(tmp_path, scaler=content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, scaler, _, _ = load_production_model(GenreClassifier, tmp_path, NAME)
        assert scaler.transform([expected["row"]])[0].tolist() == expected["transformed"]


OLD_BUNDLES = sorted(
    path.parent for path in (Path(__file__).parents[1] / "formats" / "bundles").glob("*/expected.json")
)


@pytest.mark.parametrize("folder", OLD_BUNDLES, ids=lambda folder: folder.name)
def test_a_bundle_of_an_earlier_day_keeps_giving_the_same_answers(folder):
    expected = json.loads((folder / "expected.json").read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = wrap_bundle(read_bundle(folder), GenreClassifier)._compute_probabilities(
            np.array(expected["rows"])
        )
    assert np.abs(found - np.array(expected["probabilities"])).max() < 1e-6


def test_bundles_of_earlier_days_are_there():
    assert [folder.name for folder in OLD_BUNDLES] == ["contract_only", "format1"]


@pytest.mark.parametrize(
    "edit", [lambda self, x: self.network(torch.tanh(x)), lambda self, x: 2 * self.network(x)]
)
def test_an_edited_network_class_answers_by_its_own_forward(edit, tmp_path, monkeypatch):
    monkeypatch.setattr(GenreClassifier, "forward", edit)
    paths = write_bundle(MODEL, SCALER, GENRES, {}, tmp_path)
    assert "onnx" not in paths, "the graph would be of another network"
    with torch.no_grad():
        rows = torch.from_numpy(SCALER.transform(ROWS)).float()
        expected = torch.softmax(edit(MODEL.eval(), rows), dim=1).numpy()
    found = bundle.make_predictor(read_bundle(tmp_path))._compute_probabilities(ROWS)
    np.testing.assert_allclose(found, expected, atol=1e-6)
