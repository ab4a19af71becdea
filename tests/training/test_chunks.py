"""Several mini-batches a training step: the same run as one at a time, to the last bit."""

import csv
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from genre_classifier.training import fit
from genre_classifier.training.callbacks import EpochProgress, RunCheckpoint
from genre_classifier.training.chunks import unsupported_hook
from genre_classifier.training.lit_module import GenreLitModule
from genre_classifier.training.run import Result

Train = Callable[..., Result]
PLAIN = "trainer.batches_per_training_step=1"

# 60 training rows in batches of 16 are 4 mini-batches an epoch, the last one of 12 rows.
RECIPES = [
    [],
    ["optimizer=adamw"],
    ["optimizer=sgd"],
    ["optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false"],
    ["scheduler=cosine"],
    ["scheduler=cosine", "scheduler.interval=step", "optimizer=sgd"],
    ["scheduler=one_cycle"],
    ["scheduler=one_cycle", "scheduler.cycle_momentum=true", "optimizer=adamw"],
    ["scheduler=plateau", "scheduler.patience=0", "scheduler.threshold=0.5"],
    ["scheduler=plateau", "scheduler.patience=0", "scheduler.monitor=train/loss"],
    ["trainer.gradient_clip_val=0.1"],
    ["trainer.gradient_clip_val=0.01", "trainer.gradient_clip_algorithm=value"],
    ["trainer.accumulate_grad_batches=2"],
    ["trainer.accumulate_grad_batches=3", "scheduler=one_cycle", "trainer.gradient_clip_val=0.1"],
    ["loss.mixup=0.4"],
    ["loss.mixup=0.4", "loss.class_weights=balanced", "loss.label_smoothing=0.3"],
    ["callbacks=ema"],
    ["callbacks=ema", "callbacks.ema.decay=0.5", "trainer.accumulate_grad_batches=3"],
    ["model.dropout=0"],
    ["trainer.precision=64-true"],
    ["trainer.precision=bf16-mixed"],
    ["trainer.precision=bf16-true"],
    ["trainer.limit_train_batches=3"],
    ["trainer.overfit_batches=2", "callbacks.early_stopping=null"],
    ["trainer.detect_anomaly=true"],
    ["trainer.min_epochs=4", "callbacks.early_stopping.patience=1", "optimizer.lr=1e-9"],
]


def saved(result: Result) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(result.folder.last_checkpoint, weights_only=True)
    return content


def history(result: Result) -> list[dict[str, float]]:
    with result.folder.history_csv.open() as stream:
        return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]


def assert_same(first: Any, second: Any) -> None:
    """Compare nested values to 1e-6: a matrix product may round otherwise where its memory begins elsewhere."""
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        torch.testing.assert_close(first, second, atol=1e-6, rtol=0)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first:
            assert_same(first[name], second[name])
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second)
        for one, two in zip(first, second, strict=True):
            assert_same(one, two)
    elif isinstance(first, float):
        assert first == pytest.approx(second, abs=1e-6)
    else:
        assert first == second


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: " ".join(recipe) or "default")
def test_chunks_give_the_same_run_as_one_mini_batch_a_step(trained: Train, recipe: list[str]) -> None:
    recipe = [*recipe, "trainer.max_epochs=5"]
    plain = trained(*recipe, PLAIN)
    for number in (3, 100):
        chunked = trained(*recipe, f"trainer.batches_per_training_step={number}")
        assert_same(history(plain), history(chunked))
        assert_same(plain.metrics, chunked.metrics)
        one, two = saved(plain), saved(chunked)
        for name in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
            assert_same(one[name], two[name])


def training_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the global step at the end of every training step."""
    seen: list[int] = []
    original = GenreLitModule.training_step

    def watching(self: GenreLitModule, batch: Any, batch_idx: int) -> Any:
        output = original(self, batch, batch_idx)
        seen.append(self.trainer.global_step)
        return output

    monkeypatch.setattr(GenreLitModule, "training_step", watching)
    return seen


@pytest.mark.parametrize(("number", "steps"), [(100, [4, 8]), (3, [3, 4, 7, 8]), (4, [4, 8])])
def test_a_chunk_never_crosses_the_end_of_an_epoch(
    trained: Train, monkeypatch: pytest.MonkeyPatch, number: int, steps: list[int]
) -> None:
    seen = training_steps(monkeypatch)
    trained(f"trainer.batches_per_training_step={number}", "trainer.max_epochs=2")
    assert seen == steps


@pytest.mark.parametrize("first", ["1", "100"])
def test_a_run_can_go_on_in_the_other_mode(
    trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    recipe = ["scheduler=one_cycle", "callbacks=ema", "trainer.max_epochs=6"]
    whole = trained(*recipe)
    original = RunCheckpoint.on_train_epoch_end

    def stopping(self: RunCheckpoint, trainer: Any, module: Any) -> None:
        original(self, trainer, module)
        if trainer.current_epoch == 2:
            raise RuntimeError("stopped by the test")

    with monkeypatch.context() as patch:
        patch.setattr(RunCheckpoint, "on_train_epoch_end", stopping)
        with pytest.raises(RuntimeError, match="stopped by the test"):
            trained(*recipe, f"trainer.batches_per_training_step={first}", name="half")
    other = {"1": "100", "100": "1"}[first]
    last = tmp_path / "half" / "checkpoints" / "last.ckpt"
    resumed = trained(*recipe, f"ckpt_path={last}", f"trainer.batches_per_training_step={other}")
    assert history(whole) == history(resumed)
    for name in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert_same(saved(whole)[name], saved(resumed)[name])


@pytest.mark.parametrize("recipe", [[], ["trainer.accumulate_grad_batches=3"]])
def test_tensorboard_counts_optimizer_steps_in_both_modes(trained: Train, recipe: list[str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    steps = []
    for mode in (PLAIN, "trainer.batches_per_training_step=3"):
        result = trained("logger=tensorboard", "logger.figures=false", mode, *recipe)
        for run in ("train", "val"):
            events = EventAccumulator(str(result.folder.tensorboard / run))
            events.Reload()
            steps.append([event.step for event in events.Scalars("epoch/f1")])
    assert steps[0] == steps[1] == steps[2] == steps[3]
    assert steps[0] == [int(row["step"]) - 1 for row in history(result)]


def test_a_fused_optimizer_agrees_with_torchs_loop_over_parameters(
    trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("adam", "adamw", "sgd"):
        fused = saved(trained(f"optimizer={name}", "trainer.max_epochs=5"))
        assert fused["optimizer_states"][0]["param_groups"][0]["fused"] is True
        with monkeypatch.context() as patch:
            patch.setattr("genre_classifier.training.lit_module.FUSED", ())
            looped = saved(trained(f"optimizer={name}", "trainer.max_epochs=5"))
        assert looped["optimizer_states"][0]["param_groups"][0]["fused"] is None
        for key, value in fused["state_dict"].items():
            torch.testing.assert_close(value, looped["state_dict"][key], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ("trainer.devices=2", "several processes share each optimizer step"),
        ("trainer.strategy=ddp", "several processes share each optimizer step"),
        ("trainer.num_nodes=2", "several processes share each optimizer step"),
        (
            "trainer.precision=16-mixed",
            "trainer.precision=16-mixed scales the loss anew at each optimizer step",
        ),
    ],
)
def test_where_chunks_cannot_be_right_the_reason_is_given(recipe: str, reason: str) -> None:
    from genre_classifier.config import typed
    from tests.conftest import composed

    settings = typed(composed(recipe, "run_dir=x"))
    assert fit._why_one_batch_a_step(settings, []) == reason
    assert fit._why_one_batch_a_step(typed(composed("run_dir=x")), []) is None


def test_a_fall_back_is_said_once_and_trains_one_mini_batch_a_step(
    trained: Train,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen = training_steps(monkeypatch)
    monkeypatch.setattr(fit, "_why_one_batch_a_step", lambda *_: "the test says so")
    with caplog.at_level(logging.INFO):
        trained("trainer.max_epochs=2")
    assert seen == list(range(8)), "Lightning counts after the training step"
    assert caplog.text.count("one mini-batch a training step, since the test says so") == 1


def test_a_callback_that_must_see_every_mini_batch_is_found() -> None:
    class Watching(pl.Callback):
        def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            pass

    assert unsupported_hook([pl.Callback(), EpochProgress()]) is None
    assert unsupported_hook([pl.Callback(), Watching()]) == "Watching.on_after_backward"


def test_the_bar_counts_mini_batches(trained: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = []
    original = EpochProgress.on_train_end

    def watching(self: EpochProgress, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._bar.disable = False  # a disabled bar does not count
        bars.append(self._bar.total)
        self._bar.disable = True
        original(self, trainer, module)

    monkeypatch.setattr(EpochProgress, "on_train_end", watching)
    for mode in (PLAIN, "trainer.batches_per_training_step=3"):
        trained("trainer.enable_progress_bar=true", mode)
    assert bars == [12, 12]


def test_a_chunk_without_preparation_is_refused() -> None:
    from genre_classifier.data.batches import Chunk
    from tests.training.test_lit_module import batch, module

    with pytest.raises(RuntimeError, match=r"call GenreLitModule.train_in_chunks\(\) before trainer.fit\(\)"):
        module().training_step(Chunk(*batch(), 16), 0)
