r"""How right `experiment=pretrained` and its search are on GTZAN, beside other models, for artists never heard.

    python benchmarks/pretrained_recipe.py --folder gtzan/

The folder holds features_30_sec.csv, musicnn_tags.csv, convnet160.csv, artists.csv, train_filtered.txt and
valid_filtered.txt. The tables are the 50 tags of musicnn, the 160 features of Choi's convnet and the 57 hand-made
features, each on the 443 tracks of train_filtered. The search is the user's command. It sees these rows only, in five
folds with no artist on two sides, and chooses by the validation rows of the folds.

Two tests follow. First, the same five folds: each model trains on all rows of the others. The search has seen these
folds, so its result is slightly optimistic; baselines choose their settings within the training rows of each fold.
Second, the rows of valid_filtered, which take part in no choice: each model trains on train_filtered. Its artists'
rows in valid_filtered, which artists.csv finds, are left out. The tags have no row of valid_filtered. Results are means
over seeds. The interval on valid_filtered is the mean of the seeds' intervals (bootstrap over artists). The verdict is
`genre-classifier compare` of the search's settings and the model, on accuracy.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pandas as pd
import torch
from hydra import compose, initialize_config_dir
from machine import describe, table
from omegaconf import DictConfig, OmegaConf

from genre_classifier.baselines.fit import build_baseline_config, divide_table, run_baseline
from genre_classifier.baselines.models import BASELINES, select_baselines
from genre_classifier.config.schema import register_schemas
from genre_classifier.config.settings import format_value
from genre_classifier.data.sources import read
from genre_classifier.runs.folder import RunFolder
from genre_classifier.runs.ranking.comparison import compare
from genre_classifier.runs.ranking.leaderboard import Row, find_trials, rank_trials
from genre_classifier.sweeps.stacked.fit import train_stack

ROOT = Path(__file__).resolve().parents[1]
TABLES = {
    "musicnn's 50 tags": "musicnn_tags.csv",
    "convnet's 160 features": "convnet160.csv",
    "57 hand-made features": "features_30_sec.csv",
}
SEARCHED = "search, best settings"
ALL_ROWS = ["data.split.train=0.8", "data.split.val=0", "data.split.test=0.2", "optimized_metric=train/f1"]
FOLDS = 5
SWEPT = (
    "model.hidden_dims",
    "model.dropout",
    "optimizer.weight_decay",
    "loss.mixup",
    "trainer.max_epochs",
)


@dataclass(frozen=True)
class Rows:
    """A table's files.

    Parameters
    ----------
    training : Path
        The rows of train_filtered.
    everything : Path
        Those of valid_filtered as well, but for artists of train_filtered.
    tested, left_out : int
        Number of rows of valid_filtered in the table, and of those of an artist of train_filtered.
    """

    training: Path
    everything: Path
    tested: int
    left_out: int


def stems(names: pd.Series) -> pd.Series:
    return names.map(lambda name: re.sub(r"\.(wav|au)$", "", Path(name).name))


def write_rows(source: Path, folder: Path, to: Path) -> Rows:
    """Write a table with the track's name and artist, all rows and those of train_filtered."""
    rows = pd.read_csv(source).drop(columns=["length", "artist", "split"], errors="ignore")
    rows["filename"] = stems(rows["filename"])
    rows["artist"] = rows["filename"].map(pd.read_csv(folder / "artists.csv").set_index("track")["artist"])
    named = {
        side: set(stems(pd.Series((folder / f"{side}_filtered.txt").read_text().split())))
        for side in ("train", "valid")
    }
    training = rows[rows["filename"].isin(named["train"])]
    given = rows["filename"].isin(named["valid"])
    known = given & rows["artist"].isin(training["artist"])
    to.mkdir()
    found = Rows(to / "training.csv", to / "everything.csv", int((given & ~known).sum()), int(known.sum()))
    training.to_csv(found.training, index=False)
    rows.assign(split=given.map({True: "test", False: "train"}))[~known].to_csv(found.everything, index=False)
    return found


def data_of(path: Path) -> list[str]:
    return ["data=table", f"data.path={path}", "data.group=artist", "data.id=filename"]


def search(path: Path, folder: Path) -> tuple[Row, int, float]:
    """Run the user's command; return the leaderboard's best row, the number of settings, and the seconds."""
    started = time.perf_counter()
    words = ["experiment=pretrained", "hparams_search=regularisation", *data_of(path)]
    subprocess.run(
        [sys.executable, "train.py", "-m", *words, f"hydra.sweep.dir={folder}"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - started
    (board,) = rank_trials(find_trials([folder]), "val/f1")
    return board.rows[0], len(board.rows), seconds


def composed(overrides: Sequence[str], folder: Path) -> DictConfig:
    quiet = ["logger=none", "trainer.enable_progress_bar=false", f"run_dir={folder}"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", [*overrides, *quiet])


def train_network(recipe: Sequence[str], divisions: Sequence[list[str]], seeds: list[int], to: Path) -> None:
    train_stack(
        [
            composed([*recipe, *division, f"seed={seed}"], to / f"{number}-{seed}")
            for (number, division), seed in itertools.product(enumerate(divisions), seeds)
        ]
    )


def fit_baseline(name: str, divisions: Sequence[list[str]], seeds: list[int], to: Path) -> None:
    (baseline,) = select_baselines([name])
    known = None
    for number, division in enumerate(divisions):
        for seed in seeds if baseline.seeded else seeds[:1]:
            cfg = composed([*division, *ALL_ROWS, f"seed={seed}"], to)
            data = OmegaConf.to_object(cfg.data)
            known = known or read(data)
            one = build_baseline_config(cfg, baseline, seed, to / f"{number}-{seed}")
            run_baseline(baseline, one, divide_table(known, data), jobs=2)


def scores(folder: Path, *, interval: bool) -> list[str]:
    """Return accuracy and weighted F1 on the test rows, means over the runs."""
    found = [RunFolder(path.parent).read_metrics() for path in folder.glob("*/metrics.json")]
    accuracy, f1 = (fmean(run["test"][name] for run in found) for name in ("accuracy", "f1"))
    text = f"{accuracy:.3f}"
    if interval:
        ends = [run["intervals"]["test"]["accuracy"] for run in found]
        low, high = (fmean(end[place] for end in ends) for place in (0, 1))
        text += f" ({low:.3f} to {high:.3f})"
    return [text, f"{f1:.3f}"]


def verdict(first: Path, second: Path) -> str:
    """Return the difference in accuracy with its interval, and what it amounts to."""
    if first == second:
        return ""
    found = compare(first, second, "train/f1")
    accuracy = found.differences[0]
    better = "better" if accuracy.difference > 0 else "worse"
    text = f"{accuracy.difference:+.3f} ({accuracy.low:+.3f} to {accuracy.high:+.3f})"
    return f"{text}, {better if found.distinguishable else 'not distinguishable'}"


def judge(
    recipes: dict[str, list[str]],
    baselines: Sequence[str],
    divisions: list[list[str]],
    seeds: list[int],
    folder: Path,
) -> None:
    """Train every model on the same divisions and print the table."""
    lines = []
    for name in [*recipes, *baselines]:
        started = time.perf_counter()
        to = folder / re.sub(r"\W+", "-", name)
        if name in recipes:
            train_network(recipes[name], divisions, seeds, to)
        else:
            fit_baseline(name, divisions, seeds, to)
        first = folder / re.sub(r"\W+", "-", SEARCHED)
        lines.append([name, *scores(to, interval=len(divisions) == 1), verdict(first, to)])
        print(f"{name}: {lines[-1][1:]}, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    print("\n" + table(["model", "accuracy", "weighted F1", f"{SEARCHED} against it"], lines), flush=True)


def main() -> None:
    """Print, for each table, what the search chose and two tables of results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    installed = [baseline.name for baseline in BASELINES if baseline.installed]
    parser.add_argument("--baselines", nargs="*", choices=installed, default=installed, metavar="MODEL")
    parser.add_argument(
        "--slow",
        nargs="*",
        default=["forest", "boosting", "catboost"],
        help="models that are not tested on the folds",
    )
    numbers = range(len(TABLES))
    parser.add_argument("--tables", type=int, nargs="+", choices=numbers, default=numbers, metavar="N")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    register_schemas()
    torch.set_num_threads(1)
    print(describe())
    with tempfile.TemporaryDirectory() as temporary:
        for number in options.tables:
            name, file = list(TABLES.items())[number]
            root = Path(temporary) / str(number)
            rows = write_rows(options.folder / file, options.folder, root)
            row, n_settings, seconds = search(rows.training, root / "sweep")
            settings = {key: row.finished[0].settings[key] for key in SWEPT}
            chosen = [f"{key}={format_value(value)}" for key, value in settings.items()]
            recipes = {
                SEARCHED: ["experiment=pretrained", *chosen, *ALL_ROWS],
                "experiment=pretrained": ["experiment=pretrained", *ALL_ROWS],
                "default experiment": ["data=table"],
            }
            found = {key: row.estimates[key] for key in ("val/f1", "test/accuracy", "test/f1")}
            shown = ", ".join(
                f"{key} {one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]" for key, one in found.items()
            )
            print(f"\n## {name}\n\nBest of {n_settings} settings after {seconds:.0f} s: {' '.join(chosen)}")
            print(f"Its five folds in the search (60 % of the rows train): {shown}")
            print(f"\nFolds: {row.trials[0].protocol}; all rows of the other folds train", flush=True)
            folds = [
                [*data_of(rows.training), f"data.split.folds={FOLDS}", f"data.split.fold={fold}"]
                for fold in range(FOLDS)
            ]
            quick = [baseline for baseline in options.baselines if baseline not in options.slow]
            judge(recipes, quick, folds, options.seeds, root / "folds")
            if not rows.tested:
                print("\nThe table has no row of valid_filtered.")
                continue
            left = f"without {rows.left_out} rows of artists of train_filtered"
            print(f"\nvalid_filtered, {rows.tested} rows, {left}", flush=True)
            given = [[*data_of(rows.everything), "data.split.column=split"]]
            judge(recipes, options.baselines, given, options.seeds, root / "valid")


if __name__ == "__main__":
    main()
