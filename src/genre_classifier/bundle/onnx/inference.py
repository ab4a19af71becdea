"""OnnxPredictor predicts from a bundle's ONNX file. Its answers are compared with those of the weights."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from genre_classifier.bundle.onnx.graph import INPUT, OUTPUT, REMAINDER, OnnxGraphError, read_graph
from genre_classifier.bundle.predictor import Predictor
from genre_classifier.commands import advise_to_install
from genre_classifier.data.scaler_state import ScalerStatistics
from genre_classifier.errors import BundleError, MissingExtraError

if TYPE_CHECKING:
    import onnxruntime


class OnnxPredictor(Predictor):
    """Gives the answers of ModelWrapper with onnxruntime on one thread. Only this project's graphs are run.

    Parameters
    ----------
    content : bytes
        An ONNX file from :func:`genre_classifier.bundle.onnx.export.build_onnx`.
    scaler : ScalerStatistics
        The scaler in the file. It measures the distance of a feature from the training data, for messages.
    genre_names : Sequence[str]
        Genre of each output.
    feature_names : Sequence[str] or None
        Names in the order of training, for named features.

    Raises
    ------
    BundleError
        The file is not a graph of `export`, or onnxruntime cannot load it.
    MissingExtraError
        onnxruntime is not installed.
    """

    backend = "onnxruntime"

    def __init__(
        self,
        content: bytes,
        scaler: ScalerStatistics,
        genre_names: Sequence[str],
        feature_names: Sequence[str] | None = None,
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError(
                f"running ONNX needs onnxruntime, which is not installed; {advise_to_install('onnx')}"
            ) from error
        try:
            read_graph(content, scaler.n_features, len(genre_names))
        except OnnxGraphError as error:
            raise BundleError(f"the ONNX file is not one that this program writes: {error}") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BundleError(f"the ONNX file cannot be loaded by onnxruntime: {error}") from error
        super().__init__(genre_names, scaler.n_features, feature_names)
        self.scaler = scaler
        self._mean = np.array(scaler.mean) if scaler.with_mean else np.zeros(scaler.n_features)
        self._scale = np.array(scaler.scale) if scaler.with_std else np.ones(scaler.n_features)
        self._session = session
        self._row = _BoundRow(session, scaler.n_features, len(self.genre_names))

    def _standardise(self, rows: np.ndarray) -> np.ndarray:
        return (rows - self._mean) / self._scale

    def _compute_row_probabilities(self, row: np.ndarray) -> list[float]:
        return self._row.compute_probabilities(row)

    def _compute_probabilities(self, rows: np.ndarray) -> np.ndarray:
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # an overflow becomes NaN, which the caller refuses
            rounded = rows.astype(np.float32)
            remainder = (rows - rounded).astype(np.float32)
        (probabilities,) = self._session.run([OUTPUT], {INPUT: rounded, REMAINDER: remainder})
        return probabilities.astype(np.float64)


class _BoundRow:
    """The buffers of one row, bound to a session once.

    Passing arrays to a session and back takes longer than a small network. Bound buffers are written and read in place.
    A lock lets one thread at a time use them.
    """

    def __init__(self, session: onnxruntime.InferenceSession, n_features: int, n_genres: int) -> None:
        # The binding holds only their addresses: they must live as long as the binding.
        self._features = np.zeros((1, n_features), np.float32)
        self._remainder = np.zeros((1, n_features), np.float32)
        self._probabilities = np.zeros((1, n_genres), np.float32)
        self._binding = session.io_binding()
        for name, buffer in ((INPUT, self._features), (REMAINDER, self._remainder)):
            self._binding.bind_input(name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)
        buffer = self._probabilities
        self._binding.bind_output(OUTPUT, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)
        self._run = session.run_with_iobinding
        self._lock = threading.Lock()

    def compute_probabilities(self, row: np.ndarray) -> list[float]:
        """Return each genre's probability for one row, float64 (feature,)."""
        # An overflow of float32 becomes NaN, which the caller refuses.
        with self._lock, np.errstate(over="ignore", invalid="ignore"):
            self._features[0] = row
            self._remainder[0] = row - self._features[0]
            self._run(self._binding)
            return self._probabilities[0].tolist()
