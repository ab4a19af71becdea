"""The settings of each config group: name, type, default, allowed values and meaning of every field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import cache
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from genre_classifier.config.metrics import METRICS

# ruff: noqa: RUF009, UP045 - `limited` makes a field; OmegaConf 2.3 reads Optional[] and Union[], not "X | Y", from a schema.


@dataclass(frozen=True)
class Range:
    """An interval of allowed numbers. A round bracket excludes its end."""

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
    """Return a dataclass field that takes only these values. In a list, each item must be one of them.

    Parameters
    ----------
    allowed : Range or tuple
        An interval, or a tuple of all allowed values.
    may_be_empty : bool
        Whether a list may have no items.
    **default
        ``default`` or ``default_factory``, as `dataclasses.field` takes them.
    """
    return field(metadata={"allowed": allowed, "may_be_empty": may_be_empty}, **default)


class NanPolicy(Enum):
    """How a reader treats a row that holds NaN or infinity."""

    error = "error"
    drop = "drop"


class SplitMethod(Enum):
    """How rows are divided. `auto` is `grouped` if the table has groups, else `stratified`.

    With `all`, every row trains and none is held out. Use it for a configuration that was tested before. Rows that the
    split's files omit are not used.
    """

    auto = "auto"
    stratified = "stratified"
    grouped = "grouped"
    given = "given"
    all = "all"


class Interval(Enum):
    """When a learning-rate scheduler changes the rate."""

    epoch = "epoch"
    step = "step"


class Refit(Enum):
    """The rows that an exported model is trained on again. `full` is all rows."""

    full = "full"


class ClassWeights(Enum):
    """The weight of a genre in the loss. `balanced` is inverse to the genre's share of the training rows."""

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


def is_higher_better(metric: str) -> bool:
    """Return whether a larger value of a metric such as ``val/f1`` is better."""
    name = metric.rpartition("/")[2]
    return name not in {known.name for known in METRICS if not known.higher_is_better}


@dataclass
class SplitFiles:
    """Files of ids, one id or path per line. Rows that no file names are left out, unless `train` is not given."""

    train: Optional[str] = None  # training rows; null: all rows that no other file names
    val: Optional[str] = None  # validation rows; null: the share `val` of the training rows
    test: Optional[str] = None  # test rows


@dataclass
class SplitConfig:
    """How rows are divided into training, validation and test rows."""

    method: SplitMethod = SplitMethod.auto  # see SplitMethod
    train: float = limited(Range(0, 1, low_open=True), default=0.70)  # share of the rows that train
    val: float = limited(_BELOW_1, default=0.15)  # share of the rows that choose the epoch
    test: float = limited(_BELOW_1, default=0.15)  # share of the rows that judge the result
    seed: int = limited(Range(0, 2**32 - 1), default=42)  # seed of the split alone, apart from the run's seed
    column: Optional[str] = None  # column that names each row's side
    files: SplitFiles = field(default_factory=SplitFiles)  # files that list each side's rows
    # number of folds of a k-fold split; null: one split
    folds: Optional[int] = limited(Range(2), default=None)
    fold: Optional[int] = limited(_AT_LEAST_0, default=None)  # the fold that tests, from 0


@dataclass
class DataConfig:
    """Where the rows come from, and how they reach the network."""

    source: str = MISSING  # name of the reader
    nan: NanPolicy = NanPolicy.error  # rows with NaN or infinity: an error, or dropped
    batch_size: int = limited(_AT_LEAST_1, default=64)  # rows per mini-batch
    split: SplitConfig = field(default_factory=SplitConfig)  # how the rows are divided


@dataclass
class DemoConfig(DataConfig):
    """The embedded synthetic table."""

    source: str = "demo"


@dataclass
class TableConfig(DataConfig):
    """A CSV, TSV or Parquet file with one row per track (or segment)."""

    source: str = "table"
    path: str = MISSING  # the file
    label: str = "label"  # column with the genre
    group: Optional[str] = None  # column whose rows stay on one side of a split, such as the artist
    id: Optional[str] = None  # column that names a row; null: rows are numbered
    features: Optional[list[str]] = None  # columns to train on; null: all remaining numeric columns


@dataclass
class GtzanConfig(DataConfig):
    """GTZAN's feature table in its usual column layout."""

    source: str = "gtzan"
    path: str = MISSING  # the CSV file


class FmaSubset(Enum):
    """FMA's subsets. Each contains the smaller ones."""

    small = "small"
    medium = "medium"
    large = "large"


class FmaGroup(Enum):
    """The rows that stay on one side of a split: those of an artist, or of an album."""

    artist = "artist"
    album = "album"


@dataclass
class FmaConfig(DataConfig):
    """FMA's features.csv and tracks.csv, as published."""

    source: str = "fma"
    path: str = MISSING  # folder with features.csv and tracks.csv
    subset: FmaSubset = FmaSubset.small  # the largest subset to take
    feature_groups: Optional[list[str]] = None  # such as [mfcc, tonnetz]; null: all eleven
    group: Optional[FmaGroup] = FmaGroup.artist  # what stays on one side of a split; null: nothing


class AudioFeatures(Enum):
    """The feature sets that can be measured from audio."""

    core20 = "core20"
    gtzan57 = "gtzan57"
    fma518 = "fma518"
    musicnn50 = "musicnn50"
    musicnn = "musicnn"


@dataclass
class AudioFolderConfig(DataConfig):
    """Audio files in FOLDER/GENRE/[ARTIST/]FILE, or those that a CSV file lists. Each is measured once and kept."""

    source: str = "audio_folder"
    path: str = MISSING  # the folder, or a CSV file that lists files
    features: AudioFeatures = AudioFeatures.core20  # feature set
    offset: float = limited(_AT_LEAST_0, default=0.0)  # where to start in each file, in seconds
    # how much to measure, in seconds; null: 30, or the whole file with windows
    duration: Optional[float] = limited(_AT_LEAST_1, default=None)
    # length of a window, in seconds, one row each; null: one row per file
    windows: Optional[float] = limited(_AT_LEAST_1, default=None)
    strict: bool = False  # whether a file that cannot be measured is an error
    jobs: Optional[int] = limited(_AT_LEAST_1, default=None)  # processes; null: one per core
    cache: Optional[str] = None  # file that keeps measured features; null: in the user's cache folder


@dataclass
class ModelConfig:
    """Arguments of the network. The data gives the number of features and of genres."""

    _target_: str = "genre_classifier.network.GenreClassifier"  # class of the network
    # units of each hidden layer; []: a linear model
    hidden_dims: list[int] = limited(_AT_LEAST_1, default_factory=lambda: [128, 64, 32], may_be_empty=True)
    # share of units set to 0 after each hidden layer but the last
    dropout: float = limited(_BELOW_1, default=0.3)


@dataclass
class LossConfig:
    """Cross entropy, and how its targets are softened in training."""

    # share of the target that is spread over all genres
    label_smoothing: float = limited(_BELOW_1, default=0.1)
    class_weights: ClassWeights = ClassWeights.none  # weights of the genres
    # alpha of the Beta distribution that mixes pairs of rows; 0: no mixup
    mixup: float = limited(_AT_LEAST_0, default=0.0)


@dataclass
class OptimizerConfig:
    _target_: str = MISSING  # class of the optimizer
    lr: float = limited(_POSITIVE, default=MISSING)  # learning rate
    # L2 penalty; AdamW decouples it from the gradient
    weight_decay: float = limited(_AT_LEAST_0, default=0.0)


@dataclass
class AdamConfig(OptimizerConfig):
    _target_: str = "torch.optim.Adam"
    lr: float = 1e-3
    # decay of the running means of the gradient and of its square
    betas: tuple[float, float] = limited(_BELOW_1, default=(0.9, 0.999))
    eps: float = limited(_POSITIVE, default=1e-8)  # added to the denominator


@dataclass
class AdamWConfig(AdamConfig):
    _target_: str = "torch.optim.AdamW"
    weight_decay: float = 0.01


@dataclass
class SGDConfig(OptimizerConfig):
    _target_: str = "torch.optim.SGD"
    lr: float = 0.05
    momentum: float = limited(_BELOW_1, default=0.9)  # share of the last update that is kept
    nesterov: bool = True  # whether momentum looks ahead


@dataclass
class SchedulerConfig:
    _target_: str = MISSING  # class of the scheduler
    interval: Interval = Interval.epoch  # when it moves


@dataclass
class CosineConfig(SchedulerConfig):
    _target_: str = "torch.optim.lr_scheduler.CosineAnnealingLR"
    # epochs (or steps) from the first learning rate to eta_min
    T_max: int = limited(_AT_LEAST_1, default="${trainer.max_epochs}")
    eta_min: float = limited(_AT_LEAST_0, default=0.0)  # the last learning rate


@dataclass
class OneCycleConfig(SchedulerConfig):
    """One cycle over `epochs`. The run computes the number of steps."""

    _target_: str = "torch.optim.lr_scheduler.OneCycleLR"
    interval: Interval = Interval.step
    epochs: int = limited(_AT_LEAST_1, default="${trainer.max_epochs}")  # length of the cycle
    max_lr: float = limited(_POSITIVE, default="${optimizer.lr}")  # the largest learning rate
    # share of the cycle in which the rate rises
    pct_start: float = limited(Range(0, 1, low_open=True, high_open=True), default=0.3)
    div_factor: float = limited(Range(1), default=25.0)  # max_lr divided by the first rate
    final_div_factor: float = limited(Range(1), default=1e4)  # the first rate divided by the last
    cycle_momentum: bool = False  # whether momentum moves against the rate


@dataclass
class PlateauConfig(SchedulerConfig):
    _target_: str = "torch.optim.lr_scheduler.ReduceLROnPlateau"
    monitor: str = limited(SELECTION_METRICS, default="${optimized_metric}")  # metric to watch
    # the rate is multiplied by it on a plateau
    factor: float = limited(Range(0, 1, low_open=True, high_open=True), default=0.5)
    patience: int = limited(_AT_LEAST_0, default=4)  # epochs without improvement that are allowed
    # smallest change that counts as improvement, relative
    threshold: float = limited(_AT_LEAST_0, default=1e-4)
    min_lr: float = limited(_AT_LEAST_0, default=0.0)  # the smallest learning rate


@dataclass
class TrainerConfig:
    """Arguments of lightning.Trainer, and the number of mini-batches per training step.

    More mini-batches per step train faster and give the same weights. A network that training/engine refuses is
    trained by autograd, one mini-batch at a time.
    """

    accelerator: Accelerator = Accelerator.cpu  # where to train
    devices: int = limited(Range(-1), default=1)  # number of devices; -1: all
    num_nodes: int = limited(_AT_LEAST_1, default=1)  # number of machines
    strategy: Strategy = Strategy.auto  # how several devices work together
    # of the arithmetic
    precision: str = limited(
        ("32-true", "64-true", "bf16-mixed", "bf16-true", "16-mixed", "16-true"), default="32-true"
    )
    max_epochs: int = limited(_AT_LEAST_1, default=50)  # most epochs
    # fewest epochs, before early stopping can act
    min_epochs: Optional[int] = limited(_AT_LEAST_1, default=None)
    max_time: Optional[str] = None  # DD:HH:MM:SS; null: no limit
    gradient_clip_val: Optional[float] = limited(_POSITIVE, default=None)  # limit of the gradient; null: none
    # limits the gradient's norm, or each value
    gradient_clip_algorithm: GradientClipAlgorithm = GradientClipAlgorithm.norm
    accumulate_grad_batches: int = limited(_AT_LEAST_1, default=1)  # mini-batches per optimizer step
    batches_per_training_step: int = limited(_AT_LEAST_1, default=100)  # mini-batches per training step
    # mini-batches per epoch; null: all
    limit_train_batches: Optional[int] = limited(_AT_LEAST_1, default=None)
    overfit_batches: int = limited(_AT_LEAST_0, default=0)  # train on this many mini-batches only; 0: off
    deterministic: bool = True  # whether torch must use deterministic algorithms
    detect_anomaly: bool = False  # whether to stop at the first NaN in the backward pass
    profiler: Optional[str] = limited((None, "simple", "advanced"), default=None)  # Lightning's profiler
    enable_progress_bar: bool = True  # whether to show the epochs' progress


@dataclass
class EarlyStoppingConfig:
    """Stop when the monitored metric has not improved by `min_delta` for `patience` epochs."""

    monitor: str = limited(SELECTION_METRICS, default="${optimized_metric}")  # metric to watch
    patience: int = limited(_AT_LEAST_1, default=10)  # epochs without improvement before the run stops
    min_delta: float = limited(_AT_LEAST_0, default=0.0)  # smallest change that counts as improvement


@dataclass
class CheckpointConfig:
    """Keep the best epoch by the monitored metric, and the last one. Without a metric, the last epoch is the best."""

    # metric that chooses the best epoch; null: the last epoch
    monitor: Optional[str] = limited((*SELECTION_METRICS, None), default="${optimized_metric}")


@dataclass
class EMAConfig:
    """Exponential moving average of the weights. It is validated, kept and exported in place of the weights."""

    decay: float = limited(_BELOW_1, default=0.99)  # share of the average that is kept per step


@dataclass
class CallbacksConfig:
    """Callbacks by their key. null switches one off."""

    early_stopping: Optional[EarlyStoppingConfig] = None  # stop before max_epochs
    checkpoint: Optional[CheckpointConfig] = None  # write checkpoints
    ema: Optional[EMAConfig] = None  # average the weights


@dataclass
class LoggerConfig:
    _target_: str = MISSING  # class or function that makes the logger


@dataclass
class TensorBoardConfig(LoggerConfig):
    _target_: str = "genre_classifier.training.loggers.SplitTensorBoardLogger"
    save_dir: str = "${run_dir}/tensorboard"  # folder of the event files
    figures: Optional[bool] = None  # null: a single run draws its figures, a trial of a sweep draws none


@dataclass
class CSVLoggerConfig(LoggerConfig):
    _target_: str = "lightning.pytorch.loggers.CSVLogger"
    save_dir: str = "${run_dir}"  # folder to write to
    name: str = "csv"  # folder below save_dir
    version: str = ""  # folder below name


@dataclass
class MLflowConfig(LoggerConfig):
    _target_: str = "genre_classifier.training.loggers.mlflow_logger"
    experiment_name: str = "genre-classifier"  # MLflow's experiment
    run_name: Optional[str] = None  # MLflow's run; null: MLflow chooses
    tracking_uri: str = "sqlite:///outputs/mlflow.db"  # where MLflow keeps its runs


@dataclass
class SweepConfig:
    """A multirun as a whole."""

    resume: Optional[str] = None  # folder of the sweep to finish
    max_trials: int = limited(_AT_LEAST_1, default=1000)  # a larger sweep is refused


@dataclass
class TrainConfig:
    """All settings of `train.py`."""

    data: DataConfig = MISSING  # rows and their split
    model: ModelConfig = field(default_factory=ModelConfig)  # network
    loss: LossConfig = field(default_factory=LossConfig)  # loss
    optimizer: OptimizerConfig = MISSING  # optimizer
    scheduler: Optional[SchedulerConfig] = None  # learning-rate scheduler; null: a constant rate
    trainer: TrainerConfig = field(default_factory=TrainerConfig)  # Lightning's trainer
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)  # callbacks
    logger: Optional[LoggerConfig] = None  # logger; null: none
    seed: int = limited(Range(0, 2**32 - 1), default=42)  # of weights, order of rows, dropout and mixup
    threads: int = limited(_AT_LEAST_1, default=1)  # CPU threads of torch
    # chooses the best epoch; a sweep optimises it
    optimized_metric: str = limited(SELECTION_METRICS, default="val/f1")
    ckpt_path: Optional[str] = None  # checkpoint to go on from
    sweep: SweepConfig = field(default_factory=SweepConfig)  # settings of a multirun
    run_dir: str = "${hydra:runtime.output_dir}"  # folder of the run


@dataclass
class ExportConfig:
    """All settings of `export.py`."""

    run: Optional[str] = None  # folder of the run to export; null: the best finished run by validation F1
    sweep: Optional[str] = None  # folder of the sweep to export from
    ckpt: Optional[str] = None  # checkpoint file to export
    outputs_dir: str = "outputs"  # where to look for runs
    model_name: str = "genre_classifier_production"  # name of the bundle
    save_dir: str = "trained_models"  # folder of the bundle
    versioned: bool = False  # whether the name gets a version and a time
    onnx: Optional[bool] = None  # whether to write NAME.onnx; null: if the extra onnx is installed
    temperature_scaling: bool = False  # whether to calibrate on the validation rows
    refit: Optional[Refit] = None  # train again on all rows
    strict: bool = False  # whether an unmet item of the checklist is an error
    min_test_accuracy: float = limited(_SHARE, default=0.75)  # item of the checklist
    max_milliseconds: float = limited(_POSITIVE, default=50.0)  # item of the checklist, per prediction
    # classes that the run's files may name, such as [my_package.MyNetwork]
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


@cache
def find_limit(kind: type, name: str) -> Mapping[str, Any]:
    """Return the limits of a schema's field, set by `limited` in the schema or a base class."""
    for base in kind.__mro__:
        if name in vars(base).get("__annotations__", {}):
            limit = next(entry.metadata for entry in fields(base) if entry.name == name)
            if limit:
                return limit
    return {}


def list_data_settings(source: str) -> frozenset[str]:
    """Return the names of a source's settings, below ``data``."""
    return frozenset(setting.name for setting in fields(SCHEMAS.get(f"schema_data_{source}", DataConfig)))


def register_schemas() -> None:
    """Register the schemas with Hydra, so that the defaults lists of the YAML files find them.

    Hydra copies its repository, with all schemas, for every folder that ``--help`` lists. The copies share one store,
    which is safe because the store returns copies of its entries.
    """
    ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]
    store = ConfigStore.instance()
    for name, node in SCHEMAS.items():
        store.store(name=name, node=node, provider="genre_classifier")
