"""An export that is killed leaves the complete old or the complete new bundle."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from genre_classifier import GenreClassifier
from genre_classifier.bundle import build_model, read_bundle
from tests.conftest import ROOT
from tests.exporting.conftest import Export

NAME = "genre_classifier_production"

# One process imports everything; each child of it exports the two runs in turn until it is killed.
LAUNCHER = """
import os, sys
import torch
torch.set_num_threads(1)
from omegaconf import OmegaConf
from genre_classifier.config import ExportConfig
from genre_classifier.exporting.export import export
import genre_classifier.exporting.production

outputs, save_dir = sys.argv[1:]
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        while True:
            for name in ("other", "plain"):
                settings = ExportConfig(run=f"{outputs}/runs/{name}", save_dir=save_dir, onnx=False)
                export(OmegaConf.structured(settings))
                os.write(1, b"+")
    os.write(2, str(pid).encode() + b"\\n")
    os.waitpid(pid, 0)
    os.write(2, b"gone\\n")
"""


def weights(checkpoint: Path) -> torch.Tensor:
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    found: torch.Tensor = state["network.network.0.weight"]
    return found


def test_a_killed_export_leaves_the_old_or_the_new_bundle(
    exported: Export, outputs: Path, tmp_path: Path
) -> None:
    runs = {str(outputs / "runs" / name): outputs / "runs" / name for name in ("plain", "other")}
    expected = {name: weights(run / "checkpoints" / "best.ckpt") for name, run in runs.items()}
    exported(f"run={outputs / 'runs' / 'plain'}")
    generator = np.random.default_rng(11)
    published, seen = 0, set()
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(outputs), str(tmp_path / "models")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    try:
        for _ in range(12):
            process.stdin.write(b"go\n")
            process.stdin.flush()
            pid = int(process.stderr.readline())
            # Waiting for progress, or for a random moment, whichever is first.
            for _ in range(int(generator.integers(1, 4))):
                select.select([process.stdout], [], [], float(generator.uniform(0.0, 0.4)))
            os.kill(pid, signal.SIGKILL)
            assert process.stderr.readline() == b"gone\n"
            while select.select([process.stdout], [], [], 0.0)[0]:
                published += os.read(process.stdout.fileno(), 4096).count(b"+")
            bundle = read_bundle(tmp_path / "models", NAME)  # every file's SHA-256 is checked
            run = bundle.metadata["run"]["folder"]
            seen.add(run)
            assert torch.equal(build_model(bundle, GenreClassifier).network[0].weight, expected[run])
    finally:
        process.kill()
        process.communicate()
    assert published > 2
    assert seen == set(runs)
    exported(f"run={outputs / 'runs' / 'other'}")
    left = [path.name for path in (tmp_path / "models").rglob("*")]
    assert not [name for name in left if ".partial" in name or ".new" in name]
