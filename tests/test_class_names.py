"""Who may name a class: the user anything, a file only what is known or what the user has named."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from genre_classifier import class_names
from genre_classifier.class_names import KNOWN, allow, check_name, find_class, import_class, register
from genre_classifier.errors import ConfigError
from genre_classifier.network import GenreClassifier

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_names, "_registered", {})


@pytest.mark.parametrize("path", sorted(KNOWN))
def test_each_known_class_exists_and_a_file_may_name_it(path: str) -> None:
    assert callable(find_class(path))


def test_every_class_of_our_configurations_is_known() -> None:
    from genre_classifier.config.schema import SCHEMAS

    targets = {getattr(schema, "_target_", None) for schema in SCHEMAS.values()}
    assert {str(target) for target in targets if target not in (None, "???")} <= KNOWN


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "antigravity.fly",
        "torch.utils.model_dump.__main__",
        "torch.utils.model_dump.__main__.main",
        "torch.nn.Linear",
        "torch.hub.load",
        "torch.nope.X",
        "torch.optim.Adam.__init__",
        "torch.optim.LBFGS",
        "genre_classifier.network.torch",
        "genre_classifier.__main__.main",
        "genre_classifier.training.lit_module.GenreLitModule",
        "builtins.exec",
        "tests.contracts.linear_network.LinearNetwork",
    ],
)
def test_a_name_in_a_file_imports_nothing(path: str) -> None:
    before = set(sys.modules)
    with pytest.raises(ConfigError, match="a name in a file alone imports nothing") as caught:
        find_class(path)
    assert f"allow=[{path}]" in str(caught.value)
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    "path", [None, 5, 1.5, True, "", "x", "a..b", "a b.c", "a.b;c", ["os.system"], {"a": 1}, "é/.."]
)
def test_what_is_no_dotted_path_is_one_error(path: object) -> None:
    for look_up in (find_class, import_class, check_name):
        with pytest.raises(ConfigError, match="expected the dotted path of a class"):
            look_up(path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("torch.nope.X", "No module named 'torch.nope'"),
        ("torch.nn.Nope", "torch.nn has no Nope"),
        ("no_such_package.Net", "No module named 'no_such_package'"),
        ("torch.utils.model_dump.__main__.main", "is a program, not a module to take a class from"),
        ("torch.optim.Adam", r"expected a class derived from torch\.nn"),
        ("os.getcwd", r"expected a class derived from torch\.nn"),
    ],
)
def test_a_name_of_the_users_that_leads_nowhere_is_one_error(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        import_class(path, nn.Module)
    with pytest.raises(ConfigError, match="a name in a file alone imports nothing"):
        check_name(path if path != "torch.optim.Adam" else "torch.optim.Other")


def test_a_file_may_name_what_the_user_has_named() -> None:
    path = "tests.contracts.linear_network.LinearNetwork"
    kind = import_class(path, nn.Module)
    assert find_class(path, nn.Module) is kind
    with pytest.raises(ConfigError, match=r"expected a class derived from torch\.optim"):
        find_class(path, torch.optim.Optimizer)


def test_classes_are_allowed_by_path_and_registered_by_value() -> None:
    allow(["tests.contracts.linear_network.LinearNetwork"])
    assert find_class("tests.contracts.linear_network.LinearNetwork").__name__ == "LinearNetwork"
    register(GenreClassifier, "somewhere.Else")
    assert find_class("somewhere.Else", nn.Module) is GenreClassifier
    with pytest.raises(ConfigError, match=r"os\.getcwd: expected a class, found a builtin_function"):
        allow(["os.getcwd"])


def test_dotted_paths_are_imported_in_one_place_only() -> None:
    """Elsewhere only modules of our own list are imported by a name that is put together."""
    allowed = {
        "src/genre_classifier/class_names.py",
        "src/genre_classifier/cli/main.py",  # train and export
        "src/genre_classifier/__init__.py",  # what the package offers, by a table of its own
        "src/genre_classifier/data/sources/__init__.py",  # a source of the schemas
        "src/genre_classifier/baselines/models.py",  # scikit-learn's classes, by a table of its own
        "src/genre_classifier/features/measure.py",  # a feature set's function, by a table of its own
    }
    importing = {
        "import_module",
        "importlib.import_module",
        "__import__",
        "get_class",
        "get_method",
        "instantiate",
    }
    importing |= {
        "hydra.utils.instantiate",
        "hydra.utils.get_class",
        "exec",
        "eval",
        "pydoc.locate",
        "run_path",
        "run_module",
    }
    found = set()
    for path in sorted((ROOT / "src").rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        if {ast.unparse(call.func) for call in calls} & importing:
            found.add(path.relative_to(ROOT).as_posix())
    assert found - allowed == set()
