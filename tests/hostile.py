"""Names as a file from anywhere may have them, and what tells whether a terminal may be given a text."""

from __future__ import annotations

import unicodedata

HOSTILE_NAMES = (
    "[/rock]",
    "[unknown]",
    "[bold red]loud[/]",
    ":guitar:",
    "\x1b[31mred\x1b[0m",
    "\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\",
    "\x1b]52;c;cm0gLXJmIH4=\x07",
    "\x9b2J\x9d0;title\x9c",
    "over\rwritten",
    "two\nerror: lines",
    "tab\tbed",
    "\u202egnp.exe",
    "\u2066isolated\u2069",
    "zero\u200bwidth\u200d\ufeff",
    "\u2028separated\u2029",
    "\x00null\x7f",
    "fill\u3164er",
    "=1+1",
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "'=quoted",
    "<img src=x onerror=alert(1)>",
    "n" * 10_000,
)
# Box drawing, letters and the like may be seen; these may not.
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def is_safe(text: str) -> bool:
    """Return whether a text has no letter that a terminal acts on, or that cannot be seen, but line breaks."""
    return all(letter == "\n" or unicodedata.category(letter) not in _HIDDEN for letter in text)
