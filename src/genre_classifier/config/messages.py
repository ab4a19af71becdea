"""Explain why settings cannot be composed: the key, the value, and the allowed values."""

from __future__ import annotations

import difflib
import errno
import re
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from traceback import walk_tb
from typing import Union, get_args, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import (
    InterpolationResolutionError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from genre_classifier.commands import advise_to_install, quote_for_hydra, quote_for_shell
from genre_classifier.config.folder import find_conf_folder
from genre_classifier.errors import GenreClassifierError

# The name of a setting or group, with the prefixes and packages of Hydra's grammar.
KEY = re.compile(r"(\+\+|\+|~)?[A-Za-z_][\w./@:]*", re.ASCII)
AMBIGUOUS = re.compile(r"Ambiguous value for argument '(.*)'$", re.MULTILINE)
# A function of a sweep: its name, and what follows the bracket.
CALL = re.compile(r"([a-z]+)\([^()]*\)?")
EXAMPLES = {
    "choice": "choice(0.1,0.2)",
    "range": "range(1,4)",
    "interval": "interval(0.1,0.5)",
    "glob": "glob(*)",
}
# The options that show a configuration and start nothing.
SHOWN_FOR_ONE_RUN = {"--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i"}
PLUGIN_EXTRAS = {
    "optuna": "sweep",
    "joblib": "sweep",
    "ray": "ray",
    "submitit_local": "slurm",
    "submitit_slurm": "slurm",
}


def explain_error(error: BaseException) -> str | None:
    """Return the message for the user, or None if the error is not the user's."""
    if isinstance(error, GenreClassifierError):
        return str(error)
    for link in (error, error.__cause__):
        if isinstance(link, OmegaConfBaseException) and (explanation := explain_schema_error(link)):
            return explanation
    if isinstance(error, OverrideParseException):
        return _explain_unreadable(error)
    if isinstance(error, HydraException) and (ambiguous := AMBIGUOUS.match(str(error))):
        return _explain_several_values(ambiguous[1])
    if isinstance(error, HydraException) and (extra := _explain_missing_extra(str(error))):
        return extra
    if isinstance(error, MissingConfigException) and (missing := _explain_missing_choice(error)):
        return missing
    if isinstance(error, ValueError) and _comes_from_hydra(error):
        return _explain_wrong_command(str(error))
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        cause = f"\n{error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
        return f"{error}{cause}".expandtabs(2)
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT}:
        return f"cannot write {error.filename or 'to the disk'}: {error.strerror}"
    return None


def _explain_unreadable(error: OverrideParseException) -> str:
    """Return a message with the argument that Hydra cannot read, and the way to type it."""
    text, reason = str(error.override), str(error).splitlines()[0]
    key, equals, value = text.partition("=")
    if not equals or KEY.fullmatch(key) is None:
        return f"the argument {text} is no setting: expected KEY=VALUE, such as model.dropout=0.2"
    if (call := CALL.fullmatch(value)) and (guess := difflib.get_close_matches(call[1], EXAMPLES, n=1)):
        example = quote_for_shell(f"{key}={EXAMPLES[guess[0]]}")
        return f"the argument {text} cannot be read; a {guess[0]}, quoted for the shell, looks like {example}"
    values = value.split(",") if {"-m", "--multirun"}.intersection(sys.argv) else [value]
    quoted_argument = quote_for_shell(
        f"{key}={','.join(one if _is_readable(key, one) else quote_for_hydra(one) for one in values)}"
    )
    reason = "" if reason.startswith("LexerNoViable") else f" ({reason})"
    return (
        f"the argument {text} cannot be read{reason}. Quote the value for Hydra and all of it for the shell: "
        f"{quoted_argument}"
    )


def _is_readable(key: str, value: str) -> bool:
    try:
        OverridesParser.create().parse_override(f"{key}={value}")
    except HydraException:
        return False
    return True


def _explain_several_values(text: str) -> str:
    key, _, value = text.partition("=")
    if not SHOWN_FOR_ONE_RUN.isdisjoint(word.partition("=")[0] for word in sys.argv[1:]):
        return (
            f"the argument {text} has several values, and --help, --cfg and --info show one run: leave out -m, and "
            "give one value"
        )
    if Path(sys.argv[0]).stem == "export":
        return f"the argument {text} has several values: an export takes one value; run it once for each"
    as_list, as_text = quote_for_shell(f"{key}=[{value}]"), quote_for_shell(f"{key}={quote_for_hydra(value)}")
    return (
        f"the argument {text} has several values: add -m to train one run with each; for a list write {as_list}, "
        f"for one text with a comma {as_text}"
    )


def explain_missing_choice(group: str, choice: str, options: Sequence[str]) -> str:
    """Return the message for a choice that a config group does not have."""
    guess = difflib.get_close_matches(choice, options, n=1)
    meant = f" Did you mean {group}={guess[0]}?" if guess else ""
    return f"{group}={choice}: there is no such choice. {group} has {', '.join(sorted(options))}.{meant}"


def _explain_missing_choice(error: MissingConfigException) -> str | None:
    if not error.options or not error.missing_cfg_file:
        return None
    group, _, choice = error.missing_cfg_file.rpartition("/")
    where = re.match(r"In '(experiment/.+?|hparams_search/.+?)'", str(error))
    prefix = "" if where is None else f"{where[1]}: "
    return prefix + explain_missing_choice(group, choice, error.options)


def _comes_from_hydra(error: BaseException) -> bool:
    """Return whether Hydra's own code raised an exception."""
    last = deque(walk_tb(error.__traceback__), maxlen=1)
    return any(frame.f_globals.get("__name__", "").startswith("hydra.") for frame, _ in last)


def _explain_wrong_command(message: str) -> str:
    """Return the message for a command line whose options Hydra refuses."""
    if message.startswith("Only one of --run"):
        return f"{message}; --cfg and --info show one run: leave out -m, and give each setting one value"
    if message.startswith("Config group override must be"):
        groups = [word for word in sys.argv[1:] if word.partition("=")[0] in _list_groups()]
        return (
            f"{' '.join(groups)}: a config group takes the name of one of its choices; to keep the usual one, leave "
            "the argument out"
        )
    return message.expandtabs(2)


def _list_groups() -> list[str]:
    """Return the names of the config groups that people choose from."""
    conf = find_conf_folder()
    own = {folder.relative_to(conf).as_posix() for folder in conf.rglob("*") if folder.is_dir()} - {"hydra"}
    return sorted([*own, "hydra/launcher", "hydra/sweeper"])


def _explain_missing_extra(message: str) -> str | None:
    """Return a message with the extra to install if Hydra did not find one of its plugins."""
    found = re.search(r"'hydra/(?:launcher|sweeper)/(\w+)'", message)
    extra = None if found is None else PLUGIN_EXTRAS.get(found[1])
    if found is None or extra is None:
        return None
    return f"{found[0][1:-1]} is not installed; {advise_to_install(extra)}"


def explain_schema_error(error: OmegaConfBaseException) -> str | None:
    """Return a message with the key, the value and the allowed values if the schema refuses a key or value.

    Returns None if the error is of another kind.
    """
    schema = error.object_type if is_dataclass(error.object_type) else None
    path = str(error.full_key or error.key or "")
    name = path.rpartition(".")[2]
    hints = get_type_hints(schema) if schema is not None else {}
    if type(error).__name__ in {"ConfigKeyError", "ConfigAttributeError"} and schema is not None:
        if "/" in path:
            return _explain_missing_group(path)
        allowed = [f.name for f in fields(schema) if not f.name.startswith("_")]
        guess = difflib.get_close_matches(name, allowed, n=1)
        meant = f" Did you mean {path.removesuffix(name)}{guess[0]}?" if guess else ""
        place = path.removesuffix(name).rstrip(".") or "the configuration"
        return f"{path}: there is no such key. {place} has {', '.join(allowed) or 'no settings'}.{meant}"
    if type(error).__name__ == "ValidationError":
        kind = hints.get(name.partition("[")[0])
        reason = str(error.msg or error).splitlines()[0]
        return f"{path}: {reason}" + (f" (expected {_describe(kind)})" if kind is not None else "")
    if isinstance(error, (InterpolationResolutionError, UnsupportedInterpolationType)):
        reason = str(error.msg or error).splitlines()[0]
        if "HydraConfig was not set" in reason:
            reason = "a run's settings cannot refer to Hydra's own, except run_dir; write the value itself"
        return f"{path}: its ${{...}} has no value: {reason}"
    return None


def _explain_missing_group(name: str) -> str:
    groups = _list_groups()
    guess = difflib.get_close_matches(name, groups, n=1)
    meant = f" Did you mean {guess[0]}?" if guess else ""
    return f"{name}: there is no such config group. The groups are {', '.join(groups)}.{meant}"


def _describe(kind: object) -> str:
    if get_origin(kind) is Union:
        return " or ".join("null" if arg is type(None) else _describe(arg) for arg in get_args(kind))
    if get_origin(kind) in (list, tuple):
        return "a list such as [0.9, 0.99]" if float in get_args(kind) else "a list such as [128, 64, 32]"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(member.name for member in kind)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))  # type: ignore[call-overload]
