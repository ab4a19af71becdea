"""Metadata, run.json and the ONNX file of a bundle: what is documented or the documented error, whatever the bytes."""

import contextlib
import json
import sys
from pathlib import Path

import atheris
import numpy as np
from sklearn.preprocessing import StandardScaler

with atheris.instrument_imports(include=["genre_classifier"]):
    from genre_classifier.bundle import format as bundles
    from genre_classifier.bundle import writing
    from genre_classifier.bundle.onnx.graph import OnnxGraphError, read_graph
    from genre_classifier.errors import BundleError
    from genre_classifier.network import GenreClassifier

MODEL = GenreClassifier(input_dim=2, hidden_dims=(3,), num_classes=2).eval()
PARTS = writing._encode(
    MODEL,
    StandardScaler().fit(np.eye(2)),
    ["a", "b"],
    {"test": {"f1": 0.5}},
    "x",
    bundles.BundleDetails(),
    None,
)
SEEDS = [b"\0" + PARTS["metadata"], b"\1" + PARTS.get("onnx", b"")]


def mutate(data: bytes, size: int, seed: int) -> bytes:
    """Begin from a real file now and then."""
    return atheris.Mutate(SEEDS[seed % 2] if seed % 16 < 2 else data, size)


def test_one(data: bytes) -> None:
    """Read the first kind as metadata, its digests made to fit, and the second as an ONNX file."""
    if data[:1] == b"\1":
        with contextlib.suppress(OnnxGraphError):
            read_graph(data[1:], 2, 2)
        return
    content = data[1:]
    try:  # without this every change would end at the digest
        changed = json.loads(content)
        changed["sha256"]["metadata"] = bundles.compute_metadata_digest(changed)
        content = json.dumps(changed).encode()
    except Exception:
        pass
    try:
        found = bundles.parse_files({**PARTS, "metadata": content}, Path("x"), "x")
        bundles.make_predictor(found).predict([0.0, 0.0])
        bundles.find_feature_set(found.metadata, found.feature_names)
    except BundleError:
        return


if __name__ == "__main__":
    atheris.Setup([*sys.argv, "-max_len=4096"], test_one, custom_mutator=mutate)
    atheris.Fuzz()
