"""The feature sets' names and the order of their features. Imports no audio library.

A model remembers the feature names it was trained with, so a set's order never changes; a different order or
another definition is a new version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SAMPLE_RATE = 22_050  # Hz, mono
CLIP_SECONDS = 30.0
N_FFT = 2048  # samples
HOP_LENGTH = 512  # samples


# The parameters of the hand-made sets, as a table and a bundle record them.
PARAMETERS: Mapping[str, Any] = {
    "sample_rate_hz": SAMPLE_RATE,
    "clip_seconds": CLIP_SECONDS,
    "n_fft": N_FFT,
    "hop_length": HOP_LENGTH,
}


@dataclass(frozen=True)
class FeatureSetReference:
    """A feature set with its version and parameters: of a table, or of the features that a model was trained on.

    Parameters
    ----------
    name : str
        As in :data:`FEATURE_SETS`, or the table's own.
    version : int
        Version of the set's definition.
    parameters : Mapping[str, Any]
        What the features were computed with: sample rate (Hz), frame length (samples) and the like.
    """

    name: str
    version: int
    parameters: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {"name": self.name, "version": self.version, "parameters": dict(self.parameters)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> FeatureSetReference:
        """Return what :meth:`as_dict` wrote; KeyError or TypeError if it is something else."""
        return cls(str(fields["name"]), int(fields["version"]), dict(fields["parameters"]))

    def difference(self, found: FeatureSetReference) -> str | None:
        """Return how `found` was made otherwise; None if both are the same."""
        pairs = {"feature set": (self.name, found.name), "version": (self.version, found.version)}
        for key in dict.fromkeys((*self.parameters, *found.parameters)):
            pairs[key] = (self.parameters.get(key), found.parameters.get(key))
        return (
            "; ".join(f"{what} {got}, not {wanted}" for what, (wanted, got) in pairs.items() if got != wanted)
            or None
        )


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
    parameters : Mapping[str, Any]
        What they are computed with.
    """

    name: str
    version: int
    features: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=lambda: PARAMETERS)

    @property
    def sample_rate(self) -> int:
        """The sample rate of the signal that is measured, in Hz."""
        return int(self.parameters["sample_rate_hz"])

    @property
    def is_pretrained(self) -> bool:
        """Whether the features are activations of a network, whose weights must be at hand."""
        return "weights_sha256" in self.parameters

    def reference(self, clip_seconds: float = CLIP_SECONDS) -> FeatureSetReference:
        """Return how this version measures clips of at most so many seconds."""
        return FeatureSetReference(
            self.name, self.version, {**self.parameters, "clip_seconds": float(clip_seconds)}
        )


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

# Series of FMA's table, each with its number of rows, and the statistics over time, both in its order.
FMA_SERIES = {
    "chroma_cens": 12,
    "chroma_cqt": 12,
    "chroma_stft": 12,
    "mfcc": 20,
    "rmse": 1,
    "spectral_bandwidth": 1,
    "spectral_centroid": 1,
    "spectral_contrast": 7,
    "spectral_rolloff": 1,
    "tonnetz": 6,
    "zcr": 1,
}
FMA_STATISTICS = ("kurtosis", "max", "mean", "median", "min", "skew", "std")

FMA518 = FeatureSet(
    "fma518",
    1,
    tuple(
        f"{series}_{statistic}_{number:02d}"
        for series, size in FMA_SERIES.items()
        for statistic in FMA_STATISTICS
        for number in range(1, size + 1)
    ),
)

# The 50 most frequent tags of the Million Song Dataset, in the order and spelling of MSD-musicnn's outputs.
MUSICNN_TAGS = (
    "rock",
    "pop",
    "alternative",
    "indie",
    "electronic",
    "female vocalists",
    "dance",
    "00s",
    "alternative rock",
    "jazz",
    "beautiful",
    "metal",
    "chillout",
    "male vocalists",
    "classic rock",
    "soul",
    "indie rock",
    "Mellow",
    "electronica",
    "80s",
    "folk",
    "90s",
    "chill",
    "instrumental",
    "punk",
    "oldies",
    "blues",
    "hard rock",
    "ambient",
    "acoustic",
    "experimental",
    "female vocalist",
    "guitar",
    "Hip-Hop",
    "70s",
    "party",
    "country",
    "easy listening",
    "sexy",
    "catchy",
    "funk",
    "electro",
    "heavy metal",
    "Progressive rock",
    "60s",
    "rnb",
    "indie pop",
    "sad",
    "House",
    "happy",
)
MUSICNN_UNITS = 200  # of the layer before the tags

MUSICNN_PARAMETERS: Mapping[str, Any] = {
    "sample_rate_hz": 16_000,
    "clip_seconds": CLIP_SECONDS,
    "n_fft": 512,
    "hop_length": 256,
    "n_mels": 96,
    "patch_frames": 187,
    "weights": "MSD_musicnn of musicnn 0.1.0",
    "weights_sha256": "970c0065888f5a89d993ee798eb8bb294e0702f17e881e93997c771107ae147e",
}

MUSICNN50 = FeatureSet("musicnn50", 1, MUSICNN_TAGS, MUSICNN_PARAMETERS)

MUSICNN = FeatureSet(
    "musicnn",
    1,
    (*MUSICNN_TAGS, *(f"penultimate_{number:03d}" for number in range(1, MUSICNN_UNITS + 1))),
    MUSICNN_PARAMETERS,
)

FEATURE_SETS = {
    feature_set.name: feature_set for feature_set in (CORE20, GTZAN57, FMA518, MUSICNN50, MUSICNN)
}


def recognise(feature_names: Sequence[str]) -> FeatureSet | None:
    """Return the feature set with exactly these names in this order, or None."""
    names = tuple(feature_names)
    return next((s for s in FEATURE_SETS.values() if s.features == names), None)


def describe_mismatch(expected: Sequence[str], found: Sequence[str]) -> str | None:
    """Return what is missing, extra or out of place in `found`; None if both lists are the same."""
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
