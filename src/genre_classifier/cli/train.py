"""``genre-classifier train`` and train.py: compose a configuration, train, and print where the run is."""

from __future__ import annotations

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from genre_classifier.cli import hydra_entry
from genre_classifier.config.folder import find_conf_folder
from genre_classifier.config.schema import register_schemas
from genre_classifier.machine.imports import importing

register_schemas()


@hydra.main(version_base="1.3", config_path=str(find_conf_folder()), config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Train one configuration and return the best epoch's value of the metric that a sweep optimises."""
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        from genre_classifier.sweeps.trial import run_trial

        return run_trial(cfg)
    from genre_classifier.config.settings import complete_paths, get_start_folder

    with importing():
        from genre_classifier.training.fit import train
        from genre_classifier.training.summary import show
    if HydraConfig.get().job.chdir:
        cfg = complete_paths(get_start_folder(), cfg)
    with hydra_entry.one_message(or_traceback=True):  # else Hydra prints a line before the message
        result = train(cfg)
    if result is None:  # one of several processes, and not the one that reports
        return None
    show(result)
    return result.objective


if __name__ == "__main__":
    hydra_entry.run(main)
