"""The code blocks of README.md and of the pages in docs/."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELL = {"bash", "sh", "shell", "console", "zsh"}
_FENCE = re.compile(
    r"^(?P<fence>`{3,})(?:\{code-block\} *)?(?P<language>[\w{}-]*)[^\n]*\n(?P<text>.*?)^(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_MARK = re.compile(r"<!-- not run: (?P<reason>[^>]+) -->\n\Z")
_CAPTION = re.compile(r"\A:caption: (?P<caption>.+)\n\n")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Parameters
    ----------
    page : str
        Name of the page, such as ``docs/start.md``.
    line : int
        Of its fence, from 1.
    language : str
    text : str
    caption : str or None
        The file that the block is, or changes.
    reason : str or None
        Why no test runs it, as the comment before it says.
    """

    page: str
    line: int
    language: str
    text: str
    caption: str | None
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_shell(self) -> bool:
        """Whether its lines are commands."""
        return self.language in SHELL

    def commands(self) -> list[str]:
        """Return its commands, continued lines joined and comments dropped."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [command for line in lines if (command := re.split(r"(?:^|\s)#", line)[0].strip())]


def blocks_of(page: Path) -> list[Block]:
    """Return a page's fenced blocks in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        before, body = text[: match.start()], match["text"]
        mark, caption = _MARK.search(before), _CAPTION.match(body)
        found.append(
            Block(
                page.relative_to(ROOT).as_posix(),
                before.count("\n") + 1,
                match["language"],
                body[caption.end() :] if caption else body,
                caption["caption"] if caption else None,
                mark["reason"] if mark else None,
            )
        )
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUN_BLOCKS = [block for block in BLOCKS if block.is_shell and block.reason is None]
