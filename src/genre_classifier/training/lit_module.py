"""GenreLitModule: the network with its loss, metrics, optimizer and scheduler, and what is needed to rebuild them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from genre_classifier.class_names import check_name, find_class
from genre_classifier.data.batches import Chunk, TensorBatches, mix_seed
from genre_classifier.data.scaler_state import ScalerStatistics
from genre_classifier.errors import CheckpointError, ConfigError, DivergedError
from genre_classifier.evaluation.metrics import GenreMetrics
from genre_classifier.runs.folder import read_checkpoint
from genre_classifier.training.chunks import ChunkedOptimization, StepSettings, equalize_step_counts
from genre_classifier.training.engine.noise import MixupDraws
from genre_classifier.training.engine.steps import Learner

Batch = tuple[Tensor, Tensor]
# These update all parameters in one call. Torch's default on the CPU is a loop, which takes three times as long here.
FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
# Gives dropout other random numbers than the row order.
_DROPOUT_STREAM = 1 << 32


class GenreLitModule(pl.LightningModule):
    """Trains a genre network. Its checkpoint holds no code and is enough to rebuild the module.

    Parameters
    ----------
    network : mapping
        ``_target_``, the network's class, and its arguments (see ``GenreClassifier.get_config``).
    genre_names, feature_names : sequence of str
    scaler : mapping
        Statistics of the fitted StandardScaler (see ``ScalerStatistics.to_metadata``).
    optimizer : mapping
        ``_target_`` and arguments.
    scheduler : mapping, optional
        ``_target_``, arguments, ``interval`` (``epoch`` or ``step``) and, for ReduceLROnPlateau, ``monitor``.
    label_smoothing : float
    class_weights : sequence of float, optional
        Weight of each genre in the loss.
    mixup : float
        Alpha of the Beta distribution that mixes pairs of rows (Zhang et al., 2018); 0 is off.
    seed : int
        Of dropout and mixup.
    data, protocol : mapping, optional
        The origin of the rows and their split. Only readers of the checkpoint use them.
    """

    def __init__(
        self,
        *,
        network: Mapping[str, Any],
        genre_names: Sequence[str],
        feature_names: Sequence[str],
        scaler: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        scheduler: Mapping[str, Any] | None = None,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        mixup: float = 0.0,
        seed: int = 42,
        data: Mapping[str, Any] | None = None,
        protocol: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.network = build_network(network)
        weights = None if class_weights is None else torch.tensor(list(class_weights), dtype=torch.float32)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights, persistent=False)
        self._outputs: dict[str, list[Batch]] = {split: [] for split in ("train", "val", "test")}
        self._losses: list[tuple[Tensor, int]] = []  # of the epoch's mini-batches, and their rows
        self._mixup: MixupDraws | None = None
        self._chunk_settings: StepSettings | None = None
        self._chunks: ChunkedOptimization | None = None

    @property
    def genre_names(self) -> list[str]:
        """The genres, in the order of the logits."""
        return list(self.hparams["genre_names"])

    @property
    def feature_names(self) -> list[str]:
        """The features, in the order of the network's inputs."""
        return list(self.hparams["feature_names"])

    @property
    def scaler(self) -> StandardScaler:
        """The fitted StandardScaler, rebuilt from its statistics."""
        return ScalerStatistics.from_metadata(self.hparams["scaler"], "the checkpoint").build()

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (row, genre) for standardised features (row, feature)."""
        logits: Tensor = self.network(features)
        return logits

    def train_in_chunks(self, settings: StepSettings) -> None:
        """Let the engine train from now on, a chunk of mini-batches per training step.

        Lightning calls this manual optimization. Without this call, Lightning and autograd train.
        """
        self._chunk_settings = settings
        self.automatic_optimization = False

    def build_learner(self, optimizer: torch.optim.Optimizer, settings: StepSettings) -> Learner:
        """Return the network and how it learns, for the engine."""
        return Learner(
            network=self.network,
            optimizer=optimizer,
            n_genres=len(self.genre_names),
            seed=self.hparams["seed"],
            label_smoothing=self.hparams["label_smoothing"],
            class_weights=self.hparams["class_weights"],
            mixup=self.hparams["mixup"],
            clip_norm=settings.limit("norm"),
            clip_value=settings.limit("value"),
        )

    def training_step(self, batch: Batch | Chunk, batch_idx: int) -> Tensor | None:
        """Return the mean loss of a mini-batch, or let the engine train on a chunk of them."""
        if isinstance(batch, Chunk):
            if self._chunks is None:
                raise RuntimeError("call GenreLitModule.train_in_chunks() before trainer.fit()")
            self._chunks.run(batch)
            return None
        features, genres = batch
        if self._mixup is None:
            logits = self(features)
            loss = self._compute_loss(logits, genres)
        else:
            valid = torch.ones(1, len(genres), dtype=torch.bool, device=genres.device)
            shares, others = self._mixup.read_step(batch_idx, valid)
            share, other = shares[0].to(features.dtype), others[0]
            logits = self(torch.lerp(features[other], features, share))
            loss = torch.lerp(
                self._compute_loss(logits, genres[other]), self._compute_loss(logits, genres), share.float()
            )
            genres = torch.where(share >= 0.5, genres, genres[other])
        self._losses.append((loss.detach(), len(genres)))
        self._outputs["train"].append((logits.detach(), genres))
        return loss

    def _compute_loss(self, logits: Tensor, genres: Tensor) -> Tensor:
        # Half precision is for the network only. The loss needs single precision.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        weights = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        smoothing = self.hparams["label_smoothing"]
        return functional.cross_entropy(logits, genres, weight=weights, label_smoothing=smoothing)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep a batch's logits for the end of the epoch."""
        self._keep_logits("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep a batch's logits for the end of the epoch."""
        self._keep_logits("test", batch)

    def on_train_start(self) -> None:
        """Prepare for chunks, now that there is an optimizer."""
        if self._chunk_settings is not None:
            self._chunks = ChunkedOptimization(self, self._chunk_settings)

    def on_train_end(self) -> None:
        """Drop the references to optimizer and trainer."""
        self._chunks = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Copy each tensor. In the engine they are views of one large tensor, which the file would contain."""
        for name in ("state_dict", "current_model_state", "optimizer_states"):
            if name in checkpoint:
                checkpoint[name] = copy_to_cpu(checkpoint[name])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let a run continue with or without chunks, whichever it began with."""
        equalize_step_counts(checkpoint)

    def on_train_epoch_start(self) -> None:
        """Seed dropout and mixup by epoch, so that a resumed run draws the numbers of an uninterrupted one."""
        if self._chunks is not None:
            self._chunks.start_epoch()
            return
        rank = self.global_rank
        seed = mix_seed(self.hparams["seed"], rank) if rank else self.hparams["seed"]
        torch.manual_seed(mix_seed(seed + _DROPOUT_STREAM, self.current_epoch))
        if self.hparams["mixup"] > 0:
            loader = cast(TensorBatches, self.trainer.train_dataloader)
            self._mixup = MixupDraws([self.hparams["mixup"]], loader.batch_size)
            self._mixup.start_epoch([seed], [self.current_epoch], [len(loader)])

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training metrics."""
        if self._chunks is not None:
            trained = self._chunks.finish_epoch()
            valid = trained.valid[0]
            self._losses.append((trained.loss[0], int(valid.sum())))
            self._outputs["train"].append((trained.logits[0, valid], trained.genres[0, valid]))
        # Each row counts with the loss of its mini-batch, as in evaluation.
        total = sum(float(loss) * rows for loss, rows in self._losses)
        self._losses.clear()
        values = self._finish_split("train", total)
        self._report(values | {"learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"]})
        for logger in self.loggers:
            logger.save()
        self._step_plateau_scheduler()

    def _step_plateau_scheduler(self) -> None:
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, ReduceLROnPlateau):
            monitor = self.hparams["scheduler"]["monitor"]
            scheduler.step(float(self.trainer.callback_metrics[monitor]))

    def lr_scheduler_step(self, scheduler: LRScheduler, metric: Any) -> None:
        """Step a scheduler, except ReduceLROnPlateau, which the end of the epoch has stepped.

        Lightning would step it after the checkpoint and skip that step on resuming. A resumed run would lag one epoch
        behind.
        """
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's validation metrics."""
        self._report(self._finish_split("val"))

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._report(self._finish_split("test"))

    def configure_optimizers(self) -> Any:
        """Build the optimizer and the scheduler from their settings."""
        settings = dict(self.hparams["optimizer"])
        optimizer_class = find_class(settings.pop("_target_"), torch.optim.Optimizer)
        if optimizer_class in FUSED and self._can_fuse():
            settings["fused"] = True
        optimizer = optimizer_class(self.parameters(), **settings)
        if self.hparams["scheduler"] is None:
            return {"optimizer": optimizer}
        settings = dict(self.hparams["scheduler"])
        kind = find_class(settings.pop("_target_"), LRScheduler)
        lightning_settings = {"interval": settings.pop("interval")}
        monitor = settings.pop("monitor", None)
        if monitor is not None and self.automatic_optimization:
            lightning_settings["monitor"] = monitor
        if issubclass(kind, OneCycleLR):
            settings["total_steps"] = self._count_steps_an_epoch() * settings.pop(
                "epochs", self.trainer.max_epochs or 1
            )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": kind(optimizer, **settings), **lightning_settings},
        }

    def _can_fuse(self) -> bool:
        # Lightning does not clip the gradients of a fused optimizer if it scales them.
        scales = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        return self.device.type in {"cpu", "cuda"} and not scales

    def _count_steps_an_epoch(self) -> int:
        if self._chunk_settings is not None:
            return self._chunk_settings.batches_an_epoch
        return int(self.trainer.estimated_stepping_batches) // (self.trainer.max_epochs or 1)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Rebuild the module from a checkpoint, without executing anything in the file.

        Raises
        ------
        CheckpointError
            The file is missing, damaged, or no checkpoint of this project.
        """
        checkpoint = read_checkpoint(path)
        settings = checkpoint["hyper_parameters"]
        try:
            check_name(settings["network"].get("_target_"))
        except ConfigError as error:
            raise CheckpointError(f"{path}: {error}") from error
        try:
            # The first network takes no memory. The settings may ask for any size; the weights show the true one.
            with torch.device("meta"):
                skeleton = build_network(settings["network"])
            check_shapes(
                {f"network.{key}": v for key, v in skeleton.state_dict().items()}, checkpoint["state_dict"]
            )
            module = cls(**settings)
            module.load_state_dict(checkpoint["state_dict"])
        except (TypeError, RuntimeError, KeyError, ValueError, AttributeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(f"{path}: its weights do not fit its settings ({reason:.300})") from error
        return module.eval()

    def _keep_logits(self, split: str, batch: Batch) -> None:
        features, genres = batch
        logits = self(features)
        self._outputs[split].append((logits, genres))

    def _finish_split(self, split: str, total_loss: float | None = None) -> dict[str, float]:
        """Return the metrics of an epoch's rows, by the names they are logged under.

        Parameters
        ----------
        split : str
        total_loss : float, optional
            The sum of the rows' losses, if the loss is not the plain cross entropy.
        """
        logits, genres = (torch.cat(batches) for batches in zip(*self._outputs[split], strict=True))
        self._outputs[split].clear()
        metrics = GenreMetrics(logits.shape[1]).to(logits.device)
        metrics.update(logits, genres, total_loss)
        scores = metrics.compute()
        f1_per_genre = scores.pop("f1_per_genre").tolist()
        values = {f"{split}/{name}": float(value) for name, value in scores.items()}
        loss = values[f"{split}/loss"]
        refuse_divergence(loss, split, self.current_epoch, self.hparams["optimizer"].get("lr"))
        if split != "train":
            per_genre = zip(self.genre_names, f1_per_genre, strict=True)
            values |= {f"{split}/f1_by_genre/{name}": value for name, value in per_genre}
        return values

    def _report(self, values: Mapping[str, float]) -> None:
        """Hand an epoch's metrics to callbacks and loggers."""
        if self.trainer.state.fn is not TrainerFn.FITTING:
            self.log_dict(dict(values), sync_dist=self.trainer.world_size > 1)
            return
        # This replaces self.log, which takes longer than training on a small epoch. Every process has the same values.
        self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})
        for logger in self.loggers:
            logger.log_metrics({**values, "epoch": self.current_epoch}, step=self.trainer.global_step - 1)


def check_shapes(wanted: Mapping[str, Tensor], found: Mapping[str, Any]) -> None:
    """Raise ValueError unless the tensors found include the wanted ones, with their shapes."""
    if missing := sorted(wanted.keys() - found.keys()):
        raise ValueError(f"{missing[0]} is missing")
    for key, value in found.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{key!s:.80} is no tensor")
        if key in wanted and value.shape != wanted[key].shape:
            raise ValueError(
                f"{key} has shape {tuple(value.shape)}, the settings ask for {tuple(wanted[key].shape)}"
            )


def check_training_state(checkpoint: Mapping[str, Any], module: GenreLitModule) -> None:
    """Raise ValueError unless a checkpoint's weights and optimizer state have the shapes of `module`."""
    check_shapes(module.state_dict(), checkpoint["state_dict"])
    if "current_model_state" in checkpoint:
        check_shapes(module.state_dict(), checkpoint["current_model_state"])
    parameters = list(module.parameters())
    states = checkpoint.get("optimizer_states")
    if not isinstance(states, list) or len(states) != 1 or not isinstance(states[0], dict):
        raise ValueError("it holds no state of one optimizer")
    groups, state = states[0].get("param_groups"), states[0].get("state")
    if not isinstance(groups, list) or not isinstance(state, dict):
        raise ValueError("its optimizer has no state")
    indices = [group.get("params") if isinstance(group, dict) else None for group in groups]
    if indices != [list(range(len(parameters)))] or not state.keys() <= set(range(len(parameters))):
        raise ValueError(f"its optimizer is not one of {len(parameters)} parameters")
    for number, values in state.items():
        for name, value in values.items() if isinstance(values, dict) else [("state", values)]:
            whole = isinstance(value, Tensor) and value.shape == parameters[number].shape
            single = type(value) in (int, float) or (isinstance(value, Tensor) and value.numel() == 1)
            if not (whole or single or value is None):
                raise ValueError(f"its optimizer's {name!s:.40} of parameter {number} has another shape")


def copy_to_cpu(content: Any) -> Any:
    """Return nested dicts and lists with a copy of each tensor in them."""
    if isinstance(content, Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, dict):
        return type(content)((key, copy_to_cpu(value)) for key, value in content.items())
    if isinstance(content, (list, tuple)):
        return type(content)(copy_to_cpu(value) for value in content)
    return content


def refuse_divergence(loss: float, split: str, epoch: int, lr: float | None) -> None:
    """Raise DivergedError if an epoch's loss is not a finite number."""
    if not math.isfinite(loss):
        raise DivergedError(
            f"epoch {epoch}: the {split} loss is {loss}; lower optimizer.lr={lr}, or clip gradients with "
            "trainer.gradient_clip_val=1.0"
        )


def build_network(settings: Mapping[str, Any]) -> nn.Module:
    """Build a network from ``_target_`` and its arguments.

    Raises
    ------
    ConfigError
        ``_target_`` is no network class, is a class that a file may not name (see `class_names`), or does not take
        these arguments.
    """
    arguments = dict(settings)
    kind = find_class(arguments.pop("_target_", None), nn.Module)
    try:
        network: nn.Module = kind(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model: {error}") from error
    return network
