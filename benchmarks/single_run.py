"""Measure the same training in six ways, in one process, and the time of `python train.py` to its first step.

    python benchmarks/single_run.py [--runs 3] [--starts 3]

6,400 rows x 20 features, 8 genres, batches of 64, 20 epochs: 2,000 optimizer steps of Adam on a network of 128, 64 and
32 units with dropout 0.3 (scikit-learn's has none). There are no validation rows, because the plain loops only train.
This project also computes six metrics and writes history, TensorBoard and two checkpoints every epoch.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from machine import describe, table
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

ROOT = Path(__file__).resolve().parents[1]
ROWS, FEATURES, GENRES, BATCH, EPOCHS = 6_400, 20, 8, 64, 20
DATALOADER_LOOP = "plain PyTorch loop, DataLoader"
USUAL = "Lightning as usual: DataLoader, logger, checkpoints"
OURS = "this project, 100 mini-batches a training step"


@dataclass
class Stopwatch:
    """Wall seconds, and seconds of processor time of this process."""

    wall: float = 0.0
    cpu: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall, self.cpu = time.perf_counter() - wall, time.process_time() - cpu


def make_rows() -> tuple[np.ndarray, np.ndarray]:
    """Return random features (row, feature) and genres (row,). Each genre has its own mean of every feature."""
    rng = np.random.default_rng(0)
    genres = rng.integers(0, GENRES, ROWS)
    centres = rng.normal(size=(GENRES, FEATURES))
    return (centres[genres] + 2 * rng.normal(size=(ROWS, FEATURES))).astype(np.float32), genres


def build_stock_network() -> nn.Module:
    """Return the network in its usual PyTorch form."""
    return nn.Sequential(
        nn.Linear(FEATURES, 128),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, GENRES),
    )


def build_data_loader(x: Tensor, y: Tensor) -> DataLoader:
    return DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True)


def train_by_usual_lightning(x: Tensor, y: Tensor, watch: Stopwatch) -> None:
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import TensorBoardLogger
    from torchmetrics.classification import MulticlassAccuracy

    class Usual(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = build_stock_network()
            self.loss = nn.CrossEntropyLoss(label_smoothing=0.1)
            self.accuracy = MulticlassAccuracy(GENRES, average="micro")

        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            features, genres = batch
            logits = self.network(features)
            loss: Tensor = self.loss(logits, genres)
            self.accuracy(logits, genres)
            self.log("train/loss", loss, on_step=False, on_epoch=True)
            self.log("train/accuracy", self.accuracy, on_step=False, on_epoch=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=EPOCHS,
            logger=TensorBoardLogger(folder),
            callbacks=[ModelCheckpoint(folder, monitor="train/loss", save_last=True)],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with watch.running():
            trainer.fit(Usual(), build_data_loader(x, y))


def train_in_plain_loop(batches: Callable[[], object], watch: Stopwatch) -> None:
    model, loss_of = build_stock_network(), nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with watch.running():
        for _ in range(EPOCHS):
            for features, genres in batches():  # type: ignore[attr-defined]
                optimizer.zero_grad()
                loss_of(model(features), genres).backward()
                optimizer.step()


def train_from_dataloader(x: Tensor, y: Tensor, watch: Stopwatch) -> None:
    loader = build_data_loader(x, y)
    train_in_plain_loop(lambda: loader, watch)


def train_from_tensors(x: Tensor, y: Tensor, watch: Stopwatch) -> None:
    def draw_batches() -> object:
        order = torch.randperm(ROWS)
        return ((x[index], y[index]) for index in order.split(BATCH))

    train_in_plain_loop(draw_batches, watch)


def train_by_scikit_learn(x: Tensor, y: Tensor, watch: Stopwatch) -> None:
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(
        (128, 64, 32), batch_size=BATCH, max_iter=EPOCHS, learning_rate_init=1e-3, alpha=0.0, tol=0.0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with watch.running():
            model.fit(x.numpy(), y.numpy())


def train_by_this_project(x: Tensor, y: Tensor, watch: Stopwatch, batches_per_training_step: int) -> None:
    from hydra import compose, initialize_config_dir

    from genre_classifier.config.schema import register_schemas
    from genre_classifier.training import fit

    register_schemas()
    original = fit._fit

    def time_fit(*arguments: object) -> None:
        with watch.running():
            original(*arguments)  # type: ignore[arg-type]

    with tempfile.TemporaryDirectory() as folder:
        frame = pd.DataFrame(x.numpy(), columns=[f"f{number}" for number in range(FEATURES)])
        frame.assign(label=[f"genre {number}" for number in y.tolist()]).to_parquet(f"{folder}/rows.parquet")
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            overrides = [
                f"run_dir={folder}/run",
                "data=table",
                f"data.path={folder}/rows.parquet",
                "data/split=all",
                "optimized_metric=train/loss",
                "callbacks.early_stopping=null",
                f"trainer.max_epochs={EPOCHS}",
                f"trainer.batches_per_training_step={batches_per_training_step}",
                "trainer.enable_progress_bar=false",
            ]
            cfg = compose("train", overrides=overrides)
        fit._fit = time_fit  # type: ignore[assignment]
        try:
            fit.train(cfg)
        finally:
            fit._fit = original


WAYS: dict[str, Callable[[Tensor, Tensor, Stopwatch], None]] = {
    USUAL: train_by_usual_lightning,
    "this project, one mini-batch per training step": partial(
        train_by_this_project, batches_per_training_step=1
    ),
    DATALOADER_LOOP: train_from_dataloader,
    "plain PyTorch loop, tensor batches": train_from_tensors,
    "scikit-learn MLPClassifier (no dropout)": train_by_scikit_learn,
    OURS: partial(train_by_this_project, batches_per_training_step=100),
}

FIRST_STEP = """
import os, runpy, sys, time
from genre_classifier.training.engine.update import Updates

make = Updates.make

def stop(*arguments):
    make(*arguments)
    print("FIRST STEP", time.time(), flush=True)
    os._exit(0)

Updates.make = stop
sys.path.insert(0, os.getcwd())
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path("train.py", run_name="__main__")
"""


def measure_first_step() -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", FIRST_STEP, f"hydra.run.dir={folder}/run"]
        started = time.time()
        output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return float(output.split("FIRST STEP")[1].split()[0]) - started


def measure_import(what: str) -> float:
    started = time.time()
    subprocess.run([sys.executable, "-c", f"import {what}"], check=True, capture_output=True)
    return time.time() - started


def compute_ratio(ones: list[Stopwatch], others: list[Stopwatch]) -> float:
    return statistics.median(one.wall / other.wall for one, other in zip(ones, others, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--starts", type=int, default=3)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    x, y = (torch.from_numpy(array) for array in make_rows())

    watches: dict[str, list[Stopwatch]] = {name: [] for name in WAYS}
    for _ in range(arguments.runs):
        for name, way in WAYS.items():
            watches[name].append(Stopwatch())
            way(x, y, watches[name][-1])
    print(describe())
    print(
        f"{ROWS} rows x {FEATURES}, batches of {BATCH}, {EPOCHS} epochs, one thread; medians of {arguments.runs} "
        "rounds, ratios within a round\n"
    )
    header = ["way", "s", "processor s", "to the plain DataLoader loop", f"to {OURS}"]
    lines = [
        [
            name,
            f"{statistics.median(watch.wall for watch in watches[name]):.2f}",
            f"{statistics.median(watch.cpu for watch in watches[name]):.2f}",
            f"{compute_ratio(watches[name], watches[DATALOADER_LOOP]):.2f}",
            f"{compute_ratio(watches[name], watches[OURS]):.2f}",
        ]
        for name in WAYS
    ]
    print(table(header, lines))

    if arguments.starts:
        print("\nfrom the command on, median of", arguments.starts, "starts\n")
        starts = {
            "python train.py, to its first optimizer step": measure_first_step,
            "python -c 'import lightning.pytorch'": lambda: measure_import("lightning.pytorch"),
            "python -c 'import torch'": lambda: measure_import("torch"),
        }
        taken: dict[str, list[float]] = {name: [] for name in starts}
        for _ in range(arguments.starts):
            for name, start in starts.items():
                taken[name].append(start())
        print(
            table(
                ["", "median s", "minimum s"],
                [[name, f"{statistics.median(v):.2f}", f"{min(v):.2f}"] for name, v in taken.items()],
            )
        )


if __name__ == "__main__":
    main()
