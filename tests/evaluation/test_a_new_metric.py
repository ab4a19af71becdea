"""Adding a metric is one edit: runs, stacks, TensorBoard, leaderboard, report and optimized_metric then have it."""

import csv
import json
import subprocess
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).resolve().parents[2]
# As one more line in METRICS would do. In a process of its own, since others read the list when they are imported.
PROGRAM = """
import sys
from genre_classifier.config import metrics as definitions
recall = definitions.Metric(
    "balanced_accuracy", "mean recall", lambda counts: (counts.right / counts.support.clip(1)).mean(1)
)
definitions.METRICS += (recall,)

import warnings
warnings.simplefilter("ignore")
from pathlib import Path
from genre_classifier.reporting.report import write_report
from genre_classifier.runs.ranking.leaderboard import find_trials, rank_trials
from genre_classifier.sweeps.stacked.fit import train_stack
from genre_classifier.runs.ranking.tables import write_leaderboard
from genre_classifier.training.fit import train
from genre_classifier.training.summary import show
from tests.conftest import composed

folder, metric = Path(sys.argv[1]), "val/balanced_accuracy"
overrides = [*sys.argv[2:], f"optimized_metric={metric}"]
show(train(composed(*overrides, f"run_dir={folder / 'alone'}")))
write_report(folder / "alone")
train_stack([composed(*overrides, f"run_dir={folder / 'stack' / str(n)}", f"seed={n}") for n in (0, 1)])
write_leaderboard(folder / "leaderboard.csv", rank_trials(find_trials([folder / "stack"]), metric))
"""


def test_a_new_metric_is_everywhere(tmp_path: Path, music_overrides: list[str]) -> None:
    words = [word for word in music_overrides if word != "logger=none"]
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), *words, "logger.figures=false"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert "mean" in result.stdout  # the heading may be wrapped
    assert "mean recall" in (tmp_path / "alone" / "report.html").read_text(encoding="utf-8")
    with (tmp_path / "leaderboard.csv").open(newline="", encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert any("val/balanced_accuracy" in name and value for name, value in row.items())
    for folder in (tmp_path / "alone", tmp_path / "stack" / "1"):
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        with (folder / "history.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        assert run["objective"] == float(rows[run["best_epoch"]]["val/balanced_accuracy"])
        assert 0.0 <= float(rows[-1]["train/balanced_accuracy"]) <= 1.0
        # Each genre has equally many rows here.
        assert metrics["val"]["balanced_accuracy"] == metrics["val"]["accuracy"]
        low, high = metrics["intervals"]["test"]["balanced_accuracy"]
        assert 0.0 <= low <= high <= 1.0
        events = EventAccumulator(str(folder / "tensorboard" / "val"))
        events.Reload()
        assert len(events.Scalars("epoch/balanced_accuracy")) == len(rows)
