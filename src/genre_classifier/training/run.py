"""A run's beginning and end: from the configuration to the data and network, and from the weights to the run folder.

A single run and a member of a stack begin and end alike. Only the training in between differs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from genre_classifier.class_names import import_class
from genre_classifier.config.checks import to_train_config
from genre_classifier.config.schema import ClassWeights, TrainConfig, is_higher_better
from genre_classifier.config.settings import flatten, format_yaml, select_experiment_settings
from genre_classifier.data.datamodule import GenreDataModule
from genre_classifier.data.scaler_state import ScalerStatistics
from genre_classifier.data.scaling import save_scaler
from genre_classifier.evaluation.metrics import Evaluation, evaluate
from genre_classifier.runs.folder import CHECKPOINT_VERSION_KEY, FORMAT_VERSION, RunFolder, writing
from genre_classifier.runs.outcome import write_outcome
from genre_classifier.runs.record import Record
from genre_classifier.training.callbacks import RunCheckpoint
from genre_classifier.training.lit_module import GenreLitModule
from genre_classifier.training.loggers import SplitTensorBoardLogger
from genre_classifier.training.resume import (
    SETTINGS_KEY,
    SPLIT_KEY,
    Resumption,
    check_best,
    compute_split_digest,
    select_recorded_settings,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """The results of a finished run.

    Parameters
    ----------
    folder : RunFolder
    metrics : dict of str to dict of str to float
        By split, then by name. They belong to the weights of the best epoch.
    f1_per_genre : dict of str to dict of str to float
        By split, then by genre.
    support : dict of str to dict of str to int
        Number of rows, by split, then by genre.
    protocol : dict
        How the rows were split.
    intervals : dict of str to dict
        By split: the 95 % intervals of the metrics, and how they were computed.
    duplicates : dict
        Rows with a copy on another side.
    synthetic : bool
        Whether the data is synthetic. Its metrics then say nothing about music.
    optimized_metric : str
    objective : float
        The value of that metric in the best epoch. A sweep optimises it.
    best_epoch : int or None
        From 0; None if no epoch was finished.
    best_checkpoint : Path or None
        None if checkpoints were switched off.
    seconds : float
    """

    folder: RunFolder
    metrics: dict[str, dict[str, float]]
    f1_per_genre: dict[str, dict[str, float]]
    support: dict[str, dict[str, int]]
    protocol: dict[str, Any]
    intervals: dict[str, dict[str, Any]]
    duplicates: dict[str, Any]
    synthetic: bool
    optimized_metric: str
    objective: float
    best_epoch: int | None
    best_checkpoint: Path | None
    seconds: float


class Run:
    """A run: its settings, folder, data, network and logger, and the steps before and after training.

    Parameters
    ----------
    cfg : DictConfig
        Composed.
    settings : TrainConfig, optional
        The same configuration, if it is already checked.

    Attributes
    ----------
    settings : TrainConfig
    folder : RunFolder
    datamodule : GenreDataModule
    module : GenreLitModule
    resumed : Resumption or None
        The checkpoint that the run goes on from.
    checkpoint_extras : dict
        The entries that every checkpoint gets beside Lightning's.
    logger : Logger or None
        The last five exist after `prepare`.
    """

    def __init__(self, cfg: DictConfig, settings: TrainConfig | None = None) -> None:
        self.cfg = cfg
        self.settings = to_train_config(cfg) if settings is None else settings
        self.folder = RunFolder(Path(self.settings.run_dir))
        self.is_first_process = _is_first_process(self.settings)
        self.values = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
        self.flat = flatten(self.values)
        self.record = Record(self.folder, self.flat, enabled=self.is_first_process)
        self.resumed: Resumption | None = None
        self.logger: Logger | None = None

    def prepare(self, datamodule: GenreDataModule | None = None) -> None:
        """Read, split and scale the rows, draw the weights, and make the logger.

        The configuration is written first, unless Hydra has written it.

        Parameters
        ----------
        datamodule : GenreDataModule, optional
            A datamodule that has the rows already.
        """
        settings = self.settings
        if self.is_first_process and not self.folder.hydra_yaml.is_file():  # Hydra did not start this run
            self.folder.write_config(self.cfg)
        self.resumed = Resumption.of(settings, self.flat)
        self.datamodule = datamodule or GenreDataModule(settings.data, seed=settings.seed)
        self.datamodule.setup()
        self.record.describe(self.datamodule.table, self.datamodule.data_split)
        self.module = build_module(settings, self.datamodule)
        self.checkpoint_extras = {
            CHECKPOINT_VERSION_KEY: FORMAT_VERSION,
            SETTINGS_KEY: select_recorded_settings(self.flat),
            SPLIT_KEY: compute_split_digest(self.datamodule.data_split),
        }
        if self.resumed is not None:
            self.resumed.check_data(self.module, self.datamodule.data_split)
            self.record.note_resumed(self.resumed.path, self.resumed.changed)
        if self.is_first_process:
            with writing(self.folder.scaler):
                save_scaler(self.datamodule.scaler, self.folder.scaler)
        self.logger = _build_logger(settings)
        if self.resumed is not None and self.is_first_process:
            self.resumed.bring_along(self.folder, settings, self.logger)

    def conclude(
        self,
        rows: Sequence[Mapping[str, float]],
        best_epoch: int | None,
        seconds: float | None = None,
        *,
        in_place: bool = False,
    ) -> Result:
        """Evaluate the weights of the best epoch, write the results and return them.

        Parameters
        ----------
        rows : sequence of mapping
            The history, one row per epoch.
        best_epoch : int or None
        seconds : float, optional
            Duration of the run. The default is the time since it began.
        in_place : bool
            Whether the module already holds the weights of the best epoch. Then no checkpoint is read.
        """
        module = self.module
        if (
            not in_place
            and self.settings.callbacks.checkpoint is not None
            and self.folder.best_checkpoint.exists()
        ):
            if self.resumed is not None:
                check_best(self.folder.best_checkpoint, best_epoch)
            module = GenreLitModule.load(self.folder.best_checkpoint)
        evaluations = _evaluate(module, self.datamodule)
        outcome = write_outcome(self.folder, self.datamodule.table, self.datamodule.data_split, evaluations)
        result = _build_result(self, evaluations, outcome, rows, best_epoch, seconds)
        _log_outcome(self, result, evaluations, module.genre_names)
        self.record.finish(result.objective, result.seconds, len(rows), best_epoch)
        return result

    def conclude_earlier(self) -> Result:
        """Conclude a run whose checkpoint has nothing left to train."""
        assert self.resumed is not None
        log.warning(
            "the training of %s is complete, so it is only evaluated; more trainer.max_epochs or a larger "
            "callbacks.early_stopping.patience would go on with it",
            self.resumed.path,
        )
        rows, checkpoint = self.resumed.history.rows, self.settings.callbacks.checkpoint
        best_epoch: int | None = self.resumed.n_epochs - 1
        if checkpoint is None:
            self.module.load_state_dict(self.resumed.content["state_dict"])
        else:
            keeper = RunCheckpoint(self.folder, checkpoint.monitor)
            keeper.replay(rows)
            best_epoch = keeper.best_epoch
        return self.conclude(rows, best_epoch)


def _is_first_process(settings: TrainConfig) -> bool:
    """Return whether this process writes the run folder. Processes of other devices and machines share the folder."""
    ranks = ["LOCAL_RANK"]
    if settings.trainer.devices != 1 or settings.trainer.num_nodes != 1:
        ranks += ["NODE_RANK", "GROUP_RANK", "RANK", "SLURM_PROCID"]
    return all(int(os.environ.get(name, "0")) == 0 for name in ranks)


def build_module(settings: TrainConfig, datamodule: GenreDataModule) -> GenreLitModule:
    """Build the network and its LightningModule. Only the run's seed determines the first weights."""
    table, split = datamodule.table, datamodule.data_split
    network = to_dict(settings.model) | {
        "input_dim": len(table.feature_names),
        "num_classes": len(table.genre_names),
    }
    # The user named these classes. Names read from a file were checked before.
    import_class(network["_target_"], nn.Module)
    import_class(settings.optimizer._target_, torch.optim.Optimizer)
    if settings.scheduler is not None:
        import_class(settings.scheduler._target_, LRScheduler)
    weights = None
    if settings.loss.class_weights is ClassWeights.balanced:
        counts = np.bincount(table.genres[split.train], minlength=len(table.genre_names))
        weights = (len(split.train) / (len(counts) * counts)).tolist()
    torch.manual_seed(settings.seed)
    return GenreLitModule(
        network=network,
        genre_names=list(table.genre_names),
        feature_names=list(table.feature_names),
        scaler=ScalerStatistics.of(datamodule.scaler).to_metadata(),
        optimizer=to_dict(settings.optimizer),
        scheduler=None if settings.scheduler is None else _build_scheduler_settings(settings),
        label_smoothing=settings.loss.label_smoothing,
        class_weights=weights,
        mixup=settings.loss.mixup,
        seed=settings.seed,
        data=table.description(),
        protocol=split.protocol.as_dict(),
    )


def to_dict(config: Any) -> dict[str, Any]:
    """Return one group of the settings as a dict; an enum becomes its value."""
    return {name: value.value if isinstance(value, Enum) else value for name, value in asdict(config).items()}


def _build_scheduler_settings(settings: TrainConfig) -> dict[str, Any]:
    arguments = to_dict(settings.scheduler)
    if "monitor" in arguments:
        arguments["mode"] = "max" if is_higher_better(arguments["monitor"]) else "min"
    return arguments


def _build_logger(settings: TrainConfig) -> Logger | None:
    if settings.logger is None:
        return None
    arguments = to_dict(settings.logger)
    logger: Logger = import_class(arguments.pop("_target_"))(**arguments)
    return logger


def _evaluate(module: GenreLitModule, datamodule: GenreDataModule) -> dict[str, Evaluation]:
    network = module.network.cpu()
    sides = {name: datamodule.side(name) for name in ("train", "val", "test")}
    return {
        name: evaluate(network, features.to(next(network.parameters()).dtype), genres)
        for name, (features, genres) in sides.items()
        if len(genres)
    }


def _build_result(
    run: Run,
    evaluations: dict[str, Evaluation],
    outcome: Mapping[str, Any],
    rows: Sequence[Mapping[str, float]],
    best_epoch: int | None,
    seconds: float | None,
) -> Result:
    settings, folder, datamodule = run.settings, run.folder, run.datamodule
    names = datamodule.table.genre_names
    row: Mapping[str, float] = next((row for row in rows if row["epoch"] == best_epoch), {})
    return Result(
        folder=folder,
        metrics={split: evaluation.as_dict() for split, evaluation in evaluations.items()},
        f1_per_genre=outcome["f1_per_genre"],
        support={
            split: dict(zip(names, evaluation.confusion.sum(dim=1).tolist(), strict=True))
            for split, evaluation in evaluations.items()
        },
        protocol=outcome["split_protocol"],
        intervals=outcome.get("intervals", {}),
        duplicates=outcome["duplicates"],
        synthetic=datamodule.table.source.synthetic,
        optimized_metric=settings.optimized_metric,
        objective=float(row.get(settings.optimized_metric, float("nan"))),
        best_epoch=best_epoch,
        best_checkpoint=folder.best_checkpoint if folder.best_checkpoint.exists() else None,
        seconds=run.record.measure_seconds() if seconds is None else seconds,
    )


def _log_outcome(run: Run, result: Result, evaluations: dict[str, Evaluation], names: list[str]) -> None:
    logger = run.logger
    if logger is None:
        return
    final = {
        f"{split}/{name}": value
        for split in ("val", "test")
        for name, value in result.metrics.get(split, {}).items()
    }
    if not isinstance(logger, SplitTensorBoardLogger):
        logger.log_hyperparams(run.flat)
        logger.log_metrics({name: value for name, value in final.items() if name.startswith("test/")})
        logger.save()
        logger.finalize("success")
        return
    logger.log_outcome(select_experiment_settings(run.flat), final)
    logger.experiment.add_text("config", f"```yaml\n{format_yaml(run.values)}\n```")
    logger.experiment.add_text("data", f"{result.protocol['description']}")
    if logger.figures:
        _draw_figures(logger, result, evaluations, names)
    logger.close()


def _draw_figures(
    logger: SplitTensorBoardLogger, result: Result, evaluations: dict[str, Evaluation], names: list[str]
) -> None:
    from genre_classifier.evaluation.figures import draw_confusion, draw_f1_per_genre

    note = " (synthetic data)" if result.synthetic else ""
    for split in (split for split in ("val", "test") if split in evaluations):
        scores = evaluations[split].scores
        title = f"{split} rows{note}"
        confusion = draw_confusion(evaluations[split].confusion.numpy(), names, title)
        logger.log_figure(f"confusion_matrix/{split}", confusion)
        support = list(result.support[split].values())
        bars = draw_f1_per_genre(scores.f1_per_genre.tolist(), support, names, title)
        logger.log_figure(f"f1_per_genre/{split}", bars)
