"""Experiments in music-genre classification from audio features."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genre_classifier.bundle.inference import ModelWrapper
    from genre_classifier.network import GenreClassifier

__version__ = "0.1.0"
__all__ = ["GenreClassifier", "ModelWrapper", "__version__"]

_HOMES = {"GenreClassifier": "genre_classifier.network", "ModelWrapper": "genre_classifier.bundle.inference"}


def __getattr__(name: str) -> Any:
    # Loaded on first use: composing and checking a config must not import torch.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
