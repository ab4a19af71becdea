"""Measure a sweep of small networks as one stack, and other ways of running the same sweep.

    python benchmarks/stacked_sweep.py [--trials 64] [--baseline-trials 8] [--sizes 64 128 256 512]

First, only training: 6,400 rows x 20, batch 64, 20 epochs (2,000 steps), the default network, one run at a time as in
train.py, and stacks of 16 and 64. The bare steps are compared with torch.func.vmap over GenreClassifier. Second, whole
commands on the demo data, with imports and leaderboard: trials one by one in the usual Lightning way
(usual_lightning.py), joblib on two cores, and the stacked launcher. The slower ways run fewer trials. Their seconds per
trial are scaled up, and the start is counted once. Third, the stacked launcher with increasing numbers of trials, with
the memory of all its processes together.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe

ROOT = Path(__file__).resolve().parents[1]
EPOCHS = 20


def write_rows(folder: Path) -> Path:
    """Write a table of eight clusters with 6,400 training rows, and the fewest other rows that a split needs."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    genres = np.arange(8000) % 8
    features = rng.normal(size=(8, 20))[genres] + 1.5 * rng.normal(size=(8000, 20))
    table = pd.DataFrame(features.astype("float32"), columns=[f"f{i}" for i in range(20)])
    table["genre"] = [f"genre-{g}" for g in genres]
    path = folder / "rows.parquet"
    table.to_parquet(path)
    return path


def time_training(folder: Path) -> None:
    """Print seconds per network, for training only."""
    import logging
    import warnings

    import torch
    from hydra import compose, initialize_config_dir

    from genre_classifier.config.schema import register_schemas
    from genre_classifier.sweeps.stacked.fit import train_stack
    from genre_classifier.training.fit import train

    register_schemas()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    path = write_rows(folder)
    base = [
        "data=table",
        f"data.path={path}",
        "data.label=genre",
        "data.split.train=0.8",
        "data.split.val=0.1",
    ]
    base += [
        "data.split.test=0.1",
        "logger=none",
        f"trainer.max_epochs={EPOCHS}",
        "callbacks.early_stopping=null",
    ]
    base += ["trainer.enable_progress_bar=false"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", [*base, "run_dir=x"])

    def copy_config(n: int, name: str) -> list:
        found = []
        for number in range(n):
            cfg = config.copy()
            cfg.run_dir, cfg.seed = str(folder / f"{name}-{number}"), number
            found.append(cfg)
        return found

    train(copy_config(1, "warm")[0])
    start = time.perf_counter()
    for cfg in copy_config(4, "alone"):
        train(cfg)
    alone = (time.perf_counter() - start) / 4
    print(f"{'one at a time':28}{alone:8.3f} s per network")
    for size in (16, 64):
        configs = copy_config(size, f"stack{size}")
        start = time.perf_counter()
        train_stack(configs)
        each = (time.perf_counter() - start) / size
        print(
            f"{f'stack of {size}, one core':28}{each:8.3f} s per network, {alone / each:.1f} times",
            flush=True,
        )


def time_steps(n_members: int = 64, n_steps: int = 200) -> None:
    """Print seconds of the bare steps, without dropout: one by one, by vmap over GenreClassifier, as a stack."""
    import torch
    from torch.func import functional_call, grad, stack_module_state, vmap
    from torch.nn.functional import cross_entropy

    from genre_classifier.network import GenreClassifier
    from genre_classifier.training.engine.objective import Targets, compute_loss_gradient
    from genre_classifier.training.engine.stack import Stack

    torch.manual_seed(0)
    features, genres = torch.randn(n_steps, n_members, 64, 20), torch.randint(0, 8, (n_steps, n_members, 64))

    def build_networks() -> list[GenreClassifier]:
        return [GenreClassifier(dropout=0.0) for _ in range(n_members)]

    def step_one_by_one() -> None:
        for number, network in enumerate(build_networks()):
            optimizer = torch.optim.Adam(network.parameters(), fused=True)
            for x, y in zip(features[:, number], genres[:, number], strict=True):
                optimizer.zero_grad()
                cross_entropy(network(x), y).backward()
                optimizer.step()

    def step_by_vmap() -> None:
        made = build_networks()
        weights, buffers = stack_module_state(made)

        def compute_loss(weights: object, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return cross_entropy(functional_call(made[0], (weights, buffers), (x,)), y)

        gradients_of = vmap(grad(compute_loss))
        optimizer = torch.optim.Adam(weights.values(), fused=True)
        for x, y in zip(features, genres, strict=True):
            for name, gradient in gradients_of(weights, x, y).items():
                weights[name].grad = gradient
            optimizer.step()

    @torch.no_grad()
    def step_as_stack() -> None:
        stack = Stack(build_networks(), torch.device("cpu"))
        weights = torch.nn.Parameter(stack.parameters)
        weights.grad = stack.gradients
        optimizer = torch.optim.Adam([weights], fused=True)
        for x, y in zip(features, genres, strict=True):
            share = torch.nn.functional.one_hot(y, 8) / len(y[0])
            logits, inputs = stack.forward(x, [])
            stack.backward(
                compute_loss_gradient(logits, Targets(-share, -share.sum(dim=2, keepdim=True))), inputs
            )
            optimizer.step()

    warm = torch.nn.Parameter(torch.zeros(1))
    warm.grad = torch.zeros(1)
    torch.optim.Adam([warm], fused=True).step()  # the first step imports many modules
    print(f"\n{n_steps} steps of {n_members} networks, 64 rows per batch, one core")
    stacked = 0.0
    for name, run in {
        "as a stack": step_as_stack,
        "vmap": step_by_vmap,
        "one by one": step_one_by_one,
    }.items():
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        stacked = stacked or seconds
        print(f"{name:28}{seconds:8.2f} s, {seconds / stacked:.1f} times", flush=True)


def run_sweep(folder: Path, n_trials: int, *words: str) -> tuple[float, float]:
    """Run a sweep. Return wall seconds and the largest memory of all its processes together, in MB.

    The memory is the proportional set size of the processes: shared memory counts once.
    """
    command = [
        sys.executable,
        "train.py",
        "-m",
        f"hydra.sweep.dir={folder}",
        f"seed=range(0,{n_trials})",
        *words,
    ]
    log = folder.with_suffix(".log")
    largest = 0.0
    start = time.perf_counter()
    with log.open("w") as stream:
        running = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT)
        while True:
            try:
                running.wait(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                largest = max(largest, read_proportional_size(running.pid))
    seconds = time.perf_counter() - start
    if running.returncode != 0:
        sys.exit(log.read_text())
    return seconds, largest


def read_proportional_size(pid: int) -> float:
    """Return the memory of a process and its descendants in MB, from Linux' /proc.

    A process that starts or ends during the reading changes the others' shares, so such a reading is repeated.
    Returns 0 if that happens each time.
    """
    for _ in range(10):
        processes = list_processes(pid)
        total = sum(map(read_share, processes))
        if processes == list_processes(pid):
            return total
    return 0.0


def list_processes(pid: int) -> list[Path]:
    """Return a process and its descendants."""
    found, waiting = [], [pid]
    while waiting:
        process = Path("/proc") / str(waiting.pop())
        try:
            children = [task.read_text() for task in sorted(process.glob("task/*/children"))]
        except OSError:  # the process has ended
            continue
        found.append(process)
        waiting += [int(child) for text in children for child in text.split()]
    return found


def read_share(process: Path) -> float:
    """Return a process's proportional set size in MB; 0 if it has ended."""
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


def time_usual_way(folder: Path, n_trials: int) -> float:
    """Return wall seconds of trials one after the other in the usual Lightning way, in one process."""
    script = ROOT / "benchmarks" / "usual_lightning.py"
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, script, str(folder), str(n_trials)], capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(done.stderr)
    return time.perf_counter() - start


def time_commands(folder: Path, n_trials: int, n_baseline: int) -> None:
    """Print wall seconds of whole commands."""
    stacked, _ = run_sweep(folder / "stacked", n_trials, "hydra/launcher=stacked")

    def scale_up(run: object, few: int, many: int) -> float:
        first, second = run(few), run(many)  # type: ignore[operator]
        return second + (second - first) / (many - few) * (n_trials - many)

    few = max(2, n_baseline // 4)
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    ways = {
        "usual Lightning, one by one": lambda n: time_usual_way(folder / f"usual{n}", n),
        "joblib, 2 processes": lambda n: run_sweep(folder / f"joblib{n}", n, *joblib)[0],
    }
    print(f"\n{n_trials} trials of the default demo experiment, whole command")
    for name, run in ways.items():
        seconds = scale_up(run, few, n_baseline)
        print(
            f"{name:28}{seconds:8.1f} s (from {few} and {n_baseline} trials), {seconds / stacked:.1f} times",
            flush=True,
        )
    print(f"{'stacked launcher':28}{stacked:8.1f} s")


def time_growth(folder: Path, sizes: list[int]) -> None:
    """Print wall seconds and memory of the stacked launcher for increasing numbers of trials."""
    print("\nstacked launcher alone")
    for size in sizes:
        seconds, megabytes = run_sweep(folder / f"grow{size}", size, "hydra/launcher=stacked")
        print(
            f"{size:5} trials{seconds:10.1f} s{seconds / size:8.3f} s per trial{megabytes:8.0f} MB",
            flush=True,
        )


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--baseline-trials", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs="*", default=[64, 128, 256, 512])
    options = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as temporary:
        time_training(Path(temporary) / "")
        time_steps()
        time_commands(Path(temporary), options.trials, options.baseline_trials)
        time_growth(Path(temporary), options.sizes)


if __name__ == "__main__":
    main()
