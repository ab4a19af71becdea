"""``export(cfg) -> Export``: the one function behind export.py."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from genre_classifier.bundle.format import Calibration, ChecklistItem, check_name
from genre_classifier.class_names import allow
from genre_classifier.commands import advise_to_install
from genre_classifier.config.checks import to_export_config
from genre_classifier.errors import MissingExtraError
from genre_classifier.exporting.choose import Choice, choose, describe

if TYPE_CHECKING:
    from genre_classifier.exporting.checklist import AskService

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Export:
    """The results of an export.

    Parameters
    ----------
    name : str
        Name of the bundle.
    paths : mapping of str to Path
        The documented paths: ``model``, ``scaler``, ``metadata``, and ``onnx`` if it was written.
    choice : Choice
        The exported checkpoint, and why it was chosen.
    refit_folder : Path or None
        The run folder of refit=full.
    calibration : Calibration or None
        The temperature of temperature_scaling=true.
    checklist : tuple of ChecklistItem
    synthetic : bool
        Whether the data is synthetic.
    """

    name: str
    paths: Mapping[str, Path]
    choice: Choice
    refit_folder: Path | None
    calibration: Calibration | None
    checklist: tuple[ChecklistItem, ...]
    synthetic: bool


def export(cfg: DictConfig, ask_service: AskService | None = None) -> Export:
    """Make the production bundle of one checkpoint: choose, verify, fill in the checklist, publish.

    Parameters
    ----------
    cfg : DictConfig
        As composed from conf/export.yaml.
    ask_service : callable or None
        Sends rows to the service in this process. Without it, the checklist's item on the service is not met.

    Raises
    ------
    ConfigError, RunFolderError, CheckpointError, ExportError, BundleError, MissingExtraError
        The message says what to do. An existing bundle of this name does not change.
    """
    settings = to_export_config(cfg)
    check_name(settings.model_name)
    if settings.onnx and (missing := [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]):
        raise MissingExtraError(
            f"onnx=true needs {' and '.join(missing)}, not installed; {advise_to_install('onnx')}"
        )
    allow(settings.allow)
    choice = choose(settings)
    for number, line in enumerate(describe(choice)):
        log.info("%-12s %s", "" if number else "exporting", line)
    # torch and Lightning are imported after the checks, so that mistakes are reported at once.
    from genre_classifier.exporting.production import produce

    return produce(settings, choice, ask_service)
