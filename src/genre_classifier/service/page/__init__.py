"""The page at / and the documentation at /docs: plain files of this folder, without a build step.

They are read once, and served from memory under a policy that lets a browser load and run nothing else.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import PurePath
from typing import Final

from genre_classifier.service.bodies import Receive, Scope, Send

PLACES: Final = {"index.html": "/", "docs.html": "/docs"}  # the others are at /page/NAME
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class PageFile:
    """A file of the page, as an ASGI application.

    Parameters
    ----------
    content : bytes
    kind : str
        Its media type.
    """

    def __init__(self, content: bytes, kind: str) -> None:
        self.content = content
        self.etag = b'"%s"' % hashlib.sha256(content).hexdigest()[:32].encode()
        self._headers = [
            (b"content-type", kind.encode()),
            (b"etag", self.etag),
            (b"cache-control", b"no-cache"),  # a browser asks whether its copy is still the same
            (b"content-security-policy", POLICY.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the file, or with 304 if the browser has it."""
        known = [value for name, value in scope["headers"] if name == b"if-none-match"]
        if any(self.etag in value for value in known):
            await send({"type": "http.response.start", "status": 304, "headers": self._headers})
            await send({"type": "http.response.body", "body": b""})
            return
        headers = [*self._headers, (b"content-length", b"%d" % len(self.content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else self.content
        await send({"type": "http.response.body", "body": body})


def read_page_files() -> dict[str, PageFile]:
    """Return the files by their paths in an address."""
    return {
        PLACES.get(file.name, f"/page/{file.name}"): PageFile(file.read_bytes(), TYPES[suffix])
        for file in files(__package__).iterdir()
        if (suffix := PurePath(file.name).suffix) in TYPES
    }
