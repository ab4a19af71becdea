import pytest

from genre_classifier.errors import DataError
from genre_classifier.features.names import normalise, refuse_alike_genres


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Rock", "rock"),
        ("STRASSE", "Straße"),
        ("Hip Hop", "HipHop"),
        ("Hip Hop", "Hip  Hop"),
        ("Hip Hop", "Hip\u00a0Hop"),
        ("Hip Hop", "hip\thop"),
        ("Rock", "Ro\u200bck"),
        ("Rock", "\uff32\uff4f\uff43\uff4b"),
        ("Fink", "\ufb01nk"),
    ],
)
def test_names_that_differ_in_case_spaces_or_form_only_are_refused(one: str, other: str) -> None:
    with pytest.raises(DataError, match=r"music: genres .* differ in case.* only; rename one, or join them"):
        refuse_alike_genres([normalise(one), "Jazz", normalise(other)], "music")


def test_other_names_are_kept() -> None:
    refuse_alike_genres(
        ["Rock", "Rock", "Rock'n'Roll", "Hip-Hop", "Hip_Hop", "R&B", "Forró", "Forro"], "music"
    )


def test_a_name_has_one_form() -> None:
    assert normalise(" Forro\u0301\n") == "Forr\u00f3"
    assert normalise("\uff32ock") == "\uff32ock"  # another letter, not another form of it
