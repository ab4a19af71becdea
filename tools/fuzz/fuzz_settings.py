"""Settings in checkpoints and in a run's saved configuration: a module, a configuration or the documented error."""

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris
import torch
import yaml

with atheris.instrument_imports(include=["genre_classifier"]):
    from genre_classifier.data.scaler_state import ScalerStatistics
    from genre_classifier.errors import CheckpointError, ConfigError, RunFolderError
    from genre_classifier.runs.configuration import read_trainable_configuration
    from genre_classifier.runs.folder import CHECKPOINT_VERSION_KEY, RunFolder
    from genre_classifier.training.lit_module import GenreLitModule

from omegaconf import OmegaConf

from genre_classifier.config.schema import AdamConfig, DemoConfig, TrainConfig

FOLDER = RunFolder(Path(tempfile.mkdtemp(prefix="fuzz-settings-")))
NETWORK = {
    "_target_": "genre_classifier.network.GenreClassifier",
    "input_dim": 2,
    "hidden_dims": [3],
    "num_classes": 2,
    "dropout": 0.1,
}
SETTINGS = {
    "network": NETWORK,
    "genre_names": ["a", "b"],
    "feature_names": ["x", "y"],
    "scaler": ScalerStatistics(2, True, True, (0.0, 0.0), (1.0, 1.0), (1.0, 1.0)).to_metadata(),
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.001},
    "scheduler": {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "interval": "epoch", "T_max": 3},
    "label_smoothing": 0.1,
    "class_weights": [1.0, 2.0],
    "mixup": 0.0,
    "seed": 1,
    "data": {"fingerprint": "x"},
    "protocol": {"description": "x"},
}
WEIGHTS = GenreLitModule(**SETTINGS).state_dict()
CONFIG = OmegaConf.structured(TrainConfig)
CONFIG.data, CONFIG.optimizer, CONFIG.run_dir = DemoConfig, AdamConfig, "x"
SEEDS = [
    b"\0" + json.dumps(SETTINGS).encode(),
    b"\1" + OmegaConf.to_yaml(CONFIG).encode(),
    b"\1" + b"data:\n  path: ${oc.env:HOME}\n  source: table\n",
]
FOLDER.write_run({"settings": {}, "working_folder": "/"})
FOLDER.config_yaml.parent.mkdir()
FOLDER.checkpoints.mkdir()


# In place of any value of the settings, at any depth.
ODD = [
    None, True, -1, 0, 3, 2**62, 10**400, -(10**400), 0.0, 1e308, -1.5, float("inf"), float("nan"), "", "x", "val/f1",
    "${oc.env:HOME}", "${seed}", "???", "os.system", "torch.optim.SGD", "epoch", [], {}, [[]], [None], ["a", "a"],
    [1] * 500, [2**62], [10**400], {"a": 1}, {"_target_": 5}, {"": {}}, "é\0", "x" * 10_000,
]  # fmt: skip


def mutate(data: bytes, size: int, seed: int) -> bytes:
    """Begin from real settings now and then."""
    if seed % 2:  # choices for `_changed`
        return b"\2" + atheris.Mutate(data[1:], min(size, 40) - 1)
    return atheris.Mutate(SEEDS[seed % 3] if seed % 16 < 3 else data, size)


def _changed(value: Any, choose: atheris.FuzzedDataProvider) -> Any:
    """Return settings with one value, wherever it stands, replaced by an odd one, left out or added."""
    if not isinstance(value, dict | list) or not value or not choose.ConsumeIntInRange(0, 3):
        return ODD[choose.ConsumeIntInRange(0, len(ODD) - 1)]
    copied = dict(value) if isinstance(value, dict) else list(value)
    keys = list(copied) if isinstance(copied, dict) else range(len(copied))
    key = keys[choose.ConsumeIntInRange(0, len(keys) - 1)]
    if not choose.ConsumeIntInRange(0, 7):
        del copied[key]
    else:
        copied[key] = _changed(copied[key], choose)
    return copied


def test_one(data: bytes) -> None:
    """Read settings as a checkpoint's or as a run's saved configuration."""
    if data[:1] == b"\2":
        choose = atheris.FuzzedDataProvider(data[1:])
        as_checkpoint = choose.ConsumeBool()
        settings = SETTINGS if as_checkpoint else OmegaConf.to_container(CONFIG, enum_to_str=True)
        for _ in range(choose.ConsumeIntInRange(1, 3)):
            settings = _changed(settings, choose)
        _read_checkpoint(settings) if as_checkpoint else _read_configuration(
            yaml.safe_dump(settings).encode()
        )
    elif data[:1] == b"\1":
        _read_configuration(data[1:])
    else:
        with contextlib.suppress(ValueError, RecursionError):
            _read_checkpoint(json.loads(data[1:]))


def _read_configuration(content: bytes) -> None:
    FOLDER.config_yaml.write_bytes(content)
    with contextlib.suppress(ConfigError, RunFolderError):
        read_trainable_configuration(FOLDER)


def _read_checkpoint(settings: Any) -> None:
    content = {CHECKPOINT_VERSION_KEY: 1, "epoch": 0, "global_step": 0, "state_dict": WEIGHTS}
    buffer = io.BytesIO()
    torch.save({**content, "hyper_parameters": settings}, buffer)
    FOLDER.best_checkpoint.write_bytes(buffer.getvalue())
    try:
        module = GenreLitModule.load(FOLDER.best_checkpoint)
    except CheckpointError:
        return
    assert module.scaler.n_features_in_ >= 1
    assert all(isinstance(name, str) for name in [*module.genre_names, *module.feature_names])


if __name__ == "__main__":
    atheris.Setup([*sys.argv, "-max_len=8192"], test_one, custom_mutator=mutate)
    atheris.Fuzz()
