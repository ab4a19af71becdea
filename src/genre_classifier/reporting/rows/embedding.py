"""Make a map of rows: the last hidden layer's activations in two dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Method = Literal["pca", "tsne"]
SEED = 0
# More points would make the page large and cover each other.
MOST_POINTS = 1500
PERPLEXITY = 30.0


@dataclass(frozen=True, eq=False)
class Map:
    """Rows in two dimensions.

    Parameters
    ----------
    places : np.ndarray [shape=(row, 2)]
    method : str
    shares : tuple of float
        Share of the variance along each axis of PCA; empty for t-SNE.
    """

    places: npt.NDArray[np.float64]
    method: Method
    shares: tuple[float, ...]


@torch.no_grad()
def compute_last_hidden(network: nn.Module, features: Tensor) -> Tensor | None:
    """Return the input of the last linear layer, (row, unit); None if there is no such layer.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode.
    features : Tensor [shape=(row, feature)]
    """
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        return None
    kept: list[Tensor] = []
    hook = linear[-1].register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0].detach()))
    try:
        network(features)
    finally:
        hook.remove()
    return kept[-1].reshape(len(features), -1) if kept and len(kept[-1]) == len(features) else None


def map_rows(hidden: npt.NDArray[np.float64], method: Method) -> Map:
    """Map rows (row, unit), at least three, to two dimensions."""
    from sklearn.decomposition import PCA

    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(PERPLEXITY, (len(hidden) - 1) / 3)
        init = "pca" if hidden.shape[1] >= 2 else "random"
        return Map(
            TSNE(random_state=SEED, perplexity=perplexity, init=init).fit_transform(hidden), method, ()
        )
    centred = hidden - hidden.mean(axis=0)
    if not centred.any():
        return Map(np.zeros((len(hidden), 2)), method, (0.0, 0.0))
    if hidden.shape[1] == 1:
        return Map(np.column_stack([centred, np.zeros(len(hidden))]), method, (1.0, 0.0))
    fitted = PCA(n_components=2, svd_solver="full")
    places = fitted.fit_transform(hidden)
    return Map(places, method, tuple(map(float, fitted.explained_variance_ratio_)))
