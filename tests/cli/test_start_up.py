"""What is imported when."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(' '.join(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return {name.split(".")[0] for name in result.stdout.split()}


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        (
            "import genre_classifier.config, genre_classifier.cli.hydra_entry",
            {"torch", "lightning", "pandas", "sklearn"},
        ),
        ("from genre_classifier import GenreClassifier", {"lightning", "pandas", "librosa", "sklearn"}),
        ("import genre_classifier.training.fit", {"numba", "mlflow", "soundfile", "optuna", "tensorboard"}),
    ],
)
def test_heavy_libraries_are_imported_only_where_they_are_needed(code: str, absent: set[str]) -> None:
    assert not modules_after(code) & absent


def test_importing_changes_no_logging_warnings_or_environment() -> None:
    code = """
import logging, os, sys, warnings
before = (list(logging.root.handlers), logging.root.level, list(warnings.filters), dict(os.environ), os.getcwd())
import genre_classifier.config, genre_classifier.cli.hydra_entry, genre_classifier.errors, genre_classifier.runs.folder
after = (list(logging.root.handlers), logging.root.level, list(warnings.filters), dict(os.environ), os.getcwd())
assert before == after
"""
    modules_after(code)
