import csv
import json
import pickle
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genre_classifier import GenreClassifier, ModelWrapper
from genre_classifier.bundle.format import read_bundle
from genre_classifier.errors import (
    BundleError,
    CheckpointError,
    ConfigError,
    DataError,
    ExportError,
    MissingExtraError,
)
from genre_classifier.exporting import checklist, production
from genre_classifier.exporting import export as export_module
from genre_classifier.model_utils import load_production_model
from genre_classifier.runs.folder import RunFolder
from genre_classifier.service.model import predict_in_process
from tests.conftest import composed
from tests.exporting.conftest import Export, finished_run

NAME = "genre_classifier_production"


def raw_rows(music_csv: Path) -> dict[str, list[float]]:
    with music_csv.open() as stream:
        return {row["track"]: [float(row[f"f{i}"]) for i in range(4)] for row in csv.DictReader(stream)}


def recorded(run: RunFolder) -> dict[str, list[float]]:
    with run.predictions_csv.open() as stream:
        return {
            row["id"]: [float(v) for k, v in row.items() if k.startswith("p_")]
            for row in csv.DictReader(stream)
        }


def metadata(paths: Mapping[str, Path]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(paths["metadata"].read_text())
    return content


def items(found: Any) -> dict[str, tuple[bool | None, str]]:
    return {item.item: (item.met, item.evidence) for item in found.checklist}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def probabilities(folder: Path, rows: Sequence[Sequence[float]], name: str = NAME) -> np.ndarray:
    model, scaler, genres, _ = load_production_model(GenreClassifier, folder, name)
    answers = ModelWrapper(model, scaler, genres).predict_batch(np.array(rows), return_probs=True)
    return np.array([list(answer["all_probabilities"].values()) for answer in answers])


def test_the_bundle_answers_as_the_run_predicted(
    exported: Export, plain_run: RunFolder, music_csv: Path
) -> None:
    found = exported(f"run={plain_run.path}")
    expected = recorded(plain_run)
    raw = raw_rows(music_csv)
    answers = probabilities(found.paths["model"].parent, [raw[name] for name in expected])
    assert len(expected) == 15
    np.testing.assert_allclose(answers, np.array(list(expected.values())), rtol=0, atol=1e-6)


def test_the_metadata_says_where_the_model_comes_from(exported: Export, plain_run: RunFolder) -> None:
    found = exported(f"run={plain_run.path}")
    content, run, metrics = metadata(found.paths), plain_run.read_run(), plain_run.read_metrics()
    assert {split: content["metrics"][split] for split in ("train", "val", "test")} == {
        split: metrics[split] for split in ("train", "val", "test")
    }
    assert content["metrics"]["synthetic_data"] is False
    assert content["feature_names"] == ["f0", "f1", "f2", "f3"]
    assert content["feature_set"] is None
    assert content["run"]["folder"] == str(plain_run.path)
    assert content["run"]["best_epoch"] == run["best_epoch"]
    assert content["run"]["seed"] == 42
    assert content["run"]["data_fingerprint"] == run["data"]["fingerprint"]
    assert content["split_protocol"] == run["split_protocol"]["description"]
    assert content["temperature"] is None
    assert [item["item"] for item in content["production_checklist"]] == list(items(found))
    assert len(found.checklist) == 8


def test_the_metadata_describes_the_data_and_the_evaluation(
    exported: Export, plain_run: RunFolder, music_csv: Path
) -> None:
    content, metrics = metadata(exported(f"run={plain_run.path}").paths), plain_run.read_metrics()
    data, evaluation = content["data"], content["evaluation"]
    assert (data["source"], data["licence"], data["synthetic"]) == ("table", "as its owner says", False)
    assert data["rows_by_split"] == {"train": 60, "val": 15, "test": 15}
    assert (data["rows"], data["groups"], data["group_name"]) == (90, 18, "artist")
    assert str(music_csv.parent) not in json.dumps(content["data"])
    assert (evaluation["split"], evaluation["rows"]) == ("test", 15)
    for key in ("intervals", "confusion", "reliability", "f1_per_genre"):
        assert evaluation[key] == metrics[key]["test"]


def test_the_evaluation_is_of_the_exported_weights(exported: Export, plain_run: RunFolder) -> None:
    cold = metadata(exported(f"run={plain_run.path}", "temperature_scaling=true").paths)
    recorded_bins = plain_run.read_metrics()["reliability"]["test"]
    assert cold["evaluation"]["confusion"] == plain_run.read_metrics()["confusion"]["test"]
    assert cold["evaluation"]["reliability"] != recorded_bins
    low, high = cold["evaluation"]["intervals"]["ece"]
    assert low <= cold["metrics"]["test"]["ece"] <= high


def test_the_checklist_is_filled_in_from_what_was_found(exported: Export, plain_run: RunFolder) -> None:
    accuracy = plain_run.read_metrics()["test"]["accuracy"]
    found = items(
        exported(
            f"run={plain_run.path}",
            f"min_test_accuracy={accuracy - 0.01}",
            ask_service=predict_in_process,
        )
    )
    met = {item: value for item, (value, _) in found.items()}
    assert met == {
        "trained on the full dataset": False,
        "cross-validation performed": False,
        f"test accuracy above {accuracy - 0.01:.4g}": True,
        "scaler saved with the model": True,
        "metadata includes metrics": True,
        "bundle verified": True,
        "service answered with the same result": True,
        "inference under 50 ms a sample": True,
    }
    evidence = {item: text for item, (_, text) in found.items()}
    assert "60 of 90 rows train" in evidence["trained on the full dataset"]
    test = evidence[f"test accuracy above {accuracy - 0.01:.4g}"]
    assert test.startswith(
        f"{accuracy:.3f} on 15 test rows; 70/15/15 % holdout, no artist on two sides, seed 42"
    )
    assert "15 test rows, the same as in predictions.csv" in evidence["bundle verified"]
    assert "15 requests in this process" in evidence["service answered with the same result"]
    assert "fitted on 60 training rows" in evidence["scaler saved with the model"]


def test_thresholds_are_settings(exported: Export, plain_run: RunFolder) -> None:
    found = items(exported(f"run={plain_run.path}", "min_test_accuracy=1", "max_milliseconds=1e-6"))
    assert found["test accuracy above 1"][0] is False
    assert found["inference under 1e-06 ms a sample"][0] is False


def test_synthetic_data_is_named(exported: Export, plain_run: RunFolder) -> None:
    content = torch.load(plain_run.best_checkpoint, weights_only=True)
    content["hyper_parameters"]["data"]["synthetic"] = True
    torch.save(content, plain_run.best_checkpoint)
    found = exported(f"run={plain_run.path}")
    assert found.synthetic
    assert "synthetic data, which says nothing about music" in items(found)["test accuracy above 0.75"][1]
    assert metadata(found.paths)["metrics"]["synthetic_data"] is True


def test_without_an_argument_the_best_run_is_exported(exported: Export, outputs: Path) -> None:
    scores = {
        path.parent: json.loads(path.read_text())["val"]["f1"] for path in outputs.rglob("metrics.json")
    }
    found = exported()
    assert scores[found.choice.folder.path] == max(scores.values())
    assert len(found.choice.considered) == len(scores) == 5


@pytest.mark.parametrize(
    ("change", "reason"), [("gone", "there is no such file"), ("changed", "has changed since")]
)
def test_without_the_run_s_data_typical_rows_are_used_and_named(
    exported: Export, plain_run: RunFolder, music_csv: Path, tmp_path: Path, change: str, reason: str
) -> None:
    moved = tmp_path / "moved.csv"
    if change == "changed":
        moved.write_text(music_csv.read_text().replace(",Ambient-0,", ",Ambient-00,"))
    settings = plain_run.config_yaml.read_text()
    plain_run.config_yaml.write_text(settings.replace(str(music_csv), str(moved)))
    met, evidence = items(exported(f"run={plain_run.path}"))["bundle verified"]
    assert met is True
    assert "64 typical rows made from the scaler's statistics, because " in evidence
    assert reason in evidence


@pytest.fixture
def run_beside_its_data(
    music_csv: Path, music_overrides: list[str], tmp_path: Path, monkeypatch: Any
) -> Path:
    """The folder of a project, not the current one: a run in `outputs`, with a data path that starts there."""
    project = tmp_path / "project"
    (project / "tables").mkdir(parents=True)
    shutil.copy(music_csv, project / "tables" / "music.csv")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(project)
    finished_run(project / "outputs" / "run", [*music_overrides, "data.path=tables/music.csv"])
    monkeypatch.chdir(tmp_path / "elsewhere")
    return project


def same_rows(found: Any) -> bool:
    """Whether the export read the run's test rows again."""
    return "test rows, the same as in predictions.csv" in items(found)["bundle verified"][1]


def test_a_relative_data_path_starts_from_the_runs_working_folder(
    exported: Export, run_beside_its_data: Path
) -> None:
    run = run_beside_its_data / "outputs" / "run"
    assert same_rows(exported(f"run={run}"))
    refit = exported(f"run={run}", "refit=full").refit_folder
    assert RunFolder(refit).read_settings()["data"]["path"] == str(
        run_beside_its_data / "tables" / "music.csv"
    )


def test_a_run_of_an_earlier_version_is_read_from_where_hydra_was_started(
    exported: Export, run_beside_its_data: Path
) -> None:
    run = RunFolder(run_beside_its_data / "outputs" / "run")
    run.write_run({key: value for key, value in run.read_run().items() if key != "working_folder"})
    assert "there is no such file" in items(exported(f"run={run.path}"))["bundle verified"][1]
    run.hydra_yaml.write_text(f"hydra:\n  runtime:\n    cwd: {run_beside_its_data}\n")
    assert same_rows(exported(f"run={run.path}"))
    run.hydra_yaml.write_text("hydra: [")
    assert not same_rows(exported(f"run={run.path}"))


def test_a_project_that_was_moved_is_read_from_the_current_folder(
    exported: Export, run_beside_its_data: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    moved = run_beside_its_data.rename(tmp_path / "moved")
    assert not same_rows(exported(f"run={moved / 'outputs' / 'run'}"))
    monkeypatch.chdir(moved)
    assert same_rows(exported(f"run={moved / 'outputs' / 'run'}"))


def test_predictions_of_another_model_stop_the_export(
    exported: Export, plain_run: RunFolder, outputs: Path, tmp_path: Path
) -> None:
    other = outputs / "runs" / "other"
    shutil.copyfile(other / "predictions.csv", plain_run.predictions_csv)
    with pytest.raises(
        ExportError, match=r"predictions.csv: id '.*' has probabilities that differ by 0\.\d+ from"
    ):
        exported(f"run={plain_run.path}")
    lines = plain_run.predictions_csv.read_text().splitlines()
    plain_run.predictions_csv.write_text("\n".join(lines[:-1]))
    with pytest.raises(ExportError, match="lists 14 rows, not the 15 test rows"):
        exported(f"run={plain_run.path}")
    plain_run.predictions_csv.write_text("id\n")
    with pytest.raises(Exception, match=r"predictions.csv: cannot be read"):
        exported(f"run={plain_run.path}")
    assert not (tmp_path / "models").exists()


def test_strict_names_unmet_items_and_changes_nothing(
    exported: Export, plain_run: RunFolder, tmp_path: Path
) -> None:
    with pytest.raises(
        ExportError, match=r"(?s)2 items .* not met, nothing was published:.*full dataset.*cross-val"
    ):
        exported(f"run={plain_run.path}", "min_test_accuracy=0", "strict=true")
    assert not (tmp_path / "models").exists()
    with pytest.raises(ExportError, match=r"(?s)1 item .* is not met.*cross-validation"):
        exported(f"run={plain_run.path}", "min_test_accuracy=0", "strict=true", "refit=full")
    assert len(list((tmp_path / "outputs" / "runs").iterdir())) == 2  # refused before it was trained


def test_everything_met_is_published_under_strict(exported: Export, outputs: Path) -> None:
    run = outputs / "sweeps" / "folds" / "1"
    found = exported(
        f"run={run}", "min_test_accuracy=0", "strict=true", "refit=full", ask_service=predict_in_process
    )
    assert all(item.met for item in found.checklist)
    evidence = items(found)["cross-validation performed"][1]
    accuracies = [
        json.loads((outputs / "sweeps" / "folds" / str(i) / "metrics.json").read_text())["test"]["accuracy"]
        for i in range(3)
    ]
    assert (
        f"test accuracy {np.mean(accuracies):.3f} (standard deviation {np.std(accuracies, ddof=1):.3f})"
        in evidence
    )
    # One fold may be easier than the others, so its own accuracy does not count.
    mean = np.mean(accuracies)
    for threshold in (mean - 0.001, mean + 0.001):
        found = exported(f"run={run}", f"min_test_accuracy={threshold:.4f}")
        [item] = [item for item in found.checklist if item.item.startswith("test accuracy above")]
        assert item.met == (mean > threshold)
        assert item.evidence.startswith(f"{mean:.3f}, the mean over 3 folds; each of 3 folds tests in turn")


def test_folds_of_another_setting_or_unfinished_ones_are_no_cross_validation(
    exported: Export, outputs: Path
) -> None:
    folds = outputs / "sweeps" / "folds"
    other = RunFolder(folds / "2")
    record = other.read_run()
    other.write_run(record | {"settings": record["settings"] | {"model.dropout": 0.2}})
    met, evidence = items(exported(f"run={folds / '0'}"))["cross-validation performed"]
    assert (met, evidence[:28]) == (False, "2 of 3 folds are finished in")
    record = RunFolder(folds / "1").read_run()
    RunFolder(folds / "1").write_run(record | {"status": "running"})
    assert items(exported(f"run={folds / '0'}"))["cross-validation performed"][1].startswith("1 of 3 folds")


def test_a_version_is_counted_up_and_nothing_is_overwritten(
    exported: Export, plain_run: RunFolder, tmp_path: Path
) -> None:
    names = [exported(f"run={plain_run.path}", "versioned=true").name for _ in range(2)]
    first = contents(tmp_path / "models")
    names.append(exported(f"run={plain_run.path}", "versioned=true").name)
    assert [name.split("_")[2] for name in names] == ["v1", "v2", "v3"]
    assert first.items() <= contents(tmp_path / "models").items()


@pytest.mark.parametrize("failing_call", [1, 2])
def test_a_failing_verification_leaves_the_old_bundle(
    exported: Export,
    outputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing_call: int,
) -> None:
    exported(f"run={outputs / 'runs' / 'plain'}")
    before = contents(tmp_path / "models")
    calls = 0
    original = checklist.compare

    def another_answer(bundle: Any, wrapper: Any, trial: Any) -> float:
        nonlocal calls
        calls += 1
        if calls == failing_call:
            weights = wrapper.model.network[0].weight
            with torch.no_grad():
                weights.mul_(1.001)
        return original(bundle, wrapper, trial)

    monkeypatch.setattr(production.checklist, "compare", another_answer)
    with pytest.raises(
        ExportError, match=r"the written .*\.pt gives probabilities that differ by .* nothing was"
    ):
        exported(f"run={outputs / 'runs' / 'other'}")
    assert calls == failing_call
    assert contents(tmp_path / "models") == before
    assert not [path for path in (tmp_path / "models").rglob("*") if path.suffix == ".partial"]


def test_a_damaged_checkpoint_or_a_wrong_name_leaves_the_old_bundle(
    exported: Export, plain_run: RunFolder, tmp_path: Path
) -> None:
    exported(f"run={plain_run.path}")
    before = contents(tmp_path / "models")
    with pytest.raises(BundleError, match="model_name='a/b': expected letters, digits"):
        exported(f"run={plain_run.path}", "model_name=a/b")
    content = plain_run.best_checkpoint.read_bytes()
    plain_run.best_checkpoint.unlink()
    plain_run.best_checkpoint.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        CheckpointError, match=r"best\.ckpt: truncated, or not a file that torch\.save writes"
    ):
        exported(f"run={plain_run.path}")
    assert contents(tmp_path / "models") == before


def test_a_checkpoint_outside_of_a_run_is_exported_without_metrics(
    exported: Export, plain_run: RunFolder, tmp_path: Path
) -> None:
    loose = shutil.copyfile(plain_run.best_checkpoint, tmp_path / "loose.ckpt")
    found = exported(f"ckpt={loose}", "model_name=other_name")
    assert found.paths["model"].name == "other_name.pt"
    assert metadata(found.paths)["metrics"] == {}
    assert metadata(found.paths)["evaluation"] is None
    unmet = {item for item, (met, _) in items(found).items() if not met}
    assert {"metadata includes metrics", "test accuracy above 0.75", "cross-validation performed"} <= unmet
    with pytest.raises(ExportError, match="refit=full needs the configuration of the run"):
        exported(f"ckpt={loose}", "refit=full")
    with pytest.raises(
        ExportError, match="temperature_scaling=true needs the run's validation rows: the checkpoint"
    ):
        exported(f"ckpt={loose}", "temperature_scaling=true")


def test_the_metrics_of_another_epoch_s_checkpoint_are_measured(exported: Export, outputs: Path) -> None:
    run = next(
        run
        for run in (RunFolder(path.parent) for path in sorted(outputs.rglob("run.json")))
        if run.read_run()["best_epoch"] != run.read_run()["epochs"] - 1
    )
    with run.history_csv.open() as stream:
        last = list(csv.DictReader(stream))[-1]
    found = exported(f"ckpt={run.last_checkpoint}")
    metrics = metadata(found.paths)["metrics"]
    for name in ("loss", "accuracy", "f1", "ece"):
        assert metrics["val"][name] == pytest.approx(float(last[f"val/{name}"]), abs=1e-6)
    assert metrics["val"] != run.read_metrics()["val"]
    assert "predictions.csv" not in items(found)["bundle verified"][1]


def test_a_fitted_temperature_is_part_of_the_weights(
    exported: Export, plain_run: RunFolder, music_csv: Path
) -> None:
    found = exported(f"run={plain_run.path}", "temperature_scaling=true")
    content = metadata(found.paths)
    temperature = found.calibration.temperature
    assert content["temperature"] == temperature != 1.0
    expected = recorded(plain_run)
    raw = raw_rows(music_csv)
    scaled = np.log(np.array(list(expected.values()))) / temperature
    scaled = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
    answers = probabilities(found.paths["model"].parent, [raw[name] for name in expected])
    np.testing.assert_allclose(answers, scaled, rtol=0, atol=1e-6)
    calibration = content["calibration"]
    assert calibration["n_rows"] == 15
    assert calibration["ece_before"] == pytest.approx(plain_run.read_metrics()["val"]["ece"], abs=1e-6)
    assert calibration["ece_after"] == pytest.approx(content["metrics"]["val"]["ece"], abs=1e-6)
    assert content["metrics"]["val"]["loss"] < plain_run.read_metrics()["val"]["loss"]
    assert content["metrics"]["test"]["accuracy"] == plain_run.read_metrics()["test"]["accuracy"]


def test_refit_trains_all_rows_for_the_best_epoch_s_number_of_epochs(
    exported: Export, plain_run: RunFolder, music_csv: Path
) -> None:
    found = exported(f"run={plain_run.path}", "refit=full")
    content, refit = metadata(found.paths), RunFolder(found.refit_folder)
    assert refit.path.is_relative_to(plain_run.path.parent)
    run = refit.read_run()
    assert run["status"] == "finished"
    assert run["epochs"] == plain_run.read_run()["best_epoch"] + 1
    assert run["data"]["rows_by_split"] == {"train": 90, "val": 0, "test": 0}
    assert run["split_protocol"]["name"] == "all"
    assert not refit.predictions_csv.exists()
    rows = np.array(list(raw_rows(music_csv).values()), dtype=np.float32).astype(np.float64)
    scaler = pickle.loads(found.paths["scaler"].read_bytes())
    np.testing.assert_allclose(scaler.mean_, rows.mean(axis=0), rtol=1e-12)
    weights = torch.load(refit.last_checkpoint, weights_only=True)["state_dict"]
    saved = torch.load(found.paths["model"], weights_only=True)["model_state_dict"]
    for name, value in saved.items():
        assert torch.equal(value, weights[f"network.{name}"])
    assert content["run"]["folder"] == str(refit.path)
    assert content["metrics"]["test"] == plain_run.read_metrics()["test"]
    assert content["metrics"]["held_out_model"]["run"] == str(plain_run.path)
    assert content["split_protocol"].startswith(
        "all rows train, none is held out; the metrics are of the held-out"
    )
    evidence = items(found)
    assert evidence["trained on the full dataset"] == (True, "all 90 rows train")
    assert "of the held-out model on 15 test rows" in evidence["test accuracy above 0.75"][1]
    with plain_run.history_csv.open() as before, (refit.history_csv).open() as after:
        rates = [[row["learning_rate"] for row in csv.DictReader(stream)] for stream in (before, after)]
    assert rates[1] == rates[0][: run["epochs"]]  # the cosine keeps the length it had


def test_a_refitted_run_can_be_exported_itself_but_never_wins(exported: Export, plain_run: RunFolder) -> None:
    refit = exported(f"run={plain_run.path}", "refit=full").refit_folder
    assert exported().choice.skipped == {"without validation F1": 1}
    again = items(exported(f"run={refit}"))
    assert again["trained on the full dataset"][0] is True
    assert again["test accuracy above 0.75"] == (False, "no metric on test rows is known")


def test_refit_needs_the_run_s_data(exported: Export, plain_run: RunFolder, music_csv: Path) -> None:
    settings = plain_run.config_yaml.read_text()
    plain_run.config_yaml.write_text(settings.replace(str(music_csv), "nowhere.csv"))
    with pytest.raises(DataError, match=r"nowhere.csv: there is no such file"):
        exported(f"run={plain_run.path}", "refit=full")


def test_a_refit_keeps_schedules_and_takes_training_metrics(music_overrides: list[str]) -> None:
    from genre_classifier.config.checks import to_train_config
    from genre_classifier.exporting.refit import build_refit_config

    for scheduler, key, value in (
        ("cosine", "T_max", 30),
        ("one_cycle", "epochs", 30),
        ("plateau", "monitor", "train/loss"),
    ):
        length = ["trainer.max_epochs=30", "trainer.max_time=00:01:00:00"]
        others = ["optimized_metric=val/loss", "data/split=folds", "trainer.devices=2", "run_dir=x"]
        cfg = composed(*music_overrides, f"scheduler={scheduler}", *length, *others)
        settings = to_train_config(build_refit_config(cfg, Path("y"), epochs=7))
        assert getattr(settings.scheduler, key) == value
        assert settings.trainer.max_epochs == 7
        assert settings.trainer.max_time is None
        assert settings.callbacks.early_stopping is None
        assert settings.data.split.folds is None
        assert (settings.trainer.devices, settings.data.batch_size) == (1, 32)
        assert settings.run_dir == "y"
        assert cfg.trainer.max_epochs == 30


def test_a_service_that_is_missing_or_answers_otherwise_is_not_met(
    exported: Export, plain_run: RunFolder
) -> None:
    def missing(*_: Any) -> Any:
        raise MissingExtraError("the service needs fastapi: pip install ...")

    def other_bundle(folder: Path, name: str, rows: Any) -> Any:
        return [{"bundle": "another"} for _ in rows]

    def other_answer(folder: Path, name: str, rows: Any) -> Any:
        bundle = read_bundle(folder, name)
        even = dict.fromkeys(bundle.genre_names, 1 / 3)
        return [{"bundle": bundle.digest, "all_probabilities": even} for _ in rows]

    for ask, evidence in (
        (None, "no service was asked"),
        (missing, "the service needs fastapi: pip install"),
        (other_bundle, "it answered from another bundle"),
        (other_answer, "largest difference of a probability 0."),
    ):
        found = items(exported(f"run={plain_run.path}", ask_service=ask))
        met, text = found["service answered with the same result"]
        assert met is False
        assert evidence in text


def test_the_service_in_process_refuses_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"the service answered 503: .*no such file"):
        predict_in_process(tmp_path, "nothing", [[0.0]])


def test_onnx_is_written_checked_and_served_on_request(
    exported: Export, plain_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    found = exported(f"run={plain_run.path}", "onnx=true", ask_service=predict_in_process)
    assert found.paths["onnx"].is_file()
    assert items(found)["service answered with the same result"][0] is True
    monkeypatch.setattr(export_module, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r"onnx=true needs onnx and onnxruntime, not installed; run in .*\[onnx\]"
    ):
        exported(f"run={plain_run.path}", "onnx=true")


def test_a_batch_limit_means_that_not_all_rows_trained(
    exported: Export, tmp_path: Path, music_overrides: list[str]
) -> None:
    extra = ["trainer.limit_train_batches=1", "data/split=all", "optimized_metric=train/loss"]
    run = finished_run(tmp_path / "limited", [*music_overrides, *extra])
    met, evidence = items(exported(f"run={run.path}"))["trained on the full dataset"]
    assert met is False
    assert "trainer.limit_train_batches" in evidence


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["run=a", "ckpt=b"], "run=a and ckpt=b both say what to export: keep one of them"),
        (
            ["versioned=true", "model_name=mine"],
            "versioned=true makes a name, but model_name=mine gives another",
        ),
        (
            ["temperature_scaling=true", "refit=full"],
            "needs validation rows, but refit=full trains on all rows",
        ),
        (["min_test_accuracy=75"], r"min_test_accuracy=75.0: expected a number in \[0, 1\]"),
        (["max_milliseconds=0"], "max_milliseconds=0.0: expected a number above 0"),
    ],
)
def test_settings_out_of_range_or_in_contradiction_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        export_module.export(composed(*overrides, config="export"))


def test_another_class_of_network_is_exported_but_no_service_takes_it(
    exported: Export, tmp_path: Path, music_overrides: list[str], music_csv: Path
) -> None:
    target = "model._target_=tests.contracts.linear_network.LinearNetwork"
    run = finished_run(tmp_path / "linear", [*music_overrides, target])
    found = items(exported(f"run={run.path}", ask_service=predict_in_process))
    assert found["bundle verified"][0] is True
    met, evidence = found["service answered with the same result"]
    assert met is False
    assert "the service answered 503: " in evidence
    assert "503: genre_classifier_production.pt: model_state_dict lacks network" in evidence
