"""Measure the difficulty of the synthetic demo table: accuracy with no artist on both sides of a split.

    python benchmarks/demo_difficulty.py [TABLE.parquet] [--repeats 3]

The default GenreClassifier is compared with logistic regression and nearest neighbours by the same grouped 5-fold
cross-validation. Groups are artists. In each fold, scaler and early stopping use training artists only.
"""

from __future__ import annotations

import argparse
import platform
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import nn

from genre_classifier.features.sets import CORE20
from genre_classifier.network import GenreClassifier

EPOCHS = 50
PATIENCE = 8
BATCH = 64


def fit_network(
    x: torch.Tensor, y: torch.Tensor, groups: np.ndarray, n_genres: int, seed: int
) -> GenreClassifier:
    """Train with early stopping on an eighth of the artists. Return the network of the best epoch."""
    torch.manual_seed(seed)
    splitter = StratifiedGroupKFold(8, shuffle=True, random_state=seed)
    train, valid = next(splitter.split(x, y, groups))
    network = GenreClassifier(input_dim=x.shape[1], num_classes=n_genres, dropout=0.3)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    best, best_loss, stale = network.state_dict(), float("inf"), 0
    for _ in range(EPOCHS):
        network.train()
        for rows in torch.from_numpy(train)[torch.randperm(len(train))].split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            loss = float(nn.functional.cross_entropy(network(x[valid]), y[valid]))
        if loss < best_loss:
            best = {name: value.clone() for name, value in network.state_dict().items()}
            best_loss, stale = loss, 0
        else:
            stale += 1
            if stale >= PATIENCE:
                break
    network.load_state_dict(best)
    return network


def cross_validate(x: np.ndarray, y: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return each model's predictions of all rows. Each row is predicted in the fold that holds out its artist."""
    n_genres = int(y.max()) + 1
    predictions = {
        name: np.empty_like(y) for name in ("GenreClassifier", "logistic regression", "5 neighbours")
    }
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(x, y, groups):
        scaler = StandardScaler().fit(x[train])
        scaled, unseen = scaler.transform(x[train]), scaler.transform(x[test])
        network = fit_network(
            torch.tensor(scaled, dtype=torch.float32), torch.tensor(y[train]), groups[train], n_genres, seed
        )
        predictions["GenreClassifier"][test] = network.predict(
            torch.tensor(unseen, dtype=torch.float32)
        ).numpy()
        linear = LogisticRegression(max_iter=2000).fit(scaled, y[train])
        predictions["logistic regression"][test] = linear.predict(unseen)
        neighbours = KNeighborsClassifier(5).fit(scaled, y[train])
        predictions["5 neighbours"][test] = neighbours.predict(unseen)
    return predictions


def main() -> None:
    """Print the accuracies and the confusion matrix."""
    shipped = Path(str(files("genre_classifier.demo"))) / "features.parquet"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, nargs="?", default=shipped)
    parser.add_argument(
        "--repeats", type=int, default=3, help="seeds for folds and networks (default: %(default)s)"
    )
    chosen = parser.parse_args()

    table = pd.read_parquet(chosen.table)
    genres = list(dict.fromkeys(table["genre"]))
    x = table[list(CORE20.features)].to_numpy()
    y = table["genre"].map(genres.index).to_numpy()
    groups = table["artist"].to_numpy()
    print(
        f"{chosen.table.name}: {len(table)} rows, {len(set(groups))} artists; {platform.machine()}",
        flush=True,
    )

    started = time.perf_counter()
    accuracy: dict[str, list[float]] = {}
    confusion = np.zeros((len(genres), len(genres)))
    for seed in range(chosen.repeats):
        for name, predicted in cross_validate(x, y, groups, seed).items():
            accuracy.setdefault(name, []).append(float((predicted == y).mean()))
            if name == "GenreClassifier":
                confusion += confusion_matrix(y, predicted, normalize="true") / chosen.repeats
    for name, values in accuracy.items():
        print(f"{name:20s} {np.median(values):.3f}  ({', '.join(f'{value:.3f}' for value in values)})")
    print("GenreClassifier, per cent of the genre in the row:")
    print(pd.DataFrame(100 * confusion, genres, genres).round(1).to_string())
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
