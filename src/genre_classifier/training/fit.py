"""``train(cfg) -> Result``: the one function behind train.py, every launcher and every test."""

from __future__ import annotations

import logging
import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from genre_classifier import __version__
from genre_classifier.config import ClassWeights, Strategy, TrainConfig, better_is_higher, typed
from genre_classifier.data.datamodule import GenreDataModule
from genre_classifier.data.scaling import save_scaler
from genre_classifier.errors import CheckpointError, ConfigError
from genre_classifier.evaluation.metrics import Evaluation, evaluate
from genre_classifier.run_folder import RunFolder, read_checkpoint, relative, writing
from genre_classifier.scaler_state import ScalerStatistics
from genre_classifier.settings import experiment, flat_settings
from genre_classifier.training.callbacks import (
    EMA,
    EpochProgress,
    History,
    ResumableEarlyStopping,
    RunCheckpoint,
)
from genre_classifier.training.chunks import StepSettings, unsupported_hook
from genre_classifier.training.lit_module import GenreLitModule
from genre_classifier.training.loggers import SplitTensorBoardLogger

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What a finished run amounts to.

    Parameters
    ----------
    folder : RunFolder
    metrics : dict of str to dict of str to float
        By split, then by name; of the best epoch's weights.
    f1_per_genre : dict of str to dict of str to float
        By split, then by genre.
    support : dict of str to dict of str to int
        Rows, by split, then by genre.
    protocol : dict
        How the rows were split.
    synthetic : bool
        Whether the data is synthetic, so that its numbers say nothing about music.
    optimized_metric : str
    objective : float
        The best epoch's value of that metric, which a sweep optimises.
    best_epoch : int or None
        From 0; None where no epoch was finished.
    best_checkpoint : Path or None
        None where checkpoints were switched off.
    seconds : float
    """

    folder: RunFolder
    metrics: dict[str, dict[str, float]]
    f1_per_genre: dict[str, dict[str, float]]
    support: dict[str, dict[str, int]]
    protocol: dict[str, Any]
    synthetic: bool
    optimized_metric: str
    objective: float
    best_epoch: int | None
    best_checkpoint: Path | None
    seconds: float


def train(cfg: DictConfig) -> Result | None:
    """Train one configuration.

    Returns
    -------
    Result or None
        None in the processes of a distributed run that are not the first.

    Raises
    ------
    ConfigError, DataError, SplitError, CheckpointError, RunFolderError, DivergedError
        With what to do about it; run.json then says ``failed`` and why.
    """
    settings = typed(cfg)
    folder = RunFolder(Path(settings.run_dir))
    first_process = int(os.environ.get("LOCAL_RANK", "0")) == 0
    record = _Record(folder, settings, flat_settings(cfg), enabled=first_process)
    _leave_messages_to_root()
    with record.kept(), _threads(settings.threads), warnings.catch_warnings():
        # Lightning 2.6 against torch 2.13: nothing that a user could do about it.
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
        pl.seed_everything(settings.seed, workers=True, verbose=False)
        datamodule = GenreDataModule(settings.data, seed=settings.seed)
        datamodule.setup()
        record.describe(datamodule)
        module = build_module(settings, datamodule)
        _check_resume(settings, module)
        if first_process:
            with writing(folder.scaler):
                save_scaler(datamodule.scaler, folder.scaler)
        logger = _build_logger(settings)
        trainer, history, checkpoint = _build_trainer(settings, folder, logger, module, datamodule)
        _fit(trainer, module, datamodule, settings, record)
        if not trainer.is_global_zero:
            return None
        best_epoch = _best_epoch(settings, history, checkpoint)
        if checkpoint is not None and folder.best_checkpoint.exists():
            module = GenreLitModule.load(folder.best_checkpoint)
        evaluations = _evaluate(module, datamodule)
        result = _result(settings, folder, datamodule, evaluations, history, best_epoch, record.elapsed())
        _write_outcome(result, datamodule, evaluations)
        _log_outcome(logger, cfg, result, evaluations, module.genre_names)
        record.finish(result, epochs=len(history.rows))
    return result


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _leave_messages_to_root() -> None:
    """Lightning prints its messages by a handler of its own; where the run has logging set up, that one decides."""
    if logging.root.hasHandlers():
        logging.getLogger("lightning").handlers.clear()


def build_module(settings: TrainConfig, datamodule: GenreDataModule) -> GenreLitModule:
    """Build the network and what trains it; the weights are drawn from the run's seed alone."""
    table, split = datamodule.table, datamodule.data_split
    network = _plain(settings.model) | {
        "input_dim": len(table.feature_names),
        "num_classes": len(table.genre_names),
    }
    import_module(network["_target_"].rpartition(".")[0])
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
        optimizer=_plain(settings.optimizer),
        scheduler=None if settings.scheduler is None else _plain_scheduler(settings),
        label_smoothing=settings.loss.label_smoothing,
        class_weights=weights,
        mixup=settings.loss.mixup,
        seed=settings.seed,
        data=table.description(),
        protocol=split.protocol.as_dict(),
    )


def _plain(config: Any) -> dict[str, Any]:
    return {name: value.value if isinstance(value, Enum) else value for name, value in asdict(config).items()}


def _plain_scheduler(settings: TrainConfig) -> dict[str, Any]:
    plain = _plain(settings.scheduler)
    if "monitor" in plain:
        plain["mode"] = "max" if better_is_higher(plain["monitor"]) else "min"
    return plain


def _check_resume(settings: TrainConfig, module: GenreLitModule) -> None:
    if settings.ckpt_path is None:
        return
    saved = read_checkpoint(Path(settings.ckpt_path))["hyper_parameters"]
    for name in ("network", "feature_names", "genre_names", "scaler"):
        if saved.get(name) != module.hparams[name]:
            what = name.replace("_", " ")
            raise CheckpointError(
                f"ckpt_path={settings.ckpt_path}: its {what} differs from this run's, so it cannot be resumed; "
                "use the data and model settings of the run it comes from (see .hydra/overrides.yaml there)"
            )


def _build_logger(settings: TrainConfig) -> Logger | None:
    if settings.logger is None:
        return None
    arguments = _plain(settings.logger)
    module_name, _, name = arguments.pop("_target_").rpartition(".")
    logger: Logger = getattr(import_module(module_name), name)(**arguments)
    return logger


def _build_trainer(
    settings: TrainConfig,
    folder: RunFolder,
    logger: Logger | None,
    module: GenreLitModule,
    datamodule: GenreDataModule,
) -> tuple[pl.Trainer, History, RunCheckpoint | None]:
    chosen = settings.callbacks
    history = History(folder)
    callbacks: list[Callback] = [history]
    if chosen.early_stopping is not None:
        callbacks.append(_early_stopping(settings))
    if chosen.ema is not None:
        callbacks.append(EMA(chosen.ema.decay))
    if settings.trainer.enable_progress_bar:
        callbacks.append(EpochProgress())
    checkpoint = None
    if chosen.checkpoint is not None:
        resumed_from = None if settings.ckpt_path is None else Path(settings.ckpt_path)
        checkpoint = RunCheckpoint(folder, chosen.checkpoint.monitor, resumed_from)
        callbacks.append(checkpoint)
    arguments = _plain(settings.trainer)
    if settings.trainer.gradient_clip_val is None:
        arguments["gradient_clip_algorithm"] = None
    arguments["log_every_n_steps"] = _batches_an_epoch(settings, datamodule)
    arguments |= _chunked(settings, callbacks, module, datamodule)
    del arguments["batches_per_training_step"]
    try:
        trainer = pl.Trainer(
            **arguments,
            logger=logger or False,
            callbacks=callbacks,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=None if len(datamodule.data_split.val) else 0,
            use_distributed_sampler=False,
            default_root_dir=folder.path,
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise ConfigError(f"trainer: {error}") from error
    return trainer, history, checkpoint


def _chunked(
    settings: TrainConfig, callbacks: list[Callback], module: GenreLitModule, datamodule: GenreDataModule
) -> dict[str, Any]:
    """Let several mini-batches be one training step where that is right, and return what Lightning is told then."""
    chosen = settings.trainer
    if chosen.batches_per_training_step == 1:
        return {}
    reason = _why_one_batch_a_step(settings, callbacks)
    if reason is not None:
        rank_zero_only(log.info)("one mini-batch a training step, since %s", reason)
        return {}
    module.train_in_chunks(
        StepSettings(
            batches_an_epoch=_batches_an_epoch(settings, datamodule),
            accumulate_grad_batches=chosen.accumulate_grad_batches,
            gradient_clip_val=chosen.gradient_clip_val,
            gradient_clip_algorithm=chosen.gradient_clip_algorithm.value,
        )
    )
    datamodule.batches_per_chunk = chosen.batches_per_training_step
    return {
        "gradient_clip_val": None,
        "gradient_clip_algorithm": None,
        "accumulate_grad_batches": 1,
        "log_every_n_steps": 1,
    }


def _why_one_batch_a_step(settings: TrainConfig, callbacks: list[Callback]) -> str | None:
    chosen = settings.trainer
    if chosen.devices != 1 or chosen.num_nodes != 1 or chosen.strategy is not Strategy.auto:
        return "several processes share each optimizer step"
    if chosen.precision == "16-mixed":
        return "trainer.precision=16-mixed scales the loss anew at each optimizer step"
    hook = unsupported_hook(callbacks)
    return None if hook is None else f"{hook} is to be called for each of them"


def _batches_an_epoch(settings: TrainConfig, datamodule: GenreDataModule) -> int:
    rows = len(datamodule.side("train")[1])
    batches = -(-rows // (settings.data.batch_size * settings.trainer.devices * settings.trainer.num_nodes))
    limits = (settings.trainer.limit_train_batches, settings.trainer.overfit_batches or None)
    return max(1, min([batches, *(limit for limit in limits if limit is not None)]))


def _early_stopping(settings: TrainConfig) -> ResumableEarlyStopping:
    chosen = settings.callbacks.early_stopping
    assert chosen is not None
    return ResumableEarlyStopping(
        monitor=chosen.monitor,
        mode="max" if better_is_higher(chosen.monitor) else "min",
        patience=chosen.patience,
        min_delta=chosen.min_delta,
        check_on_train_epoch_end=True,
    )


def _fit(
    trainer: pl.Trainer,
    module: GenreLitModule,
    datamodule: GenreDataModule,
    settings: TrainConfig,
    record: _Record,
) -> None:
    try:
        trainer.fit(module, datamodule=datamodule, ckpt_path=settings.ckpt_path, weights_only=True)
    except SystemExit:
        # Lightning turns Ctrl-C into an exit after it has closed down.
        if not trainer.interrupted:
            raise
        raise record.interrupted(trainer.current_epoch) from None


def _best_epoch(settings: TrainConfig, history: History, checkpoint: RunCheckpoint | None) -> int | None:
    if checkpoint is not None:
        return checkpoint.best_epoch
    # Without checkpoints the weights at hand are the last epoch's.
    return int(history.rows[-1]["epoch"]) if history.rows else None


def _evaluate(module: GenreLitModule, datamodule: GenreDataModule) -> dict[str, Evaluation]:
    network = module.network.cpu()
    sides = {name: datamodule.side(name) for name in ("train", "val", "test")}
    return {
        name: evaluate(
            network, features.to(next(network.parameters()).dtype), genres, len(module.genre_names)
        )
        for name, (features, genres) in sides.items()
        if len(genres)
    }


def _result(
    settings: TrainConfig,
    folder: RunFolder,
    datamodule: GenreDataModule,
    evaluations: dict[str, Evaluation],
    history: History,
    best_epoch: int | None,
    seconds: float,
) -> Result:
    names = datamodule.table.genre_names
    row = next((row for row in history.rows if row["epoch"] == best_epoch), {})
    return Result(
        folder=folder,
        metrics={split: evaluation.as_dict() for split, evaluation in evaluations.items()},
        f1_per_genre={
            split: dict(zip(names, evaluation.scores.f1_per_genre.tolist(), strict=True))
            for split, evaluation in evaluations.items()
        },
        support={
            split: dict(zip(names, evaluation.confusion.sum(dim=1).tolist(), strict=True))
            for split, evaluation in evaluations.items()
        },
        protocol=datamodule.data_split.protocol.as_dict(),
        synthetic=datamodule.table.source.synthetic,
        optimized_metric=settings.optimized_metric,
        objective=float(row.get(settings.optimized_metric, float("nan"))),
        best_epoch=best_epoch,
        best_checkpoint=folder.best_checkpoint if folder.best_checkpoint.exists() else None,
        seconds=seconds,
    )


def _write_outcome(result: Result, datamodule: GenreDataModule, evaluations: dict[str, Evaluation]) -> None:
    result.folder.write_metrics(
        {
            **result.metrics,
            "split_protocol": result.protocol,
            "synthetic_data": result.synthetic,
            "f1_per_genre": result.f1_per_genre,
            "confusion": {split: e.confusion.tolist() for split, e in evaluations.items()},
            "genre_names": list(datamodule.table.genre_names),
        }
    )
    if "test" in evaluations:
        result.folder.write_predictions(*_predictions(datamodule, evaluations["test"]))


def _predictions(
    datamodule: GenreDataModule, evaluation: Evaluation
) -> tuple[list[str], Iterator[list[Any]]]:
    table, rows = datamodule.table, datamodule.data_split.test
    names = table.genre_names
    header = ["id", "group", "true", "predicted", *(f"p_{name}" for name in names)]
    probabilities = evaluation.probabilities
    predicted = probabilities.argmax(dim=1).tolist()
    lines = (
        [
            table.ids[row],
            "" if table.groups is None else table.groups[row],
            names[table.genres[row]],
            names[predicted[position]],
            *(f"{p:.9g}" for p in probabilities[position].tolist()),
        ]
        for position, row in enumerate(rows)
    )
    return header, lines


def _log_outcome(
    logger: Logger | None,
    cfg: DictConfig,
    result: Result,
    evaluations: dict[str, Evaluation],
    names: list[str],
) -> None:
    if logger is None:
        return
    final = {
        f"{split}/{name}": value
        for split in ("val", "test")
        for name, value in result.metrics.get(split, {}).items()
    }
    flat = flat_settings(cfg)
    if not isinstance(logger, SplitTensorBoardLogger):
        logger.log_hyperparams(flat)
        logger.log_metrics({name: value for name, value in final.items() if name.startswith("test/")})
        logger.save()
        logger.finalize("success")
        return
    settings = {key: value for key, value in experiment(flat).items() if value is not None}
    logger.log_outcome(settings, final)
    logger.experiment.add_text("config", f"```yaml\n{OmegaConf.to_yaml(cfg, resolve=True)}\n```")
    logger.experiment.add_text("data", f"{result.protocol['description']}")
    if logger.figures:
        _draw(logger, result, evaluations, names)
    logger.close()


def _draw(
    logger: SplitTensorBoardLogger, result: Result, evaluations: dict[str, Evaluation], names: list[str]
) -> None:
    from genre_classifier.evaluation.figures import confusion_figure, per_genre_f1_figure

    note = " (synthetic data)" if result.synthetic else ""
    for split in (split for split in ("val", "test") if split in evaluations):
        scores = evaluations[split].scores
        logger.experiment.add_figure(
            f"confusion_matrix/{split}",
            confusion_figure(evaluations[split].confusion.numpy(), names, f"{split} rows{note}"),
        )
        support = list(result.support[split].values())
        figure = per_genre_f1_figure(scores.f1_per_genre.tolist(), support, names, f"{split} rows{note}")
        logger.experiment.add_figure(f"f1_per_genre/{split}", figure)


class _Record:
    """run.json over the life of a run."""

    def __init__(
        self, folder: RunFolder, settings: TrainConfig, flat: dict[str, Any], *, enabled: bool
    ) -> None:
        self.folder = folder
        self.enabled = enabled
        self.started = time.monotonic()
        self.content: dict[str, Any] = {
            "status": "running",
            "reason": None,
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "seed": settings.seed,
            "optimized_metric": settings.optimized_metric,
            "resumed_from": settings.ckpt_path,
            "settings": flat,
            "versions": versions(),
        }

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def describe(self, datamodule: GenreDataModule) -> None:
        sides = {name: len(rows) for name, rows in datamodule.data_split.sides().items()}
        self.content["data"] = datamodule.table.description() | {"rows_by_split": sides}
        self.content["split_protocol"] = datamodule.data_split.protocol.as_dict()
        self._write()

    def finish(self, result: Result, epochs: int) -> None:
        self.content |= {
            "status": "finished",
            "seconds": round(self.elapsed(), 3),
            "epochs": epochs,
            "best_epoch": result.best_epoch,
            "objective": result.objective,
        }
        self._write()

    def interrupted(self, epoch: int) -> KeyboardInterrupt:
        last = self.folder.last_checkpoint
        if not last.exists():
            return KeyboardInterrupt(f"interrupted in epoch {epoch}, before there was a checkpoint")
        return KeyboardInterrupt(
            f"interrupted in epoch {epoch}; the last finished epoch is kept. To go on, give the same command and "
            f"ckpt_path={relative(last)}"
        )

    @contextmanager
    def kept(self) -> Iterator[None]:
        if self.enabled:
            with writing(self.folder.path):
                self.folder.path.mkdir(parents=True, exist_ok=True)
        self._write()
        try:
            yield
        except BaseException as error:
            self.content |= {
                "status": "failed",
                "reason": "interrupted"
                if isinstance(error, KeyboardInterrupt)
                else f"{type(error).__name__}: {error}",
                "seconds": round(self.elapsed(), 3),
            }
            try:
                self._write()
            except Exception:
                log.exception("run.json could not be written either")
            raise

    def _write(self) -> None:
        if self.enabled:
            self.folder.write_run(self.content)


def versions() -> dict[str, str]:
    """Return the versions of what a result depends on."""
    from lightning import __version__ as lightning_version
    from sklearn import __version__ as sklearn_version

    return {
        "genre_classifier": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning_version,
        "scikit-learn": sklearn_version,
        "numpy": np.__version__,
    }
