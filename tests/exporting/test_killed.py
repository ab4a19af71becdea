"""An export that is killed leaves the complete old or the complete new bundle."""

import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from genre_classifier import GenreClassifier
from genre_classifier.bundle.format import build_model, read_bundle
from genre_classifier.exporting.staging import PREFIX
from tests.conftest import ROOT
from tests.exporting.conftest import Export

NAME = "genre_classifier_production"

# One process imports everything and exports two runs; each child of it exports them again in turn, the whole way or
# from where the folder of bundles is first touched, and gets SIGKILL before the given operation on the disk.
LAUNCHER = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from omegaconf import OmegaConf
from genre_classifier.bundle import writing as bundle
from genre_classifier.config.schema import ExportConfig
from genre_classifier.exporting.export import export

outputs, save_dir, part = sys.argv[1:]
publish, tell, wait = bundle._publish, os.write, os.waitpid

def export_run(name):
    settings = ExportConfig(run=f"{outputs}/runs/{name}", save_dir=save_dir, onnx=False)
    export(OmegaConf.structured(settings))

def publish_again(folder, *arguments):
    with bundle.locked(folder):
        publish(folder, *arguments)

publications = []
def kept(folder, *arguments):
    if str(folder) == save_dir:
        publications.append((folder, *arguments))
    return publish(folder, *arguments)

bundle._publish = kept
steps = []
for name in ("other", "plain"):
    export_run(name)
    whole, last_part = (export_run, name), (publish_again, *publications.pop())
    steps.append(whole if part == "whole" else last_part)
bundle._publish = publish

def killed_before(name, operation):
    def counted(*arguments, **keywords):
        global left
        reads = name == "open" and not arguments[1] & (os.O_WRONLY | os.O_RDWR)
        left -= not reads
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return operation(*arguments, **keywords)
    return counted

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        left = int(line)
        for name in ("open", "write", "fsync", "mkdir", "rename", "replace", "symlink", "unlink", "rmdir"):
            setattr(os, name, killed_before(name, getattr(os, name)))
        while True:
            for function, *arguments in steps:
                function(*arguments)
                tell(1, b"+")
    _, status = wait(pid, 0)
    tell(1, b"." if os.WTERMSIG(status) == signal.SIGKILL else b"!")
"""


class Exporter:
    """Exports two runs in turn until it is killed."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.n_exported = 0

    def killed_after(self, n_operations: int) -> None:
        """Export until that many operations on the disk are done."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{n_operations}\n".encode())
        self.process.stdin.flush()
        while True:
            ready, _, _ = select.select([self.process.stdout], [], [], 120.0)
            told = os.read(self.process.stdout.fileno(), 1) if ready else b""
            assert told in (b"+", b"."), told
            if told == b".":
                return
            self.n_exported += 1


@contextmanager
def exporter(part: str, outputs: Path, models: Path, temporary: Path) -> Iterator[Exporter]:
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(outputs), str(models), part],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(temporary)},
    )
    try:
        yield Exporter(process)
    finally:
        process.kill()
        process.communicate()


def weights(run: Path) -> torch.Tensor:
    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    found: torch.Tensor = state["network.network.0.weight"]
    return found


# An export has about 50 operations on the disk, 22 of them where the bundles are.
@pytest.mark.parametrize(
    ("part", "n_kills", "n_operations"),
    [("whole", 12, 110), ("publication", 200, 30)],
    ids=["whole", "publication"],
)
def test_a_killed_export_leaves_the_old_or_the_new_bundle(
    part: str,
    n_kills: int,
    n_operations: int,
    exported: Export,
    outputs: Path,
    memory_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models, temporary = memory_path / "models", memory_path / "temporary"
    runs = [outputs / "runs" / name for name in ("plain", "other")]
    expected = {str(run): weights(run) for run in runs}
    exported(f"run={runs[0]}", f"save_dir={models}")
    generator = np.random.default_rng(11)
    seen, n_half_written, n_left = set(), 0, 0
    with exporter(part, outputs, models, temporary) as export:
        for _ in range(n_kills):
            export.killed_after(int(generator.integers(0, n_operations)))
            n_half_written += any(models.rglob("*.partial"))
            n_left += any(temporary.glob(f"{PREFIX}*"))
            bundle = read_bundle(models, NAME)  # every file's SHA-256 is checked
            run = bundle.metadata["run"]["folder"]
            assert torch.equal(build_model(bundle, GenreClassifier).network[0].weight, expected[run])
            seen.add(run)
    assert export.n_exported > n_kills / 10
    assert n_half_written > n_kills / 10
    assert (n_left > n_kills / 10) == (part == "whole")  # folders to try the bundle in
    assert seen == set(expected)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    exported(f"run={runs[1]}", f"save_dir={models}")
    assert read_bundle(models, NAME).metadata["run"]["folder"] == str(runs[1])
    left = [path.name for path in (*models.rglob("*"), *temporary.rglob("*"))]
    assert not [name for name in left if ".partial" in name or ".new" in name or name.startswith(PREFIX)]
