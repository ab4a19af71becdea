"""Train a run's configuration again, on all rows, up to the number of its best epoch."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genre_classifier.config.schema import CheckpointConfig, SplitMethod, Strategy
from genre_classifier.errors import ConfigError, ExportError
from genre_classifier.exporting.candidate import Candidate, load_candidate
from genre_classifier.exporting.choose import Choice
from genre_classifier.runs.configuration import read_trainable_configuration
from genre_classifier.runs.folder import RunFolder, claim, shorten_path
from genre_classifier.training.fit import train

log = logging.getLogger(__name__)


def train_on_all_rows(candidate: Candidate, outputs: Path) -> Candidate:
    """Train a candidate's configuration on all rows, in a new run folder.

    Parameters
    ----------
    candidate : Candidate
        Of a finished run.
    outputs : Path
        The new run's folder is runs/DATE/TIME in it.

    Raises
    ------
    ExportError
        The checkpoint belongs to no run, or the training wrote no checkpoint.
    """
    if candidate.folder is None:
        raise ExportError(
            f"refit=full needs the configuration of the run, and {candidate.choice.checkpoint} lies outside of a "
            "run's folder: name one with run=FOLDER"
        )
    saved = read_trainable_configuration(candidate.folder)
    now = datetime.now().astimezone()
    folder = RunFolder(claim(outputs / "runs" / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}", exact=False))
    cfg = build_refit_config(saved, folder.path, epochs=candidate.epoch + 1)
    log.info(
        "%-12s training on all rows for %d epochs in %s",
        "refit",
        candidate.epoch + 1,
        shorten_path(folder.path),
    )
    result = train(cfg)
    if result is None or result.best_checkpoint is None:
        raise ExportError(f"refit=full: {folder.path} has no checkpoint")
    return load_candidate(Choice(result.best_checkpoint, folder, "trained by refit=full", (), {}))


def build_refit_config(saved: DictConfig, folder: Path, epochs: int) -> DictConfig:
    """Return a run's configuration with all rows training, for exactly `epochs` epochs.

    The learning rate changes as in the run: schedules keep their length.

    Parameters
    ----------
    saved : DictConfig
        With its schemas (see ``config.checks.restore_schemas``).
    folder : Path
        The new run's folder.
    epochs : int
    """
    cfg = saved.copy()
    cfg.run_dir = str(folder)
    try:
        # Resolve before max_epochs changes: values that refer to it keep the run's number.
        OmegaConf.resolve(cfg)
    except OmegaConfBaseException as error:
        raise ConfigError(f"the run's saved configuration cannot be resolved: {error}") from error
    split, trainer = cfg.data.split, cfg.trainer
    split.method, split.folds, split.fold = SplitMethod.all, None, None
    cfg.callbacks.early_stopping = None
    cfg.callbacks.checkpoint = CheckpointConfig(monitor=None)
    cfg.optimized_metric = _name_training_metric(cfg.optimized_metric)
    if OmegaConf.select(cfg, "scheduler.monitor") is not None:
        cfg.scheduler.monitor = _name_training_metric(cfg.scheduler.monitor)
    cfg.ckpt_path = None
    trainer.max_epochs, trainer.min_epochs, trainer.max_time = epochs, None, None
    trainer.limit_train_batches, trainer.overfit_batches = None, 0
    # Lightning would start this command again in each process. One process trains with the batches of all.
    cfg.data.batch_size *= max(1, trainer.devices) * trainer.num_nodes
    trainer.devices, trainer.num_nodes, trainer.strategy = 1, 1, Strategy.auto
    return cfg


def _name_training_metric(metric: str) -> str:
    return f"train/{metric.rpartition('/')[2]}"
