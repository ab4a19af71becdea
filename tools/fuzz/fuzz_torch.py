"""The reader of .pt files: plain values and tensors within the file, or BundleError, whatever the bytes.

Most inputs are the pickle inside, since of a damaged zip nearly nothing gets as far; some are the zip itself.
"""

import io
import sys
import zipfile

import atheris
import sklearn.preprocessing  # noqa: F401 - here, so that no input pays for it
import torch

with atheris.instrument_imports(include=["genre_classifier"]):
    from genre_classifier.bundle.format import Bundle, build_model, make_predictor
    from genre_classifier.data.scaler_state import ScalerStatistics
    from genre_classifier.errors import BundleError
    from genre_classifier.files.torch_file import load_torch_file
    from genre_classifier.network import GenreClassifier

from pathlib import Path

MODEL = GenreClassifier(input_dim=2, hidden_dims=(3,), num_classes=2)
SCALER = ScalerStatistics(2, True, True, (0.0, 0.0), (1.0, 1.0), (1.0, 1.0))


def _saved() -> bytes:
    buffer = io.BytesIO()
    torch.save({"model_state_dict": MODEL.state_dict(), "model_config": MODEL.get_config()}, buffer)
    return buffer.getvalue()


WHOLE = _saved()
with zipfile.ZipFile(io.BytesIO(WHOLE)) as _archive:
    RECORDS = {name: _archive.read(name) for name in _archive.namelist()}
PICKLE = RECORDS["archive/data.pkl"]


def mutate(data: bytes, size: int, seed: int) -> bytes:
    """Begin from a real file now and then."""
    if seed % 16 == 0:
        return b"\1" + atheris.Mutate(PICKLE, size - 1)
    if seed % 64 == 1:
        return b"\0" + atheris.Mutate(WHOLE, size - 1)
    return atheris.Mutate(data, size)


def test_one(data: bytes) -> None:
    """Read the file, and build what it holds as a bundle would."""
    content = data[1:]
    if data[:1] != b"\0":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, record in RECORDS.items():
                archive.writestr(name, content if name == "archive/data.pkl" else record)
        content = buffer.getvalue()
    try:
        load_torch_file(content, "x.pt", BundleError)
        bundle = Bundle("x", Path("x"), "", {}, ("a", "b"), None, SCALER, content, None)
        make_predictor(bundle)
        build_model(bundle, GenreClassifier)
    except BundleError:
        return


if __name__ == "__main__":
    atheris.Setup([*sys.argv, "-max_len=8192"], test_one, custom_mutator=mutate)
    atheris.Fuzz()
