r"""The same features under two protocols: GTZAN's published artist-disjoint split and a random stratified 10-fold one.

    python benchmarks/gtzan_protocols.py --table features_30_sec.csv \
        --train train_filtered.txt --test valid_filtered.txt

The network is the baseline (`experiment=gtzan`, chosen before any of these numbers was seen) and the stronger recipe of
`experiment=demo_strong`; scikit-learn's models stand beside them on the same rows. All of them see the same non-test
rows: the network takes 15/85 of them to choose its epoch, the others train on all. Nothing is chosen on test rows.
Mean and standard deviation are over the seeds; in the 10-fold protocol a seed's value is over all rows, each tested
once.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from machine import describe, table
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from genre_classifier.config import GtzanConfig, SplitConfig, SplitFiles, register_schemas
from genre_classifier.data.sources import read
from genre_classifier.data.splits import make_split
from genre_classifier.data.table import FeatureTable
from genre_classifier.training.fit import train

ROOT = Path(__file__).resolve().parents[1]
COMMON = ["experiment=gtzan", "logger=none", "trainer.enable_progress_bar=false"]
STRONG = [
    "optimizer=adamw",
    "optimizer.lr=2e-3",
    "optimizer.weight_decay=0.05",
    "scheduler=cosine",
    "loss.mixup=0.4",
    "callbacks=ema",
    "callbacks.early_stopping=null",
]
MODELS: dict[str, Callable[[int], object]] = {
    "LogisticRegression": lambda seed: LogisticRegression(max_iter=5000, random_state=seed),
    "SVC (RBF)": lambda seed: SVC(random_state=seed),
    "HistGradientBoosting": lambda seed: HistGradientBoostingClassifier(random_state=seed),
}


def network(overrides: list[str], ids: list[str]) -> list[str]:
    """Train and return the predicted genre of each of the given test ids."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = compose("train", overrides=[*COMMON, *overrides, f"run_dir={folder}"])
        result = train(cfg)
        assert result is not None
        lines = result.folder.predictions_csv.read_text().splitlines()[1:]
    predicted = {line.split(",")[0]: line.split(",")[3] for line in lines}
    return [predicted[name] for name in ids]


def scores(truth: list[str], predicted: list[str]) -> tuple[float, float]:
    return accuracy_score(truth, predicted), f1_score(truth, predicted, average="weighted")


def sklearn_predictions(
    name: str, seed: int, rows: FeatureTable, fit_on: np.ndarray, test: np.ndarray
) -> list[str]:
    model = make_pipeline(StandardScaler(), MODELS[name](seed))
    x = rows.features.astype(np.float64)
    names = np.array(rows.genre_names)
    return list(model.fit(x[fit_on], names[rows.genres[fit_on]]).predict(x[test]))


def disjoint(arguments: argparse.Namespace, rows: FeatureTable, model: str, seed: int) -> tuple[float, float]:
    files = SplitFiles(train=arguments.train, test=arguments.test)
    split = make_split(rows, SplitConfig(files=files))
    truth = [rows.genre_names[genre] for genre in rows.genres[split.test]]
    if model in MODELS:
        fit_on = np.concatenate([split.train, split.val])
        return scores(truth, sklearn_predictions(model, seed, rows, fit_on, split.test))
    overrides = [f"data.path={arguments.table}", f"seed={seed}", f"data.split.seed={seed}"]
    overrides += [f"data.split.files.train={arguments.train}", f"data.split.files.test={arguments.test}"]
    return scores(truth, network([*overrides, *recipe(model)], list(rows.ids[split.test])))


def folds(arguments: argparse.Namespace, rows: FeatureTable, model: str, seed: int) -> tuple[float, float]:
    truth: list[str] = []
    predicted: list[str] = []
    for fold in range(arguments.folds):
        split = make_split(rows, SplitConfig(folds=arguments.folds, fold=fold, seed=seed))
        truth += [rows.genre_names[genre] for genre in rows.genres[split.test]]
        if model in MODELS:
            fit_on = np.concatenate([split.train, split.val])
            predicted += sklearn_predictions(model, seed, rows, fit_on, split.test)
        else:
            overrides = [f"data.path={arguments.table}", f"seed={seed}", f"data.split.seed={seed}"]
            overrides += [f"data.split.folds={arguments.folds}", f"data.split.fold={fold}", *recipe(model)]
            predicted += network(overrides, list(rows.ids[split.test]))
    return scores(truth, predicted)


def recipe(model: str) -> list[str]:
    return STRONG if "stronger" in model else []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("table", "train", "test"):
        parser.add_argument(f"--{name}", required=True)
    everything = ["network, baseline", "network, stronger recipe", *MODELS]
    parser.add_argument("--models", nargs="+", choices=everything, default=everything, metavar="MODEL")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folds", type=int, default=10)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    register_schemas()
    rows = read(GtzanConfig(path=arguments.table))
    print(describe())
    print(f"{len(rows)} tracks, {len(rows.feature_names)} features, {arguments.seeds} seeds\n", flush=True)
    lines = []
    for model in arguments.models:
        started = time.time()
        line = [model]
        for protocol in (disjoint, folds):
            values = [protocol(arguments, rows, model, seed) for seed in range(arguments.seeds)]
            for position in range(2):
                column = [value[position] for value in values]
                line.append(f"{statistics.mean(column):.3f} ± {statistics.pstdev(column):.3f}")
        lines.append([*line, f"{time.time() - started:.0f}"])
        print(lines[-1], flush=True)
    header = [
        "model",
        "accuracy, artists disjoint",
        "weighted F1",
        f"accuracy, random {arguments.folds}-fold",
    ]
    print("\n" + table([*header, "weighted F1", "seconds"], lines))


if __name__ == "__main__":
    main()
