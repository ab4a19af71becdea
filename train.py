"""Train a genre classifier: ``python train.py model.dropout=0.3``, the same as ``genre-classifier train``."""

from __future__ import annotations

from genre_classifier.cli import hydra_entry
from genre_classifier.cli.train import main

if __name__ == "__main__":
    hydra_entry.run(main)
