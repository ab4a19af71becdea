"""Normalise names (genre, group, id, column), and find names that are too similar."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator

from genre_classifier.errors import DataError


def normalise(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), without spaces at its ends.

    macOS writes file names in the decomposed form (NFD). Both forms look the same.

    Examples
    --------
    >>> normalise("Forro\\u0301 ") == "Forr\\u00f3"
    True
    """
    return unicodedata.normalize("NFC", name).strip()


def find_alike(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield pairs of names that differ only in case, spaces or the Unicode form of their letters."""
    found = defaultdict(list)
    for name in sorted(set(names)):
        found[fold_name(name)].append(name)
    for same in found.values():
        if len(same) > 1:
            yield same[0], same[1]


def refuse_alike_genres(genres: Iterable[str], where: object) -> None:
    """Raise DataError if two genres are most likely one genre, spelled in two ways.

    Parameters
    ----------
    genres : iterable of str
        Normalised names.
    where : object
        The file or folder, for the message.
    """
    for one, other in find_alike(genres):
        how = "case" if one.casefold() == other.casefold() else "case, spaces or the form of their letters"
        raise DataError(
            f"{where}: genres {one!r} and {other!r} differ in {how} only; rename one, or join them"
        )


def fold_name(name: str) -> str:
    """Return what two names share that differ only in case, spaces or the Unicode form of their letters."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    # Format characters (zero-width spaces, soft hyphens) are as invisible as spaces.
    return "".join(sign for sign in folded if not sign.isspace() and unicodedata.category(sign) != "Cf")
