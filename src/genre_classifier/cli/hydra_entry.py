"""Run a Hydra entry point with one clear message per error, and with a separate folder per run."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.utils import get_args_parser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from genre_classifier.config.checks import find_problems, raise_problems
from genre_classifier.config.messages import explain_error
from genre_classifier.config.settings import build_job_config, describe_plan, list_overrides
from genre_classifier.errors import ConfigError
from genre_classifier.machine.cache_folders import prepare_caches
from genre_classifier.machine.child_process import die_with_parent, leave_if_script_runs_again
from genre_classifier.machine.imports import importing
from genre_classifier.runs.folder import claim
from genre_classifier.terminal import format_error, prepare, say

if TYPE_CHECKING:
    from genre_classifier.runs.sweep_folder import SweepFolder

FULL_ERROR = "HYDRA_FULL_ERROR"
# Optuna's messages for a study without a finished trial: in memory, and in a database.
NO_BEST_TRIAL = ("No trials are completed", "Record does not exist")
_TRACEBACK_WANTED = os.environ.get(FULL_ERROR) == "1"  # read now: run() sets the variable for Hydra later


def run(main: Callable[[], Any]) -> None:
    """Run a Hydra entry point. A user's error ends it with one message on stderr and exit code 1.

    With the environment variable ``HYDRA_FULL_ERROR=1`` the traceback is shown instead.
    """
    leave_if_script_runs_again()
    prepare()
    prepare_caches()  # before Lightning imports matplotlib
    put_overrides_together()
    from genre_classifier.sweeps.composing import compose_as_the_first_trial

    compose_as_the_first_trial()
    if os.environ.get(FULL_ERROR) == "1":
        with _sweep_finished():
            main()
        return
    # With this variable Hydra raises its exceptions. Without it, Hydra prints them and exits.
    os.environ[FULL_ERROR] = "1"
    with one_message(), _sweep_finished():
        main()
    gc.freeze()  # spares the last garbage collection before the process ends


def put_overrides_together() -> None:
    """Move the overrides in sys.argv before the options.

    Hydra refuses overrides on both sides of an option, as in ``data=gtzan -m seed=1,2``.
    """
    known, rest = get_args_parser().parse_known_args()
    if rest and not any(word.startswith("-") for word in rest):
        overrides, options = [*known.overrides, *rest], sys.argv[1:]
        for word in overrides:
            options.remove(word)
        sys.argv[1:] = [*overrides, *options]


@contextmanager
def _sweep_finished() -> Iterator[None]:
    """Summarise a sweep at the end of the block, also after an exception. Failed trials make the exit code 1."""
    failed = 0
    try:
        yield
    except ValueError as error:
        # Optuna asks for the best trial even if none is finished. The summary says how many failed, and why.
        if _get_started_sweep() is None or not any(text in str(error) for text in NO_BEST_TRIAL):
            raise
    finally:
        sweep = _get_started_sweep()
        if sweep is not None:
            with importing():
                from genre_classifier.sweeps.finish import finish_sweep

            failed = finish_sweep(sweep)
    if failed:
        sys.exit(1)


def _get_started_sweep() -> SweepFolder | None:
    start = sys.modules.get("genre_classifier.sweeps.start")  # a single run does not load it
    return None if start is None else start.get_started_sweep()


@contextmanager
def one_message(*, or_traceback: bool = False) -> Iterator[None]:
    """Turn an exception that a user can act on into one message on stderr and exit code 1 (130 after Ctrl-C).

    Parameters
    ----------
    or_traceback : bool
        Let the exception pass if the user has set ``HYDRA_FULL_ERROR=1``.
    """
    if or_traceback and _TRACEBACK_WANTED:
        yield
        return
    try:
        yield
    except KeyboardInterrupt as interrupt:
        say(interrupt if interrupt.args else "interrupted", error=True)
        sys.exit(130)
    except Exception as error:
        message = explain_error(error)
        if message is None:
            raise
        sys.exit(format_error(message))


class RunStart(Callback):
    """Checks the configuration before a run or sweep starts, and makes a folder for it alone.

    Hydra turns a callback's exception into a warning, so a refusal leaves as SystemExit.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        leave_if_script_runs_again()
        # The processes that Lightning starts for the other devices share the first one's folder.
        if "LOCAL_RANK" in os.environ:
            die_with_parent()
            return
        with one_message():
            if not config.hydra.run.dir:
                raise ConfigError("hydra.run.dir is empty: name the run's folder, or leave it out")
            job = build_job_config(config, config.hydra.run.dir)
            raise_problems(find_problems(job))
            _claim(config)
            say(describe_plan(job), error=True)  # at once: the libraries take some seconds to load

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        leave_if_script_runs_again()
        with one_message():
            from genre_classifier.sweeps.start import find_problems_of_every_trial, start_sweep

            raise_problems(find_problems_of_every_trial(config))
            start_sweep(config)


class ExportStart(Callback):
    """Checks the configuration of an export before anything heavy is imported.

    Hydra turns a callback's exception into a warning, so a refusal leaves as SystemExit.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with one_message():
            job = config.copy()
            with read_write(job), open_dict(job):
                del job["hydra"]
            raise_problems(find_problems(job))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with one_message():
            raise ConfigError(
                "export.py exports one model: leave out --multirun (-m) and run it once for each"
            )


def _claim(config: DictConfig) -> None:
    key = "hydra.run.dir"
    chosen = any(
        override.lstrip("+").startswith(f"{key}=")
        for override in list_overrides(config.hydra.overrides.hydra)
    )
    folder = claim(Path(config.hydra.run.dir), exact=chosen)
    with read_write(config), open_dict(config):
        config.hydra.run.dir = str(folder)
