"""The allowed content of a request body, and the messages about any other.

Bodies are read by msgspec: strictly (true and "3" are no numbers, NaN and 1e999 are refused) and in a few
microseconds. Only a refused body is looked at a second time, to name the field at fault.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from genre_classifier.bundle.inputs import find_fault

MAX_ROWS: Final = int(os.environ.get("MAX_ROWS", 10_000))
MAX_ROW_BYTES: Final = 2**20  # of a larger body, which is read row by row
WHOLE_BYTES: Final = 2**18  # what is larger would hold up other requests if it were read in one call
LONGEST_NAME: Final = 100  # of a client's own words in an answer

Row = list[float] | dict[str, float]
Location = list[str | int]


class PredictRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``POST /predict``."""

    features: Row
    return_probs: bool = False
    top_k: int | None = None


class BatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``POST /predict/batch``."""

    features: list[Row]
    return_probs: bool = False
    top_k: int | None = None


class RefusedBodyError(Exception):
    """A body that cannot be used: where, and why."""

    def __init__(self, location: Location, message: str) -> None:
        super().__init__(message)
        self.location = location
        self.message = message


class _LargePredictRequest(PredictRequest):
    features: msgspec.Raw  # type: ignore[assignment]


class _LargeBatchRequest(BatchRequest):
    features: list[msgspec.Raw]  # type: ignore[assignment]


_FIELDS: Final = ("features", "return_probs", "top_k")
_PREDICT: Final = msgspec.json.Decoder(PredictRequest)
_BATCH: Final = msgspec.json.Decoder(BatchRequest)
_LARGE_PREDICT: Final = msgspec.json.Decoder(_LargePredictRequest)
_LARGE_BATCH: Final = msgspec.json.Decoder(_LargeBatchRequest)
_ROW: Final = msgspec.json.Decoder(Row)


def decode_predict(body: bytes | bytearray) -> PredictRequest:
    """Return the request in a body; RefusedBodyError names the field at fault."""
    try:
        if len(body) <= WHOLE_BYTES:
            return _PREDICT.decode(body)
        large = _LARGE_PREDICT.decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise _explain(body, str(error), is_batch=False) from None
    return PredictRequest(_decode_row(large.features, ["features"]), large.return_probs, large.top_k)


def decode_batch(body: bytes | bytearray) -> BatchRequest:
    """Return the request in a body; RefusedBodyError names the field at fault."""
    try:
        request = (_BATCH if len(body) <= WHOLE_BYTES else _LARGE_BATCH).decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise _explain(body, str(error), is_batch=True) from None
    if len(request.features) > MAX_ROWS:
        raise RefusedBodyError(
            ["body", "features"], f"{len(request.features)} rows, at most {MAX_ROWS} are taken"
        )
    if isinstance(request, _LargeBatchRequest):
        # One by one, so that small requests get their turn in between.
        rows = [_decode_row(row, ["features", number]) for number, row in enumerate(request.features)]
        return BatchRequest(rows, request.return_probs, request.top_k)
    return request


def _decode_row(row: msgspec.Raw, location: Location) -> Row:
    content = memoryview(row)
    if len(content) > MAX_ROW_BYTES:
        raise RefusedBodyError(
            ["body", *location], f"a row of {len(content):,} bytes, at most {MAX_ROW_BYTES:,} are taken"
        )
    try:
        decoded: Row = _ROW.decode(content)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise _explain_row(content, str(error), location) from None
    return decoded


def _explain_row(content: memoryview, reason: str, location: Location) -> RefusedBodyError:
    with contextlib.suppress(ValueError, RecursionError):
        for place, message in _row_problems(json.loads(bytes(content)), location):
            return RefusedBodyError(["body", *place], message)
    return RefusedBodyError(["body", *location], reason)


def _explain(body: bytes | bytearray, reason: str, *, is_batch: bool) -> RefusedBodyError:
    if len(body) > WHOLE_BYTES:
        return _explain_briefly(reason)
    try:
        # Unlike msgspec this takes NaN, Infinity and 1e999, so that they can be named.
        content = json.loads(body)
    except (ValueError, RecursionError):
        return RefusedBodyError(["body"], f"not readable as JSON: {reason}")
    for location, message in _problems(content, is_batch):
        return RefusedBodyError(["body", *location], message)
    return RefusedBodyError(["body"], reason)


def _explain_briefly(reason: str) -> RefusedBodyError:
    """Return where and why in msgspec's words: ``Expected `bool`, got `int` - at `$.return_probs```."""
    message, _, path = reason.partition(" - at `$")
    steps = re.findall(r"\.(\w+)|\[(\d+)\]", path)
    return RefusedBodyError(["body", *(name or int(index) for name, index in steps)], message)


def _problems(content: Any, is_batch: bool) -> Iterator[tuple[Location, str]]:
    if not isinstance(content, dict):
        yield [], f"expected an object with the field features, found {_kind(content)}"
        return
    for key in content:
        if key not in _FIELDS:
            yield [_named(key)], f"unknown field; expected {', '.join(_FIELDS)}"
    if "features" not in content:
        yield ["features"], "missing field"
    elif not is_batch:
        yield from _row_problems(content["features"], ["features"])
    elif not isinstance(content["features"], list):
        yield ["features"], f"expected a list of rows, found {_kind(content['features'])}"
    else:
        for number, row in enumerate(content["features"]):
            yield from _row_problems(row, ["features", number])
    if not isinstance(content.get("return_probs", False), bool):
        yield ["return_probs"], f"expected true or false, found {_kind(content['return_probs'])}"
    top_k = content.get("top_k")
    if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int)):
        yield ["top_k"], f"expected a whole number, found {_kind(top_k)}"


def _row_problems(row: Any, location: Location) -> Iterator[tuple[Location, str]]:
    if isinstance(row, dict):
        entries: Any = row.items()
    elif isinstance(row, list):
        entries = enumerate(row)
    else:
        yield location, f"expected a list of numbers, or an object of named numbers, found {_kind(row)}"
        return
    for place, value in entries:
        if (fault := find_fault(value, _kind)) is not None:
            yield [*location, _named(place)], f"expected {fault[0]}, found {fault[1]}"


def _named(key: str | int) -> str | int:
    return key[:LONGEST_NAME] if isinstance(key, str) else key


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number"}
    return "null" if value is None else names.get(type(value), "a number")
