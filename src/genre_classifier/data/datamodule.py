"""The LightningDataModule, which reads, splits and scales the rows and yields batches."""

from __future__ import annotations

from typing import Any, TypeVar

import lightning.pytorch as pl
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from genre_classifier.config.schema import DataConfig
from genre_classifier.data.batches import Chunks, RowOrder, TensorBatches
from genre_classifier.data.scaling import fit_scaler, standardise
from genre_classifier.data.sources import read
from genre_classifier.data.splits import Split, make_split
from genre_classifier.data.table import FeatureTable


class GenreDataModule(pl.LightningDataModule):
    """Standardised batches of a feature table.

    ``setup`` does the work once: it reads the table, divides the rows, fits the StandardScaler on the training rows
    and keeps each side as tensors. (A checkpoint has the scaler's statistics from GenreLitModule.)

    Parameters
    ----------
    config : DataConfig
    seed : int
        Of the order of rows in each epoch.
    table : FeatureTable, optional
        Used in place of reading one.

    Attributes
    ----------
    batches_per_chunk : int or None
        Mini-batches that a training step takes at a time, as GenreLitModule.train_in_chunks expects; None gives plain
        batches.
    """

    def __init__(self, config: DataConfig, seed: int = 42, table: FeatureTable | None = None) -> None:
        super().__init__()
        self.config = config
        self.seed = seed
        self.batches_per_chunk: int | None = None
        self._table = table
        self._split: Split | None = None
        self._scaler: StandardScaler | None = None
        self._sides: dict[str, tuple[Tensor, Tensor]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Read, split and scale the rows. A second call does nothing."""
        if self._sides:
            return
        table = self._table = self._table or read(self.config)
        split = self._split = make_split(table, self.config.split)
        scaler = self._scaler = fit_scaler(table.features, split.train)
        self._sides = {
            name: (
                torch.from_numpy(standardise(scaler, table.features, rows)),
                torch.from_numpy(table.genres[rows]),
            )
            for name, rows in split.sides().items()
        }

    @property
    def table(self) -> FeatureTable:
        """The table as read."""
        return _require_setup(self._table)

    @property
    def data_split(self) -> Split:
        """The split of the rows."""
        return _require_setup(self._split)

    @property
    def scaler(self) -> StandardScaler:
        """The StandardScaler, fitted on the training rows only."""
        return _require_setup(self._scaler)

    def side(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the standardised features (row, feature) and genres (row,) of ``train``, ``val`` or ``test``."""
        self.setup()
        return self._sides[name]

    def train_dataloader(self) -> TensorBatches | Chunks:
        """Batches in a new order each epoch, or in a fixed order with overfit_batches; in chunks for the engine."""
        overfitting = self.trainer is not None and getattr(self.trainer, "overfit_batches", 0) > 0
        batches = self._build_batches("train", shuffle=not overfitting)
        if self.batches_per_chunk is None:
            return batches
        # Lightning's limit counts what a loader yields, here chunks; it is at least the chunks that this limit leaves.
        limit = None if self.trainer is None else self.trainer.limit_train_batches
        return Chunks(batches, self.batches_per_chunk, limit if isinstance(limit, int) else None)

    def val_dataloader(self) -> TensorBatches | list[Any]:
        """Batches in the table's order; none without validation rows."""
        return self._build_batches("val") if len(self.side("val")[1]) else []

    def test_dataloader(self) -> TensorBatches | list[Any]:
        """Batches in the table's order; none without test rows."""
        return self._build_batches("test") if len(self.side("test")[1]) else []

    def _build_batches(self, name: str, shuffle: bool = False) -> TensorBatches:
        features, genres = self.side(name)
        trainer = self.trainer
        order = RowOrder(
            len(genres),
            shuffle=shuffle,
            seed=self.seed,
            rank=trainer.global_rank if trainer is not None else 0,
            world_size=trainer.world_size if trainer is not None else 1,
            pad=name == "train",
        )
        batch_size = self.config.batch_size if name == "train" else max(self.config.batch_size, 4096)
        return TensorBatches(features, genres, batch_size, order)


T = TypeVar("T")


def _require_setup(value: T | None) -> T:
    if value is None:
        raise RuntimeError("call GenreDataModule.setup() first")
    return value
