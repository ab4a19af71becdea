"""Every YAML file under conf/ composes, passes its check and says what it is for; every experiment trains."""

from pathlib import Path

import pytest
import yaml
from hydra.core.config_store import ConfigStore

from genre_classifier.config.checks import to_export_config, to_train_config
from genre_classifier.config.schema import SCHEMAS, ExportConfig
from tests.conftest import ROOT, composed

CONF = ROOT / "conf"
FILES = sorted(
    path.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml") if "local" not in path.parts
)
# Those of hparams_search set Hydra's own node, so tests/e2e/test_sweep_command.py runs them.
GROUPED = [name for name in FILES if "/" in name and not name.startswith(("hydra/", "hparams_search/"))]
EXPERIMENTS = [name for name in FILES if name.startswith("experiment/")]


def override(name: str) -> str:
    group, _, option = name.removesuffix(".yaml").rpartition("/")
    return f"{group}={option}" if group not in {"experiment", "debug"} else f"+{group}={option}"


def overrides_for(name: str) -> list[str]:
    chosen = override(name).lstrip("+")
    needed = ["run_dir=somewhere"]
    text = (CONF / name).read_text()
    sources = ("schema_data_table", "schema_data_gtzan", "schema_data_fma", "schema_data_audio_folder")
    if any(found in text for found in (*sources, "- audio_folder", "/data: gtzan", "/data: musicnn")):
        needed.append("data.path=somewhere.csv")
    if name == "data/split/given.yaml":
        needed.append("data.split.column=split")
    if name == "data/split/all.yaml":
        needed.append("optimized_metric=train/loss")
    return [chosen, *needed]


def test_all_files_are_found() -> None:
    assert len(FILES) == 46
    assert len(EXPERIMENTS) == 6
    assert {name.partition("/")[0] for name in GROUPED} == {
        "callbacks",
        "data",
        "debug",
        "experiment",
        "logger",
        "loss",
        "model",
        "optimizer",
        "scheduler",
        "trainer",
    }


@pytest.mark.parametrize("name", GROUPED)
def test_every_option_composes_and_passes_the_check(name: str) -> None:
    to_train_config(composed(*overrides_for(name)))


@pytest.mark.parametrize("name", FILES)
def test_every_file_says_how_it_is_used_what_to_expect_and_how_long_it_takes(name: str) -> None:
    lines = (CONF / name).read_text().splitlines()
    head = "\n".join(line for line in lines if line.startswith("#") and "@package" not in line)
    command = "python export.py" if "export" in name else "python train.py"
    assert command in head or "tensorboard --logdir" in head
    for word in ("Likely override:", "Expected:", "Takes:"):
        assert word in head, word
    assert "TO BE" not in head


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in GROUPED
        if name.split("/")[0] not in {"experiment", "debug"} and name != "logger/tensorboard.yaml"
    ],
)
def test_the_command_in_the_head_of_a_file_composes(name: str) -> None:
    line = next(
        line for line in (CONF / name).read_text().splitlines() if line.startswith("#   python train.py")
    )
    words = line.removeprefix("#   python train.py").split()
    if "-m" in words:
        words = [word.split(",")[0] for word in words if word != "-m"]
    to_train_config(composed("run_dir=somewhere", *words))


def test_the_export_configuration_composes_with_every_default_of_its_schema() -> None:
    assert to_export_config(composed(config="export")) == ExportConfig()


def test_the_likely_overrides_of_an_export_compose() -> None:
    lines = (CONF / "export.yaml").read_text().splitlines()
    line = next(line for line in lines if "Likely override:" in line).partition(":")[2]
    for word in line.replace(" or ", " ").split():
        key, _, value = word.partition("=")
        assert str(composed(word, config="export")[key]).lower().removeprefix("refit.") == value.lower()


def test_an_export_leaves_no_run_folder_or_log_file() -> None:
    settings = yaml.safe_load((CONF / "hydra" / "export.yaml").read_text())
    assert settings["run"]["dir"] == "."
    assert settings["output_subdir"] is None
    assert settings["job_logging"]["root"]["handlers"] == ["console"]
    defaults = yaml.safe_load((CONF / "export.yaml").read_text())["defaults"]
    assert {"override hydra/job_logging": "stdout"} in defaults  # Hydra's own default opens a file


@pytest.mark.parametrize(
    "name", [name for name in FILES if name.startswith(("optimizer/", "scheduler/", "logger/"))]
)
def test_every_schema_default_is_the_one_in_its_file(name: str) -> None:
    """A value typed in a YAML file and in its schema is the same, so that neither lies."""
    content = yaml.safe_load((CONF / name).read_text()) or {}
    schemas = [
        next(iter(entry.values())) if isinstance(entry, dict) else entry
        for entry in content.get("defaults", [])
    ]
    schema = next((s for s in schemas if s.strip("/").partition("@")[0] in SCHEMAS), None)
    if schema is None:
        assert name in {"scheduler/none.yaml", "logger/none.yaml"}
        return
    node = ConfigStore.instance().load(schema.strip("/").partition("@")[0] + ".yaml").node
    for key, value in content.items():
        if key != "defaults":
            assert node[key] == float(value) if isinstance(value, str) else value, key


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs_two_batches(name: str, tmp_path: Path, music_overrides: list[str]) -> None:
    from genre_classifier.training.fit import train

    cfg = composed(
        override(name).lstrip("+"),
        *(word for word in music_overrides if not word.startswith("trainer.max_epochs")),
        "trainer.max_epochs=1",
        "trainer.min_epochs=1",
        "trainer.limit_train_batches=2",
        "data/split=auto",
        f"run_dir={tmp_path}",
    )
    result = train(cfg)
    assert result is not None
    assert result.folder.read_run()["status"] == "finished"
