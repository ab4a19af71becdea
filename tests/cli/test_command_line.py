import shlex
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException

from genre_classifier.cli import hydra_entry
from genre_classifier.cli.train import main
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
    expected = f"{plugin} is not installed; run in the project's folder: pip install -c constraints.txt -e '.[{extra}]'"
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


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "experiment=gtzann",
            "experiment=gtzann: there is no such choice. experiment has demo, demo_strong, gtzan, overfit_one_batch, "
            "pretrained, quick. Did you mean experiment=gtzan?",
        ),
        ("-m hydra/launcher=stackd seed=1,2", "Did you mean hydra/launcher=stacked?"),
        ("-m experiment=demo,quik", "experiment=quik: there is no such choice."),
        (
            "data/splits=grouped",
            "data/splits: there is no such config group. The groups are callbacks, data, ",
        ),
        (
            "-m hparams_search=optuna,regularisation",
            "hparams_search=optuna,regularisation: a search says what a",
        ),
        (
            "-m seed=rnge(1,3)",
            "cannot be read; a range, quoted for the shell, looks like 'seed=range(1,4)'",
        ),
        (
            "-m model.dropout=choice(0.1,0.2",
            "a choice, quoted for the shell, looks like 'model.dropout=choice(0.1,",
        ),
        ("data/splits=grouped", "Did you mean data/split?"),
        ("experiment=null seed=1", "experiment=null: a config group takes the name of one of its choices; "),
        ("-m hydra.launcher.n_job=2", "n_job: there is no such key. hydra.launcher has no settings."),
        (
            "-m seed=1,2 --cfg hydra",
            "; --cfg and --info show one run: leave out -m, and give each setting one",
        ),
        (
            "-m seed=1,2 --info all",
            "; --cfg and --info show one run: leave out -m, and give each setting one",
        ),
        (
            "-m seed=1,2 --help",
            "seed=1,2 has several values, and --help, --cfg and --info show one run: leave",
        ),
        ("--resolve", "error: The --resolve flag can only be used in conjunction with --cfg or --help"),
        ("--shell-completion query=tcsh", "No completion plugin for 'tcsh' found, available : \n  bash"),
    ],
)
def test_a_misspelt_command_gets_one_message(
    words: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(hydra_entry.FULL_ERROR, "1")  # as `run` does for Hydra
    monkeypatch.setattr(sys, "argv", ["train.py", *words.split()])
    with pytest.raises(SystemExit) as ended, hydra_entry.one_message():
        main()
    assert told in str(ended.value)
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_an_export_takes_one_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["somewhere/export.py", "run=a,b"])
    error = HydraException("Ambiguous value for argument 'run=a,b'\n1. To use it as a list, ...")
    told = "the argument run=a,b has several values: an export takes one value; run it once for each"
    assert explain_error(error) == told


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("data=gtzan -m seed=1,2", "data=gtzan seed=1,2 -m"),
        ("a=1 --config-dir x b=2 -m c=3", "a=1 b=2 c=3 --config-dir x -m"),
        ("-m seed=1,2", "-m seed=1,2"),
        ("seed=1 --info", "seed=1 --info"),
        ("seed=1 -m --unknown a=1", "seed=1 -m --unknown a=1"),
    ],
)
def test_overrides_may_stand_on_both_sides_of_an_option(
    given: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *given.split()])
    hydra_entry.put_overrides_together()
    assert sys.argv == ["train.py", *expected.split()]
