"""What a user reads about a setting that cannot be composed: the key, the value, and what is allowed."""

from __future__ import annotations

import difflib
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Union, get_args, get_origin, get_type_hints

from omegaconf.errors import OmegaConfBaseException


def explain(error: OmegaConfBaseException) -> str | None:
    """Say which key, which value and what is allowed, for a key or value that the schema refuses.

    Returns None where the error is of another kind.
    """
    schema = error.object_type if is_dataclass(error.object_type) else None
    path = str(error.full_key or error.key or "")
    name = path.rpartition(".")[2]
    hints = get_type_hints(schema) if schema is not None else {}
    if type(error).__name__ in {"ConfigKeyError", "ConfigAttributeError"} and schema is not None:
        allowed = [f.name for f in fields(schema) if not f.name.startswith("_")]
        guess = difflib.get_close_matches(name, allowed, n=1)
        meant = f" Did you mean {path.removesuffix(name)}{guess[0]}?" if guess else ""
        place = path.removesuffix(name).rstrip(".") or "the configuration"
        return f"{path}: there is no such key. {place} has {', '.join(allowed)}.{meant}"
    if type(error).__name__ == "ValidationError":
        kind = hints.get(name.partition("[")[0])
        reason = str(error.msg or error).splitlines()[0]
        return f"{path}: {reason}" + (f" (expected {_describe(kind)})" if kind is not None else "")
    return None


def _describe(kind: object) -> str:
    if get_origin(kind) is Union:
        return " or ".join("null" if arg is type(None) else _describe(arg) for arg in get_args(kind))
    if get_origin(kind) in (list, tuple):
        return "a list such as [0.9, 0.99]" if float in get_args(kind) else "a list such as [128, 64, 32]"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(member.name for member in kind)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))  # type: ignore[call-overload]
