"""FeatureTable: the checked rows that every reader returns."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from genre_classifier.config.schema import NanPolicy
from genre_classifier.data.values import Float32, Int64, find_far_values, find_finite_rows, find_genre_codes
from genre_classifier.errors import DataError
from genre_classifier.features.artists import is_nobody
from genre_classifier.features.names import find_alike, normalise, refuse_alike_genres
from genre_classifier.features.sets import FeatureSet, FeatureSetReference, recognise

log = logging.getLogger(__name__)

Text = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Source:
    """The origin of a table's rows.

    Parameters
    ----------
    name : str
        The name by which `data=NAME` chooses it.
    origin, licence, citation : str
        Who published the rows and where, under which terms, and what to cite.
    synthetic : bool
        True if no real music was measured.
    """

    name: str
    origin: str
    licence: str
    citation: str
    synthetic: bool = False


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Rows of features with their genres. It is checked when it is made.

    Parameters
    ----------
    features : np.ndarray [shape=(row, feature), dtype=float32]
    genres : np.ndarray [shape=(row,), dtype=int64]
        Index into `genre_names`.
    feature_names, genre_names : tuple of str
    ids : np.ndarray [shape=(row,), dtype=object]
        One unique name (str) per row.
    source : Source
    groups : np.ndarray [shape=(row,), dtype=object], optional
        The group of each row, such as its artist. A group stays on one side of a split.
    group_name : str, optional
        The kind of group: ``artist``, ``track``.
    given_split : np.ndarray [shape=(row,), dtype=object], optional
        The split that came with the data: ``train``, ``val`` or ``test`` for every row.
    where : str
        The file, for messages.
    made_with : FeatureSetReference, optional
        How the features were made, if the file says so; otherwise the set with these names is assumed.

    Raises
    ------
    DataError
        A row, column or name cannot be trained on. The message names it.
    """

    features: Float32
    genres: Int64
    feature_names: tuple[str, ...]
    genre_names: tuple[str, ...]
    ids: Text
    source: Source
    groups: Text | None = None
    group_name: str | None = None
    given_split: Text | None = None
    where: str = field(default="table")
    made_with: FeatureSetReference | None = None

    def __post_init__(self) -> None:
        _check_shapes(self)
        _check_names(self)
        constant = [repr(name) for name in self.constant_features]
        if constant:
            first = ", ".join(constant[:5]) + (f" and {len(constant) - 5} more" if constant[5:] else "")
            log.warning(
                "%s: %d constant feature%s, kept and scaled to 0: %s",
                self.where,
                len(constant),
                "s" if constant[1:] else "",
                first,
            )

    def __len__(self) -> int:
        return len(self.genres)

    @property
    def feature_set(self) -> FeatureSet | None:
        """The known feature set with these names in this order, if there is one."""
        return recognise(self.feature_names)

    @cached_property
    def constant_features(self) -> tuple[str, ...]:
        """Names of the features that have one value in all rows."""
        same = self.features.min(axis=0) == self.features.max(axis=0)
        return tuple(name for name, constant in zip(self.feature_names, same, strict=True) if constant)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that affects a result: features, genres, names, ids, groups, given split."""
        digest = hashlib.sha256()
        digest.update(np.ascontiguousarray(self.features).data)
        digest.update(np.ascontiguousarray(self.genres).data)
        for names in (self.feature_names, self.genre_names, self.ids, self.groups, self.given_split):
            digest.update(b"\x1d")
            if names is not None:
                digest.update("\x1f".join(map(str, names)).encode())
        return digest.hexdigest()

    def description(self) -> dict[str, Any]:
        """Return the description of the data that results record, as values for JSON."""
        feature_set = self.feature_set
        made_with = self.made_with or (feature_set and feature_set.build_reference())
        return {
            "source": self.source.name,
            "where": self.where,
            "origin": self.source.origin,
            "licence": self.source.licence,
            "citation": self.source.citation,
            "synthetic": self.source.synthetic,
            "fingerprint": self.fingerprint,
            "rows": len(self),
            "features": len(self.feature_names),
            "feature_set": made_with.as_dict() if made_with else None,
            "genres": list(self.genre_names),
            "groups": None if self.groups is None else len(set(self.groups)),
            "group_name": self.group_name,
        }


def build_table(
    *,
    features: Float32,
    labels: Sequence[object],
    feature_names: Sequence[str],
    ids: Sequence[object],
    source: Source,
    where: str,
    groups: Sequence[object] | None = None,
    group_name: str | None = None,
    given_split: Sequence[object] | None = None,
    genre_order: Sequence[str] | None = None,
    nan: NanPolicy = NanPolicy.error,
    row_name: Callable[[int], str] = lambda row: f"row {row + 1}",
    made_with: FeatureSetReference | None = None,
    columns: Mapping[str, str | None] | None = None,
) -> FeatureTable:
    """Return a table made from raw columns, after checking them.

    Parameters
    ----------
    features : np.ndarray [shape=(row, feature), dtype=float32]
    labels, ids, groups, given_split : sequence [length=row]
        Anything that reads as text; a missing value is None or NaN. A row whose group is missing or names nobody, such
        as 'Various Artists', is a group of its own.
    where : str
        The file, for messages.
    genre_order : sequence of str, optional
        Order of the genre indices; alphabetical if not given.
    nan : NanPolicy
        Whether a row with NaN or infinity is an error or left out.
    row_name : callable, optional
        From a row's index to its name in messages; ``row 1`` for the first row if not given.
    made_with : FeatureSetReference, optional
        How the features were made, if the file says so.
    columns : mapping of str to str, optional
        The columns of ``genre``, ``id``, ``group`` and ``split``, for messages.

    Raises
    ------
    DataError
        The message names the row and column.
    """
    if len(labels) == 0:
        raise DataError(f"{where} has a header but no rows: nothing to train on")
    bad = describe_not_finite(features, feature_names, row_name)
    if bad is not None and nan is NanPolicy.error:
        raise DataError(f"{where}, {bad}; correct them, or leave them out with data.nan=drop")
    keep = np.arange(len(features), dtype=np.int64)
    if bad is not None:
        keep = np.flatnonzero(find_finite_rows(features))
        log.warning(
            "%s: %d of %d rows dropped for NaN or infinity, the first for %s",
            where,
            len(features) - len(keep),
            len(features),
            bad,
        )
        features = features[keep]
    if len(keep) == 0:
        raise DataError(
            f"{where}: every row has NaN or infinity, so data.nan=drop leaves nothing to train on"
        )
    _warn_of_far_values(features, feature_names, where, lambda row: row_name(int(keep[row])))

    def texts(values: Sequence[object], what: str, *, may_be_blank: bool = False) -> Text:
        column = (columns or {}).get(what)
        suffix = "" if column is None else f", column {column!r}"
        return _check_texts(values, keep, what, where, lambda row: f"{row_name(row)}{suffix}", may_be_blank)

    genre_text = texts(labels, "genre")
    refuse_alike_genres(genre_text, where)
    names = list(genre_order) if genre_order is not None else sorted(set(genre_text))
    index = {name: position for position, name in enumerate(names)}
    unknown = next((text for text in genre_text if text not in index), None)
    if unknown is not None:
        raise DataError(f"{where}: genre {unknown!r} is not one of {', '.join(names)}")
    ids_text = texts(ids, "id")
    group_text = None
    if groups is not None:
        group_name = group_name or "group"
        group_text = _separate_nobodies(
            texts(groups, "group", may_be_blank=True), ids_text, group_name, where
        )
        _warn_of_alike(group_text, group_name, where)
    genres = np.fromiter((index[text] for text in genre_text), dtype=np.int64, count=len(keep))
    _warn_of_genre_codes(features, genres, feature_names, where)
    return FeatureTable(
        features=features,
        genres=genres,
        feature_names=tuple(feature_names),
        genre_names=tuple(names),
        ids=ids_text,
        source=source,
        groups=group_text,
        group_name=None if groups is None else group_name,
        given_split=None if given_split is None else texts(given_split, "split"),
        where=where,
        made_with=made_with,
    )


def _separate_nobodies(groups: Text, ids: Text, group_name: str, where: str) -> Text:
    """Return the groups. A row whose group is blank or names nobody, such as 'Various Artists', is a separate group."""
    nobodies = Counter(name for name in groups if is_nobody(name))
    if not nobodies:
        return groups
    if set(nobodies) == {""} and nobodies.total() == len(groups):
        raise DataError(f"{where}: the {group_name} is empty in every row; fill it in, or name no group")
    log.warning(
        "%s: %d of %d rows have the %s %s, which names nobody; each of these rows is a separate group",
        where,
        nobodies.total(),
        len(groups),
        group_name,
        ", ".join(repr(name) if name else "(blank)" for name, _ in nobodies.most_common(5)),
    )
    # The blank distinguishes a row's group from a group with the row's name.
    alone = [f"{name} {row}" if name in nobodies else name for name, row in zip(groups, ids, strict=True)]
    return np.array(alone, dtype=object)


def describe_not_finite(
    features: Float32, feature_names: Sequence[str], row_name: Callable[[int], str]
) -> str | None:
    """Return the place of the first NaN or infinity and the number of rows with one; None if there is none."""
    bad = ~find_finite_rows(features)
    if not bad.any():
        return None
    row = int(np.argmax(bad))
    column = int(np.argmax(~np.isfinite(features[row])))
    what = (
        "NaN or an empty cell"
        if np.isnan(features[row, column])
        else "infinity, or a number too large for float32"
    )
    return f"{row_name(row)}, column {feature_names[column]!r}: {what}, as in {int(bad.sum())} row(s) in all"


def _warn_of_far_values(
    features: Float32, feature_names: Sequence[str], where: str, row_name: Callable[[int], str]
) -> None:
    found = list(find_far_values(features))
    if not found:
        return
    shown = [
        f"{row_name(int(far.rows[0]))}, column {feature_names[far.column]!r}: {features[far.rows[0], far.column]:g}"
        f"{f' (and in {len(far.rows) - 1} more rows)' if len(far.rows) > 1 else ''}, all others from {far.low:g} to "
        f"{far.high:g}"
        for far in found[:5]
    ]
    log.warning(
        "%s: values far outside the rest of their column: %s%s. Each changes how its whole column is scaled; correct "
        "those that are wrong",
        where,
        "; ".join(shown),
        f"; and in {len(found) - 5} more columns" if len(found) > 5 else "",
    )


def _warn_of_genre_codes(features: Float32, genres: Int64, feature_names: Sequence[str], where: str) -> None:
    found = find_genre_codes(features, genres)
    if found:
        log.warning(
            "%s: these features have one value per genre, so they are the genre in other words and the result means "
            "nothing: %s%s; remove them",
            where,
            ", ".join(repr(feature_names[column]) for column in found[:5]),
            f" and {len(found) - 5} more" if len(found) > 5 else "",
        )


def _warn_of_alike(groups: Text, what: str, where: str) -> None:
    found = list(find_alike(groups.tolist()))
    if found:
        log.warning(
            "%s: %s %r and %r differ only in case, spaces or the form of their letters%s. They count as two groups, so "
            "their rows may be on two sides of a split",
            where,
            what,
            *found[0],
            f", as do {len(found) - 1} more" if len(found) > 1 else "",
        )


def _check_texts(
    values: Sequence[object],
    keep: Int64,
    what: str,
    where: str,
    row_name: Callable[[int], str],
    may_be_blank: bool,
) -> Text:
    texts = np.empty(len(keep), dtype=object)
    for position, row in enumerate(keep):
        value = values[row]
        text = "" if value is None or value != value else normalise(str(value))
        if not text and not may_be_blank:
            raise DataError(f"{where}, {row_name(row)}: the {what} is empty; fill it in or remove the row")
        texts[position] = text
    return texts


def _check_shapes(table: FeatureTable) -> None:
    if table.features.ndim != 2 or table.features.dtype != np.float32:
        raise DataError(
            f"{table.where}: features have shape {table.features.shape} and dtype {table.features.dtype}; "
            "expected (row, feature) and float32"
        )
    rows = len(table.features)
    for name in ("genres", "ids", "groups", "given_split"):
        column = getattr(table, name)
        if column is not None and column.shape != (rows,):
            raise DataError(
                f"{table.where}: {name} has shape {column.shape}; expected ({rows},), one per row"
            )
    if table.features.shape[1] != len(table.feature_names):
        raise DataError(
            f"{table.where}: {table.features.shape[1]} feature columns but {len(table.feature_names)} feature names"
        )
    if rows == 0 or not table.feature_names:
        raise DataError(
            f"{table.where}: {rows} rows of {len(table.feature_names)} features: nothing to train on"
        )
    if not find_finite_rows(table.features).all():
        raise DataError(f"{table.where}: a feature is NaN or infinite")
    if table.genres.min() < 0 or table.genres.max() >= len(table.genre_names):
        raise DataError(f"{table.where}: genre indices reach beyond the {len(table.genre_names)} genre names")


def _check_letters(table: FeatureTable) -> None:
    """Raise DataError for half of a surrogate pair, which cannot be written to any file, report or answer."""
    for what, names in (
        ("feature name", table.feature_names),
        ("genre name", table.genre_names),
        ("id", table.ids),
        ("group", table.groups if table.groups is not None else ()),
        ("kind of group", (table.group_name or "",)),
    ):
        try:
            "".join(map(str, names)).encode()
        except UnicodeEncodeError:
            broken = next(name for name in map(str, names) if re.search("[\ud800-\udfff]", name))
            raise DataError(
                f"{table.where}: {what} {broken!r} holds half of a surrogate pair, which is no character; rename it"
            ) from None


def _check_names(table: FeatureTable) -> None:
    _check_letters(table)
    for what, names in (
        ("feature name", table.feature_names),
        ("genre name", table.genre_names),
        ("id", table.ids),
    ):
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise DataError(
                f"{table.where}: {what} {repeated[0]!r} appears {Counter(names)[repeated[0]]} times"
                f"{f' ({len(repeated)} such names)' if len(repeated) > 1 else ''}; each must be unique"
            )
    present = np.unique(table.genres)
    if len(present) < 2:
        raise DataError(
            f"{table.where}: all rows are of one genre, {table.genre_names[present[0]]!r}; "
            "a classifier needs two or more"
        )
    empty = sorted(set(range(len(table.genre_names))) - set(present.tolist()))
    if empty:
        raise DataError(f"{table.where}: no row is of genre {table.genre_names[empty[0]]!r}")
