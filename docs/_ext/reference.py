"""Sphinx extension: puts the configuration and the command reference in place of their marks in a page.

A mark is the line ``<!-- generated: NAME -->``. The tables are made from the dataclasses in ``config/schema.py``, the
YAML files in ``conf/`` and the argument parser, so that they cannot say anything else than the program.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from docutils import nodes
from omegaconf import MISSING

from genre_classifier.cli import main as command_line
from genre_classifier.config import schema
from hydra_plugins.genre_classifier_launchers import stacked_launcher

CONF = Path(__file__).resolve().parents[2] / "conf"
# Hydra reads this dataclass; its docstring says the same in one sentence.
LAUNCHER_MEANINGS = {
    "backend": "where stacks are trained: local, ray or submitit",
    "ray_address": "of the Ray cluster; auto for the one that this machine is part of, null for a local instance",
    "submitit": "cluster (slurm or local), and parameters of submitit's AutoExecutor.update_parameters",
    "_target_": "class of the launcher",
    "n_jobs": "stacks that run at once; null: one per core, or one on a GPU",
    "max_members": "the most trials per stack",
}
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("source-read", _fill)
    app.connect("build-finished", _list_outside_links)
    return {"version": "1", "parallel_read_safe": True}


def _fill(app: Any, page: str, source: list[str]) -> None:
    for name, made in GENERATED.items():
        mark = f"<!-- generated: {name} -->"
        if mark in source[0]:
            source[0] = source[0].replace(mark, made())


def _list_outside_links(app: Any, error: Exception | None) -> None:
    """List the addresses outside these pages in outside-links.txt. None of them is fetched."""
    if error is None:
        found = {
            node["refuri"]
            for page in app.env.found_docs
            for node in app.env.get_doctree(page).findall(nodes.reference)
            if node.get("refuri", "").startswith("http")
        }
        text = "".join(f"{address}\n" for address in sorted(found))
        (Path(app.outdir) / "outside-links.txt").write_text(text, encoding="utf-8")


def configuration() -> str:
    """Return the reference of every setting, as Markdown."""
    lines = ["## The run as a whole", "", *_table("", _leaves(schema.TrainConfig, "", nested=False))]
    for part in fields(schema.TrainConfig):
        kind = _dataclass_of(get_type_hints(schema.TrainConfig)[part.name])
        if kind is not None:
            lines += _group(part.name, kind, _meaning(schema.TrainConfig, part.name))
    for group in ("experiment", "hparams_search", "debug"):
        lines += [f"## {group}", "", *_described_options(group)]
    lines += ["## hydra.launcher=stacked", "", _prose(stacked_launcher.StackedLauncherConf), ""]
    lines += _table("hydra.launcher", list(_leaves(stacked_launcher.StackedLauncherConf, "hydra.launcher")))
    lines += ["## Export", "", "These are the settings of `export.py` and `genre-classifier export`.", ""]
    lines += _table("", list(_leaves(schema.ExportConfig, "")))
    return "\n".join(lines)


def groups() -> str:
    """Return the config groups with the options of each, as a Markdown table."""
    lines = ["| group | options |", "| --- | --- |"]
    for folder in sorted(path for path in CONF.rglob("*") if path.is_dir() and any(path.glob("*.yaml"))):
        name = folder.relative_to(CONF).as_posix()
        if name not in ("hydra", "local"):
            lines.append(f"| `{name}` | {', '.join(f'`{o.stem}`' for o in _options(name))} |")
    return "\n".join(lines)


def commands() -> str:
    """Return the reference of every subcommand, as Markdown."""
    lines = []
    (choices,) = (
        action
        for action in command_line._build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    helps = {choice.dest: choice.help for choice in choices._choices_actions}
    for name, parser in choices.choices.items():
        if not parser.add_help:  # train and export: Hydra reads their command lines
            continue
        lines += [f"## {name}", "", _sentence(helps[name] or ""), ""]
        lines += ["```text", _usage(parser), "```", "", "| argument | meaning |", "| --- | --- |"]
        for action in parser._actions:
            lines.append(f"| {_argument(action)} | {_cell(_sentence(action.help or ''))} |")
        lines.append("")
    return "\n".join(lines)


def notebooks() -> str:
    """Return the table of contents of docs/notebooks; nothing if it is not there."""
    names = sorted(path.stem for path in (CONF.parent / "docs" / "notebooks").glob("*.ipynb"))
    if not names:
        return ""
    return "\n".join(
        ["```{toctree}", ":caption: Notebooks", "", *(f"notebooks/{name}" for name in names), "```"]
    )


GENERATED: dict[str, Callable[[], str]] = {
    "configuration": configuration,
    "groups": groups,
    "commands": commands,
    "notebooks": notebooks,
}


def _group(prefix: str, kind: type, meaning: str) -> Iterator[str]:
    yield from (f"## {prefix}", "", _prose(kind) or _sentence(meaning), "")
    yield from _described_options(prefix)
    choices = [
        chosen for chosen in schema.SCHEMAS.values() if issubclass(chosen, kind) and chosen is not kind
    ]
    shared = list(_leaves(kind, prefix))
    if choices and prefix != "data":
        shared = []  # short: each option repeats what it inherits
    yield from _table(prefix, shared)
    for chosen in choices:
        here = list(_leaves(chosen, prefix))
        if prefix == "data":
            names = {name for name, *_ in shared}
            here = [row for row in here if row[0] not in names or row[0] == f"{prefix}.source"]
        yield from (f"### {_title(prefix, chosen)}", "", _prose(chosen), "")
        yield from _table(prefix, here)
    if prefix == "data":
        yield from ("### data/split", "", *_described_options("data/split"))


def _title(prefix: str, chosen: type) -> str:
    (name,) = (name for name, kind in schema.SCHEMAS.items() if kind is chosen)
    return f"{prefix}={name.removeprefix('schema_').removeprefix('data_')}"


def _described_options(group: str) -> Iterator[str]:
    for option in _options(group):
        header = _header(option)
        lines = [f"- **`{group}={option.stem}`**: {header['summary']}"]
        for word in ("Likely override", "Expected", "Takes"):
            if header.get(word):
                text = header[word]
                lines.append(f"  {word}: {_as_code(text) if word == 'Likely override' else text}")
        sets = _sets(group, option)
        if sets:
            lines.append(f"  Sets {', '.join(f'`{key}={value}`' for key, value in sets.items())}.")
        yield "\\\n".join(lines)
    yield ""


def _sets(group: str, option: Path) -> dict[str, str]:
    """Return what a YAML file sets to something else than the schema's default."""
    given = _flat(yaml.safe_load(option.read_text(encoding="utf-8")) or {})
    names = (f"schema_{option.stem}", f"schema_{group}_{option.stem}")
    kinds = [schema.SCHEMAS[name] for name in names if name in schema.SCHEMAS]
    kinds += [kind for kind in map(_dataclass_of, (get_type_hints(schema.TrainConfig).get(group),)) if kind]
    kinds += [schema.SplitConfig] if group == "data/split" else []
    if not kinds:
        return given
    defaults = {name: default for name, _, _, default in _leaves(kinds[0], "")}
    return {key: text for key, text in given.items() if defaults.get(key) != f"`{text}`"}


def _as_code(text: str) -> str:
    """Return a file's 'Likely override', its settings as code."""
    return re.sub(r"((?<=\s)|^)([\w./@]+=[^\s;,]+(?:,[^\s;,]+)*)", r"`\2`", text)


def _options(group: str) -> list[Path]:
    return sorted((CONF / group).glob("*.yaml"))


def _header(path: Path) -> dict[str, str]:
    """Return what the comment at the top of a YAML file says, by its headings."""
    found: dict[str, str] = {"summary": ""}
    key = "summary"
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.removeprefix("#").strip()
        if text.startswith("@package"):
            continue
        if line.startswith("#   "):
            key = "command"
        for word in ("Likely override", "Expected", "Takes"):
            before, mark, after = text.partition(f"{word}:")
            if mark:
                found[key] = f"{found.get(key, '')} {before}".strip()
                key, text = word, after.strip()
        found[key] = f"{found.get(key, '')} {text}".strip()
    return found


def _flat(node: Any, path: str = "") -> dict[str, str]:
    if isinstance(node, dict):
        return {
            name: text
            for key, child in node.items()
            if key not in ("defaults", "hydra")
            for name, text in _flat(child, f"{path}.{key}").items()
        }
    if isinstance(node, str) and re.fullmatch(r"[\d.]+e-?\d+", node):  # a number to Hydra, a text to PyYAML
        node = float(node)
    return {path.removeprefix("."): _shown(node)}


def _leaves(kind: type, prefix: str, *, nested: bool = True) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, meaning, allowed values and default of each setting."""
    hints = get_type_hints(kind)
    for entry in fields(kind):
        name = f"{prefix}.{entry.name}".removeprefix(".")
        inner = _dataclass_of(hints[entry.name])
        if inner is not None:
            if nested:
                yield from _leaves(inner, name)
            continue
        meaning = _meaning(kind, entry.name)
        yield name, meaning, _allowed(kind, entry.name, hints[entry.name]), _default(entry)


def _table(prefix: str, rows: Any) -> list[str]:
    rows = list(rows)
    if not rows:
        return []
    lines = ["| setting | meaning | allowed | default |", "| --- | --- | --- | --- |"]
    for name, meaning, allowed, default in rows:
        lines.append(f"| `{name}` | {_cell(_sentence(meaning))} | {_cell(allowed)} | {default} |")
    return [*lines, ""]


def _dataclass_of(hint: Any) -> type | None:
    found = [one for one in (*get_args(hint), hint) if is_dataclass(one)]
    return found[0] if found and isinstance(found[0], type) else None


def _allowed(kind: type, name: str, hint: Any) -> str:
    limit = schema.find_limit(kind, name)
    optional = type(None) in get_args(hint)
    if optional:
        (hint,) = (one for one in get_args(hint) if one is not type(None))
    items = get_origin(hint) in (list, tuple)
    inner = get_args(hint)[0] if items else hint
    if limit:
        allowed = limit["allowed"]
        if isinstance(allowed, tuple):
            text = ", ".join(f"`{_shown(value)}`" for value in allowed)
            optional = optional and None not in allowed
        else:
            text = str(allowed)
            if inner is int:
                text = text.replace("a number", "a whole number").replace(
                    f"{allowed.high:g}", f"{allowed.high}"
                )
    elif isinstance(inner, type) and issubclass(inner, Enum):
        text = ", ".join(f"`{one.value}`" for one in inner)
    else:
        text = "a mapping" if get_origin(inner) is dict else KINDS[inner]
    if items:
        text = f"a list, each {text}"
    return f"{text}, or `null`" if optional else text


def _default(entry: Field[Any]) -> str:
    value = entry.default if entry.default_factory is NO_DEFAULT else entry.default_factory()
    return "required" if value == MISSING or value is NO_DEFAULT else f"`{_shown(value)}`"


def _shown(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_shown(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_shown(item)}' for key, item in value.items())}}}"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value) or '""'


def _meaning(kind: type, name: str) -> str:
    """Return the comment beside a field, or above it, in the class that says the most of it."""
    for base in kind.__mro__:
        text = _comments(base).get(name) if is_dataclass(base) else None
        if text:
            see = re.fullmatch(r"see (\w+)", text)
            return inspect.getdoc(getattr(schema, see[1])) or text if see else text
    return LAUNCHER_MEANINGS.get(name, "")


@cache
def _comments(kind: type) -> dict[str, str]:
    """Return the comment of each field that a class declares."""
    source = inspect.getsource(kind)
    comments = {
        token.start[0]: token.string.removeprefix("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and "noqa" not in token.string
    }
    lines = source.splitlines()
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node in body.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        beside = [
            comments[line] for line in range(node.lineno, (node.end_lineno or 0) + 1) if line in comments
        ]
        above: list[str] = []
        line = node.lineno - 1
        while line in comments and lines[line - 1].lstrip().startswith("#"):
            above.insert(0, comments[line])
            line -= 1
        found[node.target.id] = " ".join(beside or above)
    return found


def _prose(kind: type) -> str:
    text = inspect.getdoc(kind) or ""
    return "" if text.startswith(f"{kind.__name__}(") else text  # what dataclass writes itself


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    if not text:
        return text
    end = "" if text.endswith(".") else "."
    first = text.split()[0]
    upper = text[0].upper() + text[1:] if first.isalpha() and first.islower() else text
    return upper + end


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("\n", " ")


def _usage(parser: argparse.ArgumentParser) -> str:
    formatter = argparse.HelpFormatter(parser.prog, width=90)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups, prefix="")
    return formatter.format_help().strip()


def _argument(action: argparse.Action) -> str:
    value = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    if action.choices:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    if not action.option_strings:
        return f"`{value}`"
    shown = f" {value}" if action.nargs != 0 else ""
    if action.nargs in ("+", "*"):
        shown += " ..."
    return ", ".join(f"`{option}{shown}`" for option in action.option_strings)
