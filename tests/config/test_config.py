import re

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genre_classifier.config.checks import check, find_problems, restore_schemas, to_train_config
from genre_classifier.config.messages import explain_error
from genre_classifier.config.schema import AdamConfig, CosineConfig, SplitMethod
from genre_classifier.config.settings import describe_plan, format_value, format_yaml
from genre_classifier.errors import ConfigError
from tests.conftest import composed

AT = "run_dir=somewhere"


def test_defaults_are_the_documented_ones() -> None:
    settings = to_train_config(composed(AT))
    assert settings.data.source == "demo"
    assert settings.data.batch_size == 64
    assert (settings.data.split.train, settings.data.split.val, settings.data.split.test) == (
        0.70,
        0.15,
        0.15,
    )
    assert settings.data.split.method is SplitMethod.auto
    assert settings.trainer.max_epochs == 50
    assert isinstance(settings.optimizer, AdamConfig)
    assert settings.optimizer.lr == 1e-3
    assert settings.scheduler is None
    assert settings.seed == 42
    assert settings.callbacks.early_stopping is not None
    assert (settings.callbacks.early_stopping.monitor, settings.callbacks.early_stopping.patience) == (
        "val/f1",
        10,
    )
    assert settings.callbacks.checkpoint is not None
    assert settings.callbacks.checkpoint.monitor == "val/f1"
    assert settings.logger is not None
    assert settings.logger._target_.endswith("SplitTensorBoardLogger")


def test_a_setting_is_defined_once_and_interpolated() -> None:
    settings = to_train_config(
        composed(AT, "optimized_metric=val/loss", "scheduler=cosine", "trainer.max_epochs=7")
    )
    assert settings.callbacks.early_stopping is not None
    assert settings.callbacks.early_stopping.monitor == "val/loss"
    assert isinstance(settings.scheduler, CosineConfig)
    assert settings.scheduler.T_max == 7


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("callbacks.early_stopping=null", "callbacks.early_stopping"),
        ("callbacks.checkpoint=null", "callbacks.checkpoint"),
        ("logger=none", "logger"),
        ("scheduler=none", "scheduler"),
    ],
)
def test_a_part_can_be_switched_off(override: str, key: str) -> None:
    assert OmegaConf.select(composed(AT, override), key) is None
    check(composed(AT, override))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.dropuot=0.3",
            "model.dropuot: there is no such key. model has hidden_dims, dropout. Did you mean model.dropout",
        ),
        ("callbacks.early_stoping=null", "Did you mean callbacks.early_stopping"),
        ("modle.dropout=1", "modle: there is no such key"),
        ("optimizer.nesterov=true", "optimizer.nesterov: there is no such key. optimizer has lr"),
        (
            "trainer.max_epochs=abc",
            "trainer.max_epochs: Value 'abc' of type 'str' could not be converted to Integer",
        ),
        ("model.dropout=abc", "model.dropout: .*'abc'.*a number"),
        ("data.nan=maybe", "data.nan: Invalid value 'maybe', expected one of .*error, drop"),
        ("trainer.accelerator=abacus", "trainer.accelerator: .*'abacus'.*auto, cpu, gpu, mps"),
        ("model.hidden_dims=[a]", r"model.hidden_dims\[0\]: Value 'a'"),
        ("optimizer=adagrad", "optimizer=adagrad: there is no such choice. optimizer has adam, adamw, sgd"),
    ],
)
def test_a_wrong_key_or_type_is_named_with_what_is_allowed(override: str, message: str) -> None:
    with pytest.raises(ConfigCompositionException) as caught:
        composed(AT, override)
    text = explain_error(caught.value)
    assert text is not None
    assert re.search(message, text), text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.dropout=2"], r"model.dropout=2.0: expected a number in \[0, 1\)"),
        (["optimizer.lr=-1"], "optimizer.lr=-1.0: expected a number above 0"),
        (["optimizer.lr=nan"], "optimizer.lr=nan: expected a number above 0"),
        (["data.split.test=0.9", "data.split.train=0.6"], "train=0.6, val=0.15 and test=0.9 add up to 1.65"),
        (["model.hidden_dims=[8,0]"], r"model.hidden_dims=\[8, 0\]: expected a number of at least 1"),
        (["data.batch_size=0"], "data.batch_size=0: expected a number of at least 1"),
        (["seed=-1"], "seed=-1: expected"),
        (["threads=0"], "threads=0: expected"),
        (["optimizer.betas=[0.9]"], r"optimizer.betas=\[0.9\]: expected two numbers"),
        (
            ["optimized_metric=test/f1"],
            "optimized_metric=test/f1: .*test metrics never take part in choosing",
        ),
        (
            ["callbacks.checkpoint.monitor=val/f2"],
            "callbacks.checkpoint.monitor=val/f2: expected one of val/loss",
        ),
        (["trainer.precision=8"], "trainer.precision=8: expected one of 32-true"),
        (["trainer.min_epochs=60"], "trainer.min_epochs=60 is above trainer.max_epochs=50"),
        (["trainer.devices=0"], "trainer.devices=0"),
        (["trainer.max_time=soon"], "trainer.max_time=soon: expected days:hours"),
        (["optimizer=sgd", "optimizer.momentum=0"], "optimizer.nesterov=true needs momentum"),
        (["data.split.folds=5"], "data.split.folds=5 needs data.split.fold"),
        (["data.split.fold=1"], "data.split.fold=1 needs data.split.folds"),
        (
            ["data/split=folds", "data.split.fold=5"],
            "data.split.fold=5 of data.split.folds=5: expected 0 to 4",
        ),
        (["data/split=given"], "data.split.method=given needs data.split.column"),
        (["data.split.files.train=a.txt"], "set data.split.files.test"),
        (["data.split.column=s", "data.split.files.test=a.txt"], "both give the split"),
        (["data/split=stratified", "data.split.column=s"], "data.split.method=stratified makes one"),
        (
            ["data/split=folds", "data.split.column=s"],
            "data.split.folds=5 makes a split, but data.split.column gives one",
        ),
        (["data.split.val=0", "data.split.train=0.85"], "optimized_metric=val/f1 needs validation rows"),
        (["data=table"], "data.path has no value"),
        (["+loss.extra=1"], "loss.extra: there is no such key"),
        (["+extra.deep=1"], "extra: there is no such key"),
        (["scheduler=plateau", "scheduler.factor=1"], r"scheduler.factor=1.0: expected a number in \(0, 1\)"),
    ],
)
def test_a_value_out_of_range_or_a_contradiction_is_one_message(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(composed(AT, *overrides))


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        check(composed(AT, "model.dropout=2", "optimizer.lr=-1", "data.split.test=0.9"))
    assert "3 problems" in str(caught.value)
    for part in ("model.dropout=2.0", "optimizer.lr=-1.0", "add up to 1.75"):
        assert part in str(caught.value)


def test_the_composed_defaults_have_no_problem() -> None:
    assert find_problems(composed(AT)) == []


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=sgd", "scheduler=plateau", "callbacks=ema", "logger=csv"],
        ["data=table", "data.path=x.csv", "data.features=[a,b]", "scheduler=one_cycle", "data/split=folds"],
        ["data=gtzan", "data.path=x.csv", "optimizer=adamw", "scheduler=cosine", "callbacks.checkpoint=null"],
        ["optimizer._target_=torch.optim.NAdam", "logger=none"],
    ],
)
def test_a_saved_configuration_gets_its_schemas_back(overrides: list[str]) -> None:
    cfg = composed(AT, *overrides)
    saved = OmegaConf.create(OmegaConf.to_yaml(cfg))
    assert to_train_config(restore_schemas(saved)) == to_train_config(cfg)


def test_a_saved_configuration_of_another_version_is_refused() -> None:
    saved = OmegaConf.create(OmegaConf.to_yaml(composed(AT)))
    saved.optimizer.rho = 3
    with pytest.raises(ConfigError, match=r"the run's saved configuration: optimizer has the keys .*rho"):
        restore_schemas(saved)
    del saved.optimizer["rho"]
    saved.trainer.max_epochs = "many"
    with pytest.raises(ConfigError, match=r"saved configuration: trainer.max_epochs: .*'many'"):
        restore_schemas(saved)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data/split=all"], "optimized_metric=val/f1 needs validation rows, but data.split.method=all"),
        (
            ["data/split=all", "data.split.folds=5", "data.split.fold=0", "optimized_metric=train/f1"],
            "data.split.method=all holds no rows out, but data.split.folds=5 does",
        ),
        (
            ["scheduler=one_cycle", "scheduler.epochs=10"],
            "scheduler.epochs=10 is below trainer.max_epochs=50: the cycle would end before the training",
        ),
    ],
)
def test_training_on_all_rows_and_longer_cycles_have_their_conditions(
    overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        check(composed(AT, *overrides))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (0.123456, "0.1235"),
        ((128, 64), "[128,64]"),
        ([0.9, None], "[0.9,null]"),
        ("my table = 1.csv", "my table = 1.csv"),  # a path keeps its blanks
        (["a b", "c"], "[a b,c]"),
    ],
)
def test_a_setting_is_shown_in_few_signs(value: object, shown: str) -> None:
    assert format_value(value) == shown


@pytest.mark.parametrize(
    ("overrides", "plan"),
    [
        (
            [],
            "demo; GenreClassifier 128-64-32, dropout 0.3; Adam at 0.001, up to 50 epochs, 64 rows a batch, seed 42",
        ),
        (
            [
                "data=gtzan",
                "data.path=x/f.csv",
                "model.hidden_dims=[]",
                "optimizer=sgd",
                "optimizer.lr=0.5",
                "seed=1",
            ],
            "gtzan x/f.csv; GenreClassifier no hidden layer, dropout 0.3; SGD at 0.5, up to 50 epochs, ",
        ),
    ],
)
def test_a_plan_names_data_network_and_recipe(overrides: list[str], plan: str) -> None:
    assert describe_plan(composed(*overrides)).startswith(plan)


def test_yaml_is_read_as_omegaconf_reads_its_own() -> None:
    values = {
        "words": [
            "yes",
            "null",
            "1e-3",
            "0x1F",
            "12",
            "1_000",
            "a: b",
            " blank ",
            "${hydra:job.num}",
            "",
            "Ñandú 🎵",
        ],
        "lines": "first\n  second " + "word " * 60,
        "numbers": [1, -2.5, 1e-07, float("inf"), True, None],
        "nested": {"empty": {}, "list": [], "missing": "???"},
    }
    expected = OmegaConf.create(OmegaConf.to_yaml(OmegaConf.create(values)))
    found = OmegaConf.create(format_yaml(values))
    assert OmegaConf.to_container(found) == OmegaConf.to_container(expected)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=${nope}", "seed: its ${...} has no value: Interpolation key 'nope' not found"),
        ("seed=${nope:1}", "seed: its ${...} has no value: Unsupported interpolation type nope"),
        ("seed=${oc.env:NO_SUCH}", "seed: its ${...} has no value: KeyError .*'NO_SUCH' not found"),
        ("seed=${seed}", "seed: its ${...} has no value: Recursive interpolation detected"),
        (
            "seed=${hydra:job.num}",
            "seed: its ${...} has no value: a run's settings cannot refer to Hydra's own",
        ),
    ],
)
def test_a_reference_without_a_value_is_named(override: str, message: str) -> None:
    HydraConfig.instance().cfg = None
    with pytest.raises(OmegaConfBaseException) as caught:
        find_problems(composed(AT, override))
    text = explain_error(caught.value)
    assert text is not None
    assert re.search(re.escape(message).replace(r"\.\*", ".*"), text), text


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (["data=table", "data.path="], ["data.path"]),
        (["ckpt_path=''"], ["ckpt_path"]),
        (["data=table", "data.path=x.csv", "data.label=", "data.group=''"], ["data.group", "data.label"]),
        (["logger=csv"], []),  # its version is empty by default
    ],
)
def test_an_empty_text_is_refused(overrides: list[str], keys: list[str]) -> None:
    problems = find_problems(composed(AT, *overrides))
    assert sorted(key for problem in problems for key in problem.keys) == keys
    assert all(f"{problem.keys[0]} is empty: give it a value" in problem.message for problem in problems)
