"""One GPU beside two CPU cores: whole commands, single runs and stacked sweeps of the demo experiment.

    python benchmarks/gpu.py [--sizes 64 256 1024] [--cpu-sizes 64]

A stacked sweep trains seeds 0 to n - 1 of the default demo experiment. The CPU's commands are bound to two cores; the
GPU's may use all, since evaluation and writing stay on the CPU. Metrics of the same seeds are compared between both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean

from machine import describe, table

ROOT = Path(__file__).resolve().parents[1]


def run(folder: Path, device: str, *words: str) -> float:
    """Run a training command; return wall seconds."""
    cores = set(list(os.sched_getaffinity(0))[:2]) if device == "cpu" else os.sched_getaffinity(0)
    command = [sys.executable, "train.py", *words, f"trainer={device}"]
    log = folder.with_suffix(".log")
    started = time.perf_counter()
    with log.open("w") as stream:
        running = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=stream,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        if running.wait():
            sys.exit(log.read_text())
    return time.perf_counter() - started


def accuracies(folder: Path) -> dict[str, float]:
    """Return the test accuracy of each run below a folder, by its name."""
    paths = sorted(folder.rglob("metrics.json"))
    return {path.parent.name: json.loads(path.read_text())["test"]["accuracy"] for path in paths}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="*", default=[64, 256, 1024])
    parser.add_argument("--cpu-sizes", type=int, nargs="*", default=[64])
    options = parser.parse_args()
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"{describe()}, {name}", flush=True)
    lines, found = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        for device in ("cpu", "gpu"):
            folder = Path(temporary) / f"{device}-single"
            run(
                folder, device, f"hydra.run.dir={folder}"
            )  # the first command on a machine reads all libraries
            seconds = run(folder, device, f"hydra.run.dir={folder}-again")
            lines.append([device, "single run", f"{seconds:.1f}", f"{seconds:.3f}"])
            print(lines[-1], flush=True)
            for size in options.cpu_sizes if device == "cpu" else options.sizes:
                folder = Path(temporary) / f"{device}-{size}"
                words = [
                    "-m",
                    "hydra/launcher=stacked",
                    f"hydra.sweep.dir={folder}",
                    f"seed=range(0,{size})",
                    f"sweep.max_trials={size}",
                ]
                seconds = run(folder, device, *words)
                lines.append([device, f"stacked sweep of {size}", f"{seconds:.1f}", f"{seconds / size:.3f}"])
                print(lines[-1], flush=True)
                found[device, size] = accuracies(folder)
    print("\n" + table(["device", "command", "s", "s a run"], lines))
    for size in set(options.sizes) & set(options.cpu_sizes):
        cpu, gpu = found["cpu", size], found["gpu", size]
        pairs = [(cpu[key], gpu[key]) for key in cpu]
        worst = max(abs(one - other) for one, other in pairs)
        print(
            f"\ntest accuracy of {size} seeds: cpu {fmean(c for c, _ in pairs):.4f}, gpu "
            f"{fmean(g for _, g in pairs):.4f}, largest difference of a seed {worst:.4f}"
        )


if __name__ == "__main__":
    main()
