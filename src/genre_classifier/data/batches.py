"""Mini-batches of data that fits in memory: slices of a shuffled index, without a Python object per row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# A chunk of wide rows is kept small: it is a copy, and the overhead that it saves is long outweighed by then.
CHUNK_BYTES = 32 << 20


class RowOrder:
    """The order of rows in each epoch. It depends on the seed and the epoch, so a resumed run repeats it.

    Parameters
    ----------
    n_rows : int
    shuffle : bool
    seed : int
    rank, world_size : int
        Which part of every epoch this process takes, of how many.
    pad : bool
        Whether each process takes equally many rows (the first ones are repeated), as training in step needs.
    """

    def __init__(
        self,
        n_rows: int,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pad: bool = False,
    ) -> None:
        self.n_rows = n_rows
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.pad = pad
        self.epoch = 0

    @property
    def sampler(self) -> RowOrder:
        """This order itself, where Lightning looks for it (see TensorBatches.batch_sampler)."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before an epoch's first batch."""
        self.epoch = epoch

    def __call__(self) -> Tensor:
        """Return the row indices of this epoch and process, shape (row,)."""
        if self.shuffle:
            generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
            order = torch.randperm(self.n_rows, generator=generator)
        else:
            order = torch.arange(self.n_rows)
        if self.world_size > 1:
            if self.pad and (missing := -self.n_rows % self.world_size):
                order = torch.cat([order, order[:missing]])
            order = order[self.rank :: self.world_size]
        return order

    def __len__(self) -> int:
        whole = self.n_rows + (-self.n_rows % self.world_size if self.pad else 0)
        return len(range(self.rank, whole, self.world_size))


class TensorBatches:
    """An iterable of ``(features, genres)``, which Lightning takes as a dataloader.

    Parameters
    ----------
    features : Tensor [shape=(row, feature)]
    genres : Tensor [shape=(row,)]
    batch_size : int
        Rows a batch; the last one may be smaller.
    order : RowOrder
    """

    def __init__(self, features: Tensor, genres: Tensor, batch_size: int, order: RowOrder) -> None:
        self.features = features
        self.genres = genres
        self.batch_size = batch_size
        self.order = order

    @property
    def batch_sampler(self) -> RowOrder:
        """The row order: Lightning calls ``batch_sampler.sampler.set_epoch`` before an epoch's first batch."""
        return self.order

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self.order()
        in_order = not self.order.shuffle and self.order.world_size == 1
        for start in range(0, len(order), self.batch_size):
            if in_order:
                rows = slice(start, start + self.batch_size)
                yield self.features[rows], self.genres[rows]
            else:
                index = order[start : start + self.batch_size]
                yield self.features[index], self.genres[index]


class Chunk(NamedTuple):
    """Several mini-batches, one after the other in one tensor.

    Parameters
    ----------
    features : Tensor [shape=(row, feature)]
    genres : Tensor [shape=(row,)]
    batch_size : int
        Rows a mini-batch; the last one may be smaller.
    """

    features: Tensor
    genres: Tensor
    batch_size: int

    @property
    def n_batches(self) -> int:
        """Number of mini-batches."""
        return -(-len(self.genres) // self.batch_size)


class Chunks:
    """The mini-batches of TensorBatches, several at a time; a chunk never crosses the end of an epoch.

    Parameters
    ----------
    batches : TensorBatches
    batches_per_chunk : int
        Mini-batches a chunk, fewer where their rows are wide; the last one may hold fewer.
    limit : int, optional
        The most mini-batches per epoch.
    """

    def __init__(self, batches: TensorBatches, batches_per_chunk: int, limit: int | None = None) -> None:
        self.batches = batches
        self.n_batches = len(batches) if limit is None else min(len(batches), limit)
        row_bytes = batches.features[:1].nbytes
        fitting = CHUNK_BYTES // max(1, batches.batch_size * row_bytes)
        self.batches_per_chunk = max(1, min(batches_per_chunk, fitting))

    @property
    def batch_sampler(self) -> RowOrder:
        """The row order (see TensorBatches.batch_sampler)."""
        return self.batches.order

    def __len__(self) -> int:
        return -(-self.n_batches // self.batches_per_chunk)

    def __iter__(self) -> Iterator[Chunk]:
        batch_size = self.batches.batch_size
        order = self.batches.order()[: self.n_batches * batch_size]
        for index in order.split(self.batches_per_chunk * batch_size):
            yield Chunk(self.batches.features[index], self.batches.genres[index], batch_size)


def mix_seed(seed: int, epoch: int) -> int:
    """Return one 63-bit seed of a run's seed and an epoch (splitmix64's finaliser, Steele et al., 2014)."""
    mask = (1 << 64) - 1
    value = (seed * 0x9E3779B97F4A7C15 + epoch + 1) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return (value ^ (value >> 31)) >> 1
