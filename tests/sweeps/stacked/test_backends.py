"""Stacks in the workers of other schedulers, and the settings that choose them."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from genre_classifier.config.checks import to_train_config
from genre_classifier.errors import ConfigError, GenreClassifierError, MissingExtraError
from genre_classifier.runs.folder import RunFolder
from genre_classifier.sweeps.stacked.backends.choice import check_backend
from genre_classifier.sweeps.stacked.backends.on_ray import RayTasks
from genre_classifier.sweeps.stacked.backends.on_submitit import SubmititJobs
from genre_classifier.sweeps.stacked.backends.stack import StackStart, run_stack_elsewhere
from genre_classifier.sweeps.stacked.fit import train_stack
from hydra_plugins.genre_classifier_launchers.stacked_launcher import StackedLauncherConf
from tests.conftest import composed
from tests.sweeps.stacked.test_stacked_fit import configs, differences


def launcher(*overrides: str) -> dict[str, Any]:
    """Return the launcher's settings as Hydra composes them."""
    found = OmegaConf.merge(
        OmegaConf.structured(StackedLauncherConf), OmegaConf.from_dotlist(list(overrides))
    )
    content: dict[str, Any] = OmegaConf.to_container(found)  # type: ignore[assignment]
    return content


def stack(sweep: Path, overrides: list[list[str]], base: list[str], **more: Any) -> StackStart:
    """Return a stack as a sweep makes it; its trials are the next numbers of the sweep."""
    first = sum(1 for path in sweep.glob("*/.hydra"))
    made = [
        composed(*base, *own, f"run_dir={sweep / str(first + number)}")
        for number, own in enumerate(overrides)
    ]
    for cfg in made:
        RunFolder(Path(cfg.run_dir)).write_config(cfg)
    start = StackStart(
        name=f"stack-{first}",
        configs=tuple(made),
        settings=tuple(to_train_config(cfg) for cfg in made),
        logging_settings={"version": 1},
        sweep=sweep,
        log=sweep / f"stack-{first}.log",
        working_folder=Path.cwd(),
    )
    return StackStart(**{**vars(start), **more})


def outcomes(folder: Path) -> dict[str, Any]:
    found = RunFolder(folder)
    return {
        "metrics": found.read_metrics(),
        "predictions": found.read_predictions(),
        "files": sorted(path.name for path in folder.iterdir() if path.name not in {".hydra", "train.log"}),
    }


def test_jobs_of_submitit_end_as_stacks_of_this_process_and_a_lost_one_stops_no_other(
    tmp_path: Path, music_overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import submitit

    monkeypatch.setattr(submitit.Job, "_results_timeout_s", 0)
    sweep = tmp_path / "sweep"
    good = stack(sweep, [["seed=1"], ["seed=2"]], music_overrides)
    blind = stack(sweep, [["seed=3"]], music_overrides, working_folder=tmp_path / "elsewhere")
    target = "model._target_=tests.sweeps.poison.Killed"
    killed = stack(sweep, [[target]], music_overrides, is_single=True)
    ends: dict[str, str] = {}
    jobs = SubmititJobs({"cluster": "local", "timeout_min": 5}, None, sweep / ".submitit")
    jobs.run([good, blind, killed], lambda start, end: ends.update({start.name: end}))
    assert ends["stack-0"] == "its job ended without a message"
    assert f"does not see {tmp_path / 'elsewhere'}: every machine needs the sweep's folder" in ends["stack-2"]
    assert "left no result" in ends["stack-3"]
    assert str(sweep / ".submitit") in ends["stack-3"]
    alone = configs([["seed=1"], ["seed=2"]], music_overrides, tmp_path / "here")
    train_stack(alone)
    for name in ("0", "1"):
        assert differences(outcomes(sweep / name), outcomes(tmp_path / "here" / name)) == []


def test_a_second_attempt_trains_only_members_without_an_end(
    tmp_path: Path, music_overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(
        "genre_classifier.sweeps.stacked.fit.train_stack", lambda cfgs, settings: given.extend(settings)
    )
    for name in ("write_everything_to", "set_up_logging"):
        monkeypatch.setattr(f"genre_classifier.sweeps.stacked.backends.stack.{name}", lambda *_: None)
    start = stack(tmp_path, [[f"seed={seed}"] for seed in (1, 2, 3, 4)], music_overrides)
    for folder, status in zip(start.folders, ("finished", "failed", "running"), strict=False):
        folder.write_run({"status": status, "reason": None, "settings": {}})
        folder.checkpoints.mkdir()
        folder.last_checkpoint.touch()
    assert run_stack_elsewhere(start) is None
    assert [(own.seed, own.ckpt_path) for own in given] == [
        (3, str(start.folders[2].last_checkpoint)),
        (4, None),
    ]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["backend=slurm"],
            "hydra.launcher.backend=slurm: there is no such backend; choose local, ray, submitit",
        ),
        (
            ["ray_address=auto"],
            "hydra.launcher.ray_address=auto is a setting of hydra.launcher.backend=ray, and the",
        ),
        (
            ["backend=ray", "submitit.timeout_min=5"],
            "hydra.launcher.submitit={'timeout_min': 5} is a setting of hydra.launcher.backend=submitit",
        ),
        (
            ["backend=submitit", "submitit.cluster=pbs"],
            "submitit.cluster=pbs: there is no such cluster; choose slurm",
        ),
        (
            ["backend=submitit", "submitit.cluster=local", "submitit.slurm_tpyo=1"],
            "Unknown argument 'tpyo' for executor 'slurm'",
        ),
        (
            ["backend=submitit", "submitit.cluster=local", "submitit.timeout_min=soon"],
            '"timeout_min" expected type',
        ),
        (["backend=submitit", "submitit.nodes=2"], "hydra.launcher.submitit.nodes=2: a stack is one process"),
    ],
)
def test_a_wrong_setting_of_a_backend_is_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_backend(launcher(*overrides))
    assert message in str(raised.value)


def test_slurm_is_asked_for_where_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"try it on this machine with hydra.launcher.submitit.cluster=local"
    ):
        check_backend(launcher("backend=submitit"))


@pytest.mark.parametrize(("backend", "extra"), [("ray", "-e '.[ray]'"), ("submitit", "-e '.[slurm]'")])
def test_the_extra_of_a_backend_is_named(backend: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(MissingExtraError, match=rf"backend={backend} needs .*{re.escape(extra)}"):
        check_backend(launcher(f"backend={backend}"))


def cluster(resources: dict[str, float], **more: Any) -> SimpleNamespace:
    """Return what a connected Ray of one machine says of itself."""
    nodes = [{"Alive": True, "Resources": resources}, {"Alive": False, "Resources": {"CPU": 99, "GPU": 9}}]
    return SimpleNamespace(nodes=lambda: nodes, cluster_resources=lambda: resources, **more)


def test_ray_is_given_a_stack_for_the_threads_or_gpus_of_each(music_overrides: list[str]) -> None:
    tasks = RayTasks(cluster({"CPU": 9.0, "GPU": 2.0}), None, is_local=False)
    for own, expected in (("threads=1", 9), ("threads=4", 2), ("trainer.accelerator=gpu", 2)):
        assert (
            tasks.count_stacks_at_once([to_train_config(composed(*music_overrides, own, "run_dir=x"))])
            == expected
        )
    assert RayTasks(cluster({}), 5, is_local=True).count_stacks_at_once([]) == 5


def test_a_local_ray_refuses_what_it_can_never_run(tmp_path: Path, music_overrides: list[str]) -> None:
    start = stack(tmp_path, [["threads=3"]], music_overrides)
    with pytest.raises(
        ConfigError, match=r"stack-0 needs 3 CPU\(s\) and 0 GPU\(s\), which this machine does not have"
    ):
        RayTasks(cluster({"CPU": 2.0}), None, is_local=True).run([start], lambda *_: None)


@pytest.mark.ray
def test_a_worker_that_always_dies_is_a_reason() -> None:
    exceptions = pytest.importorskip("ray.exceptions", reason="needs the extra ray")

    def get(reference: object) -> None:
        raise exceptions.WorkerCrashedError

    tasks = RayTasks(SimpleNamespace(get=get, exceptions=exceptions), None, is_local=True)
    assert tasks._describe_end("task").startswith(
        "its Ray worker died in each of 3 attempts: WorkerCrashedError: The "
    )


@pytest.mark.ray
def test_a_cluster_that_does_not_answer_is_one_message() -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    with pytest.raises(GenreClassifierError, match=r"ray_address=127.0.0.1:9: no Ray cluster answers there"):
        check_backend(launcher("backend=ray", "ray_address=127.0.0.1:9"))
