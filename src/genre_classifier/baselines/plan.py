"""Choose the rows, splits and seeds of baselines: compose them from conf/, or read them from existing runs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genre_classifier.commands import format_override
from genre_classifier.config.checks import find_problems, raise_problems
from genre_classifier.config.folder import find_conf_folder
from genre_classifier.config.schema import DataConfig, register_schemas
from genre_classifier.config.settings import flatten_settings, is_about_the_machine
from genre_classifier.errors import ConfigError, RunFolderError
from genre_classifier.runs.folder import RunFolder
from genre_classifier.runs.listing import RUN_FILE, Readable, format_unreadable, read_each
from genre_classifier.runs.sweep_folder import SweepFolder

ALLOWED = ("data", "data/split", "experiment", "seed", "optimized_metric")


@dataclass(frozen=True, eq=False)
class Division:
    """One split of one table's rows, and the seeds to run on it.

    Parameters
    ----------
    cfg : DictConfig
        Configuration of a network on these rows.
    seeds : tuple of int
    """

    cfg: DictConfig
    seeds: tuple[int, ...]

    @property
    def data(self) -> DataConfig:
        """The settings of the rows and their split."""
        found = OmegaConf.to_object(self.cfg.data)
        assert isinstance(found, DataConfig)
        return found

    @property
    def fold(self) -> int | None:
        """The fold that tests; None without folds."""
        fold = self.cfg.data.split.fold
        return None if fold is None else int(fold)

    @property
    def table(self) -> str:
        """A key that two divisions of the same table share."""
        return _make_key(self.cfg, lambda name: not name.startswith("split."))

    @property
    def without_fold(self) -> str:
        """A key that the folds of one cross-validation share."""
        return _make_key(self.cfg, lambda name: name != "split.fold")


def _make_key(cfg: DictConfig, wanted: Any) -> str:
    """Return the wanted settings of the data as text, without those that a baseline does not depend on."""
    settings = flatten_settings(OmegaConf.create({"data": cfg.data}))
    kept = {
        key: value
        for key, value in settings.items()
        if key != "data.batch_size" and not is_about_the_machine(key) and wanted(key.removeprefix("data."))
    }
    return json.dumps(kept, sort_keys=True)


def compose_divisions(
    overrides: Sequence[str], folds: int | None = None, seeds: Sequence[int] | None = None
) -> list[Division]:
    """Compose the configuration as train.py does, and return its divisions.

    Parameters
    ----------
    overrides : sequence of str
        Hydra's ``KEY=VALUE``, for data and seed only.
    folds : int, optional
        Return every fold of this number. Overrides that set a number of folds and no fold do the same.
    seeds : sequence of int, optional
        Replace the configuration's seed.

    Raises
    ------
    ConfigError
        An override does not apply to baselines, or the configuration has problems.
    """
    given = _read_overrides(overrides)
    if folds is not None:
        clash = next((key for key in ("data.split.folds", "data.split.fold") if key in given), None)
        if clash is not None:
            raise ConfigError(
                f"--folds {folds} runs every fold, but {clash}={given[clash]} chooses; remove one of the two"
            )
        overrides = [*overrides, f"data.split.folds={folds}"]
    cfg = _compose(overrides)
    number, fold = cfg.data.split.folds, cfg.data.split.fold
    every = isinstance(number, int) and (fold is None or folds is not None)
    found = []
    for tested in range(number) if every and number > 0 else [fold]:
        one = cfg.copy()
        one.data.split.fold = tested
        raise_problems(find_problems(one))
        found.append(Division(one, tuple(seeds or (int(cfg.seed),))))
    return found


def _read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the overrides' values by name."""
    found = {}
    for text in overrides:
        if "=" not in text:
            raise ConfigError(f"{text}: expected a setting as KEY=VALUE, such as data.split.seed=7")
        try:
            (override,) = OverridesParser.create().parse_overrides([text])
        except Exception as error:
            raise ConfigError(_explain(error)) from error
        name = override.key_or_group
        if override.package is not None or not (name in ALLOWED or name.startswith("data.")):
            raise ConfigError(
                f"{text}: baselines have no such setting; they take data=..., data.KEY=..., data/split=..., "
                "experiment=..., seed=... and optimized_metric=..."
            )
        if override.is_sweep_override():
            raise ConfigError(
                f"{text}: one value each; --seeds 1 2 3 runs random models with several seeds, --folds 5 every fold"
            )
        found[name] = override.value()
    return found


def _compose(overrides: Sequence[str]) -> DictConfig:
    register_schemas()
    try:
        with initialize_config_dir(str(find_conf_folder()), version_base="1.3"):
            return compose("train", overrides=[*overrides, "run_dir=baselines"])
    except Exception as error:
        message = _explain(error)
        raise ConfigError(message) from error


def _explain(error: Exception) -> str:
    from genre_classifier.config.messages import explain_error

    message = explain_error(error)
    if message is None:
        raise error
    return message


def build_data_overrides(data: str | None, path: str | None) -> list[str]:
    """Return ``--data`` and ``--path`` as overrides."""
    found = [] if data is None else [f"data={data}"]
    return found if path is None else [*found, format_override("data.path", path)]


def _read_division(folder: RunFolder) -> tuple[str, DictConfig]:
    """Return a run's configuration, and a key that is the same for runs with the same rows and split."""
    from genre_classifier.runs.configuration import read_configuration

    cfg = read_configuration(folder)
    cfg.run_dir = "baselines"
    try:
        return _make_key(cfg, lambda name: True), cfg
    except OmegaConfBaseException as error:
        raise ConfigError(f"the run's saved configuration cannot be resolved: {error}") from error


def read_divisions(folder: Path, seeds: Sequence[int] | None = None) -> Readable[Division]:
    """Return the division of a run, or the distinct divisions of a sweep's readable runs, with their seeds.

    Parameters
    ----------
    folder : Path
    seeds : sequence of int, optional
        Replace the runs' seeds.

    Raises
    ------
    RunFolderError, ConfigError
        There is no run, or its configuration cannot be read.
    """
    if os.path.lexists(folder / RUN_FILE):
        runs = Readable([_read_division(RunFolder(folder))])
    else:
        runs = read_each(SweepFolder(folder).trials(), _read_division)
    found: dict[str, tuple[DictConfig, set[int]]] = {}
    for key, cfg in runs:
        found.setdefault(key, (cfg, set()))[1].add(int(cfg.seed))
    if runs.unreadable and not found:
        listed = "\n".join(format_unreadable(runs.unreadable))
        raise RunFolderError(f"--like {folder}: there is no readable run\n{listed}")
    if not found:
        raise RunFolderError(
            f"--like {folder}: there is no run; name the folder of a run or sweep, such as outputs/runs/DATE/TIME"
        )
    divisions = [Division(cfg, tuple(seeds or sorted(own_seeds))) for cfg, own_seeds in found.values()]
    return Readable(
        sorted(divisions, key=lambda division: (division.without_fold, division.fold or 0)), runs.unreadable
    )
