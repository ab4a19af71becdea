"""The feature sets' names and the order of their features. Imports no audio library.

A model remembers the feature names it was trained with, so a set's order never changes; a different order or
another definition is a new version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SAMPLE_RATE = 22_050  # Hz, mono
CLIP_SECONDS = 30.0
N_FFT = 2048  # samples
HOP_LENGTH = 512  # samples


@dataclass(frozen=True)
class FeatureSet:
    """A named, ordered list of features.

    Parameters
    ----------
    name : str
        Name by which configs, tables and bundles refer to the set.
    version : int
        Raised when a definition changes.
    features : tuple of str
        Feature names in the order of a table's columns and a network's inputs.
    """

    name: str
    version: int
    features: tuple[str, ...]


CORE20 = FeatureSet(
    "core20",
    1,
    (
        *(f"mfcc_{i}" for i in range(1, 14)),
        "spectral_centroid",
        "spectral_rolloff",
        "zero_crossing_rate",
        "rms",
        "chroma_mean",
        "chroma_std",
        "chroma_entropy",
    ),
)

_GTZAN_STATISTICS = (
    "chroma_stft",
    "rms",
    "spectral_centroid",
    "spectral_bandwidth",
    "rolloff",
    "zero_crossing_rate",
    "harmony",
    "perceptr",
)

GTZAN57 = FeatureSet(
    "gtzan57",
    1,
    (
        *(f"{name}_{statistic}" for name in _GTZAN_STATISTICS for statistic in ("mean", "var")),
        "tempo",
        *(f"mfcc{i}_{statistic}" for i in range(1, 21) for statistic in ("mean", "var")),
    ),
)

# What every set's features are computed with, as a bundle records it.
PARAMETERS = {
    "sample_rate_hz": SAMPLE_RATE,
    "clip_seconds": CLIP_SECONDS,
    "n_fft": N_FFT,
    "hop_length": HOP_LENGTH,
}

FEATURE_SETS = {feature_set.name: feature_set for feature_set in (CORE20, GTZAN57)}


def recognise(feature_names: Sequence[str]) -> FeatureSet | None:
    """Return the feature set with exactly these names in this order, or None."""
    names = tuple(feature_names)
    return next((s for s in FEATURE_SETS.values() if s.features == names), None)


def describe_mismatch(expected: Sequence[str], found: Sequence[str]) -> str | None:
    """Say what is missing, extra or out of place in `found`; None where the two are the same list."""
    if list(expected) == list(found):
        return None
    missing = [name for name in expected if name not in set(found)]
    extra = [name for name in found if name not in set(expected)]
    parts = []
    if missing:
        parts.append(f"missing: {', '.join(missing)}")
    if extra:
        parts.append(f"extra: {', '.join(extra)}")
    if not parts:
        moved = [
            f"{got!r} where {want!r} belongs"
            for want, got in zip(expected, found, strict=False)
            if want != got
        ]
        parts.append(f"out of place: {', '.join(moved[:5])}{' ...' if len(moved) > 5 else ''}")
    return "; ".join(parts)
