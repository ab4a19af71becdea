"""The configuration's schema: what can be set, its type and default, and what must hold across fields.

Composing and checking a configuration imports neither torch nor Lightning, so a mistake is answered at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Optional, TypeVar, Union, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genre_classifier import metric_definitions
from genre_classifier.errors import ConfigError
from genre_classifier.features.sets import FMA_SERIES

# ruff: noqa: UP045 - OmegaConf 2.3 reads Optional[] and Union[], not "X | Y", from a schema.


class NanPolicy(Enum):
    """What a reader does with a row that holds NaN or infinity."""

    error = "error"
    drop = "drop"


class SplitMethod(Enum):
    """How rows are divided; `auto` is `grouped` where the table has groups, else `stratified`.

    With `all` every row trains and none is held out, for a model whose configuration was judged before; rows that
    the split's files leave out stay out.
    """

    auto = "auto"
    stratified = "stratified"
    grouped = "grouped"
    given = "given"
    all = "all"


class Interval(Enum):
    """When a learning-rate scheduler moves."""

    epoch = "epoch"
    step = "step"


class Refit(Enum):
    """Which rows an exported model is trained on anew: `full` is all of them."""

    full = "full"


class ClassWeights(Enum):
    """Weight of a genre in the loss; `balanced` is inverse to its share of the training rows."""

    none = "none"
    balanced = "balanced"


class Accelerator(Enum):
    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"
    mps = "mps"


class Strategy(Enum):
    auto = "auto"
    ddp = "ddp"


class GradientClipAlgorithm(Enum):
    norm = "norm"
    value = "value"


METRICS = tuple(metric.name for metric in metric_definitions.METRICS)
SELECTION_METRICS = tuple(f"{split}/{name}" for split in ("val", "train") for name in METRICS)


def better_is_higher(metric: str) -> bool:
    """Return whether a larger value of a metric such as ``val/f1`` is the better one."""
    name = metric.rpartition("/")[2]
    return name not in {known.name for known in metric_definitions.METRICS if not known.higher_is_better}


@dataclass
class SplitFiles:
    """Files of ids, one id or path a line. Rows that no file names are left out, unless `train` is not given."""

    train: Optional[str] = None
    val: Optional[str] = None
    test: Optional[str] = None


@dataclass
class SplitConfig:
    """How rows are divided into training, validation and test rows."""

    method: SplitMethod = SplitMethod.auto
    train: float = 0.70
    val: float = 0.15
    test: float = 0.15
    seed: int = 42
    column: Optional[str] = None
    files: SplitFiles = field(default_factory=SplitFiles)
    folds: Optional[int] = None
    fold: Optional[int] = None


@dataclass
class DataConfig:
    """Where the rows come from, and how they reach the network."""

    source: str = MISSING
    nan: NanPolicy = NanPolicy.error
    batch_size: int = 64
    split: SplitConfig = field(default_factory=SplitConfig)


@dataclass
class DemoConfig(DataConfig):
    """The embedded synthetic table."""

    source: str = "demo"


@dataclass
class TableConfig(DataConfig):
    """A CSV, TSV or Parquet file with one row a track (or segment)."""

    source: str = "table"
    path: str = MISSING
    label: str = "label"
    group: Optional[str] = None
    id: Optional[str] = None
    features: Optional[list[str]] = None


@dataclass
class GtzanConfig(DataConfig):
    """GTZAN's feature table in its usual column layout."""

    source: str = "gtzan"
    path: str = MISSING


class FmaSubset(Enum):
    """At most this size, as in FMA's own tools."""

    small = "small"
    medium = "medium"
    large = "large"


class FmaGroup(Enum):
    """What must stay on one side of a split."""

    artist = "artist"
    album = "album"


@dataclass
class FmaConfig(DataConfig):
    """FMA's features.csv and tracks.csv, as published."""

    source: str = "fma"
    path: str = MISSING
    subset: FmaSubset = FmaSubset.small
    feature_groups: Optional[list[str]] = None
    group: Optional[FmaGroup] = FmaGroup.artist


class AudioFeatures(Enum):
    """Which features are measured."""

    core20 = "core20"
    gtzan57 = "gtzan57"
    fma518 = "fma518"


@dataclass
class AudioFolderConfig(DataConfig):
    """Audio files in FOLDER/GENRE/[ARTIST/]FILE, or those that a CSV file lists; measured once and kept."""

    source: str = "audio_folder"
    path: str = MISSING
    features: AudioFeatures = AudioFeatures.core20
    offset: float = 0.0
    duration: Optional[float] = None
    windows: Optional[float] = None
    strict: bool = False
    jobs: Optional[int] = None
    cache: Optional[str] = None


@dataclass
class ModelConfig:
    """The network's own arguments; the number of features and of genres comes from the data."""

    _target_: str = "genre_classifier.network.GenreClassifier"
    hidden_dims: list[int] = field(default_factory=lambda: [128, 64, 32])
    dropout: float = 0.3


@dataclass
class LossConfig:
    """Cross entropy and what softens it while training."""

    label_smoothing: float = 0.1
    class_weights: ClassWeights = ClassWeights.none
    mixup: float = 0.0


@dataclass
class OptimizerConfig:
    _target_: str = MISSING
    lr: float = MISSING
    weight_decay: float = 0.0


@dataclass
class AdamConfig(OptimizerConfig):
    _target_: str = "torch.optim.Adam"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass
class AdamWConfig(AdamConfig):
    _target_: str = "torch.optim.AdamW"
    weight_decay: float = 0.01


@dataclass
class SGDConfig(OptimizerConfig):
    _target_: str = "torch.optim.SGD"
    lr: float = 0.05
    momentum: float = 0.9
    nesterov: bool = True


@dataclass
class SchedulerConfig:
    _target_: str = MISSING
    interval: Interval = Interval.epoch


@dataclass
class CosineConfig(SchedulerConfig):
    _target_: str = "torch.optim.lr_scheduler.CosineAnnealingLR"
    T_max: int = "${trainer.max_epochs}"  # type: ignore[assignment]
    eta_min: float = 0.0


@dataclass
class OneCycleConfig(SchedulerConfig):
    """One cycle over `epochs`; how many steps that makes is the run's own business."""

    _target_: str = "torch.optim.lr_scheduler.OneCycleLR"
    interval: Interval = Interval.step
    epochs: int = "${trainer.max_epochs}"  # type: ignore[assignment]
    max_lr: float = "${optimizer.lr}"  # type: ignore[assignment]
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    cycle_momentum: bool = False


@dataclass
class PlateauConfig(SchedulerConfig):
    _target_: str = "torch.optim.lr_scheduler.ReduceLROnPlateau"
    monitor: str = "${optimized_metric}"
    factor: float = 0.5
    patience: int = 4
    threshold: float = 1e-4
    min_lr: float = 0.0


@dataclass
class TrainerConfig:
    """Arguments of lightning.Trainer, and how many mini-batches one of its training steps takes.

    More of them cost less and give the same weights. What training/engine refuses is trained by autograd, one
    mini-batch at a time.
    """

    accelerator: Accelerator = Accelerator.cpu
    devices: int = 1
    num_nodes: int = 1
    strategy: Strategy = Strategy.auto
    precision: str = "32-true"
    max_epochs: int = 50
    min_epochs: Optional[int] = None
    max_time: Optional[str] = None
    gradient_clip_val: Optional[float] = None
    gradient_clip_algorithm: GradientClipAlgorithm = GradientClipAlgorithm.norm
    accumulate_grad_batches: int = 1
    batches_per_training_step: int = 100
    limit_train_batches: Optional[int] = None
    overfit_batches: int = 0
    deterministic: bool = True
    detect_anomaly: bool = False
    profiler: Optional[str] = None
    enable_progress_bar: bool = True


@dataclass
class EarlyStoppingConfig:
    """Stop when the monitored metric has not improved by `min_delta` for `patience` epochs."""

    monitor: str = "${optimized_metric}"
    patience: int = 10
    min_delta: float = 0.0


@dataclass
class CheckpointConfig:
    """Keep the best epoch by the monitored metric, and the last one; without a metric the last is the best."""

    monitor: Optional[str] = "${optimized_metric}"


@dataclass
class EMAConfig:
    """Exponential moving average of the weights: validated, kept and exported in place of the raw ones."""

    decay: float = 0.99


@dataclass
class CallbacksConfig:
    """Keyed; null switches one off."""

    early_stopping: Optional[EarlyStoppingConfig] = None
    checkpoint: Optional[CheckpointConfig] = None
    ema: Optional[EMAConfig] = None


@dataclass
class LoggerConfig:
    _target_: str = MISSING


@dataclass
class TensorBoardConfig(LoggerConfig):
    _target_: str = "genre_classifier.training.loggers.SplitTensorBoardLogger"
    save_dir: str = "${run_dir}/tensorboard"
    figures: bool = True


@dataclass
class CSVLoggerConfig(LoggerConfig):
    _target_: str = "lightning.pytorch.loggers.CSVLogger"
    save_dir: str = "${run_dir}"
    name: str = "csv"
    version: str = ""


@dataclass
class MLflowConfig(LoggerConfig):
    _target_: str = "genre_classifier.training.loggers.mlflow_logger"
    experiment_name: str = "genre-classifier"
    run_name: Optional[str] = None
    tracking_uri: str = "sqlite:///outputs/mlflow.db"


@dataclass
class SweepConfig:
    """A multirun as a whole: `resume` names the folder of one to finish, `max_trials` guards against a typo."""

    resume: Optional[str] = None
    max_trials: int = 1000


@dataclass
class TrainConfig:
    """Everything that `train.py` can be told."""

    data: DataConfig = MISSING
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = MISSING
    scheduler: Optional[SchedulerConfig] = None
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)
    logger: Optional[LoggerConfig] = None
    seed: int = 42
    threads: int = 1
    optimized_metric: str = "val/f1"
    ckpt_path: Optional[str] = None
    sweep: SweepConfig = field(default_factory=SweepConfig)
    run_dir: str = "${hydra:runtime.output_dir}"


@dataclass
class ExportConfig:
    """Everything that `export.py` can be told."""

    run: Optional[str] = None
    sweep: Optional[str] = None
    ckpt: Optional[str] = None
    outputs_dir: str = "outputs"
    model_name: str = "genre_classifier_production"
    save_dir: str = "trained_models"
    versioned: bool = False
    onnx: Optional[bool] = None
    temperature_scaling: bool = False
    refit: Optional[Refit] = None
    strict: bool = False
    min_test_accuracy: float = 0.75
    max_milliseconds: float = 50.0


SCHEMAS = {
    "schema_train": TrainConfig,
    "schema_export": ExportConfig,
    "schema_data_demo": DemoConfig,
    "schema_data_table": TableConfig,
    "schema_data_gtzan": GtzanConfig,
    "schema_data_fma": FmaConfig,
    "schema_data_audio_folder": AudioFolderConfig,
    "schema_adam": AdamConfig,
    "schema_adamw": AdamWConfig,
    "schema_sgd": SGDConfig,
    "schema_cosine": CosineConfig,
    "schema_one_cycle": OneCycleConfig,
    "schema_plateau": PlateauConfig,
    "schema_early_stopping": EarlyStoppingConfig,
    "schema_checkpoint": CheckpointConfig,
    "schema_ema": EMAConfig,
    "schema_tensorboard": TensorBoardConfig,
    "schema_csv": CSVLoggerConfig,
    "schema_mlflow": MLflowConfig,
}


def register_schemas() -> None:
    """Put the schemas where the YAML files' defaults lists find them."""
    store = ConfigStore.instance()
    for name, node in SCHEMAS.items():
        store.store(name=name, node=node, provider="genre_classifier")


@dataclass(frozen=True)
class Range:
    """An interval of allowed numbers; a round bracket leaves its end out."""

    low: float = float("-inf")
    high: float = float("inf")
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below

    def __str__(self) -> str:
        if self.high == float("inf"):
            return f"a number {'above' if self.low_open else 'of at least'} {self.low:g}"
        return f"a number in {'(' if self.low_open else '['}{self.low:g}, {self.high:g}{')' if self.high_open else ']'}"


_POSITIVE = Range(0, low_open=True)
_AT_LEAST_0 = Range(0)
_AT_LEAST_1 = Range(1)
_SHARE = Range(0, 1)
_BELOW_1 = Range(0, 1, high_open=True)

RANGES = {
    "seed": Range(0, 2**32 - 1),
    "threads": _AT_LEAST_1,
    "data.batch_size": _AT_LEAST_1,
    "data.offset": _AT_LEAST_0,
    "data.duration": _AT_LEAST_1,
    "data.windows": _AT_LEAST_1,
    "data.jobs": _AT_LEAST_1,
    "data.split.train": Range(0, 1, low_open=True),
    "data.split.val": _BELOW_1,
    "data.split.test": _BELOW_1,
    "data.split.seed": Range(0, 2**32 - 1),
    "data.split.folds": Range(2),
    "data.split.fold": _AT_LEAST_0,
    "model.dropout": _BELOW_1,
    "model.hidden_dims": _AT_LEAST_1,
    "loss.label_smoothing": _BELOW_1,
    "loss.mixup": _AT_LEAST_0,
    "optimizer.lr": _POSITIVE,
    "optimizer.weight_decay": _AT_LEAST_0,
    "optimizer.betas": _BELOW_1,
    "optimizer.eps": _POSITIVE,
    "optimizer.momentum": _BELOW_1,
    "scheduler.T_max": _AT_LEAST_1,
    "scheduler.eta_min": _AT_LEAST_0,
    "scheduler.epochs": _AT_LEAST_1,
    "scheduler.max_lr": _POSITIVE,
    "scheduler.pct_start": Range(0, 1, low_open=True, high_open=True),
    "scheduler.div_factor": Range(1),
    "scheduler.final_div_factor": Range(1),
    "scheduler.factor": Range(0, 1, low_open=True, high_open=True),
    "scheduler.patience": _AT_LEAST_0,
    "scheduler.threshold": _AT_LEAST_0,
    "scheduler.min_lr": _AT_LEAST_0,
    "trainer.devices": Range(-1),
    "trainer.num_nodes": _AT_LEAST_1,
    "trainer.max_epochs": _AT_LEAST_1,
    "trainer.min_epochs": _AT_LEAST_1,
    "trainer.gradient_clip_val": _POSITIVE,
    "trainer.accumulate_grad_batches": _AT_LEAST_1,
    "trainer.batches_per_training_step": _AT_LEAST_1,
    "trainer.limit_train_batches": _AT_LEAST_1,
    "trainer.overfit_batches": _AT_LEAST_0,
    "callbacks.early_stopping.patience": _AT_LEAST_1,
    "callbacks.early_stopping.min_delta": _AT_LEAST_0,
    "callbacks.ema.decay": _BELOW_1,
    "sweep.max_trials": _AT_LEAST_1,
    "min_test_accuracy": _SHARE,
    "max_milliseconds": _POSITIVE,
}

MAY_BE_EMPTY = frozenset({"model.hidden_dims"})  # a linear model

CHOICES = {
    "optimized_metric": SELECTION_METRICS,
    "scheduler.monitor": SELECTION_METRICS,
    "callbacks.early_stopping.monitor": SELECTION_METRICS,
    "callbacks.checkpoint.monitor": (*SELECTION_METRICS, None),
    "trainer.precision": ("32-true", "64-true", "bf16-mixed", "bf16-true", "16-mixed", "16-true"),
    "trainer.profiler": (None, "simple", "advanced"),
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a configuration: the keys it is about, and the sentence for the user."""

    keys: tuple[str, ...]
    message: str


def find_problems(cfg: DictConfig) -> list[Problem]:
    """Return everything that is wrong with a composed configuration, in the order of its keys."""
    return [
        *_unknown_keys(cfg),
        *_missing_values(cfg),
        *_out_of_range(cfg),
        *_not_a_choice(cfg),
        *_contradictions(cfg),
    ]


def check(cfg: DictConfig) -> None:
    """Raise one ConfigError that lists all problems of a composed configuration, if there are any."""
    raise_problems(find_problems(cfg))


def raise_problems(problems: list[Problem]) -> None:
    """Raise one ConfigError that lists the problems, if there are any."""
    if len(problems) == 1:
        raise ConfigError(problems[0].message)
    if problems:
        lines = "\n".join(f"  - {problem.message}" for problem in problems)
        raise ConfigError(f"the configuration has {len(problems)} problems:\n{lines}")


def typed(cfg: DictConfig) -> TrainConfig:
    """Return a checked configuration as its dataclasses, every interpolation resolved.

    Raises
    ------
    ConfigError
        Naming every problem of the configuration.
    """
    check(cfg)
    return _as_object(cfg, TrainConfig, "schema_train")


def typed_export(cfg: DictConfig) -> ExportConfig:
    """Return export.py's checked configuration as its dataclass.

    Raises
    ------
    ConfigError
        Naming every problem of the configuration.
    """
    check(cfg)
    return _as_object(cfg, ExportConfig, "schema_export")


ConfigT = TypeVar("ConfigT", TrainConfig, ExportConfig)


def _as_object(cfg: DictConfig, kind: type[ConfigT], schema: str) -> ConfigT:
    settings = OmegaConf.to_object(cfg)
    if not isinstance(settings, kind):
        raise ConfigError(
            f"the configuration is a {type(settings).__name__}, not a {kind.__name__}: its defaults list must start "
            f"with {schema}"
        )
    return settings


def restored(saved: DictConfig) -> DictConfig:
    """Give a run's saved configuration, as read from YAML, the schemas it was composed with.

    Raises
    ------
    ConfigError
        It has a key or value that no schema takes, as that of another version may.
    """
    cfg = OmegaConf.structured(TrainConfig)
    try:
        for group, base in (
            ("data", DataConfig),
            ("optimizer", OptimizerConfig),
            ("scheduler", SchedulerConfig),
            ("logger", LoggerConfig),
        ):
            if saved.get(group) is not None:
                cfg[group] = _schema_of(group, saved[group], base)
        merged = OmegaConf.merge(cfg, saved)
    except OmegaConfBaseException as error:
        raise ConfigError(f"the run's saved configuration: {explain(error) or error}") from error
    assert isinstance(merged, DictConfig)
    return merged


def _schema_of(group: str, saved: DictConfig, base: type) -> type:
    """Return the schema whose keys are the saved ones, by preference the one with the same class or source."""
    keys = {str(key) for key in saved}
    choices = [kind for kind in SCHEMAS.values() if issubclass(kind, base)]
    fitting = [kind for kind in choices if is_dataclass(kind) and keys == {f.name for f in fields(kind)}]
    if not fitting:
        raise ConfigError(
            f"the run's saved configuration: {group} has the keys {', '.join(sorted(keys))}, which are those of no "
            f"{group} in this version of genre-classifier; use the version that trained the run"
        )
    name = "source" if base is DataConfig else "_target_"
    return next((kind for kind in fitting if getattr(kind, name) == saved.get(name)), fitting[0])


def _unknown_keys(node: DictConfig, path: str = "") -> Iterator[Problem]:
    # Hydra's "+key=value" adds a key that no schema has.
    kind = OmegaConf.get_type(node)
    allowed = [f.name for f in fields(kind)] if is_dataclass(kind) else None
    for name in map(str, node):
        key = f"{path}{name}"
        child = (
            None if OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name) else node[name]
        )
        if allowed is not None and name not in allowed:
            yield Problem((key,), f"{key}: there is no such key; remove it or correct its name")
        elif isinstance(child, DictConfig):
            yield from _unknown_keys(child, f"{key}.")


def _missing_values(cfg: DictConfig) -> Iterator[Problem]:
    for key in sorted(OmegaConf.missing_keys(cfg)):
        yield Problem((key,), f"{key} has no value: set it, as in {key}=...")


def _out_of_range(cfg: DictConfig) -> Iterator[Problem]:
    for key, allowed in RANGES.items():
        value = OmegaConf.select(cfg, key, throw_on_missing=False)
        if value is None:
            continue
        numbers = list(value) if OmegaConf.is_list(value) else [value]
        if not numbers and key not in MAY_BE_EMPTY:
            yield Problem((key,), f"{key}=[]: expected one or more numbers")
        if any(number not in allowed for number in numbers):
            shown = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            yield Problem((key,), f"{key}={shown}: expected {allowed}")


def _not_a_choice(cfg: DictConfig) -> Iterator[Problem]:
    for key, allowed in CHOICES.items():
        node = OmegaConf.select(cfg, key.rpartition(".")[0]) if "." in key else cfg
        if node is None or key.rpartition(".")[2] not in node:
            continue
        value = OmegaConf.select(cfg, key)
        if value not in allowed:
            names = ", ".join("null" if choice is None else str(choice) for choice in allowed)
            reason = " (test metrics never take part in choosing)" if str(value).startswith("test/") else ""
            yield Problem((key,), f"{key}={value}: expected one of {names}{reason}")


def _contradictions(cfg: DictConfig) -> Iterator[Problem]:
    if OmegaConf.get_type(cfg) is ExportConfig:
        yield from _export_contradictions(cfg)
    else:
        yield from _train_contradictions(cfg)


def _export_contradictions(cfg: DictConfig) -> Iterator[Problem]:
    named = [key for key in ("run", "sweep", "ckpt") if cfg[key] is not None]
    if len(named) > 1:
        yield Problem(
            tuple(named),
            f"{' and '.join(f'{key}={cfg[key]}' for key in named)} "
            f"{'both' if len(named) == 2 else 'all'} say what to export: keep one of them",
        )
    if cfg.versioned and cfg.model_name != ExportConfig.model_name:
        yield Problem(
            ("versioned", "model_name"),
            f"versioned=true makes a name of its own, model_name={cfg.model_name} gives one: drop one of them",
        )
    if cfg.temperature_scaling and cfg.refit is not None:
        yield Problem(
            ("temperature_scaling", "refit"),
            "temperature_scaling=true needs validation rows, and refit=full trains on all rows: drop one of them",
        )


def _train_contradictions(cfg: DictConfig) -> Iterator[Problem]:
    if not OmegaConf.is_missing(cfg, "data"):
        yield from _unknown_feature_groups(cfg.data)
        yield from _split_contradictions(cfg.data.split)
        yield from _metric_contradictions(cfg)
    trainer = cfg.trainer
    if trainer.min_epochs is not None and trainer.min_epochs > trainer.max_epochs:
        yield Problem(
            ("trainer.min_epochs", "trainer.max_epochs"),
            f"trainer.min_epochs={trainer.min_epochs} is above trainer.max_epochs={trainer.max_epochs}: lower one",
        )
    if trainer.devices == 0:
        yield Problem(("trainer.devices",), "trainer.devices=0: expected 1 or more, or -1 for all there are")
    if trainer.max_time is not None and not _is_duration(trainer.max_time):
        yield Problem(
            ("trainer.max_time",), f"trainer.max_time={trainer.max_time}: expected days:hours:minutes:seconds"
        )
    epochs = OmegaConf.select(cfg, "scheduler.epochs", throw_on_missing=False)
    if epochs is not None and epochs < trainer.max_epochs:
        yield Problem(
            ("scheduler.epochs", "trainer.max_epochs"),
            f"scheduler.epochs={epochs} is below trainer.max_epochs={trainer.max_epochs}: the cycle would end "
            "before the training; raise it or lower the other",
        )
    if OmegaConf.is_missing(cfg, "optimizer"):
        return
    optimizer = cfg.optimizer
    if "betas" in optimizer and len(optimizer.betas) != 2:
        yield Problem(
            ("optimizer.betas",),
            f"optimizer.betas={list(optimizer.betas)}: expected two numbers, as in [0.9, 0.999]",
        )
    if optimizer.get("nesterov") and optimizer.get("momentum") == 0:
        yield Problem(
            ("optimizer.nesterov", "optimizer.momentum"),
            "optimizer.nesterov=true needs momentum: set optimizer.momentum above 0 or optimizer.nesterov=false",
        )


def _unknown_feature_groups(data: DictConfig) -> Iterator[Problem]:
    groups = data.get("feature_groups")
    unknown = [group for group in groups or () if group not in FMA_SERIES]
    if groups is not None and (unknown or not groups):
        found = ", ".join(unknown) or "nothing"
        yield Problem(
            ("data.feature_groups",),
            f"data.feature_groups names {found}: expected one or more of {', '.join(FMA_SERIES)}",
        )


def _split_contradictions(split: DictConfig) -> Iterator[Problem]:
    total = split.train + split.val + split.test
    if abs(total - 1.0) > 1e-6:
        yield Problem(
            ("data.split.train", "data.split.val", "data.split.test"),
            f"data.split.train={split.train:g}, val={split.val:g} and test={split.test:g} add up to {total:g}: "
            "the three shares must add up to 1",
        )
    files = [name for name in ("train", "val", "test") if split.files[name] is not None]
    given_by = [name for name, used in (("column", split.column is not None), ("files", bool(files))) if used]
    if len(given_by) == 2:
        yield Problem(
            ("data.split.column", "data.split.files"),
            f"data.split.column={split.column} and data.split.files both give the split: drop one of them",
        )
    if given_by and split.method not in (SplitMethod.auto, SplitMethod.given, SplitMethod.all):
        yield Problem(
            ("data.split.method", f"data.split.{given_by[0]}"),
            f"data.split.{given_by[0]} gives the split, data.split.method={split.method.name} makes one: "
            "drop one of them",
        )
    if split.method is SplitMethod.given and not given_by:
        yield Problem(
            ("data.split.column", "data.split.files"),
            "data.split.method=given needs data.split.column or data.split.files.test",
        )
    if split.method is SplitMethod.all and split.folds is not None:
        yield Problem(
            ("data.split.method", "data.split.folds"),
            f"data.split.method=all holds no rows out, data.split.folds={split.folds} does: drop one of them",
        )
    if files and "test" not in files:
        yield Problem(
            ("data.split.files",),
            "data.split.files needs the file of the test rows: set data.split.files.test",
        )
    if split.folds is not None and given_by:
        yield Problem(
            ("data.split.folds", f"data.split.{given_by[0]}"),
            f"data.split.folds={split.folds} makes a split, data.split.{given_by[0]} gives one: drop one of them",
        )
    if split.folds is not None and split.fold is None:
        yield Problem(
            ("data.split.fold",),
            f"data.split.folds={split.folds} needs data.split.fold, from 0 to {split.folds - 1}: which one tests",
        )
    if split.fold is not None and split.folds is None:
        yield Problem(
            ("data.split.folds",), f"data.split.fold={split.fold} needs data.split.folds: how many there are"
        )
    if split.fold is not None and split.folds is not None and split.fold >= split.folds:
        yield Problem(
            ("data.split.fold",),
            f"data.split.fold={split.fold} of data.split.folds={split.folds}: expected 0 to {split.folds - 1}",
        )


def _metric_contradictions(cfg: DictConfig) -> Iterator[Problem]:
    split = cfg.data.split
    holds_out = split.method is not SplitMethod.all
    if holds_out and (split.val > 0 or split.method is SplitMethod.given):
        return
    none_because = "data.split.val=0" if holds_out else "data.split.method=all"
    way_out = "use a train/ metric or give it a share" if holds_out else "use a train/ metric"
    for key in (
        "optimized_metric",
        "callbacks.early_stopping.monitor",
        "callbacks.checkpoint.monitor",
        "scheduler.monitor",
    ):
        value = OmegaConf.select(cfg, key, throw_on_missing=False)
        if value is not None and str(value).startswith("val/"):
            yield Problem(
                (key, "data.split.val"),
                f"{key}={value} needs validation rows, but {none_because}: {way_out}",
            )


def _is_duration(text: str) -> bool:
    parts = text.split(":")
    return len(parts) == 4 and all(part.isdigit() for part in parts)


def explain(error: OmegaConfBaseException) -> str | None:
    """Say which key, which value and what is allowed, for a key or value that the schema refuses.

    Returns None where the error is of another kind.
    """
    schema = error.object_type if is_dataclass(error.object_type) else None
    path = str(error.full_key or error.key or "")
    name = path.rpartition(".")[2]
    hints = get_type_hints(schema) if schema is not None else {}
    if type(error).__name__ in {"ConfigKeyError", "ConfigAttributeError"} and schema is not None:
        allowed = [f.name for f in fields(schema) if not f.name.startswith("_")]
        guess = difflib.get_close_matches(name, allowed, n=1)
        meant = f" Did you mean {path.removesuffix(name)}{guess[0]}?" if guess else ""
        place = path.removesuffix(name).rstrip(".") or "the configuration"
        return f"{path}: there is no such key. {place} has {', '.join(allowed)}.{meant}"
    if type(error).__name__ == "ValidationError":
        kind = hints.get(name.partition("[")[0])
        reason = str(error.msg or error).splitlines()[0]
        return f"{path}: {reason}" + (f" (expected {_describe(kind)})" if kind is not None else "")
    return None


def _describe(kind: object) -> str:
    if get_origin(kind) is Union:
        return " or ".join("null" if arg is type(None) else _describe(arg) for arg in get_args(kind))
    if get_origin(kind) in (list, tuple):
        return "a list such as [0.9, 0.99]" if float in get_args(kind) else "a list such as [128, 64, 32]"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(member.name for member in kind)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))  # type: ignore[call-overload]
