"""Find rows with the same features on two sides of a split. A copy in the training rows makes a test row useless."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from genre_classifier.data.splits import SIDES, Split
from genre_classifier.data.table import FeatureTable
from genre_classifier.data.values import Int64, divide_rows

TOLERANCE = 1e-6
EXAMPLES = 20
# Rows whose projections agree by chance are few; those of copies stand next to each other.
NEIGHBOURS = 32


@dataclass(frozen=True)
class Duplicates:
    """Rows that have a copy on another side.

    Parameters
    ----------
    rows : dict of str to int
        How many rows of each side have a copy on a side that trained or chose before it: validation rows one among the
        training rows, test rows one among either.
    other_genre : int
        How many of them have a copy of another genre.
    examples : tuple of tuple of str
        Id, side, the copy's id and its side, of up to 20.
    """

    rows: dict[str, int]
    other_genre: int
    examples: tuple[tuple[str, str, str, str], ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {
            "tolerance": TOLERANCE,
            "rows": self.rows,
            "other_genre": self.other_genre,
            "examples": [list(example) for example in self.examples],
        }


def find_duplicates(table: FeatureTable, split: Split) -> Duplicates:
    """Find rows whose every feature agrees to 1e-6 of that feature's largest absolute value, across sides.

    Parameters
    ----------
    table : FeatureTable
    split : Split
    """
    sides = [split.sides()[name] for name in SIDES]
    rows = np.concatenate(sides)
    side_of = np.repeat(np.arange(len(SIDES)), [len(side) for side in sides])
    copies = _find_copies(table, rows)
    counts = dict.fromkeys(SIDES[1:], 0)
    other_genre = 0
    examples: list[tuple[str, str, str, str]] = []
    for members in copies:
        first = members[side_of[members] == side_of[members].min()]
        for member in members[side_of[members] > side_of[first[0]]]:
            side = SIDES[side_of[member]]
            counts[side] += 1
            other_genre += bool((table.genres[rows[first]] != table.genres[rows[member]]).any())
            if len(examples) < EXAMPLES:
                copy = first[0]
                examples.append(
                    (str(table.ids[rows[member]]), side, str(table.ids[rows[copy]]), SIDES[side_of[copy]])
                )
    return Duplicates(counts, other_genre, tuple(examples))


def _find_copies(table: FeatureTable, rows: Int64) -> list[Int64]:
    """Return positions in `rows` that are copies of each other, one array for each set of two or more."""
    scale = np.maximum(np.abs(table.features.min(axis=0)), np.abs(table.features.max(axis=0)))
    scale = np.where(scale > 0, scale, 1).astype(np.float64)
    direction = np.random.default_rng(0).uniform(0.5, 1.0, table.features.shape[1]) / scale
    projection = np.empty(len(rows))
    for block in divide_rows(len(rows), table.features.shape[1]):
        projection[block] = table.features[rows[block]] @ direction
    # The projections of two copies differ by at most this.
    reach = TOLERANCE * float((direction * scale).sum()) * (1 + 1e-6)
    order = np.argsort(projection, kind="stable")
    links: list[Int64] = []
    for step in range(1, min(NEIGHBOURS, len(rows) - 1) + 1):
        near = np.flatnonzero(projection[order[step:]] - projection[order[:-step]] <= reach)
        if not len(near):
            break
        one, other = order[near], order[near + step]
        links.append(np.stack([one, other])[:, _find_agreement(table, rows[one], rows[other], scale)])
    if not links:
        return []
    ends = np.concatenate(links, axis=1)
    graph = coo_matrix((np.ones(ends.shape[1]), ends), shape=(len(rows), len(rows)))
    labels = connected_components(graph, directed=False)[1]
    linked = np.unique(ends)
    by_label = linked[np.argsort(labels[linked], kind="stable")]
    return np.split(by_label, np.flatnonzero(np.diff(labels[by_label])) + 1) if len(by_label) else []


def _find_agreement(table: FeatureTable, one: Int64, other: Int64, scale: np.ndarray) -> np.ndarray:
    agreed = np.empty(len(one), dtype=np.bool_)
    for block in divide_rows(len(one), table.features.shape[1]):
        apart = np.abs(table.features[one[block]].astype(np.float64) - table.features[other[block]])
        agreed[block] = (apart <= TOLERANCE * scale).all(axis=1)
    return agreed
