"""``genre-classifier export`` and export.py: choose a checkpoint, write its bundle, and print where it is."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from genre_classifier.cli import hydra_entry
from genre_classifier.config.folder import find_conf_folder
from genre_classifier.config.schema import register_schemas
from genre_classifier.machine.imports import importing

register_schemas()


@hydra.main(version_base="1.3", config_path=str(find_conf_folder()), config_name="export")
def main(cfg: DictConfig) -> None:
    """Export one checkpoint and print its production checklist."""
    with importing():
        from genre_classifier.exporting.export import export
        from genre_classifier.exporting.summary import show
        from genre_classifier.service.model import predict_in_process

    with hydra_entry.one_message(or_traceback=True):  # else Hydra prints a line before the message
        show(export(cfg, ask_service=predict_in_process))


if __name__ == "__main__":
    hydra_entry.run(main)
