"""Export a trained model: ``python export.py``, the same as ``genre-classifier export``."""

from __future__ import annotations

from genre_classifier.cli import hydra_entry
from genre_classifier.cli.export import main

if __name__ == "__main__":
    hydra_entry.run(main)
