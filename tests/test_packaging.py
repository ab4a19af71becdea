"""The pinned versions are ones that anybody can install, and every dependency has one."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import ROOT

PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = [
    *PROJECT["dependencies"],
    *(line for extra in PROJECT["optional-dependencies"].values() for line in extra),
]


@pytest.mark.parametrize("pin", PINS, ids=lambda pin: pin.name)
def test_a_pin_is_a_release_that_every_index_has(pin: Requirement) -> None:
    (specifier,) = pin.specifier
    assert specifier.operator == "=="
    version = Version(specifier.version)
    assert version.local is None, "PyPI has no local versions"
    assert not version.is_devrelease
    assert pin.url is None


def test_each_package_is_pinned_once() -> None:
    names = [canonicalize_name(pin.name) for pin in PINS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("declared", sorted(set(DECLARED)))
def test_every_dependency_has_a_pin_that_it_allows(declared: str) -> None:
    wanted = Requirement(declared)
    name = canonicalize_name(wanted.name)
    if name == "genre-classifier":  # an extra that names others
        assert wanted.extras <= set(PROJECT["optional-dependencies"])
        return
    (pin,) = (pin for pin in PINS if canonicalize_name(pin.name) == name)
    (specifier,) = pin.specifier
    assert wanted.specifier.contains(specifier.version)


def test_nothing_that_installs_names_a_place_on_a_machine() -> None:
    for name in ("constraints.txt", "pyproject.toml", "Makefile", ".ci/run"):
        text = (ROOT / name).read_text()
        assert not re.search(r"--index-url|--extra-index-url|--find-links|file://|https?://", text), name
