"""Format commands that users can paste: quoted for the shell, and for Hydra."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

# The characters that a POSIX shell, or an interactive Bash, interprets within double quotes.
_NOT_IN_DOUBLE_QUOTES = set('"$`\\!')


def quote_for_hydra(text: str) -> str:
    """Return a text as a quoted value of Hydra's override grammar."""
    from hydra.core.override_parser.types import Quote, QuotedString

    # Hydra would resolve an interpolation.
    return QuotedString(text.replace("${", "\\${"), Quote.single).with_quotes()


def format_override(key: str, value: str | Path) -> str:
    """Return ``key=value`` for Hydra. The value is quoted if Hydra would not read it as this text.

    Parameters
    ----------
    key : str
    value : str or Path
        Any text.
    """
    return f"{key}={value}" if _needs_no_quotes(key, str(value)) else f"{key}={quote_for_hydra(str(value))}"


def _needs_no_quotes(key: str, value: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        (override,) = OverridesParser.create().parse_overrides([f"{key}={value}"])
        return bool(value) and "${" not in value and override.value() == value
    except HydraException:
        return False


def format_command(*words: str | Path) -> str:
    """Return a command line for a POSIX shell.

    Parameters
    ----------
    *words : str or Path
        The program and its arguments, unquoted.
    """
    return " ".join(quote_for_shell(str(word)) for word in words)


def format_argument(key: str, value: str | Path) -> str:
    """Return a setting as it is typed in a shell: quoted for Hydra and for the shell."""
    return quote_for_shell(format_override(key, value))


def find_program(name: str) -> tuple[str, str]:
    """Return the command for ``train`` or ``export``: the file in a clone, else the subcommand."""
    return ("python", f"{name}.py") if Path(f"{name}.py").is_file() else ("genre-classifier", name)


def format_train_command(overrides: Sequence[str], *, multirun: bool = False) -> str:
    """Return the command that trains with these overrides."""
    return format_command(*find_program("train"), *(["-m"] if multirun else []), *overrides)


def format_export_command(folder: Path, *, folds: bool) -> str:
    """Return the command that exports a sweep's best configuration.

    Parameters
    ----------
    folder : Path
        The sweep's folder.
    folds : bool
        Whether its trials are folds. Each of their networks lacks the rows of its fold, so all rows train another one.
    """
    refit = (format_override("refit", "full"),) if folds else ()
    return format_command(*find_program("export"), format_override("sweep", folder), *refit)


def advise_to_install(*extras: str) -> str:
    """Return what to do if an optional dependency is missing. It holds in a clone and for an installed package.

    Parameters
    ----------
    *extras : str
        Names of the extras that bring it, as in pyproject.toml.

    Examples
    --------
    >>> advise_to_install("audio")
    "run in the project's folder: pip install -c constraints.txt -e '.[audio]'"
    """
    return f"run in the project's folder: pip install -c constraints.txt -e '.[{','.join(extras)}]'"


def quote_for_shell(text: str) -> str:
    """Return a text as one word for a POSIX shell."""
    # Double quotes around Hydra's single quotes are easier to read than shlex's escapes.
    return f'"{text}"' if "'" in text and not _NOT_IN_DOUBLE_QUOTES.intersection(text) else shlex.quote(text)
