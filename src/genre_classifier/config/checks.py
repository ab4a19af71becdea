"""Check a composed configuration, by field and across fields, and report all problems at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genre_classifier.config.messages import explain_schema_error
from genre_classifier.config.schema import (
    SCHEMAS,
    DataConfig,
    ExportConfig,
    LoggerConfig,
    OptimizerConfig,
    Range,
    SchedulerConfig,
    SplitMethod,
    TrainConfig,
    find_limit,
)
from genre_classifier.errors import ConfigError
from genre_classifier.features.sets import FMA_SERIES


@dataclass(frozen=True)
class Problem:
    """One problem of a configuration: its keys, and the message for the user."""

    keys: tuple[str, ...]
    message: str


def find_problems(cfg: DictConfig) -> list[Problem]:
    """Return all problems of a composed configuration, in the order of its keys."""
    entries = list(_list_entries(cfg))
    return [
        *_find_unknown_keys(entries),
        *_find_missing_values(entries),
        *_find_empty_texts(entries),
        *_find_refused_values(entries),
        *_find_contradictions(cfg),
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


def to_train_config(cfg: DictConfig) -> TrainConfig:
    """Return a checked configuration as its dataclasses, every interpolation resolved.

    Raises
    ------
    ConfigError
        The message lists every problem of the configuration.
    """
    check(cfg)
    return _convert_to_dataclass(cfg, TrainConfig, "schema_train")


def to_export_config(cfg: DictConfig) -> ExportConfig:
    """Return export.py's checked configuration as its dataclass.

    Raises
    ------
    ConfigError
        The message lists every problem of the configuration.
    """
    check(cfg)
    return _convert_to_dataclass(cfg, ExportConfig, "schema_export")


ConfigT = TypeVar("ConfigT", TrainConfig, ExportConfig)


def _convert_to_dataclass(cfg: DictConfig, kind: type[ConfigT], schema: str) -> ConfigT:
    settings = OmegaConf.to_object(cfg)
    if not isinstance(settings, kind):
        raise ConfigError(
            f"the configuration is a {type(settings).__name__}, not a {kind.__name__}: its defaults list must start "
            f"with {schema}"
        )
    return settings


def restore_schemas(saved: DictConfig) -> DictConfig:
    """Return a run's saved configuration, as read from YAML, with the schemas it was composed with.

    Raises
    ------
    ConfigError
        A key or value fits no schema, as may happen with another version's configuration.
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
                if not isinstance(saved[group], DictConfig):
                    raise ConfigError(f"the run's saved configuration: {group} is no mapping of settings")
                cfg[group] = _find_schema(group, saved[group], base)
        merged = OmegaConf.merge(cfg, saved)
    except OmegaConfBaseException as error:
        raise ConfigError(f"the run's saved configuration: {explain_schema_error(error) or error}") from error
    assert isinstance(merged, DictConfig)
    return merged


def _find_schema(group: str, saved: DictConfig, base: type) -> type:
    """Return the schema that has exactly the saved keys, preferably with the same class or source."""
    keys = {str(key) for key in saved}
    choices = [kind for kind in SCHEMAS.values() if issubclass(kind, base)]
    fitting = [kind for kind in choices if is_dataclass(kind) and keys == {f.name for f in fields(kind)}]
    if not fitting:
        raise ConfigError(
            f"the run's saved configuration: {group} has the keys {', '.join(sorted(keys))}, which are those of no "
            f"{group} in this version of genre-classifier; use the version that trained the run"
        )
    if base is DataConfig:  # a source is a module's name
        fitting = [kind for kind in fitting if getattr(kind, "source", None) == saved.get("source")]
        if not fitting:
            raise ConfigError(
                f"the run's saved configuration: data.source={saved.get('source')!s:.80} is no source of this version "
                "of genre-classifier with these keys; use the version that trained the run"
            )
        return fitting[0]
    return next(
        (kind for kind in fitting if getattr(kind, "_target_", None) == saved.get("_target_")), fitting[0]
    )


@dataclass(frozen=True)
class _Entry:
    """A key of a configuration with its value. Reading a value is slow, so it is read once for all checks."""

    key: str
    kind: type | None  # of the mapping that holds it
    name: str
    value: Any = None
    is_missing: bool = False


def _list_entries(node: DictConfig, path: str = "") -> Iterator[_Entry]:
    kind = OmegaConf.get_type(node)
    for name in map(str, node):
        key = f"{path}{name}"
        if OmegaConf.is_missing(node, name):
            yield _Entry(key, kind, name, is_missing=True)
            continue
        value = node[name]
        yield _Entry(key, kind, name, value)
        if isinstance(value, DictConfig) and not OmegaConf.is_interpolation(node, name):
            yield from _list_entries(value, f"{key}.")


def _find_unknown_keys(entries: Sequence[_Entry]) -> Iterator[Problem]:
    # Hydra's "+key=value" adds a key that no schema has.
    unknown: list[str] = []
    for entry in entries:
        if any(entry.key.startswith(f"{key}.") for key in unknown):
            continue
        if is_dataclass(entry.kind) and entry.name not in entry.kind.__dataclass_fields__:
            unknown.append(entry.key)
            yield Problem((entry.key,), f"{entry.key}: there is no such key; remove it or correct its name")


def _find_missing_values(entries: Sequence[_Entry]) -> Iterator[Problem]:
    for key in sorted(entry.key for entry in entries if entry.is_missing):
        yield Problem((key,), f"{key} has no value: set it, as in {key}=...")


def _find_empty_texts(entries: Sequence[_Entry]) -> Iterator[Problem]:
    # As a path an empty text would mean the current folder, as a name nothing.
    for entry in entries:
        field = getattr(entry.kind, "__dataclass_fields__", {}).get(entry.name)
        if entry.value == "" and (field is None or field.default != ""):
            yield Problem(
                (entry.key,), f"{entry.key} is empty: give it a value, as in {entry.key}=..., or leave it out"
            )


def _find_refused_values(entries: Sequence[_Entry]) -> Iterator[Problem]:
    """Yield a problem per value that its field does not allow."""
    for entry in entries:
        if entry.is_missing or isinstance(entry.value, DictConfig) or not is_dataclass(entry.kind):
            continue
        limit = find_limit(entry.kind, entry.name)
        if isinstance(limit.get("allowed"), Range):
            yield from _find_out_of_range(entry.key, entry.value, limit)
        elif limit and entry.value not in limit["allowed"]:
            names = ", ".join("null" if choice is None else str(choice) for choice in limit["allowed"])
            reason = (
                " (test metrics never take part in choosing)" if str(entry.value).startswith("test/") else ""
            )
            yield Problem((entry.key,), f"{entry.key}={entry.value}: expected one of {names}{reason}")


def _find_out_of_range(key: str, value: Any, limit: Mapping[str, Any]) -> Iterator[Problem]:
    if value is None:
        return
    numbers = list(value) if OmegaConf.is_list(value) else [value]
    if not numbers and not limit["may_be_empty"]:
        yield Problem((key,), f"{key}=[]: expected one or more numbers")
    if any(number not in limit["allowed"] for number in numbers):
        shown = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        yield Problem((key,), f"{key}={shown}: expected {limit['allowed']}")


def _find_contradictions(cfg: DictConfig) -> Iterator[Problem]:
    if OmegaConf.get_type(cfg) is ExportConfig:
        yield from _find_export_contradictions(cfg)
    else:
        yield from _find_train_contradictions(cfg)


def _find_export_contradictions(cfg: DictConfig) -> Iterator[Problem]:
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
            f"versioned=true makes a name, but model_name={cfg.model_name} gives another; remove one of the two",
        )
    if cfg.temperature_scaling and cfg.refit is not None:
        yield Problem(
            ("temperature_scaling", "refit"),
            "temperature_scaling=true needs validation rows, but refit=full trains on all rows; remove one of the two",
        )


def _find_train_contradictions(cfg: DictConfig) -> Iterator[Problem]:
    if not OmegaConf.is_missing(cfg, "data"):
        yield from _find_unknown_feature_groups(cfg.data)
        yield from _find_split_contradictions(cfg.data.split)
        yield from _find_metric_contradictions(cfg)
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


def _find_unknown_feature_groups(data: DictConfig) -> Iterator[Problem]:
    groups = data.get("feature_groups")
    unknown = [group for group in groups or () if group not in FMA_SERIES]
    if groups is not None and (unknown or not groups):
        found = ", ".join(unknown) or "nothing"
        yield Problem(
            ("data.feature_groups",),
            f"data.feature_groups names {found}: expected one or more of {', '.join(FMA_SERIES)}",
        )


def _find_split_contradictions(split: DictConfig) -> Iterator[Problem]:
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
            f"data.split.column={split.column} and data.split.files both give the split; remove one of the two",
        )
    if given_by and split.method not in (SplitMethod.auto, SplitMethod.given, SplitMethod.all):
        yield Problem(
            ("data.split.method", f"data.split.{given_by[0]}"),
            f"data.split.{given_by[0]} gives the split, but data.split.method={split.method.name} makes one; "
            "remove one of the two",
        )
    if split.method is SplitMethod.given and not given_by:
        yield Problem(
            ("data.split.column", "data.split.files"),
            "data.split.method=given needs data.split.column or data.split.files.test",
        )
    if split.method is SplitMethod.all and split.folds is not None:
        yield Problem(
            ("data.split.method", "data.split.folds"),
            f"data.split.method=all holds no rows out, but data.split.folds={split.folds} does; remove one of the two",
        )
    if files and "test" not in files:
        yield Problem(
            ("data.split.files",),
            "data.split.files needs the file of the test rows: set data.split.files.test",
        )
    if split.folds is not None and given_by:
        yield Problem(
            ("data.split.folds", f"data.split.{given_by[0]}"),
            f"data.split.folds={split.folds} makes a split, but data.split.{given_by[0]} gives one; remove one of the "
            "two",
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


def _find_metric_contradictions(cfg: DictConfig) -> Iterator[Problem]:
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
    numbers = text.split(":")
    return len(numbers) == 4 and all(number.isdecimal() for number in numbers)
