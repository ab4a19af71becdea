from pathlib import Path

import pytest
import torch

from genre_classifier.config.checks import to_train_config
from genre_classifier.config.schema import TrainConfig
from genre_classifier.network import GenreClassifier
from genre_classifier.sweeps.stacked import fit as stacked_fit
from genre_classifier.sweeps.stacked import memory
from genre_classifier.sweeps.stacked.memory import Cost, divide_by_memory, estimate_cost, read_free_memory
from tests.conftest import composed


def settings(*overrides: str) -> TrainConfig:
    return to_train_config(composed("run_dir=x", *overrides))


def test_weights_are_counted_as_the_network_has_them() -> None:
    network = GenreClassifier(input_dim=57, num_classes=10)
    n_weights = sum(weight.numel() for weight in network.parameters())
    found = estimate_cost(settings("data.batch_size=1"), 1, 57, 10, 1)
    without = estimate_cost(settings("data.batch_size=1", "model.hidden_dims=[1]"), 1, 57, 10, 1)
    difference = 10 * (n_weights - (57 + 1) - (1 + 1) * 10) + 3 * (128 + 64 + 32 - 1) + 2 * (128 + 64)
    assert found.member - without.member == 4 * difference
    assert found.rows == 8 * 57


def test_trials_are_divided_in_order_and_rows_of_one_split_count_once() -> None:
    trials = [settings(f"data.split.seed={seed}") for seed in (1, 1, 1, 2, 2, 3)]
    assert divide_by_memory(trials, lambda _: Cost(10, 100), 10_000) == [[0, 1, 2, 3, 4, 5]]
    assert divide_by_memory(trials, lambda _: Cost(10, 100), 130) == [[0, 1, 2], [3, 4], [5]]
    assert divide_by_memory(trials, lambda _: Cost(10, 100), 5) == [[0], [1], [2], [3], [4], [5]]


def test_free_memory_is_the_machines_or_the_containers(tmp_path: Path) -> None:
    assert read_free_memory(tmp_path) == float("inf")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 5000 kB\n")
    assert read_free_memory(tmp_path) == 5000 * 1024
    groups = tmp_path / "sys" / "fs" / "cgroup"
    groups.mkdir(parents=True)
    (groups / "memory.max").write_text("max\n")
    assert read_free_memory(tmp_path) == 5000 * 1024
    (groups / "memory.max").write_text("3000000\n")
    (groups / "memory.current").write_text("1000000\n")
    assert read_free_memory(tmp_path) == 2_000_000


def test_a_stack_that_does_not_fit_is_trained_in_parts_with_the_same_results(
    tmp_path: Path, music_overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(name: str) -> list[dict[str, torch.Tensor]]:
        configs = [
            composed(
                *music_overrides,
                f"run_dir={tmp_path / name / str(seed)}",
                f"seed={seed}",
                "model.dropout=0.3",
            )
            for seed in (1, 2, 3)
        ]
        stacked_fit.train_stack(configs)
        return [
            torch.load(tmp_path / name / str(seed) / "checkpoints" / "last.ckpt", weights_only=True)[
                "state_dict"
            ]
            for seed in (1, 2, 3)
        ]

    together = trained("together")
    lengths = []
    train_places = stacked_fit._train_places
    monkeypatch.setattr(
        stacked_fit,
        "_train_places",
        lambda configs, *rest: (lengths.append(len(configs)), train_places(configs, *rest)),
    )
    size = estimate_cost(settings(*music_overrides), 90, 4, 3, stacked_fit.CHUNK_STEPS)
    monkeypatch.setattr(stacked_fit, "compute_limit", lambda _: 2 * size.member + size.rows)
    apart = trained("apart")
    assert lengths == [2, 1]
    for one, other in zip(together, apart, strict=True):
        for key in one:
            torch.testing.assert_close(one[key], other[key], rtol=0, atol=1e-6)


def test_the_limit_is_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "read_free_memory", lambda: 8000.0)
    monkeypatch.setattr(memory, "count_usable_cores", lambda: 4)
    assert memory.compute_limit(settings()) == 1000.0
