from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score

from genre_classifier.cli.main import main
from genre_classifier.errors import ConfigError, RunFolderError
from genre_classifier.runs.folder import RunFolder
from genre_classifier.runs.ranking.comparison import compare, describe_verdict
from tests.sweeps.made import made_trial

NAMES = ("a", "b", "c")


def run_of(path: Path, right: np.ndarray, *, groups: int = 0, **made: Any) -> RunFolder:
    """Write a run whose test rows are classified right where `right` says so."""
    rng = np.random.default_rng(len(right))
    genres = rng.integers(0, 3, len(right))
    predicted = np.where(right, genres, (genres + 1) % 3)
    folder = made_trial(path, made.pop("val_f1", 0.5), **made)
    metrics = folder.read_metrics()
    metrics["test"] |= {
        "accuracy": accuracy_score(genres, predicted),
        "f1": f1_score(genres, predicted, average="weighted"),
        "f1_macro": f1_score(genres, predicted, average="macro"),
    }
    folder.write_metrics(metrics)
    rows = []
    for row, (genre, answer) in enumerate(zip(genres, predicted, strict=True)):
        shares = np.full(3, 0.1)
        shares[answer] = 0.8
        group = f"g{row % groups}" if groups else ""
        rows.append([f"row {row}", group, NAMES[genre], NAMES[answer], *shares])
    folder.write_predictions(["id", "group", "true", "predicted", *(f"p_{name}" for name in NAMES)], rows)
    return folder


def hits(n_rows: int, share: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(n_rows) < share


def test_two_runs_are_compared_row_by_row(tmp_path: Path) -> None:
    first, second = hits(300, 0.7, 1), hits(300, 0.5, 2)
    run_of(tmp_path / "a", first, val_f1=0.5)
    run_of(tmp_path / "b", second, val_f1=0.5)
    found = compare(tmp_path / "a", tmp_path / "b", "val/f1")
    assert found.mcnemar is not None
    discordant = (int((first & ~second).sum()), int((second & ~first).sum()))
    assert (found.mcnemar.only_first, found.mcnemar.only_second) == discordant
    assert found.mcnemar.p_value == pytest.approx(stats.binomtest(discordant[0], sum(discordant)).pvalue)
    accuracy = found.differences[0]
    assert accuracy.difference == pytest.approx(first.mean() - second.mean())
    assert accuracy.low < accuracy.difference < accuracy.high
    assert (
        describe_verdict(found)
        == f"{tmp_path / 'a'} is better: {accuracy.difference:.3f} in accuracy is more than chance"
    )


def test_a_difference_that_may_be_chance_is_not_distinguishable(tmp_path: Path) -> None:
    run_of(tmp_path / "a", hits(100, 0.60, 1))
    run_of(tmp_path / "b", hits(100, 0.58, 2))
    found = compare(tmp_path / "a", tmp_path / "b", "val/f1")
    assert not found.distinguishable
    assert describe_verdict(found).startswith("not distinguishable: the difference of ")


def test_rows_of_a_group_count_as_one(tmp_path: Path) -> None:
    # One of six artists makes the whole difference: convincing row by row, not artist by artist.
    right = np.ones(300, dtype=bool)
    wrong = np.arange(300) % 6 == 0
    run_of(tmp_path / "a", right, groups=6)
    run_of(tmp_path / "b", right & ~wrong, groups=6)
    found = compare(tmp_path / "a", tmp_path / "b", "val/f1")
    assert found.mcnemar is not None
    assert found.mcnemar.p_value < 1e-9
    assert not found.distinguishable
    assert found.method == "paired bootstrap over 300 rows in 6 groups"


def folds(
    path: Path, accuracies: list[list[float]], dropout: float, *, genre: str = "a", **made: Any
) -> None:
    """Write a cross-validation. Each fold tests 30 rows of one genre."""
    settings = made.pop("settings", {})
    for seed, by_fold in enumerate(accuracies):
        for fold, value in enumerate(by_fold):
            folder = made_trial(
                path / f"{seed}-{fold}",
                value,
                test_f1=value,
                settings={
                    "data.split.folds": 3,
                    "data.split.fold": fold,
                    "seed": seed,
                    "model.dropout": dropout,
                    **settings,
                },
                rows={"train": 60, "test": 30},
                **made,
            )
            rows = [[f"row {30 * fold + row}", "", genre, genre, 0.8, 0.2] for row in range(30)]
            folder.write_predictions(["id", "group", "true", "predicted", "p_a", "p_b"], rows)


def test_cross_validations_are_compared_fold_by_fold(tmp_path: Path) -> None:
    one, other = np.array([[0.80, 0.70, 0.75], [0.82, 0.72, 0.73]]), np.array([[0.7, 0.69, 0.70]])
    folds(tmp_path / "a", one.tolist(), 0.1)
    # The same rows test in each fold. Their features differ, and more rows train.
    features = {"data.features": "musicnn", "data.split.val": 0.0}
    folds(tmp_path / "b", other.tolist(), 0.3, data="other", settings=features)
    found = compare(tmp_path / "a", tmp_path / "b", "val/f1")
    values = one.mean(axis=0) - other[0]
    scale = np.sqrt((1 / 3 + 30 / 60) * values.var(ddof=1))
    accuracy = found.differences[0]
    assert accuracy.p_value == pytest.approx(2 * stats.t.sf(abs(values.mean()) / scale, df=2))
    assert accuracy.high - accuracy.low == pytest.approx(2 * stats.t.ppf(0.975, df=2) * scale)
    assert found.mcnemar is None
    assert "Nadeau and Bengio" in found.method


def test_a_sweeps_best_configuration_is_chosen_by_validation(tmp_path: Path) -> None:
    for number, (val_f1, share) in enumerate([(0.6, 0.9), (0.8, 0.5)]):
        run_of(
            tmp_path / "sweep" / str(number),
            hits(200, share, number),
            val_f1=val_f1,
            settings={"model.dropout": number / 10},
        )
    run_of(tmp_path / "run", hits(200, 0.5, 9))
    found = compare(tmp_path / "sweep", tmp_path / "run", "val/f1")
    assert [trial.folder.path.name for trial in found.first.trials] == ["1"]
    assert found.first.chosen == "best of 2 by val/f1"


def test_replicates_of_a_seed_are_averaged(tmp_path: Path) -> None:
    shares = [hits(200, 0.6, 1), hits(200, 0.7, 2)]
    for seed, right in enumerate(shares):
        run_of(tmp_path / "sweep" / str(seed), right, settings={"seed": seed})
    alone = hits(200, 0.5, 3)
    run_of(tmp_path / "run", alone)
    found = compare(tmp_path / "sweep", tmp_path / "run", "val/f1")
    assert found.mcnemar is None
    expected = np.mean([right.mean() for right in shares]) - alone.mean()
    assert found.differences[0].difference == pytest.approx(expected)


def other_rows(path: Path) -> None:
    run_of(path / "a", hits(30, 0.5, 1))
    run_of(path / "b", hits(20, 0.5, 2))


def other_folds(path: Path) -> None:
    folds(path / "a", [[0.8, 0.7, 0.75]], 0.1)
    folds(path / "b", [[0.8, 0.7]], 0.1)


def folds_and_holdout(path: Path) -> None:
    folds(path / "a", [[0.8, 0.7]], 0.1)
    run_of(path / "b", hits(30, 0.5, 1))


def other_split(path: Path) -> None:
    folds(path / "a", [[0.8, 0.7, 0.75]], 0.1)
    folds(path / "made", [[0.5, 0.5, 0.5]], 0.1)
    for fold in range(3):  # another fold tests these rows
        (path / "b").mkdir(exist_ok=True)
        (path / "made" / f"0-{fold}").rename(path / "b" / str(fold))
        rows = (path / "a" / f"0-{(fold + 1) % 3}" / "predictions.csv").read_text()
        (path / "b" / str(fold) / "predictions.csv").write_text(rows)


def other_genres(path: Path) -> None:
    folds(path / "a", [[0.8, 0.7, 0.75]], 0.1)
    folds(path / "b", [[0.8, 0.7, 0.75]], 0.1, genre="b")


def two_splits(path: Path) -> None:
    made_trial(path / "a" / "0", 0.5, settings={"data.split.seed": 1})
    made_trial(path / "a" / "1", 0.5, settings={"data.split.seed": 2})
    run_of(path / "b", hits(30, 0.5, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (other_rows, r"were tested on different rows \(30 and 20, 20 in common\)"),
        (other_folds, r"tested on folds 0, 1, 2 and .* on folds 0, 1; cross-validate both"),
        (folds_and_holdout, r"tested on folds 0, 1 and .* on one holdout; cross-validate both"),
        (other_split, r"a/0-0 and .*b/0 were tested on different rows \(30 and 30, 0 in common\)"),
        (other_genres, r"a/0-0 and .*b/0-0 were tested on the same ids with different genres"),
        (two_splits, r"its trials are on 2 data sets or splits \(.*\); name one of its runs"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    make: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    make(tmp_path)
    with pytest.raises(ConfigError, match=message):
        compare(tmp_path / "a", tmp_path / "b", "val/f1")


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    made_trial(tmp_path / "a", None, status="failed", reason="diverged")
    with pytest.raises(RunFolderError, match="the run is failed, so there are no test results"):
        compare(tmp_path / "a", tmp_path / "a", "val/f1")
    made_trial(tmp_path / "sweep" / "0", None, status="failed", reason="diverged")
    with pytest.raises(RunFolderError, match="no trial is finished"):
        compare(tmp_path / "sweep", tmp_path / "a", "val/f1")


def test_a_run_without_test_rows_is_refused(tmp_path: Path) -> None:
    run_of(tmp_path / "a", hits(30, 0.5, 1))
    made_trial(tmp_path / "b", 0.5)
    with pytest.raises(
        RunFolderError, match=r"b/predictions.csv: there is no such file, so there is nothing to"
    ):
        compare(tmp_path / "a", tmp_path / "b", "val/f1")


def test_the_command_prints_differences_and_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_of(tmp_path / "a", hits(300, 0.7, 1))
    run_of(tmp_path / "b", hits(300, 0.5, 2))
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    out = capsys.readouterr().out
    assert "McNemar  " in out
    assert "verdict  " in out
    assert "is better" in out
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "nowhere")]) == 1
    assert "nowhere: there is no such folder" in capsys.readouterr().err
