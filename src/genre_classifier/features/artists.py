"""Recognise artist names that name no artist, such as 'Various Artists'."""

from __future__ import annotations

import re
import unicodedata

# Placeholders of players, rippers and catalogues for an unknown artist; letters and digits only.
_NOBODY = {
    *(
        "various",
        "variousartist",
        "variousartists",
        "variousinterprets",
        "variousperformers",
        "variousauthors",
    ),
    *("va", "vvaa", "aavv", "artistsvarious", "multipleartists", "multiple", "severalartists", "compilation"),
    *("compilations", "unknown", "unknownartist", "unknownartists", "artistunknown", "unknownperformer"),
    *("na", "none", "null", "nan", "nil", "undefined", "unspecified", "notavailable", "notapplicable", "tba"),
    *("noartist", "noname", "anonymous", "untitled", "verschiedene", "verschiedeneinterpreten"),
    *("verschiedenekünstler", "diverse", "diverseinterpreten", "diversekünstler", "diverseartister"),
    *("unbekannt", "unbekannterinterpret", "unbekannterkünstler", "artisteinconnu", "inconnu", "divers"),
    *("artistesdivers", "artistesvariés", "multiinterprètes", "desconocido", "artistadesconocido"),
    *("variosartistas", "variosintérpretes", "váriosartistas", "váriosintérpretes", "artistadesconhecido"),
    *("desconhecido", "varieartisti", "variartisti", "artistivari", "artistasconosciuto", "sconosciuto"),
    *("diverseartiesten", "onbekendeartiest", "onbekend", "okändartist", "ukjentartist", "ukendtkunstner"),
    *("różniwykonawcy", "nieznanywykonawca", "неизвестныйисполнитель", "неизвестен", "разныеисполнители"),
    *(
        "разные",
        "сборник",
        "群星",
        "未知艺术家",
        "未知藝人",
        "不明なアーティスト",
        "オムニバス",
        "알수없는아티스트",
    ),
}
# A number after one of these is an album's number or a position in a list. "artist 12" and "unknown_12" are anonymised
# artists.
_NUMBERED = ("various", "unknownartist", "unknownperformer", "va")
_BETWEEN_PARTS = re.compile(r"\s+[-:|~\u2013\u2014]+\s+")
_BETWEEN_NAMES = re.compile(r"[;/|]")
_PLACEHOLDERS = re.compile(r"[\s\-_\u2013\u2014.?/\\<>()\[\]{}*#|~:;,'\"]*")


def is_nobody(name: str | None) -> bool:
    """Return whether an artist's name, from a tag, folder or list, means that the artist is missing or unknown.

    Case, spaces and punctuation do not matter: ``V.A.``, ``<unknown>`` and ``VARIOUS  ARTISTS`` are nobody. The text
    after a dash does not matter either: ``VA - Hits`` is nobody. Names of other signs only (``!!!``) are artists.

    Examples
    --------
    >>> [is_nobody(name) for name in ("N/A", "various artists", "", "Vanessa", "!!!")]
    [True, True, True, False, False]
    """
    text = unicodedata.normalize("NFKC", name or "").casefold().replace("_", " ").strip()
    if _PLACEHOLDERS.fullmatch(text):
        return True
    head = _BETWEEN_PARTS.split(text, maxsplit=1)[0]
    names = {_fold_name(name) for name in _BETWEEN_NAMES.split(text)}
    return names <= _NOBODY or not _NOBODY.isdisjoint({_fold_name(text), _fold_name(head)})


def _fold_name(text: str) -> str:
    """Return a text's letters and digits, without a number that follows a placeholder."""
    signs = unicodedata.normalize("NFC", "".join(sign for sign in text if sign.isalnum()))
    unnumbered = signs.rstrip("0123456789")
    return unnumbered if unnumbered.startswith(_NUMBERED) else signs
