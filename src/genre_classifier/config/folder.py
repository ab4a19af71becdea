"""Find the folder of the YAML files: conf/ at the top of a clone, or inside the installed package."""

from __future__ import annotations

from pathlib import Path


def find_conf_folder() -> Path:
    """Return the folder of the config groups."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"
