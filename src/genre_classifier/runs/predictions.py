"""The rows of predictions.csv, and metrics computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genre_classifier.errors import RunFolderError
from genre_classifier.evaluation.intervals import compute_intervals
from genre_classifier.evaluation.reliability import ReliabilityBin, compute_reliability
from genre_classifier.runs.folder import RunFolder

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Text = npt.NDArray[np.object_]
SMALLEST = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Rows with their true genre and a model's answer.

    Parameters
    ----------
    genre_names : tuple of str
    ids, groups : np.ndarray [shape=(row,), dtype=object]
        A group is empty if the rows have no groups.
    true, predicted : np.ndarray [shape=(row,)]
        Index into `genre_names`.
    probabilities : np.ndarray [shape=(row, genre)]
    """

    genre_names: tuple[str, ...]
    ids: Text
    groups: Text
    true: Int64
    predicted: Int64
    probabilities: Float64

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def has_groups(self) -> bool:
        """Whether the rows have groups."""
        return bool((self.groups != "").any())

    def count_confusion(self) -> Int64:
        """Return counts of rows (true genre, predicted genre)."""
        n = len(self.genre_names)
        return np.bincount(self.true * n + self.predicted, minlength=n * n).reshape(n, n)

    def bin_reliability(self) -> list[ReliabilityBin]:
        """Return the bins of the reliability diagram."""
        return compute_reliability(self.probabilities, self.true)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each row's answer is its genre, shape (row,)."""
        right: npt.NDArray[np.bool_] = self.predicted == self.true
        return right

    def compute_logits(self) -> Float64:
        """Return log probabilities (row, genre). A probability of 0 is taken as the smallest positive number."""
        return np.log(np.maximum(self.probabilities, SMALLEST))

    def sort_by_id(self) -> Predictions:
        """Return the rows in the order of their ids."""
        order = np.argsort(self.ids.astype(str), kind="stable")
        return Predictions(
            self.genre_names,
            ids=self.ids[order],
            groups=self.groups[order],
            true=self.true[order],
            predicted=self.predicted[order],
            probabilities=self.probabilities[order],
        )

    def compute_intervals(self, group_name: str) -> dict[str, object] | None:
        """Return the intervals of these rows' metrics, in the form of metrics.json; None if there are none."""
        found = compute_intervals(
            self.compute_logits(), self.true, self.groups if self.has_groups else None, group_name
        )
        return None if found is None else found.as_dict()

    def find_confident_mistakes(self, number: int) -> list[int]:
        """Return the positions of wrong answers, the most confident first."""
        wrong = np.flatnonzero(self.true != self.predicted)
        confidence = self.probabilities[wrong, self.predicted[wrong]]
        return [int(row) for row in wrong[np.argsort(-confidence, kind="stable")][:number]]


def read_predictions(folder: RunFolder) -> Predictions | None:
    """Return the predictions of a run; None if there is no predictions.csv.

    Raises
    ------
    RunFolderError
        The file is damaged.
    """
    path = folder.predictions_csv
    if not path.is_file():
        return None
    header, rows = folder.read_prediction_rows()
    names = tuple(name.removeprefix("p_") for name in header[4:])
    try:
        if header[:4] != ["id", "group", "true", "predicted"] or not names:
            raise ValueError(f"its columns are {', '.join(header[:6])}")
        if len(set(names)) != len(names):
            raise ValueError("a genre has two columns")
        position = {name: index for index, name in enumerate(names)}
        found = Predictions(
            genre_names=names,
            ids=np.array([row[0] for row in rows], dtype=object),
            groups=np.array([row[1] for row in rows], dtype=object),
            true=np.array([position[row[2]] for row in rows], dtype=np.int64),
            predicted=np.array([position[row[3]] for row in rows], dtype=np.int64),
            probabilities=np.array(
                [[float(cell) for cell in row[4:]] for row in rows], dtype=np.float64
            ).reshape(len(rows), -1),
        )
        if not ((found.probabilities >= 0) & (found.probabilities <= 1)).all():
            raise ValueError("a probability is not between 0 and 1")
        return found
    except (ValueError, IndexError, KeyError) as error:
        raise RunFolderError(
            f"{path}: cannot be read ({error}); expected id, group, true, predicted and one probability per genre"
        ) from error


def join_predictions(folds: Sequence[Predictions]) -> Predictions:
    """Return the rows of several runs, such as the folds of a cross-validation, one after the other.

    Raises
    ------
    RunFolderError
        They have different genres.
    """
    names = folds[0].genre_names
    if any(fold.genre_names != names for fold in folds):
        raise RunFolderError("the folds' predictions.csv have different genres; they do not belong together")
    return Predictions(
        names,
        *(
            np.concatenate([getattr(fold, field) for fold in folds])
            for field in ("ids", "groups", "true", "predicted", "probabilities")
        ),
    )


@dataclass(frozen=True)
class GenreScores:
    """The scores of one genre.

    Parameters
    ----------
    name : str
    precision, recall, f1 : float or None
        None if the score divides by 0: no row has, or no row is predicted to have, the genre.
    support : int
        Rows of the genre.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


def compute_scores_per_genre(confusion: Int64, genre_names: Sequence[str]) -> list[GenreScores]:
    """Return precision, recall and F1 of each genre from counts (true genre, predicted genre)."""
    found = []
    for index, name in enumerate(genre_names):
        right = int(confusion[index, index])
        support, called = int(confusion[index].sum()), int(confusion[:, index].sum())
        found.append(
            GenreScores(
                name=name,
                precision=right / called if called else None,
                recall=right / support if support else None,
                f1=2 * right / (support + called) if support + called else None,
                support=support,
            )
        )
    return found


def compute_accuracy_and_f1(confusion: Int64) -> tuple[float, float]:
    """Return accuracy and weighted F1 of counts (true genre, predicted genre)."""
    support, called = confusion.sum(axis=1), confusion.sum(axis=0)
    right, total = np.diagonal(confusion), confusion.sum()
    f1 = 2 * right / np.maximum(support + called, 1)
    return float(right.sum() / total), float((f1 * support).sum() / total)
