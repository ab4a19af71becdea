"""Read JSON and YAML files of unknown origin. Only this module does that.

A run's or sweep's folder, a bundle or a table may come from anywhere, so such a file is not trusted. Its size, depth
and numbers are bounded before any object is made. Every refusal is an exception of the class that the caller names.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

from genre_classifier.errors import GenreClassifierError, RunFolderError

MAX_JSON_BYTES: Final = 16 * 2**20  # the metadata of 10,000 features take 2 MB
MAX_JSON_VALUES: Final = 1_000_000
MAX_YAML_BYTES: Final = 256 * 2**10  # a run's configuration takes 3 KB, Hydra's own part 6 KB
MAX_YAML_VALUES: Final = 20_000
MAX_DEPTH: Final = 50  # levels of nested lists and objects
_MAX_DIGITS: Final = 18  # of a whole number: what 64 bits hold
_MAX_CHARACTERS: Final = {"int": _MAX_DIGITS + 2, "float": 100}  # of a number in YAML

ErrorClass = type[GenreClassifierError]


@contextmanager
def opened(path: Path, folder: int | None = None) -> Iterator[BinaryIO]:
    """Open a file of unknown origin.

    Parameters
    ----------
    path : Path
    folder : int or None
        An open handle of the file's folder. The file is opened in this folder, even if another has its name now.

    Raises
    ------
    OSError
        There is no such file (FileNotFoundError), it cannot be read, or it is a pipe or device, which may never end.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for ever.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        handle = os.open(path if folder is None else path.name, flags, dir_fd=folder)
    except (NotADirectoryError, ValueError) as reason:  # ValueError: NUL in the name
        raise FileNotFoundError(path) from reason
    with os.fdopen(handle, "rb") if stat.S_ISREG(os.fstat(handle).st_mode) else _refuse(handle) as file:
        yield file


def _refuse(handle: int) -> NoReturn:
    os.close(handle)
    raise OSError("expected a file, found something else")


def read_bytes(path: Path, limit: int, error: ErrorClass, *, folder: int | None = None) -> bytes:
    """Return a file's content.

    Parameters
    ----------
    path : Path
    limit : int
        Largest number of bytes. A larger file is refused before it is read.
    error : type
        What is raised.
    folder : int or None
        See :func:`opened`.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    GenreClassifierError
        Of the class `error`: it is not a regular file, is larger than `limit`, or cannot be read.
    """
    try:
        with opened(path, folder) as file:
            size = os.fstat(file.fileno()).st_size
            content = b"" if size > limit else file.read(limit + 1)
    except FileNotFoundError:
        raise
    except OSError as reason:
        what = f"cannot be read ({reason.strerror})" if reason.strerror else str(reason)
        raise error(f"{path}: {what}") from reason
    if (size := max(size, len(content))) > limit:
        raise error(
            f"{path}: {size:,} bytes, more than any such file ({limit:,}); it is not what its name says"
        )
    return content


def parse_json(content: bytes | str, where: str | Path, error: ErrorClass, *, allow_nan: bool = False) -> Any:
    """Parse a JSON text.

    Parameters
    ----------
    content : bytes or str
        Bytes are UTF-8.
    where : str or Path
        The file, for messages.
    error : type
        What is raised.
    allow_nan : bool
        Whether NaN and Infinity are numbers, as Python writes them.

    Raises
    ------
    GenreClassifierError
        Of the class `error`: the text is not JSON, or is larger or deeper than this package's files; an object has a
        key twice, a number does not fit into 64 bits, or a text holds half a surrogate pair.
    """

    def parse_whole(text: str) -> int:
        if len(text.lstrip("-")) > _MAX_DIGITS:
            raise error(
                f"{where}: a whole number of {len(text.lstrip('-')):,} digits; 64 bits hold {_MAX_DIGITS}"
            )
        return int(text)

    def parse_real(text: str) -> float:
        number = float(text)
        if not math.isfinite(number):
            raise error(f"{where}: the number {text:.40} is larger than a float holds")
        return number

    def parse_constant(text: str) -> float:
        if not allow_nan:
            raise error(f"{where}: holds {text}, which is not JSON")
        return float(text.replace("Infinity", "inf"))

    def build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            repeated = next(key for key, count in counts.items() if count > 1)
            raise error(f"{where}: the key {repeated!r:.80} stands more than once in one object")
        return found

    if len(content) > MAX_JSON_BYTES:
        raise error(f"{where}: {len(content):,} bytes, more than any such file ({MAX_JSON_BYTES:,})")
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
    except UnicodeDecodeError as reason:
        raise error(f"{where}: cannot be read as JSON (not UTF-8: {reason})") from reason
    # Every value but the first follows one of these marks, so the count bounds the memory before parsing.
    if sum(text.count(mark) for mark in "[{,:") > MAX_JSON_VALUES:
        raise error(f"{where}: more than {MAX_JSON_VALUES:,} values, which no such file has")
    try:
        value = json.loads(
            text,
            parse_int=parse_whole,
            parse_float=parse_real,
            parse_constant=parse_constant,
            object_pairs_hook=build_object,
        )
    except (ValueError, RecursionError) as reason:
        raise error(f"{where}: cannot be read as JSON ({reason})") from reason
    _check_json(value, where, error)
    return value


def _check_json(value: Any, where: str | Path, error: ErrorClass) -> None:
    """Raise the error if the nesting is too deep, or a text is not valid Unicode."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str):
                _check_text(item, where, error)
        if not below:
            return
        level = below
    raise error(f"{where}: nested more than {MAX_DEPTH} deep")


def _check_text(text: str, where: str | Path, error: ErrorClass) -> None:
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as reason:
        raise error(
            f"{where}: the text {text!r:.80} holds half a surrogate pair, which is no character"
        ) from reason


def read_json(path: Path, error: ErrorClass, *, allow_nan: bool = False) -> Any:
    """Return the content of a JSON file (see :func:`parse_json`). Raises FileNotFoundError if it is missing."""
    return parse_json(read_bytes(path, MAX_JSON_BYTES, error), path, error, allow_nan=allow_nan)


def read_versioned_json(path: Path, version: int, *, kind: str, example: str) -> dict[str, Any]:
    """Return the object in a JSON file of a run's or sweep's folder.

    Parameters
    ----------
    path : Path
    version : int
        The ``format_version`` that the file must have.
    kind : str
        Kind of the folder: ``run`` or ``sweep``.
    example : str
        Path of such a folder, for the message.

    Raises
    ------
    RunFolderError
        The file is missing, damaged, or of another version.
    """
    try:
        content = read_json(path, RunFolderError, allow_nan=True)
    except FileNotFoundError:
        raise RunFolderError(
            f"{path.parent}: there is no {path.name}; name the folder of a {kind}, such as {example}"
        ) from None
    found = content.get("format_version") if isinstance(content, dict) else None
    if type(found) is not int or found != version:
        raise RunFolderError(
            f"{path}: format_version is {found!r:.80}, this version reads {version}; "
            "use the version of genre-classifier that wrote it"
        )
    return dict(content)


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file of a run's or sweep's folder, as built-in types. Interpolations stay text.

    OmegaConf would read the same values. Anchors, aliases and tags are refused: Hydra does not write them, and with
    them 2 KB can expand to more than the memory.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    RunFolderError
        The file is damaged, larger or deeper than any such file, or has anchors, aliases or tags.
    """
    content = read_bytes(path, MAX_YAML_BYTES, RunFolderError)
    try:
        loader = _build_yaml_loader()(content.decode("utf-8"))
        loader.where = path
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except RunFolderError:
        raise
    except Exception as reason:  # PyYAML raises many others, such as OverflowError for "\Uffffffff"
        detail = " ".join(str(reason).split())
        raise RunFolderError(f"{path}: cannot be read ({detail:.300})") from reason


def _build_yaml_loader() -> Any:
    """Return OmegaConf's loader with limits."""
    import yaml
    from omegaconf._utils import get_yaml_loader

    class Guarded(get_yaml_loader()):  # type: ignore[misc]
        where: Path
        depth = 0
        values = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
                raise RunFolderError(f"{self.where}: has YAML anchors or aliases, which no such file has")
            if event.tag not in (None, "!"):
                raise RunFolderError(
                    f"{self.where}: has the YAML tag {event.tag!r:.80}, which no such file has"
                )
            self.values += 1
            self.depth += 1
            if self.depth > MAX_DEPTH or self.values > MAX_YAML_VALUES:
                raise RunFolderError(
                    f"{self.where}: more than {MAX_YAML_VALUES:,} values, or nested more than {MAX_DEPTH} deep"
                )
            node = super().compose_node(parent, index)
            self.depth -= 1
            kind = node.tag.rpartition(":")[2]
            if isinstance(node, yaml.ScalarNode) and len(node.value) > _MAX_CHARACTERS.get(kind, math.inf):
                raise RunFolderError(f"{self.where}: has a number of {len(node.value):,} characters")
            if isinstance(node, yaml.ScalarNode):
                _check_text(node.value, self.where, RunFolderError)
            return node

    return Guarded
