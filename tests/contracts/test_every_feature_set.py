"""Every feature set: its names are unique and in a fixed order, and a table that does not match is told how."""

import json

import pytest

from genre_classifier.features.sets import (
    CORE20,
    FEATURE_SETS,
    GTZAN57,
    PARAMETERS,
    FeatureSetReference,
    describe_mismatch,
    recognise,
)

SIZES = {"core20": 20, "gtzan57": 57, "fma518": 518, "musicnn50": 50, "musicnn": 250}


def test_all_sets_are_known_with_their_size() -> None:
    assert {name: len(found.features) for name, found in FEATURE_SETS.items()} == SIZES


@pytest.mark.parametrize("name", SIZES)
def test_names_are_unique_and_the_set_is_recognised_by_them_alone(name: str) -> None:
    found = FEATURE_SETS[name]
    assert found.name == name
    assert len(set(found.features)) == len(found.features)
    assert recognise(list(found.features)) is found
    assert recognise(found.features[1:]) is None
    assert recognise((found.features[1], found.features[0], *found.features[2:])) is None


def test_the_order_is_the_documented_one() -> None:
    assert CORE20.features[:2] == ("mfcc_1", "mfcc_2")
    assert CORE20.features[12:] == (
        "mfcc_13",
        "spectral_centroid",
        "spectral_rolloff",
        "zero_crossing_rate",
        "rms",
        "chroma_mean",
        "chroma_std",
        "chroma_entropy",
    )
    assert GTZAN57.features[:2] == ("chroma_stft_mean", "chroma_stft_var")
    assert GTZAN57.features[16] == "tempo"
    assert GTZAN57.features[-1] == "mfcc20_var"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (["a", "b", "c"], None),
        (["a", "c"], "missing: b"),
        (["a", "b", "c", "d"], "extra: d"),
        (["a", "d", "c"], "missing: b; extra: d"),
        (["b", "a", "c"], "out of place: 'b' where 'a' belongs, 'a' where 'b' belongs"),
    ],
)
def test_a_mismatch_names_what_is_missing_extra_or_out_of_place(
    found: list[str], message: str | None
) -> None:
    assert describe_mismatch(["a", "b", "c"], found) == message


@pytest.mark.parametrize("name", SIZES)
def test_a_reference_says_how_the_features_are_made_and_survives_being_stored(name: str) -> None:
    made = FEATURE_SETS[name].build_reference()
    assert made.parameters == FEATURE_SETS[name].parameters
    assert (made.parameters == PARAMETERS) == (not name.startswith("musicnn"))
    assert FeatureSetReference.from_dict(json.loads(json.dumps(made.as_dict()))) == made
    assert made.describe_difference(made) is None


@pytest.mark.parametrize("name", ["musicnn50", "musicnn"])
def test_a_pretrained_set_names_its_weights_and_its_own_sample_rate(name: str) -> None:
    made = FEATURE_SETS[name].build_reference(3.0)
    assert made.parameters["sample_rate_hz"] == FEATURE_SETS[name].sample_rate == 16_000
    assert len(bytes.fromhex(made.parameters["weights_sha256"])) == 32
    other = FeatureSetReference(name, 1, {**made.parameters, "weights_sha256": "ab" * 32})
    assert made.describe_difference(other) == (
        f"weights_sha256 {'ab' * 32}, not {made.parameters['weights_sha256']}"
    )


def test_the_tags_have_their_own_names() -> None:
    musicnn = FEATURE_SETS["musicnn"].features
    assert musicnn[:50] == FEATURE_SETS["musicnn50"].features
    assert {"heavy metal", "acoustic", "female vocalists", "Hip-Hop"} < set(musicnn[:50])
    assert musicnn[50:] == tuple(f"penultimate_{number:03d}" for number in range(1, 201))


def test_features_made_otherwise_are_distinguished() -> None:
    made = CORE20.build_reference()
    assert made.describe_difference(GTZAN57.build_reference()) == "feature set gtzan57, not core20"
    assert made.describe_difference(CORE20.build_reference(3.0)) == "clip_seconds 3.0, not 30.0"
    newer = FeatureSetReference("core20", 2, {"hop_length": 256})
    assert made.describe_difference(newer) == (
        "version 2, not 1; sample_rate_hz None, not 22050; clip_seconds None, not 30.0; n_fft None, not 2048; "
        "hop_length 256, not 512"
    )
