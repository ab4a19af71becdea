"""Format commands that users can paste: quoted for the shell, and for Hydra."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

# What a POSIX shell still reads within double quotes, or Bash when a person types.
_NOT_IN_DOUBLE_QUOTES = set('"$`\\!')


def quoted(text: str) -> str:
    """Return a text as a quoted value of Hydra's override grammar."""
    from hydra.core.override_parser.types import Quote, QuotedString

    # An interpolation would be looked up.
    return QuotedString(text.replace("${", "\\${"), Quote.single).with_quotes()


def setting(key: str, value: str | Path) -> str:
    """Return ``key=value`` for Hydra. The value is quoted if Hydra would read it as something else than this text.

    Parameters
    ----------
    key : str
    value : str or Path
        Any text.
    """
    return f"{key}={value}" if _is_plain(key, str(value)) else f"{key}={quoted(str(value))}"


def _is_plain(key: str, value: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        (override,) = OverridesParser.create().parse_overrides([f"{key}={value}"])
        return bool(value) and "${" not in value and override.value() == value
    except HydraException:
        return False


def command(*words: str | Path) -> str:
    """Return a command line for a POSIX shell.

    Parameters
    ----------
    *words : str or Path
        The program and its arguments, each as the program is to get it.
    """
    return " ".join(shell_word(str(word)) for word in words)


def argument(key: str, value: str | Path) -> str:
    """Return a setting as a person types it: for Hydra and for the shell."""
    return shell_word(setting(key, value))


def program(name: str) -> tuple[str, str]:
    """Return how ``train`` or ``export`` is started from here: by its file in a clone, else as a subcommand."""
    return ("python", f"{name}.py") if Path(f"{name}.py").is_file() else ("genre-classifier", name)


def train_command(overrides: Sequence[str], *, multirun: bool = False) -> str:
    """Return the command that trains with these overrides."""
    return command(*program("train"), *(["-m"] if multirun else []), *overrides)


def export_sweep_command(folder: Path, *, folds: bool) -> str:
    """Return the command that exports a sweep's best configuration.

    Parameters
    ----------
    folder : Path
        The sweep's folder.
    folds : bool
        Whether its trials are folds. Each of their networks lacks the rows of its fold, so all rows train another one.
    """
    refit = (setting("refit", "full"),) if folds else ()
    return command(*program("export"), setting("sweep", folder), *refit)


def shell_word(text: str) -> str:
    """Return a text as one word for a POSIX shell."""
    # Double quotes around Hydra's single ones can be read; shlex has another way.
    return f'"{text}"' if "'" in text and not _NOT_IN_DOUBLE_QUOTES.intersection(text) else shlex.quote(text)
