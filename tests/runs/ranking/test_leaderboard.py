import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats
from scipy.special import expit, logit

from genre_classifier.errors import ConfigError, RunFolderError
from genre_classifier.evaluation.drawing import render_png
from genre_classifier.files.csv_files import read_csv
from genre_classifier.runs.ranking.figure import draw_sweep
from genre_classifier.runs.ranking.leaderboard import (
    Leaderboard,
    complete_metric_name,
    find_best_trial,
    find_trials,
    rank_trials,
)
from genre_classifier.runs.ranking.tables import show_leaderboard, write_leaderboard, write_trials
from tests.hostile import is_safe
from tests.sweeps.made import PROTOCOL, made_trial


def one_board(folder: Path, metric: str = "val/f1", by: str | None = None) -> Leaderboard:
    boards = rank_trials(find_trials([folder]), metric, by)
    assert len(boards) == 1
    return boards[0]


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    """Three configurations with four seeds each, and the table they make."""
    rng = np.random.default_rng(1)
    number = 0
    for dropout, centre in ((0.1, 0.80), (0.3, 0.795), (0.5, 0.60)):
        for seed in range(4):
            made_trial(
                tmp_path / str(number),
                float(centre + rng.normal(0, 0.02)),
                settings={"model.dropout": dropout, "seed": seed},
                test_f1=float(rng.uniform(0.5, 0.9)),
            )
            number += 1
    return tmp_path


def as_frame(folder: Path) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "dropout": json.loads((path / "run.json").read_text())["settings"]["model.dropout"],
            "seed": json.loads((path / "run.json").read_text())["settings"]["seed"],
            "val": json.loads((path / "metrics.json").read_text())["val"]["f1"],
            "test": json.loads((path / "metrics.json").read_text())["test"]["f1"],
        }
        for path in folder.iterdir()
    )


def on_the_logit_scale(mean: float, error: float, freedom: int) -> tuple[float, float]:
    """Return Student's interval of a proportion's logit, its error by a numeric derivative, transformed back."""
    step = 1e-6
    slope = (logit(mean + step) - logit(mean - step)) / (2 * step)
    low, high = stats.t.interval(0.95, freedom, loc=logit(mean), scale=error * slope)
    return float(expit(low)), float(expit(high))


def test_means_deviations_and_intervals_over_seeds_are_those_of_pandas_and_scipy(seeds: Path) -> None:
    expected = as_frame(seeds).groupby("dropout")["val"]
    board = one_board(seeds)
    assert board.keys == ("model.dropout",)
    assert [row.settings["model.dropout"] for row in board.rows] == list(
        expected.mean().sort_values(ascending=False).index
    )
    for row in board.rows:
        values = expected.get_group(row.settings["model.dropout"])
        found = row.estimates["val/f1"]
        assert (found.n, row.rank) == (4, board.rows.index(row) + 1)
        assert found.mean == pytest.approx(values.mean())
        assert found.deviation == pytest.approx(values.std(ddof=1))
        low, high = on_the_logit_scale(values.mean(), stats.sem(values), 3)
        assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
        assert (found.least, found.most) == (values.min(), values.max())


def test_a_difference_within_the_noise_of_paired_seeds_is_marked(seeds: Path) -> None:
    table = as_frame(seeds).pivot(index="seed", columns="dropout", values="val")
    board = one_board(seeds)
    best = board.rows[0].settings["model.dropout"]
    assert board.rows[0].like_best is None
    for row in board.rows[1:]:
        p_value = stats.ttest_rel(table[best], table[row.settings["model.dropout"]]).pvalue
        assert row.like_best is bool(p_value >= 0.05)
    assert [row.like_best for row in board.rows] == [None, True, False]


def test_without_common_seeds_welchs_interval_decides(tmp_path: Path) -> None:
    first, second = [0.80, 0.82, 0.81, 0.83], [0.70, 0.84, 0.74]
    for number, value in enumerate(first):
        made_trial(tmp_path / f"a{number}", value, settings={"seed": number})
    for number, value in enumerate(second):
        made_trial(tmp_path / f"b{number}", value, settings={"seed": 100 + number, "model.dropout": 0.5})
    row = one_board(tmp_path).rows[1]
    assert row.like_best is bool(stats.ttest_ind(first, second, equal_var=False).pvalue >= 0.05)
    made_trial(tmp_path / "c0", 0.5, settings={"seed": 200, "model.dropout": 0.7})
    assert one_board(tmp_path).rows[2].like_best is None, "one replicate measures no noise"


def test_folds_are_joined_with_the_interval_of_nadeau_and_bengio(tmp_path: Path) -> None:
    values = {(seed, fold): 0.7 + 0.01 * fold + 0.003 * seed for seed in (1, 2) for fold in range(5)}
    for (seed, fold), value in values.items():
        folds = {"seed": seed, "data.split.folds": 5, "data.split.fold": fold}
        protocol = PROTOCOL | {"description": f"fold {fold} of 5 tests, no artist on two sides, seed 42"}
        made_trial(
            tmp_path / f"{seed}-{fold}",
            value,
            settings=folds,
            rows={"train": 700, "val": 100, "test": 200},
            protocol=protocol,
        )
    board = one_board(tmp_path)
    assert board.protocol == "each of 5 folds tests in turn, no artist on two sides, seed 42"
    (row,) = board.rows
    found = row.estimates["val/f1"]
    by_fold = np.array([np.mean([values[seed, fold] for seed in (1, 2)]) for fold in range(5)])
    error = by_fold.std(ddof=1) * np.sqrt(1 / 5 + 200 / 700)
    assert found.mean == pytest.approx(np.mean(list(values.values())))
    assert (found.low, found.high) == pytest.approx(on_the_logit_scale(by_fold.mean(), error, 4))
    assert found.deviation == pytest.approx(np.std(list(values.values()), ddof=1))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_fewer_than_four_replicates_show_the_spread_of_their_values(tmp_path: Path, n: int) -> None:
    values = [0.97, 0.71, 0.99, 0.95][:n]
    for seed, value in enumerate(values):
        made_trial(tmp_path / str(seed), value, settings={"seed": seed}, test_f1=value)
    board = one_board(tmp_path)
    found = board.rows[0].estimates["test/accuracy"]
    assert (found.least, found.most) == (min(values), max(values))
    write_leaderboard(tmp_path / "leaderboard.csv", [board])
    line = pd.read_csv(tmp_path / "leaderboard.csv").iloc[0]
    assert (line["test/accuracy_min"], line["test/accuracy_max"]) == (min(values), max(values))
    for width in (80, 140):
        stream = io.StringIO()
        show_leaderboard(board, Console(file=stream, width=width))
        printed = stream.getvalue()
        if n < 4:
            assert found.low is None
            assert pd.isna(line["test/accuracy_low"])
            assert f"({min(values):.3f} to {max(values):.3f})" in printed
            assert "fewer than 4 seeds or folds are too few for an interval" in printed
        else:
            assert found.low is not None
            assert found.high is not None
            assert 0 < found.low < found.mean < found.high < 1
            assert (line["test/accuracy_low"], line["test/accuracy_high"]) == pytest.approx(
                (found.low, found.high)
            )
            assert f"[{found.low:.3f}, {found.high:.3f}]" in printed
            assert "too few for an interval" not in printed


def test_seeds_of_three_folds_are_three_values(tmp_path: Path) -> None:
    for seed in (1, 2):
        for fold in range(3):
            settings = {"seed": seed, "data.split.folds": 3, "data.split.fold": fold}
            made_trial(tmp_path / f"{seed}{fold}", 0.8 + fold / 100 + seed / 1000, settings=settings)
    found = one_board(tmp_path).rows[0].estimates["val/f1"]
    assert (found.n, found.low, found.high) == (6, None, None)
    assert (found.least, found.most) == pytest.approx((0.801, 0.822))


def test_equal_means_share_a_rank(tmp_path: Path) -> None:
    for name, dropout, value in (("0", 0.1, 0.7), ("1", 0.2, 0.8), ("2", 0.3, 0.8), ("3", 0.4, 0.6)):
        made_trial(tmp_path / name, value, settings={"model.dropout": dropout})
    assert [row.rank for row in one_board(tmp_path).rows] == [1, 1, 3, 4]


def test_test_metrics_never_rank(seeds: Path) -> None:
    before = [row.settings for row in one_board(seeds).rows]
    for path in seeds.glob("*/metrics.json"):
        content = json.loads(path.read_text())
        content["test"]["f1"] = 1 - content["test"]["f1"]
        path.write_text(json.dumps(content))
    assert [row.settings for row in one_board(seeds).rows] == before
    with pytest.raises(ConfigError, match=r"--metric test/f1: test rows judge .* rank by val/f1"):
        complete_metric_name("test/f1")
    with pytest.raises(ConfigError, match=r"--metric recall: expected one of val/loss, .*"):
        complete_metric_name("recall")
    assert complete_metric_name("loss") == "val/loss"


def test_a_lower_loss_ranks_higher(tmp_path: Path) -> None:
    for name, loss in (("0", 0.9), ("1", 0.3), ("2", 0.6)):
        folder = made_trial(tmp_path / name, 0.5, settings={"optimizer.lr": loss})
        metrics = folder.read_metrics()
        metrics["val"]["loss"] = loss
        folder.write_metrics(metrics)
    board = one_board(tmp_path, "val/loss")
    assert [row.trials[0].folder.path.name for row in board.rows] == ["1", "2", "0"]
    best = find_best_trial([row.trials[0] for row in board.rows], "val/loss")
    assert best is not None
    assert best.folder.path.name == "1"


def test_failed_and_unfinished_trials_stand_last_with_their_reason(tmp_path: Path) -> None:
    made_trial(tmp_path / "0", 0.5)
    made_trial(
        tmp_path / "1", None, settings={"model.dropout": 0.9}, status="failed", reason="DivergedError: x"
    )
    made_trial(tmp_path / "2", None, settings={"model.dropout": 0.8}, status="running")
    board = one_board(tmp_path)
    assert [(row.rank, row.status) for row in board.rows] == [
        (1, "finished"),
        (None, "failed"),
        (None, "running"),
    ]
    text = io.StringIO()
    show_leaderboard(board, Console(file=text, width=140))
    assert "failed: DivergedError: x" in text.getvalue()


def test_a_trial_that_failed_before_reading_its_rows_joins_those_on_the_same_table(tmp_path: Path) -> None:
    made_trial(tmp_path / "0", 0.5)
    made_trial(tmp_path / "1", None, settings={"model.dropout": 0.9}, status="failed", data="")
    assert len(one_board(tmp_path).rows) == 2


def test_other_rows_or_another_split_make_another_leaderboard(tmp_path: Path) -> None:
    made_trial(tmp_path / "0", 0.5)
    made_trial(tmp_path / "1", 0.9, data="other")
    made_trial(tmp_path / "2", 0.8, settings={"data.split.method": "stratified"})
    boards = rank_trials(find_trials([tmp_path]), "val/f1")
    assert [len(board.rows) for board in boards] == [1, 1, 1]


def test_of_the_same_trial_in_two_sweeps_one_counts(tmp_path: Path) -> None:
    made_trial(tmp_path / "a" / "0", None, status="failed")
    made_trial(tmp_path / "b" / "0", 0.5)
    boards = rank_trials(find_trials([tmp_path / "a", tmp_path / "b"]), "val/f1")
    (row,) = boards[0].rows
    assert [trial.status for trial in row.trials] == ["finished"]


def test_a_setting_can_be_the_row(seeds: Path) -> None:
    made_trial(seeds / "x", 0.95, settings={"model.dropout": 0.1, "optimizer.lr": 0.1, "seed": 9})
    board = one_board(seeds, by="model.dropout")
    assert (board.rows[0].settings, len(board.rows[0].trials)) == ({"model.dropout": 0.1}, 5)
    frame = as_frame(seeds).groupby("dropout")["val"].mean()
    assert [row.estimates["val/f1"].mean for row in board.rows] == pytest.approx(sorted(frame, reverse=True))
    with pytest.raises(
        ConfigError, match=r"--by model.width: no run has such a setting; these differ: .*dropout"
    ):
        one_board(seeds, by="model.width")


def test_damaged_and_foreign_folders_are_left_out(seeds: Path) -> None:
    (seeds / "0" / "run.json").write_text("{")
    (seeds / "1" / "metrics.json").unlink()
    (seeds / "empty").mkdir()
    assert len(find_trials([seeds])) == 10
    with pytest.raises(RunFolderError, match=r"nowhere: there is no such folder"):
        find_trials([seeds / "nowhere"])
    with pytest.raises(RunFolderError, match=r"there is no run; python train.py makes one"):
        find_trials([seeds / "empty"])


def test_the_files_hold_what_the_table_shows(seeds: Path) -> None:
    made_trial(
        seeds / "x", None, settings={"model.dropout": 0.9}, status="failed", reason="killed by SIGKILL"
    )
    boards = [one_board(seeds)]
    write_leaderboard(seeds / "leaderboard.csv", boards)
    write_trials(seeds / "trials.csv", boards)
    table = pd.read_csv(seeds / "leaderboard.csv")
    assert list(table["model.dropout"]) == [row.settings["model.dropout"] for row in boards[0].rows]
    assert list(table["val/f1"])[:3] == pytest.approx(
        [row.estimates["val/f1"].mean for row in boards[0].rows[:3]]
    )
    assert list(table["against_best"])[:2] == ["best", "not distinguishable"]
    assert table["reasons"].iloc[-1] == "killed by SIGKILL"
    with (seeds / "trials.csv").open(newline="") as stream:
        trials = list(csv.DictReader(stream))
    assert len(trials) == 13
    assert {Path(line["path"]).name for line in trials} == {*map(str, range(12)), "x"}
    assert float(trials[0]["val/f1"]) == as_frame_value(Path(trials[0]["path"]))


def as_frame_value(path: Path) -> float:
    return float(json.loads((path / "metrics.json").read_text())["val"]["f1"])


def made_baseline(
    path: Path,
    name: str,
    val_f1: float,
    *,
    seeded: bool = False,
    chosen: dict[str, Any] | None = None,
    **rest: Any,
) -> None:
    settings = {"model._target_": f"some.library.{name.title()}", **rest.pop("settings", {})}
    baseline = {"name": name, "seeded": seeded, "chosen": chosen or {}}
    made_trial(path, val_f1, settings=settings, baseline=baseline, **rest)


def test_networks_and_baselines_share_a_table_without_the_settings_that_only_one_kind_has(
    tmp_path: Path,
) -> None:
    for number, dropout in enumerate((0.1, 0.5)):
        made_trial(tmp_path / f"net{number}", 0.7 + dropout / 10, settings={"model.dropout": dropout})
    made_baseline(tmp_path / "svc", "svc", 0.8, chosen={"C": 3.0})
    made_baseline(tmp_path / "knn", "knn", 0.6, chosen={"n_neighbors": 5})
    board = one_board(tmp_path)
    assert board.keys == ("model", "model.dropout")
    assert [row.settings for row in board.rows] == [
        {"model": "svc"},
        {"model": "GenreClassifier", "model.dropout": 0.5},
        {"model": "GenreClassifier", "model.dropout": 0.1},
        {"model": "knn"},
    ]
    text = io.StringIO()
    show_leaderboard(board, Console(file=text, width=120))
    assert "null" not in text.getvalue()
    write_leaderboard(tmp_path / "board.csv", [board])
    write_trials(tmp_path / "trials.csv", [board])
    table = pd.read_csv(tmp_path / "board.csv")
    assert list(table["model"]) == ["svc", "GenreClassifier", "GenreClassifier", "knn"]
    assert [name for name in table if "." in name] == ["model.dropout"]
    assert json.loads(pd.read_csv(tmp_path / "trials.csv")["chosen"][0]) == {"C": 3.0}
    by_model = one_board(tmp_path, by="model")
    assert [(row.settings, len(row.trials)) for row in by_model.rows][1] == ({"model": "GenreClassifier"}, 2)


def test_what_both_kinds_have_is_a_column_where_it_differs(tmp_path: Path) -> None:
    made_trial(tmp_path / "net", 0.7, settings={"data.batch_size": 64})
    made_baseline(tmp_path / "svc", "svc", 0.8, settings={"data.batch_size": 32})
    assert one_board(tmp_path).keys == ("model", "data.batch_size")


def test_networks_without_a_setting_of_others_still_differ_in_it(tmp_path: Path) -> None:
    made_trial(tmp_path / "0", 0.7)
    made_trial(tmp_path / "1", 0.8, settings={"scheduler._target_": "cosine"})
    made_baseline(tmp_path / "svc", "svc", 0.9)
    assert one_board(tmp_path).keys == ("model", "scheduler._target_")


def test_a_model_without_randomness_is_the_pair_of_every_seed(tmp_path: Path) -> None:
    """How the network scatters over its seeds is then all the noise there is: a t-test of one sample."""
    values = [0.70, 0.74, 0.71]
    for seed, value in enumerate(values):
        made_trial(tmp_path / f"net{seed}", value, settings={"seed": seed})
    for name, value in (("svc", 0.76), ("near", 0.74)):
        made_baseline(tmp_path / name, name, value)
    board = one_board(tmp_path)
    assert [row.settings["model"] for row in board.rows] == ["svc", "near", "GenreClassifier"]
    expected = bool(stats.ttest_1samp(values, 0.76).pvalue >= 0.05)
    assert [row.like_best for row in board.rows] == [None, None, expected]
    assert board.rows[1].like_best is None, (
        "two models without randomness on one split: nothing measures noise"
    )
    shutil.rmtree(tmp_path / "svc")
    assert one_board(tmp_path).rows[1].like_best is bool(stats.ttest_1samp(values, 0.74).pvalue >= 0.05)


def test_one_seed_of_a_random_model_says_nothing_against_a_networks_seeds(tmp_path: Path) -> None:
    for seed, value in enumerate((0.70, 0.74, 0.71)):
        made_trial(tmp_path / f"net{seed}", value, settings={"seed": seed})
    made_baseline(tmp_path / "forest", "forest", 0.80, seeded=True)
    board = one_board(tmp_path)
    assert [row.like_best for row in board.rows] == [None, None]
    text = io.StringIO()
    show_leaderboard(board, Console(file=text, width=140))
    assert "1 row: too few seeds or folds to tell" in text.getvalue()
    write_leaderboard(tmp_path / "board.csv", [board])
    assert list(pd.read_csv(tmp_path / "board.csv")["against_best"]) == ["best", "unknown"]


def test_a_baseline_alone_is_named(tmp_path: Path) -> None:
    made_baseline(tmp_path / "svc", "svc", 0.8)
    assert one_board(tmp_path).keys == ("model",)


def test_models_with_other_seeds_are_compared_fold_by_fold(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = {"train": 700, "val": 100, "test": 200}
    nets = {(seed, fold): 0.70 + 0.02 * fold + rng.normal(0, 0.01) for seed in (1, 2) for fold in range(5)}
    others = {fold: 0.75 + 0.02 * fold + rng.normal(0, 0.01) for fold in range(5)}
    for (seed, fold), value in nets.items():
        settings = {"seed": seed, "data.split.folds": 5, "data.split.fold": fold}
        made_trial(tmp_path / f"net{seed}{fold}", float(value), settings=settings, rows=rows)
    for name, seeded in (("svc", False), ("forest", True)):
        for fold, value in others.items():
            made_baseline(
                tmp_path / f"{name}{fold}",
                name,
                float(value) - 0.04 * seeded,
                seeded=seeded,
                settings={"seed": 42, "data.split.folds": 5, "data.split.fold": fold},
                rows=rows,
            )
    board = one_board(tmp_path)
    assert [row.settings["model"] for row in board.rows] == ["svc", "forest", "GenreClassifier"]
    means = np.array([np.mean([nets[seed, fold] for seed in (1, 2)]) for fold in range(5)])
    differences = np.array(list(others.values())) - means
    half = stats.t.ppf(0.975, 4) * differences.std(ddof=1) * np.sqrt(1 / 5 + 200 / 700)
    assert board.rows[2].like_best is bool(abs(differences.mean()) <= half)
    for path in tmp_path.glob("svc*"):
        shutil.rmtree(path)
    half_of_forest = stats.t.ppf(0.975, 4) * (differences - 0.04).std(ddof=1) * np.sqrt(1 / 5 + 200 / 700)
    assert one_board(tmp_path).rows[1].like_best is bool(abs((differences - 0.04).mean()) <= half_of_forest)


def test_the_same_file_named_from_two_folders_is_one_file(tmp_path: Path) -> None:
    for name, folder, path in (
        ("0", "/here", "a/t.csv"),
        ("1", "/here/a", "t.csv"),
        ("2", "/x", "/here/a/t.csv"),
    ):
        settings = {"data.path": path, "data.split.files.test": path, "model.dropout": 0.1 * int(name)}
        made_trial(tmp_path / name, 0.5, settings=settings, working_folder=folder)
    board = one_board(tmp_path)
    assert board.keys == ("model.dropout",)
    assert {trial.settings["data.path"] for row in board.rows for trial in row.trials} == {"/here/a/t.csv"}


def test_the_figure_omits_settings_that_a_model_lacks(tmp_path: Path) -> None:
    for number, dropout in enumerate((0.1, 0.5)):
        made_trial(tmp_path / f"net{number}", 0.7, settings={"model.dropout": dropout})
    made_baseline(tmp_path / "svc", "svc", 0.8)
    figure = draw_sweep(one_board(tmp_path))
    assert figure is not None
    of_model, of_dropout = figure.axes
    assert [len(axes.lines[0].get_xdata()) for axes in (of_model, of_dropout)] == [3, 2]


def test_a_long_table_says_how_many_rows_it_shows(tmp_path: Path) -> None:
    for number in range(22):
        made_trial(tmp_path / str(number), 0.5 + number / 100, settings={"optimizer.lr": 10.0**number})
    stream = io.StringIO()
    show_leaderboard(one_board(tmp_path), Console(file=stream, width=120))
    assert "the table shows 20 of 22 rows; a CSV file has them all" in stream.getvalue()


def test_a_ranking_by_training_rows_is_said_to_mean_nothing(tmp_path: Path) -> None:
    folder = made_trial(tmp_path / "0", 0.5)
    metrics = folder.read_metrics()
    folder.write_metrics(metrics | {"train": metrics["val"] | {"f1": 1.0}})
    stream = io.StringIO()
    show_leaderboard(one_board(tmp_path, "train/f1"), Console(file=stream, width=120))
    assert "train/f1 is measured on training rows, so it rewards overfitting" in stream.getvalue()


HARD_VALUES = (
    "$x_{$y",
    "\x1b[2J" * 3000,
    "\u202e",
    "_hidden",
    float("nan"),
    float("inf"),
    1e308,
    -1e308,
    "=1+1",
    [],
)


def test_settings_of_any_text_or_size_are_drawn_shown_and_written(tmp_path: Path) -> None:
    for number, value in enumerate(HARD_VALUES):
        settings = {"model.dropout": value, "optimizer.lr": 10.0**number, "[/red]\x07": number}
        made_trial(tmp_path / str(number), 0.5 + number / 100, settings=settings)
    board = one_board(tmp_path)
    figure = draw_sweep(board)
    assert figure is not None
    assert render_png(figure).startswith(b"\x89PNG")
    stream = io.StringIO()
    show_leaderboard(board, Console(file=stream, width=100))
    assert is_safe(stream.getvalue())
    assert len(stream.getvalue().splitlines()) < 60
    write_leaderboard(tmp_path / "leaderboard.csv", [board])
    rows = list(read_csv(tmp_path / "leaderboard.csv"))
    place = rows[0].index("model.dropout")
    assert {"$x_{$y", "\x1b[2J" * 3000, "=1+1"} <= {row[place] for row in rows}
