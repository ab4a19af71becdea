"""What an HTML page holds, by the standard library's parser."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """Tags with their attributes, the text, and tables as rows of cells' texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.styles = ""
        self._within: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._within.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._within and self._within.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" in self._within:
            self.styles += data
            return
        self.texts.append(data)
        if ("td" in self._within or "th" in self._within) and self.tables and self.tables[-1][-1]:
            self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        """All text, spaces joined."""
        return " ".join("".join(self.texts).split())

    def table(self, *headings: str) -> dict[str, list[str]]:
        """Return the first table with these headings: by its first column, the other cells."""
        for table in self.tables:
            if [cell.strip() for cell in table[0][: len(headings)]] == list(headings):
                return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in table[1:]}
        raise AssertionError(f"no table with {headings}")

    def attributes(self, tag: str, name: str) -> list[str]:
        """Return an attribute of all tags of a kind."""
        return [attrs[name] for found, attrs in self.tags if found == tag and name in attrs]
