"""What stands around a Hydra entry point: one clear message for a mistake, and a folder of its own for every run."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from genre_classifier.commands import quoted, shell_word
from genre_classifier.config.checks import find_problems, raise_problems
from genre_classifier.config.messages import explain
from genre_classifier.config.settings import job_config
from genre_classifier.errors import ConfigError, GenreClassifierError
from genre_classifier.machine.cache_folders import prepare_caches
from genre_classifier.machine.child_process import die_with_parent
from genre_classifier.runs.folder import claim
from genre_classifier.terminal import error_text, prepare, say

if TYPE_CHECKING:
    from genre_classifier.runs.sweep_folder import SweepFolder

FULL_ERROR = "HYDRA_FULL_ERROR"
# A setting's or group's name, with what may stand around it in Hydra's grammar.
KEY = re.compile(r"(\+\+|\+|~)?[A-Za-z_][\w./@:]*", re.ASCII)
AMBIGUOUS = re.compile(r"Ambiguous value for argument '(.*)'$", re.MULTILINE)
PLUGIN_EXTRAS = {
    "optuna": "sweep",
    "joblib": "sweep",
    "ray": "ray",
    "submitit_local": "slurm",
    "submitit_slurm": "slurm",
}
# What Optuna says in memory, and what its database says.
NO_BEST_TRIAL = ("No trials are completed", "Record does not exist")
_TRACEBACK_WANTED = os.environ.get(FULL_ERROR) == "1"  # by the user; run() sets it for Hydra later


def run(main: Callable[[], Any]) -> None:
    """Run a Hydra entry point; a user's mistake ends it with one message on stderr and exit code 1.

    With the environment variable ``HYDRA_FULL_ERROR=1`` the traceback is shown instead.
    """
    prepare()
    prepare_caches()  # before Lightning imports matplotlib
    from genre_classifier.sweeps.composing import compose_as_the_first_trial

    compose_as_the_first_trial()
    if os.environ.get(FULL_ERROR) == "1":
        with _sweep_finished():
            main()
        return
    # Hydra prints and exits by itself unless told to hand its exceptions on.
    os.environ[FULL_ERROR] = "1"
    with one_message(), _sweep_finished():
        main()


@contextmanager
def _sweep_finished() -> Iterator[None]:
    """However the block ends, a sweep that has begun is summed up; trials that failed make the exit code 1."""
    failed = 0
    try:
        yield
    except ValueError as error:
        # Optuna asks for the best trial also where none is finished; the summary says how many failed, and why.
        if RunStart.sweep is None or not any(told in str(error) for told in NO_BEST_TRIAL):
            raise
    finally:
        if RunStart.sweep is not None:
            from genre_classifier.sweeps.finish import finish_sweep

            failed = finish_sweep(RunStart.sweep)
    if failed:
        sys.exit(1)


@contextmanager
def one_message(*, or_traceback: bool = False) -> Iterator[None]:
    """Turn an exception that a user can act on into one message on stderr and exit code 1 (130 after Ctrl-C).

    Parameters
    ----------
    or_traceback : bool
        Let the exception pass where the user has set ``HYDRA_FULL_ERROR=1``.
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
        message = message_of(error)
        if message is None:
            raise
        sys.exit(error_text(message))


def message_of(error: BaseException) -> str | None:
    """Return what to tell the user, or None where only the traceback would help."""
    if isinstance(error, GenreClassifierError):
        return str(error)
    for link in (error, error.__cause__):
        if isinstance(link, OmegaConfBaseException) and (explanation := explain(link)):
            return explanation
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if isinstance(error, HydraException) and (ambiguous := AMBIGUOUS.match(str(error))):
        return _several_values(ambiguous[1])
    if isinstance(error, HydraException) and (extra := _missing_extra(str(error))):
        return extra
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        cause = f"\n{error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
        return f"{error}{cause}"
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT}:
        return f"cannot write {error.filename or 'to the disk'}: {error.strerror}"
    return None


def _unreadable(error: OverrideParseException) -> str:
    """Say which argument Hydra cannot read, and how to type it."""
    text, reason = str(error.override), str(error).splitlines()[0]
    key, equals, value = text.partition("=")
    if not equals or KEY.fullmatch(key) is None:
        return f"the argument {text} is no setting: expected KEY=VALUE, such as model.dropout=0.2"
    values = value.split(",") if {"-m", "--multirun"}.intersection(sys.argv) else [value]
    typed = shell_word(f"{key}={','.join(one if _is_readable(key, one) else quoted(one) for one in values)}")
    reason = "" if reason.startswith("LexerNoViable") else f" ({reason})"
    return f"the argument {text} cannot be read{reason}. Quote the value for Hydra and all of it for the shell: {typed}"


def _is_readable(key: str, value: str) -> bool:
    try:
        OverridesParser.create().parse_override(f"{key}={value}")
    except HydraException:
        return False
    return True


def _several_values(text: str) -> str:
    key, _, value = text.partition("=")
    return (
        f"the argument {text} has several values: add -m to train one run with each; for a list write "
        f"{shell_word(f'{key}=[{value}]')}, for one text with a comma {shell_word(f'{key}={quoted(value)}')}"
    )


def _missing_extra(message: str) -> str | None:
    """Say what to install where Hydra has not found a plugin that an extra brings."""
    found = re.search(r"'hydra/(?:launcher|sweeper)/(\w+)'", message)
    extra = None if found is None else PLUGIN_EXTRAS.get(found[1])
    if found is None or extra is None:
        return None
    return f"{found[0][1:-1]} is not installed: pip install -c constraints.txt -e '.[{extra}]'"


class RunStart(Callback):
    """Checks the configuration before a run or sweep starts, and claims a folder that no other run has.

    Hydra turns a callback's exception into a warning, so a refusal leaves as SystemExit.
    """

    sweep: ClassVar[SweepFolder | None] = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        # The processes that Lightning starts for the other devices share the first one's folder.
        if "LOCAL_RANK" in os.environ:
            die_with_parent()
            return
        with one_message():
            raise_problems(find_problems(job_config(config, config.hydra.run.dir)))
            _claim(config)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with one_message():
            from genre_classifier.sweeps.start import problems_of_every_trial, start_sweep

            raise_problems(problems_of_every_trial(config))
            RunStart.sweep = start_sweep(config)


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
    chosen = any(override.lstrip("+").startswith(f"{key}=") for override in config.hydra.overrides.hydra)
    folder = claim(Path(config.hydra.run.dir), exact=chosen)
    with read_write(config), open_dict(config):
        config.hydra.run.dir = str(folder)
