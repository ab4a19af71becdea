"""The feature sets' names and the order of their features. Imports no audio library.

A model remembers the feature names it was trained with, so the order of a set never changes. A different order or
definition is a new version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SAMPLE_RATE = 22_050  # Hz, mono
CLIP_SECONDS = 30.0
N_FFT = 2048  # samples
HOP_LENGTH = 512  # samples


# The parameters of the hand-made sets. Tables and bundles record them.
PARAMETERS: Mapping[str, Any] = {
    "sample_rate_hz": SAMPLE_RATE,
    "clip_seconds": CLIP_SECONDS,
    "n_fft": N_FFT,
    "hop_length": HOP_LENGTH,
}


@dataclass(frozen=True)
class FeatureSetReference:
    """A feature set with its version and parameters, as recorded in a table or bundle.

    Parameters
    ----------
    name : str
        A name in :data:`FEATURE_SETS`, or another name that the table gives.
    version : int
        Version of the set's definition.
    parameters : Mapping[str, Any]
        Parameters of the computation: sample rate (Hz), frame length (samples) and the like.
    """

    name: str
    version: int
    parameters: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {"name": self.name, "version": self.version, "parameters": dict(self.parameters)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> FeatureSetReference:
        """Return the reference that :meth:`as_dict` wrote. Raises KeyError or TypeError for other content."""
        return cls(str(fields["name"]), int(fields["version"]), dict(fields["parameters"]))

    def describe_difference(self, found: FeatureSetReference) -> str | None:
        """Return a text with the differences of `found`, or None if both are the same."""
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
        Name of the set in configs, tables and bundles.
    version : int
        Increases when a definition changes.
    features : tuple of str
        Feature names in the order of a table's columns and a network's inputs.
    parameters : Mapping[str, Any]
        Parameters of the computation.
    """

    name: str
    version: int
    features: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=lambda: PARAMETERS)

    @property
    def sample_rate(self) -> int:
        """Sample rate of the measured signal, in Hz."""
        return int(self.parameters["sample_rate_hz"])

    @property
    def is_pretrained(self) -> bool:
        """Whether the features are activations of a network. Measuring them needs its weights."""
        return "weights_sha256" in self.parameters

    def build_reference(self, clip_seconds: float = CLIP_SECONDS) -> FeatureSetReference:
        """Return the reference of this set for clips of at most `clip_seconds`."""
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

# The series of FMA's table with their numbers of rows, and the statistics over time, in the table's order.
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
MUSICNN_UNITS = 200  # units of the layer before the tags

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
    """Return a text with the names that are missing, extra or out of place in `found`, or None if there are none."""
    if list(expected) == list(found):
        return None
    missing = [name for name in expected if name not in set(found)]
    extra = [name for name in found if name not in set(expected)]
    differences = []
    if missing:
        differences.append(f"missing: {', '.join(missing)}")
    if extra:
        differences.append(f"extra: {', '.join(extra)}")
    if not differences:
        moved = [
            f"{got!r} where {want!r} belongs"
            for want, got in zip(expected, found, strict=False)
            if want != got
        ]
        differences.append(f"out of place: {', '.join(moved[:5])}{' ...' if len(moved) > 5 else ''}")
    return "; ".join(differences)
