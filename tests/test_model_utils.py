from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from genre_classifier import GenreClassifier
from genre_classifier.errors import CheckpointError
from genre_classifier.model_utils import ModelCheckpoint, get_model_info
from tests.example_models import make_model, make_rows, make_scaler

ROWS = make_rows()


def trained(kind=torch.optim.Adam, steps: int = 3, **options):
    model = make_model()
    groups = [
        {"params": model.network[0].parameters(), "lr": 0.5e-3},
        {"params": model.network[3:].parameters()},
    ]
    optimizer = kind(groups, **options)
    rows = torch.tensor(make_scaler(ROWS).transform(ROWS), dtype=torch.float32)
    for _ in range(steps):
        step(model, optimizer, rows)
    return model, optimizer, rows


def step(model: nn.Module, optimizer: torch.optim.Optimizer, rows: torch.Tensor) -> None:
    optimizer.zero_grad()
    model(rows).square().mean().backward()
    optimizer.step()


def test_model_info_counts_what_is_there():
    model = GenreClassifier()
    model.network[0].weight.requires_grad_(False)
    info = get_model_info(model)
    assert list(info) == [
        "total_parameters",
        "trainable_parameters",
        "model_size_mb",
        "input_shape",
        "output_shape",
        "architecture",
    ]
    assert info["total_parameters"] == 13_288
    assert info["trainable_parameters"] == 13_288 - 20 * 128
    assert info["model_size_mb"] == 13_288 * 4 / 2**20
    assert info["input_shape"] == (1, 20)
    assert info["output_shape"] == (1, 8)
    assert "Linear(in_features=20, out_features=128" in info["architecture"]
    assert model.training
    assert get_model_info(GenreClassifier(57, num_classes=8), (5, 57))["output_shape"] == (5, 8)
    assert get_model_info(nn.Identity())["total_parameters"] == 0


def test_an_input_shape_that_does_not_fit_is_refused():
    model = GenreClassifier()
    with pytest.raises(ValueError, match=r"input_shape=\(1, 5\): the model does not take it"):
        get_model_info(model, (1, 5))
    assert model.training


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.Adam, {"lr": 1e-3}),
        (torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.1}),
        (torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9}),
    ],
)
def test_training_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(tmp_path, kind, options):
    model, optimizer, rows = trained(kind, **options)
    path = ModelCheckpoint(tmp_path / "new").save(model, optimizer, make_scaler(ROWS), {"epoch": 3})
    assert path == tmp_path / "new" / "checkpoint.pt"
    loaded, loaded_optimizer, scaler, metadata = ModelCheckpoint(tmp_path / "new").load(
        GenreClassifier(), "checkpoint.pt", load_optimizer=True, load_scaler=True
    )
    assert metadata == {"epoch": 3}
    assert type(loaded_optimizer) is kind
    assert np.array_equal(scaler.transform(ROWS), make_scaler(ROWS).transform(ROWS))
    step(model.train(False), optimizer, rows)
    step(loaded.train(False), loaded_optimizer, rows)
    for key, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key])


def test_only_what_is_asked_for_is_loaded(tmp_path):
    model, optimizer, _ = trained(lr=1e-3)
    checkpoint = ModelCheckpoint(str(tmp_path))
    checkpoint.save(model, optimizer, make_scaler(ROWS), filename="all.pt")
    checkpoint.save(model, filename="bare.pt")
    assert checkpoint.load(GenreClassifier(), "all.pt")[1:] == (None, None, None)
    with pytest.raises(
        CheckpointError, match=r"bare\.pt: was saved without optimizer; load it with load_optimizer=Fa"
    ):
        checkpoint.load(GenreClassifier(), "bare.pt", load_optimizer=True)
    with pytest.raises(CheckpointError, match=r"bare\.pt: was saved without scaler"):
        checkpoint.load(GenreClassifier(), "bare.pt", load_scaler=True)


def test_checkpoints_are_listed_by_name(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path / "none")
    assert checkpoint.list_checkpoints() == []
    for name in ("b.pt", "a.pt"):
        checkpoint.save(make_model(), filename=name)
    (tmp_path / "none" / "notes.txt").write_text("x")
    assert checkpoint.list_checkpoints() == ["a.pt", "b.pt"]


class Foreign(torch.optim.SGD):
    """An optimizer that torch.optim does not have."""


def test_what_cannot_be_saved_as_built_in_values_is_refused(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path)
    model = make_model()
    other = make_model()
    with pytest.raises(CheckpointError, match=r"optimizer Foreign is not one of torch\.optim"):
        checkpoint.save(model, Foreign(model.parameters(), lr=0.1))
    with pytest.raises(CheckpointError, match="has parameters that are not the model's"):
        checkpoint.save(model, torch.optim.Adam(other.parameters()))
    with pytest.raises(CheckpointError, match=r"metadata\['a'\] is a object"):
        checkpoint.save(model, metadata={"a": object()})
    with pytest.raises(CheckpointError, match="scaler is a str"):
        checkpoint.save(model, scaler="x")
    with pytest.raises(CheckpointError, match=r"filename='\.\./x\.pt': expected the name of a file"):
        checkpoint.save(model, filename="../x.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_cannot_be_used_is_refused(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"gone\.pt: no such checkpoint"):
        checkpoint.load(GenreClassifier(), "gone.pt")
    (tmp_path / "torn.pt").write_bytes(checkpoint.save(make_model()).read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"torn\.pt: truncated, or not a file that torch\.save writes"):
        checkpoint.load(GenreClassifier(), "torn.pt")
    torch.save({"model_state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt: not a checkpoint that ModelCheckpoint wrote"):
        checkpoint.load(GenreClassifier(), "other.pt")
    with pytest.raises(CheckpointError, match="the weights do not fit GenreClassifier"):
        checkpoint.load(GenreClassifier(input_dim=57), "checkpoint.pt")
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save(content | {"format_version": 9}, tmp_path / "future.pt")
    with pytest.raises(CheckpointError, match="format 9, this program reads 1"):
        checkpoint.load(GenreClassifier(), "future.pt")
    torch.save(content | {"format_version": torch.ones(2)}, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match="format tensor"):
        checkpoint.load(GenreClassifier(), "odd.pt")
    torch.save(content | {"optimizer": {"class": "Optimizer.step"}}, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match=r"'Optimizer\.step' is not one of torch\.optim"):
        checkpoint.load(GenreClassifier(), "odd.pt", load_optimizer=True)
    torch.save(content | {"scaler": {"mean": [1.0]}}, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match=r"odd\.pt: scaler lacks"):
        checkpoint.load(GenreClassifier(), "odd.pt", load_scaler=True)


def test_a_checkpoint_that_runs_code_is_refused(tmp_path):
    class Touch:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sentinel"),))

    torch.save({"x": Touch()}, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match=r"refused; the pickle asks for posix\.mkdir"):
        ModelCheckpoint(tmp_path).load(GenreClassifier(), "bad.pt")
    assert not (tmp_path / "sentinel").exists()


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("genre_classifier.network", ["13,288", "Linear(in_features=20"]),
        (
            "genre_classifier.model_utils",
            ["13,288", "_metadata.json", "largest difference of a confidence 0"],
        ),
    ],
)
def test_the_modules_run_as_scripts(module, expected):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", module], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for text in expected:
        assert text in done.stdout


@pytest.mark.parametrize(
    "change",
    [
        lambda saved: saved["state"]["state"][0].update(exp_avg=torch.zeros(3)),
        lambda saved: saved["state"].update(state=[1]),
        lambda saved: saved["state"].update(param_groups={}),
        lambda saved: saved.update({"class": 5}),
        lambda saved: saved.update({"class": "lr_scheduler"}),
        lambda saved: saved.update({"class": "Optimizer"}),
        lambda saved: saved.update(groups=[["nothing"]]),
        lambda saved: saved["state"]["param_groups"][0].update(lr="much"),
    ],
)
def test_an_optimizer_that_does_not_fit_is_refused(tmp_path, change):
    model = GenreClassifier()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.zeros(2, 20)).sum().backward()
    optimizer.step()
    path = ModelCheckpoint(tmp_path).save(model, optimizer)
    content = torch.load(path, weights_only=True)
    change(content["optimizer"])
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: "):
        ModelCheckpoint(tmp_path).load(model, load_optimizer=True)
