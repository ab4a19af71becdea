"""TensorBoard with training and validation in one chart each, and the optional MLflow logger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from genre_classifier.commands import advise_to_install
from genre_classifier.errors import MissingExtraError
from genre_classifier.evaluation.drawing import render_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter

SPLITS = ("train", "val", "test")
# A trial of a stack logs all its epochs at once. With torch's queue of 10 events it would wait for the writing thread.
QUEUED_EVENTS = 1000


class SplitTensorBoardLogger(TensorBoardLogger):
    """Writes ``val/f1`` as tag ``epoch/f1`` of a run ``val``: TensorBoard draws one chart for train and val together.

    Parameters
    ----------
    save_dir : str
        The run's tensorboard folder.
    figures : bool or None
        Whether the finished run's confusion matrix and per-genre F1 are drawn; None draws them.
    """

    def __init__(self, save_dir: str, figures: bool | None = None) -> None:
        super().__init__(
            save_dir=save_dir, name="", version="", default_hp_metric=False, max_queue=QUEUED_EVENTS
        )
        self.figures = figures is not False
        self._writers: dict[str, SummaryWriter] = {}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write each metric to its split's run. A run gets one event, because an event costs as much as 20 values."""
        by_run: dict[str, dict[str, float]] = {}
        for name, value in metrics.items():
            if name == "epoch":
                continue
            split, _, tag = name.partition("/")
            if split not in SPLITS or not tag:
                split, tag = "", name
            # TensorBoard makes a section of the part before a tag's slash. Metrics by genre have that part already.
            own_section = bool(split) and "/" in tag
            by_run.setdefault(split, {})[tag if own_section else f"epoch/{tag}"] = value
        for split, values in by_run.items():
            _write_scalars(self._open_writer(split) if split else self.experiment, values, step)

    @rank_zero_only
    def log_outcome(self, settings: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Write the HParams tab's entry: the run's settings and its final metrics.

        The sweep decides which of them the tab shows. Without a sweep, TensorBoard first shows those that differ.
        """
        from torch.utils.tensorboard.summary import hparams as hparams_summary

        hparams = {
            key: value if isinstance(value, (bool, int, float)) else "null" if value is None else str(value)
            for key, value in settings.items()
        }
        _, started, ended = hparams_summary(hparams, {})
        for summary in (started, ended):
            self.experiment.file_writer.add_summary(summary)
        _write_scalars(self.experiment, metrics, 0)

    @rank_zero_only
    def log_figure(self, tag: str, figure: Figure) -> None:
        """Write a figure. SummaryWriter.add_figure would import pyplot."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        width, height = figure.canvas.get_width_height()
        image = Summary.Image(
            height=height, width=width, colorspace=4, encoded_image_string=render_png(figure)
        )
        self.experiment.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]))

    @rank_zero_only
    def save(self) -> None:
        """Flush what was logged."""
        if self._experiment is None and not self._writers:
            return  # Lightning also saves before anything is logged
        for writer in (self.experiment, *self._writers.values()):
            writer.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Flush, but keep the files open for the finished run's figures and metrics."""
        if self._experiment is not None:
            self.save()

    @rank_zero_only
    def close(self) -> None:
        """Write everything out and close the files."""
        if self._experiment is None:
            return
        for writer in (self.experiment, *self._writers.values()):
            writer.close()

    def _open_writer(self, split: str) -> SummaryWriter:
        if split not in self._writers:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._writers[split] = SummaryWriter(
                log_dir=f"{self.log_dir.rstrip('/')}/{split}", max_queue=QUEUED_EVENTS
            )
        return self._writers[split]


def _write_scalars(writer: Any, values: Mapping[str, float], step: int | None) -> None:
    from tensorboard.compat.proto.summary_pb2 import Summary

    summary = Summary(
        value=[Summary.Value(tag=tag, simple_value=float(value)) for tag, value in values.items()]
    )
    writer.file_writer.add_summary(summary, step)


def mlflow_logger(experiment_name: str, run_name: str | None, tracking_uri: str) -> Logger:
    """Return Lightning's MLflow logger.

    Raises
    ------
    MissingExtraError
        MLflow is not installed.
    """
    try:
        return MLFlowLogger(experiment_name=experiment_name, run_name=run_name, tracking_uri=tracking_uri)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"logger=mlflow needs MLflow, which is not installed; {advise_to_install('mlflow')}"
        ) from error
