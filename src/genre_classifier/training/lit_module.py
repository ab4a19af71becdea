"""GenreLitModule: the network with its loss, metrics, optimizer and scheduler, and all it takes to rebuild them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Self, cast

import lightning.pytorch as pl
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau
from torchmetrics import MeanMetric

from genre_classifier.data.batches import mixed_seed
from genre_classifier.errors import CheckpointError, ConfigError, DivergedError
from genre_classifier.evaluation.metrics import GenreMetrics
from genre_classifier.run_folder import read_checkpoint
from genre_classifier.scaler_state import ScalerStatistics

Batch = tuple[Tensor, Tensor]
SPLITS = ("train", "val", "test")
# Sets the stream of dropout and mixup apart from that of the row order.
_NOISE_STREAM = 1 << 32


class GenreLitModule(pl.LightningModule):
    """Trains a genre network; its checkpoint holds plain values only and is enough to rebuild everything.

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
        What the rows were and how they were split, for whoever reads the checkpoint.
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
        # A ModuleDict cannot have the key "train", which is a method's name.
        self.metrics = nn.ModuleDict({f"{split}_rows": GenreMetrics(len(genre_names)) for split in SPLITS})
        self.losses = nn.ModuleDict({f"{split}_rows": MeanMetric(nan_strategy="disable") for split in SPLITS})
        weights = None if class_weights is None else torch.tensor(list(class_weights), dtype=torch.float32)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights, persistent=False)
        self._outputs: dict[str, list[Batch]] = {split: [] for split in SPLITS}

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

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss of a batch."""
        features, genres = batch
        if self.hparams["mixup"] > 0:
            loss, logits, genres = self._mixup_step(features, genres)
        else:
            logits = self(features)
            loss = self._loss(logits, genres)
        self._loss_of("train").update(loss.detach(), len(genres))
        self._outputs["train"].append((logits.detach(), genres))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep a batch's logits for the end of the epoch."""
        self._evaluation_step("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep a batch's logits for the end of the epoch."""
        self._evaluation_step("test", batch)

    def on_train_epoch_start(self) -> None:
        """Seed dropout and mixup by epoch, so that a resumed run draws what the uninterrupted one would have."""
        epoch_seed = mixed_seed(self.hparams["seed"] + _NOISE_STREAM, self.current_epoch)
        torch.manual_seed(mixed_seed(epoch_seed, self.global_rank) if self.global_rank else epoch_seed)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training metrics."""
        self._log_epoch("train")
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log("learning_rate", rate, sync_dist=self.trainer.world_size > 1)
        self._step_plateau_scheduler()

    def _step_plateau_scheduler(self) -> None:
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, ReduceLROnPlateau):
            monitor = self.hparams["scheduler"]["monitor"]
            scheduler.step(float(self.trainer.callback_metrics[monitor]))

    def lr_scheduler_step(self, scheduler: LRScheduler, metric: Any) -> None:
        """Step a scheduler; ReduceLROnPlateau has been stepped at the epoch's end already.

        Lightning steps it after the checkpoint is written and skips that step on resuming, so that a resumed run would
        lag one epoch behind.
        """
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's validation metrics."""
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_epoch("test")

    def configure_optimizers(self) -> Any:
        """Build the optimizer and the scheduler from their settings."""
        settings = dict(self.hparams["optimizer"])
        optimizer = _class(settings.pop("_target_"), torch.optim.Optimizer)(self.parameters(), **settings)
        if self.hparams["scheduler"] is None:
            return {"optimizer": optimizer}
        settings = dict(self.hparams["scheduler"])
        kind = _class(settings.pop("_target_"), LRScheduler)
        lightning_settings = {"interval": settings.pop("interval")}
        if "monitor" in settings:
            lightning_settings["monitor"] = settings.pop("monitor")
        if issubclass(kind, OneCycleLR):
            steps, epochs = int(self.trainer.estimated_stepping_batches), self.trainer.max_epochs or 1
            settings["total_steps"] = steps * settings.pop("epochs", epochs) // epochs
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": kind(optimizer, **settings), **lightning_settings},
        }

    @classmethod
    def load(cls, path: Path) -> Self:
        """Rebuild the module from a checkpoint; nothing in the file is executed.

        Raises
        ------
        CheckpointError
            The file is missing, damaged, or no checkpoint of this project.
        """
        checkpoint = read_checkpoint(path)
        try:
            module = cls(**checkpoint["hyper_parameters"])
            module.load_state_dict(checkpoint["state_dict"])
        except (TypeError, RuntimeError, KeyError, ValueError) as error:
            raise CheckpointError(f"{path}: its weights do not fit its settings ({error})") from error
        return module.eval()

    def _loss_of(self, split: str) -> MeanMetric:
        return cast(MeanMetric, self.losses[f"{split}_rows"])

    def _loss(self, logits: Tensor, genres: Tensor) -> Tensor:
        return functional.cross_entropy(
            logits, genres, weight=self.class_weights, label_smoothing=self.hparams["label_smoothing"]
        )

    def _mixup_step(self, features: Tensor, genres: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        alpha = self.hparams["mixup"]
        # Two gammas make a Beta draw from torch's own stream, which is seeded by epoch.
        draws = torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64))
        share = float((draws[0] / draws.sum()).clamp(0.0, 1.0))
        other = torch.randperm(len(genres), device=genres.device)
        logits = self(share * features + (1.0 - share) * features[other])
        loss = share * self._loss(logits, genres) + (1.0 - share) * self._loss(logits, genres[other])
        return loss, logits, genres if share >= 0.5 else genres[other]

    def _evaluation_step(self, split: str, batch: Batch) -> None:
        features, genres = batch
        logits = self(features)
        self._loss_of(split).update(functional.cross_entropy(logits, genres), len(genres))
        self._outputs[split].append((logits, genres))

    def _log_epoch(self, split: str) -> None:
        logits, genres = (torch.cat(parts) for parts in zip(*self._outputs[split], strict=True))
        self._outputs[split].clear()
        loss: Tensor = self._loss_of(split).compute()
        self._loss_of(split).reset()
        if not torch.isfinite(loss):
            raise DivergedError(
                f"epoch {self.current_epoch}: the {split} loss is {float(loss)}; lower optimizer.lr="
                f"{self.hparams['optimizer'].get('lr')}, or clip gradients with trainer.gradient_clip_val=1.0"
            )
        scores = self.metrics[f"{split}_rows"](logits, genres)
        values = {
            f"{split}/loss": loss,
            **{f"{split}/{name}": value for name, value in scores.values.items()},
        }
        if split != "train":
            per_genre = zip(self.genre_names, scores.f1_per_genre, strict=True)
            values |= {f"{split}/f1_by_genre/{name}": value for name, value in per_genre}
        self.log_dict(values, sync_dist=self.trainer.world_size > 1)


def build_network(settings: Mapping[str, Any]) -> nn.Module:
    """Build a network from ``_target_`` and its arguments.

    Raises
    ------
    ConfigError
        ``_target_`` is no network class, or does not take these arguments.
    """
    arguments = dict(settings)
    kind = _class(arguments.pop("_target_"), nn.Module)
    try:
        network: nn.Module = kind(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model: {error}") from error
    return network


def _class(path: str, base: type) -> type[Any]:
    """Return the class of a dotted path. Since a checkpoint may come from anywhere, the class must be of the expected
    kind, and its module one of ours, of torch's, or one that the caller has already imported."""
    module_name, _, name = path.rpartition(".")
    if module_name.split(".")[0] in {"genre_classifier", "torch"}:
        import_module(module_name)
    module = sys.modules.get(module_name)
    if module is None:
        raise ConfigError(f"{path}: import its module first; a name in a checkpoint alone imports nothing")
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(
            f"_target_={path}: expected a class derived from {base.__module__}.{base.__qualname__}"
        )
    return found
