# ruff: noqa: E402 - the thread counts come before the imports that read them
"""Measure the time of a prediction and of the common way, in the same run and on one thread.

    python benchmarks/inference.py [--features 57] [--rounds 300]

The common way is that of a notebook: ``scaler.transform``, a tensor, the model under ``no_grad``, softmax. For an
answer in words it adds ``topk`` and ``item()`` row by row. All candidates are timed in turn, round after round, so
other work of the machine affects them alike.
"""

from __future__ import annotations

import os

for library in ("OMP", "OPENBLAS", "MKL"):  # numpy and torch read them once, on import
    os.environ[f"{library}_NUM_THREADS"] = "1"

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.preprocessing import StandardScaler

from genre_classifier import GenreClassifier, ModelWrapper
from genre_classifier.bundle.format import make_predictor, read_bundle
from genre_classifier.bundle.onnx.export import build_onnx, is_available
from genre_classifier.bundle.predictor import DEFAULT_GENRES, Predictor
from genre_classifier.bundle.writing import write_bundle
from genre_classifier.data.scaler_state import ScalerStatistics

ROW_COUNTS = (1, 64, 4096)


def main() -> None:
    """Time every candidate at every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--features", type=int, default=20, help="features in a row, default 20")
    parser.add_argument("--rounds", type=int, default=300, help="rounds at one row; fewer for larger sizes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = np.random.default_rng(0).normal(loc=5.0, scale=3.0, size=(max(ROW_COUNTS), options.features))
    torch.manual_seed(0)
    model = GenreClassifier(input_dim=options.features).eval()
    scaler = StandardScaler().fit(rows)
    print(f"machine   {_read_processor()}, one thread; Python {platform.python_version()}")
    print(f"versions  torch {torch.__version__}, numpy {np.__version__}, scikit-learn {sklearn.__version__}")
    print(f"network   {options.features} features, 8 genres; times are medians in microseconds\n")
    print(f"{'rows':>5}  {'what':44}{'median':>10}{'faster than the common way':>30}")
    for n_rows in ROW_COUNTS:
        rounds = max(20, options.rounds * 20 // max(n_rows, 20))
        candidates = _build_candidates(model, scaler, rows[:n_rows])
        medians = _time_in_turn(candidates, rounds)
        for name, median in medians.items():
            peer = "common way, answers" if "answers" in name else "common way, probabilities"
            print(f"{n_rows:5}  {name:44}{median:10.1f}{medians[peer] / median:29.1f}x")


def _build_candidates(
    model: GenreClassifier, scaler: StandardScaler, rows: np.ndarray
) -> dict[str, Callable[[], object]]:
    def compute_common_probabilities() -> torch.Tensor:
        standardised = torch.tensor(scaler.transform(rows), dtype=torch.float32)
        with torch.no_grad():
            return torch.softmax(model(standardised), dim=1)

    def build_common_answers() -> list[dict]:
        answers = []
        for row in compute_common_probabilities():
            values, indices = torch.topk(row, 3)
            answers.append(
                {
                    "predicted_genre": DEFAULT_GENRES[indices[0].item()],
                    "predicted_index": indices[0].item(),
                    "confidence": values[0].item(),
                    "top_predictions": [
                        {"genre": DEFAULT_GENRES[i.item()], "confidence": p.item()}
                        for p, i in zip(values, indices, strict=True)
                    ],
                }
            )
        return answers

    known = ScalerStatistics.of(scaler)
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(model, scaler, DEFAULT_GENRES, {}, folder, onnx=False)
        served = make_predictor(read_bundle(folder))
    predictors: dict[str, Predictor] = {
        "ModelWrapper": ModelWrapper(model, scaler),
        f"service's model ({served.backend})": served,
    }
    if is_available():
        from genre_classifier.bundle.onnx.inference import OnnxPredictor

        content = build_onnx(model, known, genre_names=DEFAULT_GENRES)
        predictors["NAME.onnx (onnxruntime)"] = OnnxPredictor(content, known, DEFAULT_GENRES)
    candidates: dict[str, Callable[[], object]] = {
        "common way, probabilities": compute_common_probabilities,
        "common way, answers": build_common_answers,
    }
    listed = rows[0].tolist()
    for name, predictor in predictors.items():
        if len(rows) == 1:
            candidates[f"{name}, probabilities"] = lambda p=predictor: p._compute_row_probabilities(rows[0])
            candidates[f"{name}.predict, answers"] = lambda p=predictor: p.predict(listed)
        else:
            candidates[f"{name}, probabilities"] = lambda p=predictor: p._compute_probabilities(rows)
            candidates[f"{name}.predict_batch, answers"] = lambda p=predictor: p.predict_batch(rows)
    return candidates


def _time_in_turn(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median time of each candidate, in microseconds. A fast one is repeated within a round."""
    repeats = {}
    for name, call in candidates.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(5e-3 / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.perf_counter() - start) / repeats[name])
    return {name: statistics.median(measured) * 1e6 for name, measured in times.items()}


def _read_processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
