import csv
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from genre_classifier.config.settings import flatten_settings
from genre_classifier.data.datamodule import GenreDataModule
from genre_classifier.errors import CheckpointError, DataError, DivergedError, RunFolderError
from genre_classifier.runs.configuration import read_configuration
from genre_classifier.training.callbacks import RunCheckpoint
from genre_classifier.training.lit_module import GenreLitModule
from genre_classifier.training.run import Result
from tests.conftest import composed, write_csv

BY_AUTOGRAD = "tests.training.engine.edited.ByAutograd"
Train = Callable[..., Result]


def history(result: Result) -> list[dict[str, float]]:
    with result.folder.history_csv.open() as stream:
        return [
            {name: float(value) for name, value in row.items() if value} for row in csv.DictReader(stream)
        ]


def weights(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def assert_same_weights(first: Path, second: Path) -> None:
    one, two = weights(first), weights(second)
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


def stop_after(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """End a run by an exception once the checkpoint of `epoch` is written."""
    original = RunCheckpoint.on_train_epoch_end

    def stopping(self: RunCheckpoint, trainer: Any, module: Any) -> None:
        original(self, trainer, module)
        if trainer.current_epoch == epoch:
            raise RuntimeError("stopped by the test")

    monkeypatch.setattr(RunCheckpoint, "on_train_epoch_end", stopping)


def test_a_run_started_from_python_leaves_its_configuration(trained: Train) -> None:
    folder = trained("model.dropout=0.25", name="own").folder
    cfg = read_configuration(folder)
    assert flatten_settings(cfg) == folder.read_run()["settings"]
    assert cfg.model.dropout == 0.25
    assert folder.read_overrides() == ()
    trained(
        "model.dropout=0.5", "trainer.max_epochs=1", name="own"
    )  # the files there become those of this run
    assert read_configuration(folder).model.dropout == 0.5


def test_the_configuration_that_hydra_wrote_is_kept(trained: Train, tmp_path: Path) -> None:
    hydra = tmp_path / "own" / ".hydra"
    hydra.mkdir(parents=True)
    for name in ("config.yaml", "hydra.yaml", "overrides.yaml"):
        (hydra / name).write_text("written: by Hydra\n")
    trained("trainer.max_epochs=1", name="own")
    assert {path.read_text() for path in hydra.iterdir()} == {"written: by Hydra\n"}


def test_a_run_leaves_its_whole_folder(trained: Train) -> None:
    result = trained("logger=tensorboard")
    files = {
        str(path.relative_to(result.folder.path)) for path in result.folder.path.rglob("*") if path.is_file()
    }
    assert {
        ".hydra/config.yaml",
        "run.json",
        "metrics.json",
        "history.csv",
        "predictions.csv",
        "scaler.pkl",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    } <= files
    assert not any(".tmp" in name for name in files)
    run = result.folder.read_run()
    assert run["status"] == "finished"
    assert run["seed"] == 42
    assert run["versions"]["torch"] == torch.__version__
    assert run["data"]["rows_by_split"] == {"train": 60, "val": 15, "test": 15}
    assert run["split_protocol"]["groups_disjoint"] is True
    assert run["epochs"] == len(history(result)) == 3
    assert run["best_epoch"] == result.best_epoch
    assert run["seconds"] > 0


def test_metrics_agree_with_the_predictions_and_scikit_learn(trained: Train) -> None:
    result = trained()
    with result.folder.predictions_csv.open() as stream:
        rows = list(csv.DictReader(stream))
    truth, predicted = [row["true"] for row in rows], [row["predicted"] for row in rows]
    saved = result.folder.read_metrics()
    assert saved["test"]["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert saved["test"]["f1"] == pytest.approx(f1_score(truth, predicted, average="weighted"))
    assert saved["test"]["f1_macro"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert set(saved["test"]) == {"loss", "accuracy", "f1", "f1_macro", "top3", "ece"}
    assert saved["split_protocol"]["name"] == "grouped"
    names = ["Ambient", "Bluegrass", "Cumbia"]
    for row in rows:
        probabilities = [float(row[f"p_{name}"]) for name in names]
        assert sum(probabilities) == pytest.approx(1.0, abs=1e-6)
        assert names[int(np.argmax(probabilities))] == row["predicted"]
        assert row["id"].startswith(row["group"])
    assert result.metrics == {split: saved[split] for split in ("train", "val", "test")}


def test_the_objective_is_the_best_epochs_value_not_the_last_ones(trained: Train) -> None:
    result = trained("trainer.max_epochs=12", "optimizer.lr=0.02")
    values = [row["val/f1"] for row in history(result)]
    assert result.objective == pytest.approx(max(values))
    assert result.best_epoch == int(np.argmax(values))
    assert result.metrics["val"]["f1"] == pytest.approx(max(values), abs=1e-6)


@pytest.mark.parametrize("metric", ["val/loss", "train/loss", "val/ece"])
def test_a_metric_where_lower_is_better_is_minimised(trained: Train, metric: str) -> None:
    result = trained(f"optimized_metric={metric}", "trainer.max_epochs=6")
    values = [row[metric] for row in history(result)]
    assert result.objective == pytest.approx(min(values))
    assert result.best_epoch == int(np.argmin(values))


def test_same_seed_same_metrics_and_weights_other_seed_others(trained: Train) -> None:
    first, second, other = trained(), trained(), trained("seed=7")
    assert first.metrics == second.metrics
    assert_same_weights(first.folder.last_checkpoint, second.folder.last_checkpoint)
    assert first.metrics != other.metrics
    assert first.protocol == other.protocol, "the run's seed leaves the rows where they are"


def test_threads_outside_are_left_as_they_were(trained: Train) -> None:
    before = torch.get_num_threads()
    trained("threads=1", "trainer.max_epochs=1")
    assert torch.get_num_threads() == before


RECIPES = [
    [],
    ["scheduler=cosine"],
    ["scheduler=one_cycle"],
    ["scheduler=plateau", "scheduler.patience=0", "scheduler.threshold=0.5"],
    ["callbacks=ema", "loss.mixup=0.4", "optimizer=adamw"],
    ["optimizer=sgd", "trainer.gradient_clip_val=0.5", "loss.class_weights=balanced"],
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: " ".join(recipe) or "default")
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: list[str]
) -> None:
    recipe = [*recipe, "trainer.max_epochs=6"]
    whole = trained(*recipe, name="whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(RuntimeError, match="stopped by the test"):
            trained(*recipe, name="half")
    half = tmp_path / "half"
    assert json.loads((half / "run.json").read_text())["status"] == "failed"
    resumed = trained(*recipe, f"ckpt_path={half / 'checkpoints' / 'last.ckpt'}", name="resumed")

    assert_same_weights(whole.folder.last_checkpoint, resumed.folder.last_checkpoint)
    assert_same_weights(whole.folder.best_checkpoint, resumed.folder.best_checkpoint)
    assert whole.metrics == resumed.metrics
    assert whole.best_epoch == resumed.best_epoch
    without_seconds = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in history(r)] for r in (whole, resumed)
    ]
    assert without_seconds[0] == without_seconds[1]
    states = [torch.load(r.folder.last_checkpoint, weights_only=True) for r in (whole, resumed)]
    assert states[0]["lr_schedulers"] == states[1]["lr_schedulers"]
    assert states[0]["global_step"] == states[1]["global_step"]


def test_patience_and_best_score_survive_a_resume(
    trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = ["trainer.max_epochs=40", "callbacks.early_stopping.patience=3", "optimizer.lr=0.01"]
    whole = trained(*recipe, name="whole")
    epochs = len(history(whole))
    assert epochs < 40, "early stopping ends this run"
    with monkeypatch.context() as patch:
        stop_after(patch, epochs - 2)
        with pytest.raises(RuntimeError):
            trained(*recipe, name="half")
    resumed = trained(*recipe, f"ckpt_path={tmp_path}/half/checkpoints/last.ckpt", name="resumed")
    assert len(history(resumed)) == epochs
    assert (resumed.best_epoch, resumed.objective) == (whole.best_epoch, whole.objective)
    assert_same_weights(whole.folder.best_checkpoint, resumed.folder.best_checkpoint)


@pytest.mark.parametrize("patience", [3, 40])
def test_a_run_killed_after_its_last_epoch_is_only_evaluated(
    patience: int, trained: Train, tmp_path: Path
) -> None:
    """Early stopping has ended it at patience 3, max_epochs at patience 40."""
    recipe = ["trainer.max_epochs=20", f"callbacks.early_stopping.patience={patience}", "optimizer.lr=0.01"]
    whole = trained(*recipe, name="run")
    before = {name: (tmp_path / "run" / name).read_text() for name in ("metrics.json", "history.csv")}
    (tmp_path / "run" / "metrics.json").unlink()
    resumed = trained(*recipe, f"ckpt_path={whole.folder.last_checkpoint}", name="run")
    assert before == {name: (tmp_path / "run" / name).read_text() for name in before}
    assert (resumed.best_epoch, resumed.objective) == (whole.best_epoch, whole.objective)


def test_resuming_with_other_features_is_refused(trained: Train) -> None:
    result = trained()
    with pytest.raises(CheckpointError, match=r"  - data.features=null, now \['f0', 'f1'\]\n"):
        trained("data.features=[f0,f1]", f"ckpt_path={result.folder.last_checkpoint}")
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        trained("ckpt_path=nowhere.ckpt")


def test_a_checkpoint_alone_rebuilds_network_scaler_genres_and_features(
    trained: Train, music_csv: Path
) -> None:
    result = trained()
    assert result.best_checkpoint is not None
    module = GenreLitModule.load(result.best_checkpoint)
    assert module.genre_names == ["Ambient", "Bluegrass", "Cumbia"]
    assert module.feature_names == ["f0", "f1", "f2", "f3"]
    assert module.hparams["data"]["where"] == str(music_csv)
    assert module.hparams["protocol"] == result.protocol
    with result.folder.predictions_csv.open() as stream:
        wanted = {
            row["id"]: [float(row[f"p_{name}"]) for name in module.genre_names]
            for row in csv.DictReader(stream)
        }
    with music_csv.open() as stream:
        raw = {
            row["track"]: [float(row[name]) for name in module.feature_names]
            for row in csv.DictReader(stream)
        }
    scaled = module.scaler.transform(np.array([raw[name] for name in wanted]))
    with torch.no_grad():
        found = torch.softmax(module(torch.tensor(scaled, dtype=torch.float32)), dim=1)
    np.testing.assert_allclose(found.numpy(), np.array(list(wanted.values())), atol=1e-6)


def test_a_checkpoint_loads_through_lightning_with_weights_only(trained: Train) -> None:
    result = trained()
    module = GenreLitModule.load_from_checkpoint(result.folder.best_checkpoint, weights_only=True)
    assert_weights = weights(result.folder.best_checkpoint)
    for name, value in module.state_dict().items():
        assert torch.equal(value, assert_weights[name])


def test_a_checkpoint_cannot_name_a_class_to_be_run(trained: Train, tmp_path: Path) -> None:
    result = trained()
    content = torch.load(result.folder.best_checkpoint, weights_only=True)
    for target, message in (
        ("os.system", "a name in a file alone imports nothing"),
        ("antigravity.fly", "a name in a file alone imports nothing"),
        ("torch.utils.model_dump.__main__.main", "a name in a file alone imports nothing"),
        ("torch.nope.X", "a name in a file alone imports nothing"),
        ("torch.nn.Linear", "a name in a file alone imports nothing"),
        ("genre_classifier.__main__.main", "a name in a file alone imports nothing"),
        ("genre_classifier.training.fit.train", "a name in a file alone imports nothing"),
        ("torch.optim.Adam", r"_target_=torch\.optim\.Adam: expected a class derived from torch\.nn"),
        ("", "_target_='': expected the dotted path of a class"),
        (5, "_target_=5: expected the dotted path of a class"),
        (None, "_target_=None: expected the dotted path of a class"),
        (["os.system"], r"_target_=\['os.system'\]: expected the dotted path of a class"),
    ):
        content["hyper_parameters"]["network"] = {"_target_": target, "command": "true"}
        torch.save(content, tmp_path / "evil.ckpt")
        with pytest.raises(CheckpointError, match=message):
            GenreLitModule.load(tmp_path / "evil.ckpt")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["optimizer_states"][0]["state"][0].update(exp_avg=torch.zeros(3)),
            "exp_avg of parameter 0 has an",
        ),
        (
            lambda c: c["optimizer_states"][0].update(state={99: {}}),
            "its optimizer is not one of 8 parameters",
        ),
        (
            lambda c: c["optimizer_states"][0].update(param_groups=[]),
            "its optimizer is not one of 8 parameters",
        ),
        (lambda c: c.update(optimizer_states=[]), "it holds no state of one optimizer"),
        (
            lambda c: c["state_dict"].update({"network.network.0.bias": torch.zeros(1)}),
            r"has shape \(1,\), the settings",
        ),
        (lambda c: c["state_dict"].pop("network.network.0.bias"), r"network\.network\.0\.bias is missing"),
    ],
)
def test_a_run_does_not_go_on_from_a_state_of_other_shapes(
    trained: Train, tmp_path: Path, change: Callable[[Any], Any], message: str
) -> None:
    content = torch.load(trained().folder.last_checkpoint, weights_only=True)
    change(content)
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match=message):
        trained(f"ckpt_path={tmp_path / 'other.ckpt'}", "trainer.max_epochs=5")


def test_diverging_stops_with_a_reason_in_run_json(trained: Train, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"loss is (nan|inf); lower optimizer.lr=1e\+20"):
        trained("optimizer=sgd", "optimizer.lr=1e20", name="diverged")
    run = json.loads((tmp_path / "diverged" / "run.json").read_text())
    assert run["status"] == "failed"
    assert run["reason"].startswith("DivergedError: epoch ")


def test_bad_data_is_recorded_and_leaves_no_results(trained: Train, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        trained("data.path=nowhere.csv", name="bad")
    assert {path.name for path in (tmp_path / "bad").iterdir()} == {".hydra", "run.json"}
    run = json.loads((tmp_path / "bad" / "run.json").read_text())
    assert (run["status"], run["reason"]) == (
        "failed",
        "DataError: nowhere.csv: there is no such file; check data.path",
    )


def test_a_folder_that_cannot_be_written_is_an_error_before_training(trained: Train, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write"):
        trained("run_dir=" + str(tmp_path / "file" / "run"))


def test_checkpoints_can_be_switched_off(trained: Train) -> None:
    result = trained("callbacks.checkpoint=null")
    assert result.best_checkpoint is None
    assert not result.folder.checkpoints.exists()
    assert result.best_epoch == 2
    assert result.metrics["val"]["f1"] == pytest.approx(history(result)[-1]["val/f1"], abs=1e-6)


def test_without_validation_rows_the_last_training_metric_decides(trained: Train) -> None:
    shares = ["data.split.train=0.8", "data.split.val=0", "data.split.test=0.2"]
    result = trained(*shares, "optimized_metric=train/loss")
    assert set(result.metrics) == {"train", "test"}
    assert result.objective == pytest.approx(min(row["train/loss"] for row in history(result)))


def test_the_reported_loss_is_plain_cross_entropy_whatever_the_training_loss_is(trained: Train) -> None:
    recipe = ["loss.label_smoothing=0.3", "loss.class_weights=balanced", "loss.mixup=0.4"]
    result = trained(*recipe)
    with result.folder.predictions_csv.open() as stream:
        rows = list(csv.DictReader(stream))
    nll = [-np.log(float(row[f"p_{row['true']}"])) for row in rows]
    assert result.metrics["test"]["loss"] == pytest.approx(np.mean(nll), rel=1e-5)


def test_class_weights_are_inverse_to_the_training_share(tmp_path: Path) -> None:
    from genre_classifier.config.checks import to_train_config
    from genre_classifier.training.run import build_module

    rng = np.random.default_rng(0)
    labels = ["a"] * 40 + ["b"] * 20 + ["c"] * 20
    path = write_csv(tmp_path / "t.csv", ["genre", "x"], [[label, rng.normal()] for label in labels])
    settings = to_train_config(
        composed(
            "data=table", f"data.path={path}", "data.label=genre", "loss.class_weights=balanced", "run_dir=x"
        )
    )
    data = GenreDataModule(settings.data)
    data.setup()
    counts = np.bincount(data.table.genres[data.data_split.train])
    module = build_module(settings, data)
    assert module.class_weights is not None
    np.testing.assert_allclose(module.class_weights.numpy(), counts.sum() / (3 * counts), rtol=1e-6)


@pytest.mark.parametrize("network", ["genre_classifier.network.GenreClassifier", BY_AUTOGRAD])
def test_averaged_weights_are_the_exponential_mean_of_the_raw_ones(
    trained: Train, monkeypatch: pytest.MonkeyPatch, network: str
) -> None:
    from genre_classifier.training.callbacks import EMA

    by_step: dict[int, torch.Tensor] = {}
    original = EMA.on_train_batch_end

    def recording(self: EMA, trainer: Any, module: Any, *args: Any) -> None:
        by_step.setdefault(trainer.global_step, module.network.network[0].weight.detach().clone().double())
        original(self, trainer, module, *args)

    monkeypatch.setattr(EMA, "on_train_batch_end", recording)
    recipe = ["callbacks=ema", "callbacks.ema.decay=0.9", "trainer.max_epochs=2"]
    result = trained(*recipe, f"model._target_={network}")
    raw = list(by_step.values())
    assert len(raw) == 8
    expected = raw[0]
    for weight in raw[1:]:
        expected = 0.9 * expected + 0.1 * weight
    saved = weights(result.folder.last_checkpoint)["network.network.0.weight"]
    torch.testing.assert_close(saved.double(), expected, atol=1e-6, rtol=1e-5)


def test_without_a_metric_to_monitor_the_last_epoch_is_the_best(trained: Train) -> None:
    result = trained("data/split=all", "optimized_metric=train/loss", "callbacks.checkpoint.monitor=null")
    assert result.best_epoch == 2
    assert_same_weights(result.folder.best_checkpoint, result.folder.last_checkpoint)
    assert set(result.metrics) == {"train"}
    assert not result.folder.predictions_csv.exists()
    assert result.objective == pytest.approx(history(result)[-1]["train/loss"])


def test_the_cycle_of_the_learning_rate_can_be_longer_than_the_training(trained: Train) -> None:
    long = trained("scheduler=one_cycle", "trainer.max_epochs=6")
    short = trained("scheduler=one_cycle", "trainer.max_epochs=3", "scheduler.epochs=6")
    rates = [[row["learning_rate"] for row in history(result)] for result in (long, short)]
    assert rates[1] == rates[0][:3]


def test_the_summary_names_the_next_commands(
    trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from genre_classifier.training.summary import show

    result = trained()
    show(result)
    assert f"python export.py run={result.folder.path}" in capsys.readouterr().out
    absent = next(iter(result.support["test"]))
    show(replace(result, support={"test": result.support["test"] | {absent: 0}}))
    row = next(line for line in capsys.readouterr().out.splitlines() if f" {absent} " in line)
    assert row.split()[1::2] == [absent, "0", "-"]  # no F1 without rows
    show(trained("callbacks.checkpoint=null"))
    assert "export.py" not in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    show(trained("logger=tensorboard", "logger.figures=false", "run_dir=."))  # as with hydra.run.dir=.
    told = capsys.readouterr().out
    assert "tensorboard --logdir .\n" in told
    assert "export run=.\n" in told
