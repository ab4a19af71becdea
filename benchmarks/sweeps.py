"""Measure a sweep of 24 trials on the demo data by each launcher, and a leaderboard of 1,000 run folders.

    python benchmarks/sweeps.py [--launchers basic joblib ray] [--epochs 20] [--trials 24]

Wall seconds are those of the whole command, with imports and leaderboard. A trial's overhead is the time from the
making of its folder to its finished run.json, without the epochs: starting the process, reading the table, evaluating,
drawing the figures. The leaderboard is compared with only reading the same JSON files.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe

ROOT = Path(__file__).resolve().parents[1]
LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "ray": ["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"],
}
RUNS = 1000


def run_sweep(name: str, n_trials: int, epochs: int, folder: Path) -> tuple[float, float, float]:
    """Return wall seconds, the median trial's training seconds and its overhead."""
    command = [
        sys.executable,
        "train.py",
        "-m",
        f"hydra.sweep.dir={folder}",
        f"seed=range(0,{n_trials // 2})",
        "model.dropout=0.1,0.3",
        f"trainer.max_epochs={epochs}",
        "callbacks.early_stopping=null",
        *LAUNCHERS[name],
    ]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    wall = time.perf_counter() - start
    if done.returncode != 0:
        sys.exit(done.stderr)
    trained, overheads = [], []
    for run in folder.glob("*/run.json"):
        with (run.parent / "history.csv").open(newline="") as stream:
            seconds = sum(float(row["seconds"]) for row in csv.DictReader(stream))
        whole = run.stat().st_mtime - (run.parent / ".hydra" / "overrides.yaml").stat().st_mtime
        trained.append(seconds)
        overheads.append(whole - seconds)
    return wall, statistics.median(trained), statistics.median(overheads)


def make_runs(folder: Path) -> None:
    """Write run folders like those of trials: 250 configurations, four seeds each."""
    settings = {f"part{i}.setting{j}": 0.5 for i in range(8) for j in range(8)}
    splits = ("train", "val", "test")
    for number in range(RUNS):
        run = folder / str(number)
        run.mkdir(parents=True)
        told = settings | {"seed": number % 4, "model.dropout": number // 4 / 1000}
        record = {"format_version": 1, "status": "finished", "settings": told, "epochs": 20, "seconds": 3.0}
        record |= {"data": {"fingerprint": "x"}, "split_protocol": {"description": "grouped"}}
        values = dict.fromkeys(
            ("loss", "accuracy", "f1", "f1_macro", "top3", "ece"), (number * 7919 % 997) / 997
        )
        (run / "run.json").write_text(json.dumps(record))
        (run / "metrics.json").write_text(json.dumps({"format_version": 1, **dict.fromkeys(splits, values)}))


def time_leaderboard(folder: Path) -> tuple[float, float]:
    """Return seconds of ranking and writing the CSV, and of only parsing the same files."""
    from genre_classifier.runs.ranking.leaderboard import find_trials, rank_trials
    from genre_classifier.runs.ranking.tables import write_leaderboard

    start = time.perf_counter()
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    parsed = time.perf_counter() - start
    start = time.perf_counter()
    boards = rank_trials(find_trials([folder]), "val/f1")
    write_leaderboard(folder / "leaderboard.csv", boards)
    return time.perf_counter() - start, parsed


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--launchers", nargs="+", choices=list(LAUNCHERS), default=list(LAUNCHERS))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--trials", type=int, default=24)
    options = parser.parse_args()
    print(describe())
    print(f"sweep    {options.trials} trials of {options.epochs} epochs, demo data\n")
    print(f"{'launcher':10}{'wall s':>9}{'ratio':>8}{'s a trial':>11}{'training':>10}{'overhead':>10}")
    base = None
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.launchers:
            folder = Path(temporary) / name
            wall, trained, overhead = run_sweep(name, options.trials, options.epochs, folder)
            base = base or wall
            each = wall / options.trials
            print(
                f"{name:10}{wall:9.1f}{wall / base:7.2f}x{each:11.2f}{trained:10.2f}{overhead:10.2f}",
                flush=True,
            )
        make_runs(Path(temporary) / "runs")
        seconds, parsed = time_leaderboard(Path(temporary) / "runs")
        print(
            f"\nleaderboard of {RUNS:,} run folders {seconds:.2f} s; parsing their JSON alone {parsed:.2f} s"
        )


if __name__ == "__main__":
    main()
