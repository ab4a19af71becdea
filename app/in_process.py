"""One request after another to the service in this process, without a network: how an export tries a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genre_classifier.errors import BundleError, MissingExtraError

if TYPE_CHECKING:
    from app.main import GenreService

_NEEDED = ("fastapi", "msgspec")


def predict_in_process(folder: Path, name: str, rows: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """Return the service's answer to each row, asked for with all probabilities.

    Parameters
    ----------
    folder : Path
    name : str
        Of the bundle to serve.
    rows : sequence of sequences of float
        Raw features, in the order of training.

    Raises
    ------
    MissingExtraError
        What the service needs is not installed.
    BundleError
        It did not answer with 200.
    """
    missing = [package for package in _NEEDED if find_spec(package) is None]
    if missing:
        raise MissingExtraError(
            f"the service needs {' and '.join(missing)}: pip install -c constraints.txt -e '.[serve]'"
        )
    import asyncio

    from app.main import GenreService
    from app.model import ModelService

    service = ModelService(folder, name)
    service.refresh()
    return asyncio.run(_answers(GenreService(service), rows))


async def _answers(app: GenreService, rows: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    import msgspec

    answers = []
    for row in rows:
        body = msgspec.json.encode({"features": list(row), "return_probs": True})
        status, content = await _post(app, "/predict", body)
        if status != 200:
            problem = msgspec.json.decode(content)["detail"][0]["msg"]
            raise BundleError(f"the service answered {status}: {problem}")
        answers.append(msgspec.json.decode(content))
    return answers


async def _post(app: GenreService, path: str, body: bytes) -> tuple[int, bytes]:
    """Call the application as a server would."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    await app(scope, receive, send)
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return int(sent[0]["status"]), content
