"""The runs that the export's tests train, for the real command too."""

from tests.exporting.conftest import outputs, plain_run, trained_runs

__all__ = ["outputs", "plain_run", "trained_runs"]
