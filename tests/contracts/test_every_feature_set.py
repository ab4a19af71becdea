"""Every feature set: its names are unique and in a fixed order, and a table that does not match is told how."""

import pytest

from genre_classifier.features.sets import CORE20, FEATURE_SETS, GTZAN57, describe_mismatch, recognise

SIZES = {"core20": 20, "gtzan57": 57}


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
