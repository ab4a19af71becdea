"""Divide rows into training, validation and test rows, and describe how (the split protocol).

A group (artist, track) is never on two sides. The one exception is a split of random rows, and its protocol says so.
"""

from __future__ import annotations

import logging
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from weakref import WeakSet

import numpy as np

from genre_classifier.config.schema import SplitConfig, SplitFiles, SplitMethod, list_data_settings
from genre_classifier.data.table import FeatureTable
from genre_classifier.data.values import Int64
from genre_classifier.errors import SplitError
from genre_classifier.features.decoding.formats import SUFFIXES
from genre_classifier.features.names import normalise
from genre_classifier.files.home import expand_home

log = logging.getLogger(__name__)

SIDES = ("train", "val", "test")
SIDE_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
WITHOUT_SPLIT_COLUMN = {"audio_folder", "demo"}
FOLD_ATTEMPTS = 50
AUDIO_SUFFIXES = {*SUFFIXES, ".m4a", ".wma"}
_warned = WeakSet[FeatureTable]()  # tables whose scarce genres were named: once per table, not once per fold


@dataclass(frozen=True)
class Protocol:
    """How a split was made. Every result names its protocol.

    Parameters
    ----------
    name : str
        ``stratified``, ``grouped``, ``given``, ``stratified-folds``, ``grouped-folds``, ``all``.
    description : str
        One sentence with all that is needed to repeat the split.
    groups_disjoint : bool or None
        Whether no group is on two sides; None if the data has no groups.
    seed : int or None
        The split's seed; None if nothing was drawn.
    """

    name: str
    description: str
    groups_disjoint: bool | None
    seed: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {
            "name": self.name,
            "description": self.description,
            "groups_disjoint": self.groups_disjoint,
            "seed": self.seed,
        }


@dataclass(frozen=True, eq=False)
class Split:
    """Row indices of each side, ascending, and the protocol.

    Parameters
    ----------
    train, val, test : np.ndarray [shape=(n,), dtype=int64]
    protocol : Protocol
    """

    train: Int64
    val: Int64
    test: Int64
    protocol: Protocol

    def sides(self) -> dict[str, Int64]:
        """Return the three sides by name."""
        return {"train": self.train, "val": self.val, "test": self.test}


def make_split(table: FeatureTable, config: SplitConfig) -> Split:
    """Return a table's rows divided as configured.

    Raises
    ------
    SplitError
        The rows cannot be divided in this way. The message names the genre, group, file or id that prevents it.
    """
    if config.method is SplitMethod.all:
        return _train_on_all(table, config)
    if config.column is not None:
        return _split_by_column(table, config)
    if any((config.files.train, config.files.val, config.files.test)):
        return _split_by_files(table, config)
    if config.method is SplitMethod.given:
        column = "" if table.source.name in WITHOUT_SPLIT_COLUMN else "data.split.column or "
        raise SplitError(f"data.split.method=given needs {column}data.split.files.test")
    grouped = config.method is SplitMethod.grouped or (
        config.method is SplitMethod.auto and table.groups is not None
    )
    if grouped and table.groups is None:
        raise SplitError(
            f"data.split.method=grouped, but {table.where} has no groups: {_describe_grouping(table)}, or use "
            "data/split=stratified"
        )
    if config.folds is not None:
        return _split_by_fold(table, config, grouped)
    return _hold_out(table, config, grouped)


def _describe_grouping(table: FeatureTable) -> str:
    if "group" in list_data_settings(table.source.name):
        return "name their column with data.group=..."
    if table.source.name == "audio_folder":
        return "put the files into GENRE/ARTIST/ folders"
    return "read the table with data=table and a column of groups"


def _train_on_all(table: FeatureTable, config: SplitConfig) -> Split:
    """Let every row train, except rows that the split's files leave out."""
    side_of = np.zeros(len(table), dtype=np.int64)
    how = "all rows train, none is held out"
    if any((config.files.train, config.files.val, config.files.test)):
        side_of = _read_sides(table, config)
        how = f"all rows of the files {_join_file_names(config.files)} train, none is held out"
    none = np.empty(0, dtype=np.int64)
    return Split(np.flatnonzero(side_of >= 0).astype(np.int64), none, none, Protocol("all", how, None, None))


def _hold_out(table: FeatureTable, config: SplitConfig, grouped: bool) -> Split:
    rng = np.random.default_rng(config.seed)
    shares = np.array([config.train, config.val, config.test])
    rows = np.arange(len(table))
    train, val, test = _divide(table, rows, shares, rng, grouped)
    percent = "/".join(f"{share * 100:g}" for share in shares)
    how, disjoint = _describe_method(table, grouped)
    name = "grouped" if grouped else "stratified"
    protocol = Protocol(name, f"{percent} % holdout, {how}, seed {config.seed}", disjoint, config.seed)
    return Split(train, val, test, protocol)


def _describe_method(table: FeatureTable, grouped: bool) -> tuple[str, bool | None]:
    if grouped:
        return f"no {table.group_name} on two sides", True
    if table.groups is not None:
        return (
            f"random rows: the rows of one {table.group_name} fall on several sides, so the number is optimistic",
            False,
        )
    return "random rows stratified by genre, no groups known", None


def _split_by_fold(table: FeatureTable, config: SplitConfig, grouped: bool) -> Split:
    folds, fold = config.folds, config.fold
    if folds is None or fold is None or not 0 <= fold < folds:
        raise SplitError(
            f"data.split.folds={folds} data.split.fold={fold}: expected a fold from 0 to folds - 1"
        )
    unit = "group" if grouped else "row"
    rest, test = _draw_folds(table, folds, config.seed, grouped)[fold]
    shares = np.array([config.train, config.val, 0.0])
    train, val, _ = _divide(
        table,
        rest,
        shares / shares.sum(),
        np.random.default_rng([config.seed, fold]),
        grouped,
        complete=False,
    )
    how, disjoint = _describe_method(table, grouped)
    scarce = [
        f"{name!r} ({_describe_count(table, count, unit)})"
        for name, count in _find_scarce(table, folds, unit)
    ]
    in_words = f", some folds do not test {', '.join(scarce)}" if scarce else ""
    return Split(
        train,
        val,
        np.sort(test).astype(np.int64),
        Protocol(
            "grouped-folds" if grouped else "stratified-folds",
            f"fold {fold} of {folds} tests, {how}, seed {config.seed}{in_words}",
            disjoint,
            config.seed,
        ),
    )


def _draw_folds(table: FeatureTable, folds: int, seed: int, grouped: bool) -> list[tuple[Int64, Int64]]:
    """Return for each fold the other rows and its test rows.

    The rows that do not test have every genre. A genre with fewer groups (rows) than folds is missing in the test rows
    of some folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    unit = "group" if grouped else "row"
    rows = np.arange(len(table))
    _require_per_genre(table, rows, 2, unit, "folds")
    units = len(set(table.groups)) if grouped and table.groups is not None else len(table)
    largest = int(np.bincount(table.genres).max())
    if folds > min(units, largest):
        raise SplitError(
            f"{table.where}: {_describe_count(table, units, unit)}, at most {largest} rows of one genre: "
            f"too few for {folds} folds; add tracks, or use fewer folds"
        )
    scarce = [
        f"{name!r} has {_describe_count(table, count, unit)}"
        for name, count in _find_scarce(table, folds, unit)
    ]
    if scarce and table not in _warned:
        _warned.add(table)
        log.warning(
            "%s: genre %s: fewer than the %d folds. Some folds do not test it; all folds train on it",
            table.where,
            ", ".join(scarce),
            folds,
        )
    kind = StratifiedGroupKFold if grouped else StratifiedKFold
    for attempt in range(FOLD_ATTEMPTS):
        # The first draw counts unless it puts all groups of a genre into one fold.
        state = seed if attempt == 0 else int(np.random.default_rng([seed, attempt]).integers(2**31))
        splitter = kind(n_splits=folds, shuffle=True, random_state=state)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of scarce genres; the warning above names them
            pairs = list(
                splitter.split(np.zeros(len(table)), table.genres, table.groups if grouped else None)
            )
        if _train_every_genre(table, pairs):
            return pairs
    pairs = _deal_groups(table, folds, seed, grouped)
    if _train_every_genre(table, pairs):
        return pairs
    raise SplitError(
        f"{table.where}: no {folds} folds leave every genre to train on, with no {table.group_name} on two sides; use "
        "fewer folds, or another data.split.seed"
    )


def _train_every_genre(table: FeatureTable, pairs: Sequence[tuple[Int64, Int64]]) -> bool:
    """Return whether each fold tests something and leaves every genre to train on."""
    n_genres = len(table.genre_names)
    return all(len(test) and len(np.unique(table.genres[rest])) == n_genres for rest, test in pairs)


def _deal_groups(table: FeatureTable, folds: int, seed: int, grouped: bool) -> list[tuple[Int64, Int64]]:
    """Return folds to which the groups (rows) are dealt in turn, one genre after the other.

    Two groups of a genre never follow each other into one fold. So every genre trains in each fold, which no draw may
    manage where groups are few. The folds differ more in size than drawn ones.
    """
    names = table.groups if grouped and table.groups is not None else np.arange(len(table))
    _, first, of_row = np.unique(names, return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(first))
    order = order[np.argsort(table.genres[first[order]], kind="stable")]
    fold_of = np.empty(len(first), np.int64)
    fold_of[order] = np.arange(len(first)) % folds
    return [
        (np.flatnonzero(fold_of[of_row] != fold), np.flatnonzero(fold_of[of_row] == fold))
        for fold in range(folds)
    ]


def _divide(
    table: FeatureTable,
    rows: Int64,
    shares: np.ndarray,
    rng: np.random.Generator,
    grouped: bool,
    *,
    complete: bool = True,
) -> tuple[Int64, Int64, Int64]:
    """Return `rows` divided over the sides with a share above 0; each genre is divided in about these shares.

    Without `complete`, a genre with one group (row) only trains.
    """
    used = int((shares > 0).sum())
    unit = "group" if grouped else "row"
    needed = used if complete else 1
    _require_per_genre(table, rows, needed, unit, f"{used} sides ({', '.join(np.array(SIDES)[shares > 0])})")
    if grouped:
        side_of = _draw_grouped_sides(table, rows, shares, rng, complete)
    else:
        side_of = _draw_stratified_sides(table, rows, shares, rng)
    missing = sorted(set(range(len(table.genre_names))) - set(table.genres[rows[side_of == 1]].tolist()))
    if not complete and shares[1] > 0 and missing:
        log.warning(
            "%s: the validation rows have no row of genre %s: it has too few %ss beside the test rows",
            table.where,
            ", ".join(repr(table.genre_names[genre]) for genre in missing),
            table.group_name if grouped else "track",
        )
    train, val, test = (np.sort(rows[side_of == side]).astype(np.int64) for side in range(3))
    return train, val, test


def _count_units_per_genre(table: FeatureTable, rows: Int64, unit: str) -> list[int]:
    found = []
    for genre in range(len(table.genre_names)):
        mine = rows[table.genres[rows] == genre]
        found.append(len(mine) if unit == "row" or table.groups is None else len(set(table.groups[mine])))
    return found


def _find_scarce(table: FeatureTable, folds: int, unit: str) -> list[tuple[str, int]]:
    """Return the genres with fewer groups (rows) than folds, and how many they have."""
    counts = zip(table.genre_names, _count_units_per_genre(table, np.arange(len(table)), unit), strict=True)
    return [(name, count) for name, count in counts if count < folds]


def _describe_count(table: FeatureTable, count: int, unit: str) -> str:
    return f"{count} {unit if unit == 'row' else table.group_name}{'' if count == 1 else 's'}"


def _require_per_genre(table: FeatureTable, rows: Int64, needed: int, unit: str, what: str) -> None:
    for name, found in zip(table.genre_names, _count_units_per_genre(table, rows, unit), strict=True):
        if found < needed:
            raise SplitError(
                f"{table.where}: genre {name!r} has {_describe_count(table, found, unit)}, too few for {what}; "
                "add tracks, leave the genre out, or choose another split"
            )


def _draw_stratified_sides(
    table: FeatureTable, rows: Int64, shares: np.ndarray, rng: np.random.Generator
) -> Int64:
    side_of = np.empty(len(rows), dtype=np.int64)
    for genre in range(len(table.genre_names)):
        mine = np.flatnonzero(table.genres[rows] == genre)
        counts = _apportion(len(mine), shares)
        side_of[rng.permutation(mine)] = np.repeat(np.arange(3), counts)
    return side_of


def _apportion(total: int, shares: np.ndarray) -> Int64:
    """Return the number of rows per side, by largest remainder. A share above 0 gives at least a row if they last."""
    exact = shares * total
    counts = np.floor(exact).astype(np.int64)
    for side in np.argsort(counts - exact, kind="stable")[: total - counts.sum()]:
        counts[side] += 1
    for side in np.flatnonzero((shares > 0) & (counts == 0)):
        if counts.max() > 1:
            counts[np.argmax(counts)] -= 1
            counts[side] += 1
    return counts


def _draw_grouped_sides(
    table: FeatureTable, rows: Int64, shares: np.ndarray, rng: np.random.Generator, complete: bool
) -> Int64:
    """Return the side of each row. Whole groups go to sides, largest first.

    Each group goes to the side where the genres' shares come closest to the wanted shares. A side that still lacks a
    genre takes a group of that genre first. The training side takes the last group of a genre.
    """
    assert table.groups is not None
    names, group_of = np.unique(table.groups[rows].astype(str), return_inverse=True)
    genres = table.genres[rows]
    counts = np.zeros((len(names), len(table.genre_names)))  # (group, genre)
    np.add.at(counts, (group_of, genres), 1)
    target = np.outer(shares, counts.sum(axis=0))  # (side, genre)
    held = np.zeros_like(target)
    left = (counts > 0).sum(axis=0)  # groups of each genre not yet given away
    side_of_group = np.empty(len(names), dtype=np.int64)
    order = rng.permutation(len(names))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    active = np.flatnonzero(shares > 0)
    scale = np.maximum(counts.sum(axis=0), 1)
    for group in order:
        mine = counts[group] > 0
        lacking = (held[active][:, mine] == 0).sum(axis=1)
        short = [(held[active][:, genre] == 0).sum() >= left[genre] for genre in np.flatnonzero(mine)]
        costs = [
            (((held[side] + counts[group] - target[side]) / scale) ** 2).sum()
            - (((held[side] - target[side]) / scale) ** 2).sum()
            for side in active
        ]
        candidates = np.flatnonzero(lacking == lacking.max()) if any(short) else np.arange(len(active))
        last = mine & (left == 1) & (held[0] == 0)
        chosen = 0 if last.any() else active[min(candidates, key=lambda position: costs[position])]
        side_of_group[group] = chosen
        held[chosen] += counts[group]
        left -= mine
    if complete:
        _require_every_genre(table, held[active], active)
    return side_of_group[group_of]


def _require_every_genre(table: FeatureTable, held: np.ndarray, active: Int64) -> None:
    for side, side_counts in zip(active, held, strict=True):
        empty = np.flatnonzero(side_counts == 0)
        if len(empty):
            raise SplitError(
                f"{table.where}: with no {table.group_name} on two sides the {SIDES[side]} rows have no row of genre "
                f"{table.genre_names[empty[0]]!r}: its rows are in too few {table.group_name}s; try another "
                "data.split.seed, or larger data.split.val and data.split.test"
            )


def _split_by_column(table: FeatureTable, config: SplitConfig) -> Split:
    if table.given_split is None:
        raise SplitError(f"{table.where}: column {config.column!r} gave no split")
    side_of = np.empty(len(table), dtype=np.int64)
    for row, value in enumerate(table.given_split):
        side = SIDE_NAMES.get(str(value).strip().lower())
        if side is None:
            raise SplitError(
                f"{table.where}, id {table.ids[row]!r}, column {config.column!r}: {value!r} is no side of a split; "
                f"expected {', '.join(SIDE_NAMES)}"
            )
        side_of[row] = SIDES.index(side)
    return _split_as_given(table, config, side_of, f"given by column {config.column!r}")


def _split_by_files(table: FeatureTable, config: SplitConfig) -> Split:
    side_of = _read_sides(table, config)
    return _split_as_given(table, config, side_of, f"given by files {_join_file_names(config.files)}")


def _read_sides(table: FeatureTable, config: SplitConfig) -> Int64:
    if config.files.test is None:
        raise SplitError("data.split.files needs the file of the test rows: set data.split.files.test")
    side_of = np.full(len(table), -1, dtype=np.int64)
    lookup = _Lookup(table)
    for side, name in enumerate(SIDES):
        path = getattr(config.files, name)
        if path is not None:
            _assign(expand_home(path), side, lookup, side_of)
    if config.files.train is None:
        side_of[side_of == -1] = 0
    left_out = int((side_of == -1).sum())
    if left_out:
        log.warning(
            "%s: %d of %d rows are in no split file and are left out", table.where, left_out, len(table)
        )
    return side_of


def _join_file_names(files: SplitFiles) -> str:
    return ", ".join(f"{side}: {Path(path).name}" for side in SIDES if (path := getattr(files, side)))


class _Lookup:
    """Finds the rows for a line of a split file: by id, by the id's stem, or by the group."""

    def __init__(self, table: FeatureTable) -> None:
        self.table = table
        self.rows: dict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(table.ids):
            self.rows[str(name)].append(row)
        self.stems: dict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(table.ids):
            self.stems[get_stem(str(name))].append(row)
        self.groups: dict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(table.groups if table.groups is not None else ()):
            self.groups[str(name)].append(row)

    def __call__(self, line: str, where: str) -> list[int]:
        if line in self.rows:
            return self.rows[line]
        found = self.stems.get(get_stem(line), [])
        if len(found) > 1:
            raise SplitError(
                f"{where}: {line!r} matches {len(found)} ids, such as {self.table.ids[found[0]]!r} and "
                f"{self.table.ids[found[1]]!r}; write the whole id"
            )
        if not found:
            found = self.groups.get(line, []) or self.groups.get(get_stem(line), [])
        if not found:
            raise SplitError(
                f"{where}: {line!r} is no id of {self.table.where} (its ids look like {self.table.ids[0]!r}); "
                "correct or remove the line"
            )
        return found


def get_stem(name: str) -> str:
    """Return the last part of a path without an audio suffix: ``blues/blues.00029.wav`` gives ``blues.00029``."""
    last = PurePosixPath(name.replace("\\", "/"))
    return last.stem if last.suffix.lower() in AUDIO_SUFFIXES else last.name


def _assign(path: Path, side: int, lookup: _Lookup, side_of: Int64) -> None:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file in UTF-8"
        raise SplitError(f"data.split.files.{SIDES[side]}={path}: {reason}") from error
    entries = [(number, name) for number, line in enumerate(lines, start=1) if (name := normalise(line))]
    if not entries:
        raise SplitError(f"data.split.files.{SIDES[side]}={path} lists no ids")
    for number, line in entries:
        for row in lookup(line, f"{path}, line {number}"):
            if side_of[row] not in (-1, side):
                raise SplitError(
                    f"{path}, line {number}: {line!r} is already in the {SIDES[side_of[row]]} file; "
                    "a row belongs to one side"
                )
            side_of[row] = side


def _split_as_given(table: FeatureTable, config: SplitConfig, side_of: Int64, how: str) -> Split:
    sides = [np.flatnonzero(side_of == side).astype(np.int64) for side in range(3)]
    for side in (0, 2):
        if len(sides[side]) == 0:
            raise SplitError(f"{table.where}: the split {how} has no {SIDES[side]} rows")
    _refuse_shared_groups(table, side_of, how)
    seed = None
    if len(sides[1]) == 0 and config.val > 0:
        shares = np.array([config.train, config.val, 0.0])
        rng = np.random.default_rng(config.seed)
        train, val, _ = _divide(
            table, sides[0], shares / shares.sum(), rng, table.groups is not None, complete=False
        )
        sides[:2] = [train, val]
        seed = config.seed
        by = f"whole {table.group_name}s" if table.groups is not None else "rows"
        how += f"; validation is {config.val / (config.train + config.val):.1%} of the training {by}, seed {seed}"
    missing = sorted(set(range(len(table.genre_names))) - set(table.genres[sides[0]].tolist()))
    if missing:
        raise SplitError(
            f"{table.where}: the split {how} has no training row of genre {table.genre_names[missing[0]]!r}"
        )
    protocol = Protocol("given", how, None if table.groups is None else True, seed)
    return Split(sides[0], sides[1], sides[2], protocol)


def _refuse_shared_groups(table: FeatureTable, side_of: Int64, how: str) -> None:
    if table.groups is None:
        return
    sides_of_group: dict[str, set[int]] = defaultdict(set)
    for group, side in zip(table.groups, side_of, strict=True):
        if side >= 0:
            sides_of_group[str(group)].add(int(side))
    shared: Sequence[str] = [group for group, sides in sides_of_group.items() if len(sides) > 1]
    if shared:
        where = ", ".join(SIDES[side] for side in sorted(sides_of_group[shared[0]]))
        raise SplitError(
            f"{table.where}: the split {how} puts {table.group_name} {shared[0]!r} on several sides ({where})"
            f"{f', and {len(shared) - 1} more' if len(shared) > 1 else ''}; correct the split"
            f"{', or set data.group=null to ignore groups' if 'group' in list_data_settings(table.source.name) else ''}"
        )
