"""Group features into families."""

from __future__ import annotations

import re
from collections.abc import Sequence

from genre_classifier.features.sets import FMA518, FMA_SERIES, MUSICNN_TAGS, recognise

# The families of the known sets by the start of a feature's name. A family has several statistics and numbers.
FAMILIES = (
    ("MFCC", r"mfcc"),
    ("chroma", r"chroma"),
    ("spectral shape", r"spectral_|rolloff"),
    ("zero crossings", r"zero_crossing|zcr"),
    ("loudness", r"rms"),
    ("harmonic and percussive", r"harmony|perceptr"),
    ("tempo", r"tempo"),
    ("tonal centroids", r"tonnetz"),
)


def group_into_families(feature_names: Sequence[str]) -> dict[str, list[int]]:
    """Return the positions of the features of each family, in the order of the table.

    The known sets have fixed families. Those of FMA are its series, and each tag of musicnn is one. In any other table,
    the family is the part of a name before its first digit or separator.
    """
    known = recognise(feature_names)
    found: dict[str, list[int]] = {}
    for position, name in enumerate(feature_names):
        if known is FMA518:
            family = next(series for series in FMA_SERIES if name.startswith(f"{series}_"))
        elif known is not None and known.is_pretrained:
            family = name if name in MUSICNN_TAGS else "penultimate layer"
        elif known is not None:
            family = next(family for family, start in FAMILIES if re.match(start, name))
        else:
            match = re.match(r"[^\W\d_]+", name)
            family = match.group() if match else name
        found.setdefault(family, []).append(position)
    return found
