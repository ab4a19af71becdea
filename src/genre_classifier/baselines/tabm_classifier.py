"""TabM (Gorishniy, Kotelnikov and Babenko, 2025) with scikit-learn's interface, for use as a baseline."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor, nn
from torch.nn import functional

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

BLOCK_ROWS = 4096


class TabMClassifier(ClassifierMixin, BaseEstimator):
    """An ensemble of `members` multilayer perceptrons that share most of their weights.

    The loss is the mean of the members' losses, not the loss of their mean. The prediction is the mean of the members'
    probabilities. The optimizer is AdamW. There is no early stopping: it would need held-out rows.

    Parameters
    ----------
    epochs : int
    dropout : float
    members, blocks, width : int
        Number of perceptrons, and of hidden layers and units per perceptron.
    lr, weight_decay : float
    batch_size : int
    random_state : int
    threads : int
        CPU threads of torch.
    """

    def __init__(
        self,
        *,
        epochs: int = 40,
        dropout: float = 0.1,
        members: int = 32,
        blocks: int = 2,
        width: int = 96,
        lr: float = 2e-3,
        weight_decay: float = 3e-4,
        batch_size: int = 256,
        random_state: int = 0,
        threads: int = 1,
    ) -> None:
        self.epochs = epochs
        self.dropout = dropout
        self.members = members
        self.blocks = blocks
        self.width = width
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.random_state = random_state
        self.threads = threads

    def fit(self, features: Float64, genres: Int64) -> TabMClassifier:
        """Train new weights. The global random state of torch does not change.

        Parameters
        ----------
        features : np.ndarray [shape=(row, feature)]
        genres : np.ndarray [shape=(row,)]
        """
        from tabm import TabM

        self.classes_, targets = np.unique(genres, return_inverse=True)
        rows, truth = torch.from_numpy(features.astype(np.float32)), torch.from_numpy(targets)
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.random_state)
                self.network_ = TabM.make(
                    n_num_features=rows.shape[1],
                    d_out=len(self.classes_),
                    k=self.members,
                    n_blocks=self.blocks,
                    d_block=self.width,
                    dropout=self.dropout,
                )
                _train(self.network_, rows, truth, self)
        finally:
            torch.set_num_threads(before)
        return self

    def predict_proba(self, features: Float64) -> Float64:
        """Return the mean of the members' probabilities, shape (row, genre)."""
        rows = torch.from_numpy(features.astype(np.float32))
        self.network_.eval()
        with torch.no_grad():
            blocks = [
                torch.softmax(self.network_(block).double(), dim=-1).mean(
                    dim=1
                )  # (row, member, genre) to (row, genre)
                for block in rows.split(BLOCK_ROWS)
            ]
        return torch.cat(blocks).numpy()

    def predict(self, features: Float64) -> Int64:
        """Return the most probable genre of each row."""
        found: Int64 = self.classes_[self.predict_proba(features).argmax(axis=1)]
        return found


def _train(network: nn.Module, rows: Tensor, truth: Tensor, settings: TabMClassifier) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    network.train()
    for _ in range(settings.epochs):
        for chosen in torch.randperm(len(truth)).split(settings.batch_size):
            logits = network(rows[chosen])  # (row, member, genre)
            of_members = truth[chosen].repeat_interleave(settings.members)
            loss = functional.cross_entropy(logits.flatten(0, 1), of_members)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
