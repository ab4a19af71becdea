"""Read the rows of a run again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genre_classifier.config.schema import DataConfig
from genre_classifier.data.sources import read
from genre_classifier.data.splits import Split, make_split
from genre_classifier.data.table import FeatureTable
from genre_classifier.errors import GenreClassifierError
from genre_classifier.runs.configuration import read_configuration
from genre_classifier.runs.folder import RunFolder

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class RunRows:
    """The rows of a run, read again from its data, with their split.

    Parameters
    ----------
    table : FeatureTable
    split : Split
    """

    table: FeatureTable
    split: Split

    def side(self, name: str) -> tuple[npt.NDArray[np.float32], Tensor]:
        """Return raw features (row, feature) and genres (row,) of ``train``, ``val`` or ``test``."""
        from torch import from_numpy

        rows = self.split.sides()[name]
        return self.table.features[rows], from_numpy(self.table.genres[rows])

    @property
    def held_side(self) -> str:
        """The side that training used least: test, else validation, else training rows."""
        return next(name for name in ("test", "val", "train") if len(self.split.sides()[name]))


def read_rows(folder: RunFolder, fingerprint: str | None) -> tuple[RunRows | None, str]:
    """Return a run's rows, read again and divided as in the run.

    Parameters
    ----------
    folder : RunFolder
    fingerprint : str or None
        Fingerprint of the run's rows.

    Returns
    -------
    tuple of RunRows or None, and str
        The rows and an empty text; or None and the reason if the rows are missing or have changed.
    """
    try:
        data = OmegaConf.to_object(read_configuration(folder).data)
        assert isinstance(data, DataConfig)
        table = read(data)
        if table.fingerprint != fingerprint:
            return None, f"{table.where} has changed since the run (another fingerprint)"
        return RunRows(table, make_split(table, data.split)), ""
    except (GenreClassifierError, OmegaConfBaseException, OSError) as error:
        return None, str(error).splitlines()[0]
