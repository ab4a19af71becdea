"""The reader of scaler pickles: plain numbers or BundleError, whatever the bytes."""

import pickle
import sys

import atheris
import numpy as np
from sklearn.preprocessing import StandardScaler

with atheris.instrument_imports(include=["genre_classifier"]):
    from genre_classifier.data.scaler_state import ScalerStatistics
    from genre_classifier.errors import BundleError

SEEDS = [pickle.dumps(StandardScaler().fit(np.eye(3)), protocol=protocol) for protocol in (2, 4, 5)]


def mutate(data: bytes, size: int, seed: int) -> bytes:
    """Begin from a real scaler now and then: bytes that are none say little about what follows."""
    return atheris.Mutate(SEEDS[seed % len(SEEDS)] if seed % 16 == 0 else data, size)


def test_one(data: bytes) -> None:
    """Read the bytes, and use what is read as a service would."""
    try:
        found = ScalerStatistics.from_pickle(data, "scaler.pkl")
    except BundleError:
        return
    assert ScalerStatistics.from_metadata(found.to_metadata(), "x").describe_difference(found) is None
    found.build().transform(np.zeros((1, found.n_features)))
    found.limits(10.0)


if __name__ == "__main__":
    atheris.Setup([*sys.argv, "-max_len=4096"], test_one, custom_mutator=mutate)
    atheris.Fuzz()
