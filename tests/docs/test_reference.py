"""The generated pages hold each setting, each option and each argument; and the pages build without a warning."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
from omegaconf import OmegaConf

from genre_classifier.cli.main import _build_parser
from genre_classifier.config.schema import METRICS
from tests.conftest import ROOT, composed

pytest.importorskip("sphinx", reason="needs the extra docs")


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The Sphinx extension that makes the pages."""
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    try:
        import reference
    finally:
        sys.path.pop(0)
    return reference


@pytest.fixture(scope="module")
def page(reference: ModuleType) -> str:
    """The generated part of the configuration page."""
    made: str = reference.configuration()
    return made


def leaves(node: object, path: str = "") -> set[str]:
    """Return the dotted names of a composed configuration's values."""
    if isinstance(node, dict) and node:
        return {name for key, child in node.items() for name in leaves(child, f"{path}.{key}")}
    return {path.removeprefix(".")}


def options() -> list[str]:
    """Return GROUP=FILE of each file below conf/."""
    return [
        f"{path.parent.relative_to(ROOT / 'conf').as_posix()}={path.stem}"
        for path in sorted((ROOT / "conf").rglob("*.yaml"))
        if path.parent.name not in ("conf", "hydra", "local")
    ]


def documented(page: str) -> dict[str, str]:
    """Return the settings in the page's tables with the meaning of each."""
    return dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \|", page, flags=re.MULTILINE))


@pytest.mark.parametrize("option", options())
def test_each_setting_of_each_option_is_on_the_page(option: str, page: str) -> None:
    assert f"**`{option}`**" in page
    cfg = composed(option) if "data/split" not in option else composed("data=table", option)
    found = leaves(OmegaConf.to_container(cfg, resolve=False))
    names = documented(page)
    parts = {name for name in found if any(known.startswith(f"{name}.") for known in names)}  # switched off
    missing = found - parts - set(names) - {"scheduler", "logger"}
    assert not missing


def test_each_setting_of_an_export_is_on_the_page(page: str) -> None:
    names = documented(page)
    assert leaves(OmegaConf.to_container(composed(config="export"), resolve=False)) <= set(names)


def test_each_setting_has_a_meaning(page: str) -> None:
    assert len(documented(page)) >= 90
    assert [name for name, meaning in documented(page).items() if not meaning.strip()] == []


def test_range_default_and_values_are_those_of_the_schema(page: str) -> None:
    def row(name: str) -> str:
        (found,) = re.findall(rf"^\| `{re.escape(name)}` \|.*$", page, flags=re.MULTILINE)
        return found

    assert "a number in [0, 1)" in row("model.dropout")
    assert row("model.dropout").endswith("`0.3` |")
    assert "a whole number of at least 1" in row("data.batch_size")
    assert "`auto`, `stratified`, `grouped`" in row("data.split.method")
    assert all(f"`val/{metric.name}`" in row("optimized_metric") for metric in METRICS)


def test_each_argument_of_each_command_is_on_the_page(reference: ModuleType) -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    page = page.replace("<!-- generated: commands -->", reference.commands())
    (choices,) = (a for a in _build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert set(re.findall(r"^## (\w+)$", page, flags=re.MULTILINE)) == set(choices.choices)
    for name, parser in choices.choices.items():
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        for action in parser._actions if parser.add_help else ():
            values = f"{{{','.join(map(str, action.choices))}}}" if action.choices else None
            for word in action.option_strings or [values or action.metavar or action.dest]:
                assert f"`{word}" in section, f"{name} {word}"


class _Addresses(HTMLParser):
    """Collects what a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        name = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}.get(tag)
        self.loaded += [value for key, value in attrs if key == name and value]


def test_the_pages_build_without_a_warning_and_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-n",
        "-q",
        "-D",
        "nb_execution_mode=off",
    ]
    result = subprocess.run(
        [*command, "-d", str(tmp_path / "doctrees"), str(ROOT / "docs"), str(tmp_path / "html")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    outside = (tmp_path / "html" / "outside-links.txt").read_text(encoding="utf-8").split()
    assert outside
    assert all(address.startswith("https://") for address in outside)
    pages = sorted((tmp_path / "html").glob("*.html"))
    assert len(pages) >= 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "generated:" not in text, page.name
        found = _Addresses()
        found.feed(text)
        assert [address for address in found.loaded if re.match(r"(https?:)?//", address)] == [], page.name
