"""Training on a GPU: as on the CPU, up to rounding. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from genre_classifier.runs.folder import RunFolder, read_checkpoint
from genre_classifier.sweeps.stacked.fit import train_stack
from genre_classifier.training.fit import train
from tests.conftest import composed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

BASE = ["trainer.max_epochs=5", "model.dropout=0.3", "loss.mixup=0.4"]
OWN = [
    ["optimizer=adam", "scheduler=cosine", "seed=0"],
    ["optimizer=adam", "scheduler=none", "seed=1", "loss.class_weights=balanced"],
    ["optimizer=adam", "scheduler=plateau", "seed=2", "trainer.gradient_clip_val=0.5"],
]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = read_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"]
    return state


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_run_ends_as_on_the_cpu(optimizer: str, tmp_path: Path, music_overrides: list[str]) -> None:
    for device in ("cpu", "gpu"):
        words = [*music_overrides, *BASE, f"optimizer={optimizer}", f"trainer={device}"]
        train(composed(*words, f"run_dir={tmp_path / device}"))
    found, expected = weights(tmp_path / "gpu"), weights(tmp_path / "cpu")
    for key, value in expected.items():
        # Adam divides by the gradients' size, so a rounding error of a small one moves a weight visibly.
        torch.testing.assert_close(found[key], value, atol=1e-3, rtol=0)
        assert found[key].device.type == "cpu"
    assert RunFolder(tmp_path / "gpu").read_run()["status"] == "finished"


def test_a_member_is_its_run_alone(tmp_path: Path, music_overrides: list[str]) -> None:
    base = [*music_overrides, *BASE, "trainer=gpu"]
    for number, own in enumerate(OWN):
        train(composed(*base, *own, f"run_dir={tmp_path / 'alone' / str(number)}"))
    stack = [composed(*base, *own, f"run_dir={tmp_path / 'stack' / str(n)}") for n, own in enumerate(OWN)]
    train_stack(stack)
    for number in range(len(OWN)):
        found = weights(tmp_path / "stack" / str(number))
        for key, value in weights(tmp_path / "alone" / str(number)).items():
            torch.testing.assert_close(found[key], value, atol=1e-4, rtol=0)


def test_a_run_that_autograd_trains_ends_on_a_gpu(tmp_path: Path, music_overrides: list[str]) -> None:
    words = [*music_overrides, *BASE, "trainer=gpu", "trainer.precision=bf16-mixed"]
    train(composed(*words, f"run_dir={tmp_path}"))
    assert RunFolder(tmp_path).read_run()["status"] == "finished"
