"""What can be set: each group's fields, their types and defaults, and beside each field the values it may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from genre_classifier.config.metrics import METRICS

# ruff: noqa: RUF009, UP045 - `limited` makes a field; OmegaConf 2.3 reads Optional[] and Union[], not "X | Y", from a schema.


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


def limited(allowed: Range | tuple[Any, ...], *, may_be_empty: bool = False, **default: Any) -> Any:
    """Return a field that may have these values only; of a list, each item.

    Parameters
    ----------
    allowed : Range or tuple
        An interval, or all values.
    may_be_empty : bool
        Whether a list may have no items.
    **default
        ``default`` or ``default_factory``, as `dataclasses.field` takes them.
    """
    return field(metadata={"allowed": allowed, "may_be_empty": may_be_empty}, **default)


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


SELECTION_METRICS = tuple(f"{split}/{metric.name}" for split in ("val", "train") for metric in METRICS)


def better_is_higher(metric: str) -> bool:
    """Return whether a larger value of a metric such as ``val/f1`` is the better one."""
    name = metric.rpartition("/")[2]
    return name not in {known.name for known in METRICS if not known.higher_is_better}


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
    train: float = limited(Range(0, 1, low_open=True), default=0.70)
    val: float = limited(_BELOW_1, default=0.15)
    test: float = limited(_BELOW_1, default=0.15)
    seed: int = limited(Range(0, 2**32 - 1), default=42)
    column: Optional[str] = None
    files: SplitFiles = field(default_factory=SplitFiles)
    folds: Optional[int] = limited(Range(2), default=None)
    fold: Optional[int] = limited(_AT_LEAST_0, default=None)


@dataclass
class DataConfig:
    """Where the rows come from, and how they reach the network."""

    source: str = MISSING
    nan: NanPolicy = NanPolicy.error
    batch_size: int = limited(_AT_LEAST_1, default=64)
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
    offset: float = limited(_AT_LEAST_0, default=0.0)
    duration: Optional[float] = limited(_AT_LEAST_1, default=None)
    windows: Optional[float] = limited(_AT_LEAST_1, default=None)
    strict: bool = False
    jobs: Optional[int] = limited(_AT_LEAST_1, default=None)
    cache: Optional[str] = None


@dataclass
class ModelConfig:
    """The network's own arguments; the number of features and of genres comes from the data."""

    _target_: str = "genre_classifier.network.GenreClassifier"
    hidden_dims: list[int] = limited(_AT_LEAST_1, default_factory=lambda: [128, 64, 32], may_be_empty=True)
    dropout: float = limited(_BELOW_1, default=0.3)


@dataclass
class LossConfig:
    """Cross entropy and what softens it while training."""

    label_smoothing: float = limited(_BELOW_1, default=0.1)
    class_weights: ClassWeights = ClassWeights.none
    mixup: float = limited(_AT_LEAST_0, default=0.0)


@dataclass
class OptimizerConfig:
    _target_: str = MISSING
    lr: float = limited(_POSITIVE, default=MISSING)
    weight_decay: float = limited(_AT_LEAST_0, default=0.0)


@dataclass
class AdamConfig(OptimizerConfig):
    _target_: str = "torch.optim.Adam"
    lr: float = 1e-3
    betas: tuple[float, float] = limited(_BELOW_1, default=(0.9, 0.999))
    eps: float = limited(_POSITIVE, default=1e-8)


@dataclass
class AdamWConfig(AdamConfig):
    _target_: str = "torch.optim.AdamW"
    weight_decay: float = 0.01


@dataclass
class SGDConfig(OptimizerConfig):
    _target_: str = "torch.optim.SGD"
    lr: float = 0.05
    momentum: float = limited(_BELOW_1, default=0.9)
    nesterov: bool = True


@dataclass
class SchedulerConfig:
    _target_: str = MISSING
    interval: Interval = Interval.epoch


@dataclass
class CosineConfig(SchedulerConfig):
    _target_: str = "torch.optim.lr_scheduler.CosineAnnealingLR"
    T_max: int = limited(_AT_LEAST_1, default="${trainer.max_epochs}")
    eta_min: float = limited(_AT_LEAST_0, default=0.0)


@dataclass
class OneCycleConfig(SchedulerConfig):
    """One cycle over `epochs`; how many steps that makes is the run's own business."""

    _target_: str = "torch.optim.lr_scheduler.OneCycleLR"
    interval: Interval = Interval.step
    epochs: int = limited(_AT_LEAST_1, default="${trainer.max_epochs}")
    max_lr: float = limited(_POSITIVE, default="${optimizer.lr}")
    pct_start: float = limited(Range(0, 1, low_open=True, high_open=True), default=0.3)
    div_factor: float = limited(Range(1), default=25.0)
    final_div_factor: float = limited(Range(1), default=1e4)
    cycle_momentum: bool = False


@dataclass
class PlateauConfig(SchedulerConfig):
    _target_: str = "torch.optim.lr_scheduler.ReduceLROnPlateau"
    monitor: str = limited(SELECTION_METRICS, default="${optimized_metric}")
    factor: float = limited(Range(0, 1, low_open=True, high_open=True), default=0.5)
    patience: int = limited(_AT_LEAST_0, default=4)
    threshold: float = limited(_AT_LEAST_0, default=1e-4)
    min_lr: float = limited(_AT_LEAST_0, default=0.0)


@dataclass
class TrainerConfig:
    """Arguments of lightning.Trainer, and how many mini-batches one of its training steps takes.

    More of them cost less and give the same weights. What training/engine refuses is trained by autograd, one
    mini-batch at a time.
    """

    accelerator: Accelerator = Accelerator.cpu
    devices: int = limited(Range(-1), default=1)
    num_nodes: int = limited(_AT_LEAST_1, default=1)
    strategy: Strategy = Strategy.auto
    precision: str = limited(
        ("32-true", "64-true", "bf16-mixed", "bf16-true", "16-mixed", "16-true"), default="32-true"
    )
    max_epochs: int = limited(_AT_LEAST_1, default=50)
    min_epochs: Optional[int] = limited(_AT_LEAST_1, default=None)
    max_time: Optional[str] = None
    gradient_clip_val: Optional[float] = limited(_POSITIVE, default=None)
    gradient_clip_algorithm: GradientClipAlgorithm = GradientClipAlgorithm.norm
    accumulate_grad_batches: int = limited(_AT_LEAST_1, default=1)
    batches_per_training_step: int = limited(_AT_LEAST_1, default=100)
    limit_train_batches: Optional[int] = limited(_AT_LEAST_1, default=None)
    overfit_batches: int = limited(_AT_LEAST_0, default=0)
    deterministic: bool = True
    detect_anomaly: bool = False
    profiler: Optional[str] = limited((None, "simple", "advanced"), default=None)
    enable_progress_bar: bool = True


@dataclass
class EarlyStoppingConfig:
    """Stop when the monitored metric has not improved by `min_delta` for `patience` epochs."""

    monitor: str = limited(SELECTION_METRICS, default="${optimized_metric}")
    patience: int = limited(_AT_LEAST_1, default=10)
    min_delta: float = limited(_AT_LEAST_0, default=0.0)


@dataclass
class CheckpointConfig:
    """Keep the best epoch by the monitored metric, and the last one; without a metric the last is the best."""

    monitor: Optional[str] = limited((*SELECTION_METRICS, None), default="${optimized_metric}")


@dataclass
class EMAConfig:
    """Exponential moving average of the weights: validated, kept and exported in place of the raw ones."""

    decay: float = limited(_BELOW_1, default=0.99)


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
    figures: Optional[bool] = None  # null: a single run draws its figures, a trial of a sweep draws none


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
    max_trials: int = limited(_AT_LEAST_1, default=1000)


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
    seed: int = limited(Range(0, 2**32 - 1), default=42)
    threads: int = limited(_AT_LEAST_1, default=1)
    optimized_metric: str = limited(SELECTION_METRICS, default="val/f1")
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
    min_test_accuracy: float = limited(_SHARE, default=0.75)
    max_milliseconds: float = limited(_POSITIVE, default=50.0)
    allow: list[str] = field(default_factory=list)


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


def limit_of(kind: type, name: str) -> Mapping[str, Any]:
    """Return what `limited` says of a field of a schema, here or in the schema it is derived from."""
    for base in kind.__mro__:
        if name in vars(base).get("__annotations__", {}):
            limit = next(entry.metadata for entry in fields(base) if entry.name == name)
            if limit:
                return limit
    return {}


def data_settings(source: str) -> frozenset[str]:
    """Return the names of a source's settings, below ``data``."""
    return frozenset(setting.name for setting in fields(SCHEMAS.get(f"schema_data_{source}", DataConfig)))


def register_schemas() -> None:
    """Put the schemas where the YAML files' defaults lists find them."""
    store = ConfigStore.instance()
    for name, node in SCHEMAS.items():
        store.store(name=name, node=node, provider="genre_classifier")
