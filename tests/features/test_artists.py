"""A name that says that an artist is not known, or that there are many, is no artist."""

from __future__ import annotations

import pytest

from genre_classifier.features.artists import is_nobody


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Various Artists",
            "VARIOUS ARTISTS",
            " various   artists ",
            "Various-Artists",
            "various_artists",
            "Various",
        ),
        *("VA", "V.A.", "V/A", "v a", "VA - Hits 1999", "VA_-_Hits", "Various Artists (2004)", "VV.AA."),
        *(
            "Unknown Artist",
            "unknown artist 1",
            "<unknown>",
            "[Unknown]",
            "(unknown)",
            "UNKNOWN",
            "Unknown - Live",
        ),
        *("N/A", "n.a.", "NA", "None", "null", "", " ", "-", "--", "?", "...", "<>", None),
        *(
            "Various Artists; Unknown",
            "\uff36\uff21",
            "Verschiedene Künstler",
            "Artiste inconnu",
        ),
    ],
)
def test_a_placeholder_is_nobody(name: str | None) -> None:
    assert is_nobody(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Vanessa",
            "Van Halen",
            "Nana",
            "VAST",
            "Unknown Mortal Orchestra",
            "The Various",
            "311",
            "!!!",
            "†††",
        ),
        *(
            "+/-",
            "Miles Davis",
            "Mr. Various Artists Band",
            "日本",
            "A",
            "Nada",
            "Various Cruelties",
            "Vader",
        ),
        *(
            "artist 12",
            "artist_01",
            "Anonymous 4",
            "Jazz-artist-3",
            "12",
            "0",
            "None 7",
            "unknown_12",
            "Artist A",
            "artist-0",
            "0.0",
            "-1",
        ),
    ],
)
def test_another_name_is_an_artist(name: str) -> None:
    assert not is_nobody(name)
