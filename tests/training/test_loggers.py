import csv
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genre_classifier.config.checks import to_train_config
from genre_classifier.errors import MissingExtraError
from genre_classifier.sweeps.trial import silence
from genre_classifier.training.loggers import SplitTensorBoardLogger
from genre_classifier.training.run import Result
from tests.conftest import ROOT, composed

Train = Callable[..., Result]


def events(folder: Path) -> EventAccumulator:
    made = EventAccumulator(str(folder))
    made.Reload()
    return made


def test_train_and_validation_share_a_chart(trained: Train) -> None:
    result = trained("logger=tensorboard")
    board = result.folder.tensorboard
    with result.folder.history_csv.open() as stream:
        rows = list(csv.DictReader(stream))
    for split in ("train", "val"):
        run = events(board / split)
        for name in ("loss", "accuracy", "f1", "f1_macro", "top3", "ece"):
            values = [event.value for event in run.Scalars(f"epoch/{name}")]
            assert values == pytest.approx([float(row[f"{split}/{name}"]) for row in rows], abs=1e-6)
    assert {f"f1_by_genre/{name}" for name in ("Ambient", "Bluegrass", "Cumbia")} <= set(
        events(board / "val").Tags()["scalars"]
    )
    rates = [event.value for event in events(board).Scalars("epoch/learning_rate")]
    assert rates == pytest.approx([float(row["learning_rate"]) for row in rows])


def test_the_hparams_tab_has_the_settings_and_the_final_metrics(trained: Train) -> None:
    from tensorboard.plugins.hparams import plugin_data_pb2

    result = trained("logger=tensorboard", "model.dropout=0.25")
    run = events(result.folder.tensorboard)
    content = run.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert start.hparams["model.dropout"].number_value == 0.25
    assert start.hparams["optimizer.lr"].number_value == 1e-3
    assert [event.value for event in run.Scalars("test/f1")] == pytest.approx([result.metrics["test"]["f1"]])
    assert [event.value for event in run.Scalars("val/accuracy")] == pytest.approx(
        [result.metrics["val"]["accuracy"]]
    )


def test_figures_and_the_configuration_are_shown_and_figures_can_be_left_out(trained: Train) -> None:
    run = events(trained("logger=tensorboard").folder.tensorboard)
    shown = run.Tags()
    assert set(shown["images"]) == {
        f"{name}/{split}" for name in ("confusion_matrix", "f1_per_genre") for split in ("val", "test")
    }
    for tag in shown["images"]:
        (event,) = run.Images(tag)
        with Image.open(io.BytesIO(event.encoded_image_string)) as picture:
            picture.load()
            assert (picture.format, picture.size) == ("PNG", (event.width, event.height))
    assert "config/text_summary" in shown["tensors"]
    without = events(trained("logger=tensorboard", "logger.figures=false").folder.tensorboard).Tags()
    assert without["images"] == []


@pytest.mark.parametrize(
    ("asked", "alone", "in_a_sweep"), [("null", True, False), ("true", True, True), ("false", False, False)]
)
def test_a_single_run_draws_by_default_and_a_trial_only_on_request(
    asked: str, alone: bool, in_a_sweep: bool, tmp_path: Path
) -> None:
    cfg = composed("logger=tensorboard", f"logger.figures={asked}", f"run_dir={tmp_path}")
    trial = cfg.copy()
    silence(trial)
    for configuration, drawn in ((cfg, alone), (trial, in_a_sweep)):
        assert (
            SplitTensorBoardLogger(str(tmp_path), to_train_config(configuration).logger.figures).figures
            is drawn
        )


@pytest.mark.parametrize("logger", ["none", "csv"])
def test_a_trial_may_have_another_logger_or_none(logger: str, tmp_path: Path) -> None:
    cfg = composed(f"logger={logger}", f"run_dir={tmp_path}")
    trial = cfg.copy()
    silence(trial)
    assert trial.logger == cfg.logger
    assert not trial.trainer.enable_progress_bar


def test_a_run_without_figures_does_not_load_what_draws_them(
    tmp_path: Path, music_overrides: list[str]
) -> None:
    program = (
        "import sys\n"
        "from genre_classifier.training.fit import train\n"
        "from tests.conftest import composed\n"
        "for figures in ('false', 'true'):\n"
        "    folder = f'run_dir={sys.argv[1]}/{figures}'\n"
        "    train(composed(*sys.argv[2:], f'logger.figures={figures}', folder))\n"
        "    print('drawing', 'matplotlib.backends.backend_agg' in sys.modules)"
    )
    words = [*music_overrides, "trainer.max_epochs=1", "logger=tensorboard"]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), *words],
        capture_output=True, text=True, timeout=300, check=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
    )  # fmt: skip
    assert re.findall("drawing (.*)", done.stdout) == ["False", "True"]


def test_the_csv_logger_writes_into_the_run(trained: Train) -> None:
    result = trained("logger=csv", "logger.name=sheet")
    text = (result.folder.path / "sheet" / "metrics.csv").read_text()
    assert "val/f1" in text
    assert "test/f1" in text


def test_mlflow_without_its_extra_says_what_to_install(
    trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(**kwargs: object) -> None:
        raise ModuleNotFoundError("No module named 'mlflow'")

    monkeypatch.setattr("genre_classifier.training.loggers.MLFlowLogger", absent)
    with pytest.raises(MissingExtraError, match=r"installed; run in .*: pip install -c .* -e '.\[mlflow\]'"):
        trained("logger=mlflow")
