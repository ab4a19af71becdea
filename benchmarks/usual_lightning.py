"""Train the demo experiment in the usual Lightning way, trial after trial in one process: a peer for sweeps.

    python benchmarks/usual_lightning.py FOLDER TRIALS

It uses a DataLoader over a TensorDataset, a training_step per mini-batch, torchmetrics in each step, TensorBoard,
ModelCheckpoint and EarlyStopping on validation F1, and a test at the end. Rows, split, network, loss and optimizer are
those of experiment=demo.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from genre_classifier.config.schema import register_schemas
from genre_classifier.data.datamodule import GenreDataModule
from genre_classifier.network import GenreClassifier

ROOT = Path(__file__).resolve().parents[1]
GENRES = 8
Batch = tuple[Tensor, Tensor]


class Usual(pl.LightningModule):
    """A network with its loss and metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.network = GenreClassifier()
        self.loss = nn.CrossEntropyLoss(label_smoothing=0.1)
        self.scores = nn.ModuleDict(
            {
                f"{split}_{name}": metric
                for split in ("train", "val", "test")
                for name, metric in (
                    ("accuracy", MulticlassAccuracy(GENRES, average="micro")),
                    ("f1", MulticlassF1Score(GENRES, average="weighted")),
                )
            }
        )

    def _step(self, batch: Batch, split: str) -> Tensor:
        features, genres = batch
        logits = self.network(features)
        loss: Tensor = self.loss(logits, genres)
        self.log(f"{split}/loss", loss, on_step=False, on_epoch=True)
        for name in ("accuracy", "f1"):
            metric = self.scores[f"{split}_{name}"]
            metric(logits, genres)
            self.log(f"{split}/{name}", metric, on_step=False, on_epoch=True)
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main(folder: Path, n_trials: int) -> None:
    """Train and test."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        data = OmegaConf.to_object(compose("train", ["run_dir=x"]).data)
    for seed in range(n_trials):
        pl.seed_everything(seed, verbose=False)
        rows = GenreDataModule(data)  # type: ignore[arg-type]
        loaders = {
            split: DataLoader(TensorDataset(*rows.side(split)), batch_size=64, shuffle=split == "train")
            for split in ("train", "val", "test")
        }
        trial = folder / str(seed)
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=50,
            logger=TensorBoardLogger(trial),
            callbacks=[
                EarlyStopping("val/f1", mode="max", patience=10),
                ModelCheckpoint(trial, monitor="val/f1", mode="max", save_last=True),
            ],
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=10,
        )
        trainer.fit(Usual(), loaders["train"], loaders["val"])
        trainer.test(dataloaders=loaders["test"], ckpt_path="best", verbose=False, weights_only=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
