import pytest
from hydra.errors import MissingConfigException

from genre_classifier.command_line import message_of


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
    assert message_of(error) == expected


def test_any_other_missing_option_is_told_as_hydra_tells_it() -> None:
    assert (
        message_of(MissingConfigException("Could not find 'data/nothing'")) == "Could not find 'data/nothing'"
    )
