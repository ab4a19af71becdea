"""The engine in a Lightning run: several mini-batches per training step, and the same run by autograd."""

import csv
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from genre_classifier.class_names import import_class
from genre_classifier.config.checks import to_train_config
from genre_classifier.training import fit
from genre_classifier.training.callbacks import EpochProgress, RunCheckpoint
from genre_classifier.training.chunks import find_unsupported_hook
from genre_classifier.training.lit_module import GenreLitModule
from genre_classifier.training.run import Result, to_dict
from tests.conftest import composed
from tests.training.test_lit_module import batch, module

Train = Callable[..., Result]
PLAIN = "trainer.batches_per_training_step=1"
BY_AUTOGRAD = "model._target_=tests.training.engine.edited.ByAutograd"

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
    ["loss.mixup=0.4"],
    ["loss.mixup=0.4", "loss.class_weights=balanced", "loss.label_smoothing=0.3"],
    ["callbacks=ema"],
    ["callbacks=ema", "callbacks.ema.decay=0.5"],
    ["model.hidden_dims=[]"],
    ["trainer.precision=64-true"],
    ["trainer.limit_train_batches=3"],
    ["trainer.overfit_batches=2", "callbacks.early_stopping=null"],
    ["trainer.min_epochs=4", "callbacks.early_stopping.patience=1", "optimizer.lr=1e-9"],
]


def saved(result: Result) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(result.folder.last_checkpoint, weights_only=True)
    return content


def history(result: Result) -> list[dict[str, float]]:
    with result.folder.history_csv.open() as stream:
        return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]


def assert_same(first: Any, second: Any, within: float = 1e-6) -> None:
    """Compare nested values: a matrix product may round otherwise where its memory begins elsewhere."""
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        torch.testing.assert_close(first, second, atol=within, rtol=0)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first:
            assert_same(first[name], second[name], within)
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second)
        for one, two in zip(first, second, strict=True):
            assert_same(one, two, within)
    elif isinstance(first, float):
        assert first == pytest.approx(second, abs=within)
    else:
        assert first == second


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: " ".join(recipe) or "default")
def test_the_size_of_a_chunk_changes_nothing(trained: Train, recipe: list[str]) -> None:
    recipe = [*recipe, "trainer.max_epochs=5"]
    plain = trained(*recipe, PLAIN)
    chunked = trained(*recipe, "trainer.batches_per_training_step=3")
    assert_same(history(plain), history(chunked))
    assert_same(plain.metrics, chunked.metrics)
    one, two = saved(plain), saved(chunked)
    for name in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert_same(one[name], two[name])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: " ".join(recipe) or "default")
def test_the_engine_and_autograd_give_the_same_run(trained: Train, recipe: list[str]) -> None:
    """Mixup is on here: both draw it from one stream. Dropout is off: the engine's has bits of its own."""
    recipe = [*recipe, "trainer.max_epochs=5", "model.dropout=0"]
    engine, autograd = trained(*recipe), trained(*recipe, BY_AUTOGRAD)
    assert_same(history(engine), history(autograd), 1e-5)
    assert_same(engine.metrics, autograd.metrics, 1e-5)
    one, two = saved(engine), saved(autograd)
    for name in ("state_dict", "lr_schedulers", "global_step", "epoch"):
        assert_same(one[name], two[name], 1e-5)


def test_a_checkpoints_tensors_share_no_memory(trained: Train) -> None:
    """A reader may compare a tensor's size with its storage's; torch's optimizers count each step by itself."""

    def tensors(content: Any) -> list[torch.Tensor]:
        if isinstance(content, torch.Tensor):
            return [content]
        parts = content.values() if isinstance(content, dict) else content
        return (
            [found for part in parts for found in tensors(part)] if isinstance(content, (dict, list)) else []
        )

    content = saved(trained("callbacks=ema"))
    found = tensors(
        [content[name] for name in ("state_dict", "current_model_state")]
        + [content["optimizer_states"][0]["state"]]
    )
    assert len(found) == 8 + 8 + 3 * 8
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in found)
    assert len({tensor.untyped_storage().data_ptr() for tensor in found}) == len(found)


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


@pytest.mark.parametrize("first", ["engine", "autograd"])
def test_a_run_of_the_engine_can_go_on_by_autograd_and_the_other_way_round(
    trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    recipe = ["scheduler=one_cycle", "callbacks=ema", "trainer.max_epochs=6", "model.dropout=0"]
    recipe += ["loss.mixup=0.4"]
    whole = trained(*recipe)
    original = RunCheckpoint.on_train_epoch_end

    def stopping(self: RunCheckpoint, trainer: Any, module: Any) -> None:
        original(self, trainer, module)
        if trainer.current_epoch == 2:
            raise RuntimeError("stopped by the test")

    def by_autograd(patch: pytest.MonkeyPatch, part: str) -> None:
        if part == "autograd":
            patch.setattr(fit, "_find_reason_for_autograd", lambda *_: "the test says so")

    with monkeypatch.context() as patch:
        patch.setattr(RunCheckpoint, "on_train_epoch_end", stopping)
        by_autograd(patch, first)
        with pytest.raises(RuntimeError, match="stopped by the test"):
            trained(*recipe, name="half")
    by_autograd(monkeypatch, {"engine": "autograd", "autograd": "engine"}[first])
    last = tmp_path / "half" / "checkpoints" / "last.ckpt"
    resumed = trained(*recipe, f"ckpt_path={last}")
    assert_same(history(whole), history(resumed), 1e-5)
    for name in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert_same(saved(whole)[name], saved(resumed)[name], 1e-5)


@pytest.mark.parametrize("recipe", [[], ["trainer.accumulate_grad_batches=3"]])
def test_tensorboard_counts_optimizer_steps_in_both_modes(trained: Train, recipe: list[str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    steps = []
    for mode in (BY_AUTOGRAD, "trainer.batches_per_training_step=3"):
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
        fused = saved(trained(f"optimizer={name}", "trainer.max_epochs=5", BY_AUTOGRAD))
        assert fused["optimizer_states"][0]["param_groups"][0]["fused"] is True
        with monkeypatch.context() as patch:
            patch.setattr("genre_classifier.training.lit_module.FUSED", ())
            looped = saved(trained(f"optimizer={name}", "trainer.max_epochs=5", BY_AUTOGRAD))
        assert looped["optimizer_states"][0]["param_groups"][0]["fused"] is None
        for key, value in fused["state_dict"].items():
            torch.testing.assert_close(value, looped["state_dict"][key], rtol=0, atol=1e-6)


REFUSED = {
    "trainer.devices=2": "the engine has no trainer.devices=2",
    "trainer.strategy=ddp": "the engine has no trainer.strategy=ddp",
    "trainer.num_nodes=2": "the engine has no trainer.num_nodes=2",
    "trainer.precision=16-mixed": "the engine has no trainer.precision=16-mixed",
    "trainer.precision=bf16-true": "the engine has no trainer.precision=bf16-true",
    "trainer.precision=bf16-mixed": "the engine has no trainer.precision=bf16-mixed",
    "trainer.accumulate_grad_batches=2": "the engine has no trainer.accumulate_grad_batches=2",
    "trainer.detect_anomaly=true": "the engine has no trainer.detect_anomaly=true",
    "optimizer._target_=torch.optim.NAdam": "the engine has no optimizer._target_=torch.optim.NAdam",
    "model.dropout=0.001": "in GenreClassifier, network.2 drops with probability 0.001",
    BY_AUTOGRAD: "in ByAutograd, its forward pass is no chain of layers",
    "model._target_=tests.contracts.linear_network.LinearNetwork": "layers.0 is a Dropout in an unexpected place",
}


@pytest.mark.parametrize("recipe", REFUSED)
def test_why_autograd_trains_a_run_is_named(recipe: str, trained: Train) -> None:
    settings = to_train_config(composed(recipe, "run_dir=x"))
    model = to_dict(settings.model) | {"input_dim": 4, "num_classes": 3}
    import_class(model["_target_"])
    reason = fit._find_reason_for_autograd(settings, [], module(network=model))
    assert reason is not None
    assert REFUSED[recipe] in reason


def test_the_engine_takes_the_defaults() -> None:
    settings = to_train_config(composed("run_dir=x"))
    network = to_dict(settings.model) | {"input_dim": 20, "num_classes": 8}
    assert fit._find_reason_for_autograd(settings, [], module(network=network)) is None


@pytest.mark.parametrize(
    "recipe", ["trainer.precision=bf16-mixed", "trainer.precision=bf16-true", BY_AUTOGRAD]
)
def test_what_the_engine_refuses_is_trained_by_autograd_and_the_log_says_why_once(
    trained: Train, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    seen = training_steps(monkeypatch)
    with caplog.at_level(logging.INFO):
        result = trained("trainer.max_epochs=8", recipe)
    assert seen == list(range(32)), "Lightning counts after the training step"
    said = "autograd trains the network, one mini-batch at a time: "
    assert caplog.text.count(said) == 1
    assert REFUSED[recipe] in caplog.text
    assert result.metrics["train"]["accuracy"] > 0.7


def test_a_callback_that_must_see_every_mini_batch_is_found() -> None:
    class Watching(pl.Callback):
        def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            pass

    assert find_unsupported_hook([pl.Callback(), EpochProgress()]) is None
    assert find_unsupported_hook([pl.Callback(), Watching()]) == "Watching.on_after_backward"


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

    with pytest.raises(RuntimeError, match=r"call GenreLitModule.train_in_chunks\(\) before trainer.fit\(\)"):
        module().training_step(Chunk(*batch(), 16), 0)
