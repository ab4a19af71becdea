"""The start of a sweep, before its first trial: its folder, its number of trials, its search space, and resuming."""

from __future__ import annotations

import difflib
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import env_override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from genre_classifier import __version__
from genre_classifier.commands import format_override
from genre_classifier.config.checks import Problem, find_problems
from genre_classifier.config.messages import explain_missing_choice
from genre_classifier.config.schema import TensorBoardConfig, is_higher_better
from genre_classifier.config.settings import (
    build_job_config,
    flatten,
    is_about_the_machine,
    list_overrides,
    select_experiment_settings,
)
from genre_classifier.errors import ConfigError, RunFolderError
from genre_classifier.machine.processors import count_usable_cores
from genre_classifier.runs.folder import claim
from genre_classifier.runs.sweep_folder import SweepFolder
from genre_classifier.sweeps.composing import SweepConfigLoader, keep_first_value
from genre_classifier.sweeps.hparams import list_shown_metrics, write_summary
from genre_classifier.sweeps.processes import runs_on_this_machine, stop_server, warm_up

# Ray's settings unless the user gives others. A resumed sweep retries a failed trial, Ray does not.
RAY_INIT = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
RAY_REMOTE = {"num_cpus": 1, "max_retries": 0}
LAUNCHER = "hydra_plugins.genre_classifier_launchers.resuming_launcher.ResumingLauncher"
# Holds the sweep's lock until the process ends.
_open = ExitStack()
# Hydra makes the launcher and the callbacks itself, so neither can get the sweep as an argument.
_started: list[SweepFolder] = []


def start_sweep(config: DictConfig) -> SweepFolder:
    """Prepare a multirun before Hydra makes its sweeper. The configuration is changed in place.

    Parameters
    ----------
    config : DictConfig
        As composed by Hydra, with the node ``hydra``. Each swept setting has its first value.

    Raises
    ------
    ConfigError
        The search space has an unknown name or an empty range, or there are more trials than ``sweep.max_trials``.
    RunFolderError
        The folder to resume does not exist, belongs to another sweep, or is in use. Or a new folder cannot be made.
    """
    resume, max_trials = config.sweep.resume, int(config.sweep.max_trials)
    with read_write(config):
        _drop_sweep_settings(config)
    swept = _find_swept(config)
    _check_choices(config, swept)
    _check_names(config, swept)
    _complete_the_sweeper(config)
    expected = _count_trials(config, swept)
    if expected > max_trials:
        raise ConfigError(
            f"this sweep has {_format_count(expected, max_trials)} trials, sweep.max_trials is {max_trials:,}: "
            f"correct the search space, or set sweep.max_trials={expected if expected < 10 * max_trials else '...'}"
        )
    _check_launcher(config)
    _compose_quickly()
    with _loading_libraries(config.hydra):
        return _open_sweep(config, swept, expected, resume)


@contextmanager
def _loading_libraries(hydra: DictConfig) -> Iterator[None]:
    """Let the libraries of the trials load while the block reads the rows. If the block fails, they are not needed."""
    launcher = hydra.launcher
    here = runs_on_this_machine(launcher) and "joblib" not in str(launcher._target_)  # its workers load them
    if here:
        with env_override(dict(hydra.job.env_set)):  # as each trial's process gets it
            warm_up()
    try:
        yield
    except BaseException:
        if here:
            stop_server()
        raise


def _open_sweep(
    config: DictConfig, swept: Mapping[str, Override], expected: int, resume: str | None
) -> SweepFolder:
    if resume is None:
        from genre_classifier.sweeps.data_check import check_data

        check_data(config, swept, _get_hydra().config_loader)
    folder = SweepFolder(_open_folder(config, resume))
    _open.enter_context(folder.locked())
    if resume is None and folder.sweep_json.exists():
        raise RunFolderError(f"{folder.path} already holds a sweep: choose a folder that does not exist yet")
    record = _build_record(config, swept, expected)
    if resume is not None:
        _check_same_sweep(folder, folder.read_sweep(), record)
    folder.write_sweep(record | {"resumed": resume is not None})
    _write_summary(config, swept, folder)
    if _is_optuna(config) and resume is not None:
        from genre_classifier.sweeps.optuna_study import reopen_study

        with read_write(config):
            config.hydra.sweeper.n_trials = reopen_study(folder, config.hydra.sweeper)
    _wrap_launcher(config)
    _started.append(folder)
    return folder


def get_started_sweep() -> SweepFolder | None:
    """Return the sweep that this process has started; None in a launcher's process and in a single run."""
    return _started[-1] if _started else None


def _drop_sweep_settings(config: DictConfig) -> None:
    """Drop the settings below ``sweep``. They are about the sweep, not about its trials."""
    config.sweep.resume = None
    kept = [
        text
        for text in list_overrides(config.hydra.overrides.task)
        if not text.lstrip("+").startswith("sweep.")
    ]
    config.hydra.overrides.task = kept


def _find_swept(config: DictConfig) -> dict[str, Override]:
    """Return the overrides with several values, by name, from the configuration and the command line."""
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    texts = [f"{name}={value}" for name, value in params.items()]
    fixed: set[str] = set()
    found = {}
    for override in OverridesParser.create().parse_overrides(
        [*texts, *list_overrides(config.hydra.overrides.task)]
    ):
        name = override.get_key_element().lstrip("+~")
        if override.is_sweep_override():
            found[name] = override
        else:
            fixed.add(name)
            found.pop(name, None)
    return found


def find_problems_of_every_trial(config: DictConfig) -> list[Problem]:
    """Return the problems that a multirun's configuration has with every value of the swept settings.

    The configuration has the first value of each swept setting. Intervals, and settings that a search's file sweeps,
    have their defaults.
    """
    swept = _find_swept(config)
    given = set(list_overrides(config.hydra.overrides.task))
    open_ones = {
        name
        for name, override in swept.items()
        if override.input_line not in given or keep_first_value(override) == override.input_line
    }
    return [
        problem
        for problem in find_problems(build_job_config(config, "run_dir"))
        if not open_ones.intersection(problem.keys)
        and (len(problem.keys) == 1 or not swept.keys() & set(problem.keys))
    ]


def _check_choices(config: DictConfig, swept: Mapping[str, Override]) -> None:
    """Raise ConfigError if a swept group has no such choice, or cannot be swept."""
    if (search := swept.get("hparams_search")) is not None:
        raise ConfigError(f"{search.input_line}: a search says what a sweep tries, so name one of them")
    groups = {str(name) for name in config.hydra.runtime.choices}
    for name, override in swept.items():
        if name not in groups or not override.is_choice_sweep():
            continue
        group = name.partition("@")[0]
        options = _get_hydra().config_loader.get_group_options(group)
        for choice in override.sweep_string_iterator():
            if not choice.startswith("[") and choice not in options:
                raise ConfigError(explain_missing_choice(group, choice, options))


def _check_names(config: DictConfig, swept: Mapping[str, Override]) -> None:
    groups = {str(name) for name in config.hydra.runtime.choices}
    swept_groups = {name.partition("@")[0].replace("/", ".") for name in swept if name in groups}
    job = build_job_config(config, "run_dir")
    for name, override in swept.items():
        of_a_swept_group = any(name.startswith(f"{group}.") for group in swept_groups)
        if name in groups or of_a_swept_group or override.is_add() or override.is_force_add():
            continue
        if not _has_setting(job, name):
            known = _list_names(job)
            guess = difflib.get_close_matches(name, known, n=1)
            meant = f" Did you mean {guess[0]}?" if guess else " python train.py --cfg job lists them."
            raise ConfigError(f"{name}: the search space names a setting that does not exist.{meant}")


def _has_setting(job: DictConfig, name: str) -> bool:
    parent, _, last = name.rpartition(".")
    try:
        node = OmegaConf.select(job, parent, throw_on_missing=False) if parent else job
    except OmegaConfBaseException:
        return False
    return isinstance(node, DictConfig) and last in node


def _list_names(job: DictConfig) -> list[str]:
    return list(flatten(OmegaConf.to_container(job, resolve=False)))


def _complete_the_sweeper(config: DictConfig) -> None:
    """Give Optuna the direction of the metric, and one trial at once per worker of the launcher."""
    if not _is_optuna(config):
        return
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction = "maximize" if is_higher_better(config.optimized_metric) else "minimize"
    sweeper = config.hydra.sweeper
    with read_write(config):
        if _was_given(config, "hydra.sweeper.direction"):
            given = getattr(sweeper.direction, "name", sweeper.direction)
            if given != direction:
                raise ConfigError(
                    f"hydra.sweeper.direction={given} contradicts optimized_metric={config.optimized_metric}, where "
                    f"{'higher' if direction == 'maximize' else 'lower'} is better: drop hydra.sweeper.direction"
                )
        sweeper.direction = direction
        if not _was_given(config, "hydra.sweeper.n_jobs"):
            sweeper.n_jobs = _count_workers(config.hydra.launcher)
        sweeper.n_jobs = min(sweeper.n_jobs, sweeper.n_trials)


def _count_workers(launcher: DictConfig) -> int:
    target = str(launcher._target_)
    if "basic_launcher" in target:
        return 1
    n_jobs = launcher.get("n_jobs")
    return n_jobs if isinstance(n_jobs, int) and n_jobs > 0 else count_usable_cores()


def _was_given(config: DictConfig, key: str) -> bool:
    return any(
        text.lstrip("+").startswith(f"{key}=") for text in list_overrides(config.hydra.overrides.hydra)
    )


def _is_optuna(config: DictConfig) -> bool:
    return "optuna_sweeper" in str(config.hydra.sweeper._target_)


def _count_trials(config: DictConfig, swept: Mapping[str, Override]) -> int:
    """Return the number of trials. If they are more than the limit, the number returned may be too small."""
    if _is_optuna(config):
        for name, override in swept.items():
            _check_range(name, override)
        return int(config.hydra.sweeper.n_trials)
    limit = int(config.sweep.max_trials)
    total = 1
    for name, override in swept.items():
        if not override.is_discrete_sweep():
            raise ConfigError(
                f"{name}={_read_values(override)}: an interval has no list of values to try one by one; "
                "give a choice or a range, or search it with hparams_search=optuna"
            )
        total *= _count_values(name, override.sweep_string_iterator(), limit)
    return total


def _count_values(name: str, values: Iterable[str], limit: int) -> int:
    number = sum(1 for _ in itertools.islice(values, 10 * limit + 1))
    if number == 0:
        raise ConfigError(f"{name}: its range is empty, so there is no trial; give at least one value")
    return number


def _check_range(name: str, override: Override) -> None:
    value: Any = override.value()
    if override.is_interval_sweep() and not value.start < value.end:
        raise ConfigError(
            f"{name}={_read_values(override)}: the interval is empty; its start must be below its end"
        )
    if override.is_discrete_sweep():
        _count_values(name, override.sweep_string_iterator(), 1)


def _format_count(expected: int, max_trials: int) -> str:
    return f"{expected:,}" if expected <= 10 * max_trials else f"more than {10 * max_trials:,}"


def _open_folder(config: DictConfig, resume: str | None) -> Path:
    key = "hydra.sweep.dir"
    chosen = _was_given(config, key)
    if not config.hydra.sweep.dir:
        raise ConfigError(f"{key} is empty: name the sweep's folder, or leave it out")
    if resume is None:
        folder = claim(Path(config.hydra.sweep.dir), exact=chosen)
    else:
        if chosen and Path(config.hydra.sweep.dir).absolute() != Path(resume).absolute():
            raise ConfigError(
                f"sweep.resume={resume} and {key}={config.hydra.sweep.dir} name two folders: drop {key}"
            )
        folder = Path(resume)
        if not folder.is_dir():
            raise RunFolderError(f"sweep.resume={resume}: there is no such folder")
        SweepFolder(folder).read_sweep()
    with read_write(config), open_dict(config):
        # Absolute, since a job may run in another folder.
        config.hydra.sweep.dir = str(folder.absolute())
        # Each launcher composes its jobs from these overrides.
        config.hydra.overrides.hydra.append(format_override(key, folder.absolute()))
    return folder


def _read_values(override: Override) -> str:
    return str(override.input_line).partition("=")[2]


def _build_record(config: DictConfig, swept: Mapping[str, Override], expected: int) -> dict[str, Any]:
    job = build_job_config(config, "run_dir")
    settings = flatten(OmegaConf.to_container(job, resolve=False, enum_to_str=True))
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "genre_classifier": __version__,
        "sweeper": str(config.hydra.sweeper._target_),
        "launcher": str(config.hydra.launcher._target_),
        "script": str(Path(sys.argv[0]).absolute()),
        "overrides": list_overrides(config.hydra.overrides.task),
        "swept": {name: _read_values(override) for name, override in swept.items()},
        "optimized_metric": str(config.optimized_metric),
        "expected": expected,
        "settings": {key: value for key, value in settings.items() if not _is_swept(key, swept, config)},
    }


def _is_swept(key: str, swept: Mapping[str, Override], config: DictConfig) -> bool:
    """Return whether a setting or its group is swept."""
    groups = {str(name) for name in config.hydra.runtime.choices}
    swept_groups = {name.partition("@")[0].replace("/", ".") for name in swept if name in groups}
    return key in swept or any(key == group or key.startswith(f"{group}.") for group in swept_groups)


def _write_summary(config: DictConfig, swept: Mapping[str, Override], folder: SweepFolder) -> None:
    """Let the HParams tab show the swept settings while the sweep runs. Its end adds those of swept groups."""
    job = build_job_config(config, "run_dir")
    groups = {str(name) for name in config.hydra.runtime.choices}
    if OmegaConf.select(job, "logger._target_") != TensorBoardConfig._target_ or groups & set(swept):
        return
    numeric = {
        name: not override.is_choice_sweep()
        or all(isinstance(value, (int, float)) for value in _list_choices(override))
        for name, override in swept.items()
        if not is_about_the_machine(name)
    }
    if numeric:
        write_summary(folder, numeric, list_shown_metrics(str(config.optimized_metric)))


def _list_choices(override: Override) -> list[Any]:
    value: Any = override.value()
    return list(value.list)


def _check_same_sweep(folder: SweepFolder, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise RunFolderError unless a resumed sweep has its earlier settings. It may have more trials."""
    for key in ("sweeper", "swept", "settings"):
        if before.get(key) is None:
            raise RunFolderError(
                f"{folder.sweep_json}: there is no {key}, so the sweep cannot be resumed; start a new sweep"
            )
    differences = []
    if before["sweeper"] != now["sweeper"]:
        differences.append(
            f"sweeper {before['sweeper'].rpartition('.')[2]}, now {now['sweeper'].rpartition('.')[2]}"
        )
    if set(before["swept"]) != set(now["swept"]):
        differences.append(
            f"swept {', '.join(before['swept']) or 'nothing'}, now {', '.join(now['swept']) or 'nothing'}"
        )
    old, new = select_experiment_settings(before["settings"]), select_experiment_settings(now["settings"])
    for key in sorted(old.keys() & new.keys()):
        if old[key] != new[key]:
            differences.append(f"{key}={old[key]}, now {new[key]}")
    if differences:
        listed = "\n".join(f"  - {difference}" for difference in differences[:10])
        raise RunFolderError(
            f"sweep.resume={folder.path}: that sweep had another configuration:\n{listed}\n"
            "repeat the command that started it (overrides in its sweep.json) with sweep.resume"
        )


def _get_hydra() -> Hydra:
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    return hydra


def _compose_quickly() -> None:
    hydra = _get_hydra()
    hydra.config_loader = SweepConfigLoader(hydra.config_loader)  # type: ignore[assignment]


def _check_launcher(config: DictConfig) -> None:
    launcher = config.hydra.launcher
    if str(launcher._target_).endswith(".StackedLauncher"):
        from genre_classifier.sweeps.stacked.backends.choice import check_backend

        check_backend(OmegaConf.to_container(launcher, resolve=True))  # type: ignore[arg-type]


def _wrap_launcher(config: DictConfig) -> None:
    from hydra_plugins.genre_classifier_launchers.resuming_launcher import ResumingLauncher

    Plugins.instance().register(ResumingLauncher)
    inner = config.hydra.launcher
    with read_write(config), open_dict(config):
        if "ray_launcher" in str(inner._target_):
            inner.ray.init = {**RAY_INIT, **inner.ray.init}
            inner.ray.remote = {**RAY_REMOTE, **inner.ray.remote}
        config.hydra.launcher = OmegaConf.create({"_target_": LAUNCHER, "_recursive_": False, "inner": inner})
