r"""Compare training recipes on GTZAN's training rows, by folds over blocks of neighbouring tracks.

    python benchmarks/gtzan_recipe.py --table features_30_sec.csv --train train_filtered.txt

Only rows of the published split's training file are used. Its test rows are never read. The table has no artists, but
tracks of one artist mostly have neighbouring numbers (Sturm, 2013). Blocks of twenty neighbouring numbers therefore
replace artists: four folds, no block on two sides, three seeds of the folds. The script first prints how well the
blocks work: the accuracy of an SVC with random and with blocked folds. Every recipe is trained with several seeds on
every fold as stacks. Its difference to the first recipe is tested by the corrected t-test (Nadeau and Bengio, 2003)
over folds.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import re
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pandas as pd
import torch
from hydra import compose, initialize_config_dir
from machine import describe, table
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from genre_classifier.config.schema import register_schemas
from genre_classifier.evaluation.paired_tests import run_corrected_t_test
from genre_classifier.runs.folder import RunFolder
from genre_classifier.sweeps.stacked.fit import train_stack

ROOT = Path(__file__).resolve().parents[1]
BLOCK = 20
FOLDS = 4
MEMBERS = 64

STOPPING = ["optimizer=adam", "scheduler=none", "trainer.max_epochs=100"]
LAST = ["callbacks.early_stopping=null", "callbacks.checkpoint.monitor=null"]
ALL_ROWS = ["data.split.train=0.85", "data.split.val=0", "optimized_metric=train/f1"]
PLAIN = [*STOPPING, *LAST, *ALL_ROWS]
STRONG = [
    "optimizer=adamw",
    "optimizer.lr=2e-3",
    "optimizer.weight_decay=0.05",
    "scheduler=cosine",
    "loss.mixup=0.4",
    "trainer.max_epochs=100",
]
RECIPES: dict[str, list[str]] = {
    "Adam 1e-3, early stopping on 15 % of the rows": STOPPING,
    "AdamW 2e-3, cosine, mixup 0.4, averaged weights, best epoch": [
        *STRONG,
        "callbacks=ema",
        "callbacks.early_stopping=null",
    ],
    "the same, last epoch": [*STRONG, *LAST],
    "the same, all rows train": [*STRONG, *LAST, *ALL_ROWS],
    "Adam 1e-3, 100 epochs, all rows train": PLAIN,
    "... 50 epochs": [*PLAIN, "trainer.max_epochs=50"],
    "... 200 epochs": [*PLAIN, "trainer.max_epochs=200"],
    "... 300 epochs": [*PLAIN, "trainer.max_epochs=300"],
    "... 200 epochs, cosine": [*PLAIN, "trainer.max_epochs=200", "scheduler=cosine"],
    "... batches of 16": [*PLAIN, "data.batch_size=16"],
    "... batches of 32": [*PLAIN, "data.batch_size=32"],
    "... learning rate 3e-3": [*PLAIN, "optimizer.lr=3e-3"],
    "... class weights": [*PLAIN, "loss.class_weights=balanced"],
    "... mixup 0.2": [*PLAIN, "loss.mixup=0.2"],
    "... mixup 0.4": [*PLAIN, "loss.mixup=0.4"],
    "... no label smoothing": [*PLAIN, "loss.label_smoothing=0"],
    "... label smoothing 0.3": [*PLAIN, "loss.label_smoothing=0.3"],
    "... dropout 0.1": [*PLAIN, "model.dropout=0.1"],
    "... dropout 0.5": [*PLAIN, "model.dropout=0.5"],
    "... AdamW, weight decay 0.3": [*PLAIN, "optimizer=adamw", "optimizer.weight_decay=0.3"],
    "... averaged weights": [*PLAIN, "callbacks=ema", *LAST],
}


def write_training_rows(source: Path, train_file: Path, folder: Path) -> Path:
    """Write the training file's rows with their block, and return the path."""
    rows = pd.read_csv(source)
    stems = rows["filename"].str.extract(r"^(?P<stem>[^.]+\.\d{5})")["stem"]
    named = {re.sub(r"\.(wav|au)$", "", Path(line).name) for line in train_file.read_text().split()}
    rows = rows[stems.isin(named)].drop(columns="length")
    numbers = stems[rows.index].str.extract(r"(\d+)$")[0].astype(int)
    rows["block"] = rows["label"] + "-" + (numbers // BLOCK).astype(str)
    path = folder / "rows.csv"
    rows.to_csv(path, index=False)
    return path


def print_block_check(path: Path, splits: Sequence[int]) -> None:
    """Print the accuracy of an SVC with random folds and with blocked folds."""
    rows = pd.read_csv(path)
    x = rows.drop(columns=["filename", "label", "block"]).to_numpy()
    model = make_pipeline(StandardScaler(), SVC())

    def compute_mean(folds: type, groups: object = None) -> float:
        return fmean(
            cross_val_score(
                model, x, rows["label"], groups=groups, cv=folds(FOLDS, shuffle=True, random_state=seed)
            ).mean()
            for seed in splits
        )

    blocked, random = compute_mean(StratifiedGroupKFold, rows["block"]), compute_mean(StratifiedKFold)
    print(f"{len(rows)} rows; SVC under random folds {random:.3f}, under blocked folds {blocked:.3f}\n")


def measure_by_fold(
    overrides: Sequence[str], path: Path, folder: Path, splits: Sequence[int], seeds: Sequence[int]
) -> dict[tuple[int, int], tuple[float, float, float]]:
    """Return a recipe's mean accuracy, F1 and ratio of test to training rows over seeds, by split and fold."""
    data = ["data=table", f"data.path={path}", "data.label=label", "data.group=block", "data.id=filename"]
    folds = [f"data.split.folds={FOLDS}", "data.split.fold=0"]
    quiet = ["logger=none", "trainer.enable_progress_bar=false", "run_dir=x"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        base = compose("train", [*data, *folds, *quiet, *overrides])
    configs = []
    for split, fold, seed in itertools.product(splits, range(FOLDS), seeds):
        cfg = base.copy()
        cfg.seed, cfg.data.split.seed, cfg.data.split.fold = seed, split, fold
        cfg.run_dir = str(folder / f"{split}-{fold}-{seed}")
        configs.append(cfg)
    for start in range(0, len(configs), MEMBERS):
        train_stack(configs[start : start + MEMBERS])
    found: dict[tuple[int, int], list[tuple[float, float, float]]] = {}
    for cfg in configs:
        run = RunFolder(Path(cfg.run_dir))
        metrics, rows = run.read_metrics()["test"], run.read_run()["data"]["rows_by_split"]
        values = (metrics["accuracy"], metrics["f1"], rows["test"] / rows["train"])
        found.setdefault((cfg.data.split.seed, cfg.data.split.fold), []).append(values)
    return {key: tuple(map(fmean, zip(*values, strict=True))) for key, values in found.items()}  # type: ignore[misc]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--splits", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--recipes", type=int, nargs="+", metavar="N", help="by their place, the first is 0")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    register_schemas()
    torch.set_num_threads(1)
    print(describe())
    lines: list[list[str]] = []
    reference: dict[tuple[int, int], tuple[float, float, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        path = write_training_rows(options.table, options.train, Path(temporary))
        print_block_check(path, options.splits)
        names = list(RECIPES)
        chosen = names if options.recipes is None else [names[number] for number in options.recipes]
        for name in chosen:
            started = time.perf_counter()
            folder = Path(temporary) / str(names.index(name))
            found = measure_by_fold(RECIPES[name], path, folder, options.splits, options.seeds)
            reference = reference or found
            differences = [found[key][0] - reference[key][0] for key in found]
            test = run_corrected_t_test(differences, fmean(values[2] for values in found.values()))
            means = [fmean(values[place] for values in found.values()) for place in (0, 1)]
            verdict = "" if name == chosen[0] else f"{test.mean:+.3f} ± {test.half_width:.3f}"
            lines.append([name, *(f"{mean:.3f}" for mean in means), verdict])
            print(f"{name}: {lines[-1][1:]}, {time.perf_counter() - started:.0f} s", flush=True)
    print("\n" + table(["recipe", "accuracy", "weighted F1", "to the first, 95 % interval"], lines))


if __name__ == "__main__":
    main()
