"""`experiment=pretrained` and its search, small: the user's command up to the bundle, and what it chooses."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from genre_classifier.exporting.export import export
from genre_classifier.runs.ranking.leaderboard import find_trials, rank_trials
from genre_classifier.sweeps.stacked.fit import train_stack
from tests.conftest import composed, write_csv
from tests.e2e.test_sweep_command import statuses, sweep

FEW_SETTINGS = [
    "model.hidden_dims=[],[8]",
    "model.dropout=0.2",
    "optimizer.weight_decay=1.0",
    "loss.mixup=0.4",
    "trainer.max_epochs=1,2",
    "data.split.folds=2",
]


def test_one_command_searches_in_folds_and_the_next_exports_its_choice_trained_on_all_rows(
    tmp_path: Path, music_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sweep"
    words = ["data=table", f"data.path={music_csv}", "data.label=genre", "data.group=artist", "data.id=track"]
    result = sweep(folder, "experiment=pretrained", "hparams_search=regularisation", *words, *FEW_SETTINGS)
    assert result.returncode == 0, result.stderr
    assert [status for status, _ in statuses(folder).values()] == ["finished"] * 8
    assert "trained alone" not in result.stdout + result.stderr
    for trial in pd.read_csv(folder / "trials.csv").to_dict("records"):
        run = json.loads((Path(trial["path"]) / "run.json").read_text())
        # No epoch is chosen by the validation rows of a fold.
        assert (run["epochs"], run["best_epoch"]) == (
            trial["trainer.max_epochs"],
            trial["trainer.max_epochs"] - 1,
        )
    assert result.stdout.splitlines()[-2].endswith(f"export.py sweep={folder} refit=full")
    assert "tensorboard" not in result.stdout  # logger=none leaves nothing to look at

    monkeypatch.chdir(tmp_path)
    made = export(composed(f"sweep={folder}", "refit=full", "save_dir=models", "onnx=false", config="export"))
    best = pd.read_csv(folder / "leaderboard.csv").iloc[0]
    assert made.refit_folder is not None
    run = json.loads((made.refit_folder / "run.json").read_text())
    assert run["data"]["rows_by_split"] == {"train": 90, "val": 0, "test": 0}
    assert run["epochs"] == best["trainer.max_epochs"]
    content = torch.load(made.paths["model"], weights_only=True)
    assert content["model_config"]["hidden_dims"] == json.loads(best["model.hidden_dims"])


def test_the_recipe_measures_songs_unless_a_table_is_named() -> None:
    songs = composed("experiment=pretrained", "data.path=music/").data
    assert (songs.source, songs.features.value) == ("audio_folder", "musicnn")
    assert composed("experiment=pretrained", "data=table", "data.path=my.csv").data.source == "table"


STRONG = [
    "model.hidden_dims=[]",
    "optimizer.weight_decay=1.0",
    "loss.mixup=0.4",
    "trainer.max_epochs=20",
]
WEAK = [
    "model.hidden_dims=[32]",
    "optimizer.weight_decay=0.0",
    "loss.mixup=0.0",
    "trainer.max_epochs=40",
]


def few_noisy_rows(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """120 rows of two genres, half of which have a genre drawn at random: there is noise to learn by heart."""
    genres = np.repeat([0, 1], 60)
    features = rng.normal(size=(120, 20)) + 0.6 * (2 * genres[:, None] - 1)
    return features, np.where(rng.random(120) < 0.5, rng.integers(0, 2, 120), genres)


def many_clear_rows(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """400 rows of two genres, which no linear model tells apart: the sign of a product."""
    features = rng.normal(size=(400, 4))
    return features, (features[:, 0] * features[:, 1] > 0).astype(int)


@pytest.mark.parametrize(("make", "chosen"), [(few_noisy_rows, STRONG), (many_clear_rows, WEAK)])
def test_folds_choose_strong_regularisation_for_few_noisy_rows_and_weak_for_many_clear_ones(
    make: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]], chosen: list[str], tmp_path: Path
) -> None:
    features, genres = make(np.random.default_rng(0))
    rows = [
        [f"t{number}", f"g{genre}", *row]
        for number, (genre, row) in enumerate(zip(genres, features, strict=True))
    ]
    header = ["track", "label", *(f"f{number}" for number in range(features.shape[1]))]
    path = write_csv(tmp_path / "table.csv", header, rows)
    words = ["experiment=pretrained", "data=table", f"data.path={path}", "data.id=track", "logger=none"]
    words += ["data.split.folds=3", "data.split.train=0.6", "data.split.val=0.2", "data.split.test=0.2"]
    for name, settings in (("strong", STRONG), ("weak", WEAK)):
        train_stack(
            [
                composed(
                    *words, *settings, f"data.split.fold={fold}", f"run_dir={tmp_path}/runs/{name}-{fold}"
                )
                for fold in range(3)
            ]
        )
    (board,) = rank_trials(find_trials([tmp_path / "runs"]), "val/f1")
    assert [row.settings["trainer.max_epochs"] for row in board.rows] == (
        [20, 40] if chosen is STRONG else [40, 20]
    )
