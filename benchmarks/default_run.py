"""Measure the seconds of each step of a default `python train.py`, from the command to the finished folder.

    python benchmarks/default_run.py [--runs 5]

Each run is a separate process. The steps are measured inside it, the whole from outside. The peer is the same work in a
plain PyTorch loop over a DataLoader of a TensorDataset, in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = (
    "start of Python and composing",
    "imports",
    "data",
    "fit",
    "evaluation and files",
    "plain loop, same epochs",
)


def run_once(command_started: float, folder: str) -> dict[str, float]:
    """Train the default configuration in this process and return the seconds of each part."""
    from hydra import compose, initialize_config_dir

    from genre_classifier.config.schema import register_schemas

    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=[f"run_dir={folder}"])
    composed = time.time()

    from genre_classifier.training import fit

    imported = time.time()
    marks: dict[str, float] = {}
    original = fit._fit

    def time_fit(*arguments: object) -> None:
        marks["before"] = time.time()
        original(*arguments)  # type: ignore[arg-type]
        marks["after"] = time.time()

    fit._fit = time_fit  # type: ignore[assignment]
    result = fit.train(cfg)
    finished = time.time()
    assert result is not None
    epochs = result.folder.history_csv.read_text().count("\n") - 1
    seconds = [
        composed - command_started,
        imported - composed,
        marks["before"] - imported,
        marks["after"] - marks["before"],
        finished - marks["after"],
    ]
    measured = dict(zip(PARTS, [*seconds, train_in_plain_loop(cfg, epochs)], strict=True))
    return measured | {"epochs": epochs}


def train_in_plain_loop(cfg: object, epochs: int) -> float:
    """Train the same network on the same rows for as many epochs in a plain loop. Validate after each epoch."""
    import torch
    from single_run import build_stock_network
    from torch.utils.data import DataLoader, TensorDataset

    from genre_classifier.config.checks import to_train_config
    from genre_classifier.data.datamodule import GenreDataModule

    torch.set_num_threads(1)
    settings = to_train_config(cfg)  # type: ignore[arg-type]
    data = GenreDataModule(settings.data)
    data.setup()
    loaders = {
        name: DataLoader(TensorDataset(*data.side(name)), batch_size=64, shuffle=name == "train")
        for name in ("train", "val")
    }
    started = time.time()
    model = build_stock_network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    for _ in range(epochs):
        model.train()
        for x, y in loaders["train"]:
            optimizer.zero_grad()
            loss_of(model(x), y).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for x, y in loaders["val"]:
                loss_of(model(x), y)
    return time.time() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        parts = run_once(float(arguments.inside[0]), arguments.inside[1])
        print("RESULT " + json.dumps(parts))
        return
    from machine import describe, table

    runs: list[dict[str, float]] = []
    whole: list[float] = []
    for _ in range(arguments.runs):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--inside", str(time.time()), folder]
            output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
            line = next(line for line in output.splitlines() if line.startswith("RESULT "))
            runs.append(json.loads(line.removeprefix("RESULT ")))
        with tempfile.TemporaryDirectory() as folder:
            started = time.time()
            command = [sys.executable, "train.py", f"hydra.run.dir={folder}"]
            subprocess.run(command, capture_output=True, check=True, cwd=ROOT, env=os.environ)
            whole.append(time.time() - started)
    print(describe())
    print(
        f"default run on the demo data: {runs[0]['epochs']:g} epochs of 27 batches; median of {arguments.runs} runs\n"
    )
    rows = [
        [part, f"{statistics.median(run[part] for run in runs):.2f}", f"{min(run[part] for run in runs):.2f}"]
        for part in PARTS
    ]
    rows.append(
        ["python train.py, the whole command", f"{statistics.median(whole):.2f}", f"{min(whole):.2f}"]
    )
    print(table(["part", "median s", "minimum s"], rows))
    ratio = statistics.median(run["fit"] / run[PARTS[-1]] for run in runs)
    print(f"\nfit / plain loop: {ratio:.2f}")


if __name__ == "__main__":
    main()
