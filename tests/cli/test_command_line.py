import shlex
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException

from genre_classifier.config.messages import explain_error


@pytest.mark.parametrize(
    ("plugin", "extra"),
    [
        ("hydra/launcher/joblib", "sweep"),
        ("hydra/sweeper/optuna", "sweep"),
        ("hydra/launcher/ray", "ray"),
        ("hydra/launcher/submitit_slurm", "slurm"),
    ],
)
def test_a_plugin_that_is_not_installed_names_its_extra(plugin: str, extra: str) -> None:
    error = MissingConfigException(f"In 'train': Could not find '{plugin}'\n\nAvailable options: ...")
    expected = f"{plugin} is not installed: pip install -c constraints.txt -e '.[{extra}]'"
    assert explain_error(error) == expected


def test_any_other_missing_option_has_hydras_message() -> None:
    assert (
        explain_error(MissingConfigException("Could not find 'data/nothing'"))
        == "Could not find 'data/nothing'"
    )


BAD_VALUES = [
    "runs/epoch=3-step=9.ckpt",
    "~/t.csv",
    "a#b.csv",
    "t(1).csv",
    "my (1).csv",
    "a&b.csv",
    "Müzik/t.csv",
    "音楽.csv",
    "it's.csv",
    "a;b.csv",
    "a!b.csv",
    'a"b.csv',
    "(1)",
    "`x`",
]


def refused(*words: str) -> str:
    """What is told of arguments that Hydra cannot read."""
    with pytest.raises(HydraException) as error:
        OverridesParser.create().parse_overrides(list(words))
    message = explain_error(error.value)
    assert message is not None
    return message


@pytest.mark.parametrize("key", ["ckpt_path", "data.path", "data.split.files.test", "run", "+data.path"])
@pytest.mark.parametrize("value", BAD_VALUES)
def test_an_argument_that_cannot_be_read_is_named_with_one_that_can(key: str, value: str) -> None:
    message = refused("data=table", f"{key}={value}", "seed=1")
    assert message.startswith(f"the argument {key}={value} cannot be read")
    (word,) = shlex.split(message.partition("for the shell: ")[2])
    assert OverridesParser.create().parse_override(word).value() == value
    assert "\n" not in message


def test_in_a_sweep_each_value_is_quoted_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "-m"])
    (word,) = shlex.split(refused("data.path=a=1.csv,b.csv,c(1).csv").partition("for the shell: ")[2])
    override = OverridesParser.create().parse_override(word)
    assert word == "data.path='a=1.csv',b.csv,'c(1).csv'"
    assert override.is_sweep_override()


@pytest.mark.parametrize("text", ["foo", "a b=c", "Müzik=3"])
def test_an_argument_that_is_no_setting_is_reported(text: str) -> None:
    assert refused(text) == (
        f"the argument {text} is no setting: expected KEY=VALUE, such as model.dropout=0.2"
    )


def test_several_values_without_a_sweep_are_explained() -> None:
    error = HydraException("Ambiguous value for argument 'data.path=a,b.csv'\n1. To use it as a list, ...")
    assert explain_error(error) == (
        "the argument data.path=a,b.csv has several values: add -m to train one run with each; for a list write "
        "'data.path=[a,b.csv]', for one text with a comma \"data.path='a,b.csv'\""
    )
