import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genre_classifier.data import batches as batches_module
from genre_classifier.data.batches import Chunks, RowOrder, TensorBatches, mix_seed


def batches(n: int, size: int, **order: object) -> TensorBatches:
    x = torch.arange(n, dtype=torch.float32)[:, None]
    return TensorBatches(x, torch.arange(n), size, RowOrder(n, **order))  # type: ignore[arg-type]


@given(n=st.integers(1, 200), size=st.integers(1, 64), shuffle=st.booleans())
def test_an_epoch_has_every_row_once_in_batches_of_the_size(n: int, size: int, shuffle: bool) -> None:
    loader = batches(n, size, shuffle=shuffle, seed=3)
    parts = [genres for _, genres in loader]
    assert len(parts) == len(loader)
    assert all(len(part) == size for part in parts[:-1])
    seen = torch.cat(parts)
    assert sorted(seen.tolist()) == list(range(n))
    for features, genres in loader:
        assert torch.equal(features[:, 0].long(), genres)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def epoch_of(seed: int, epoch: int) -> list[int]:
        loader = batches(50, 50, shuffle=True, seed=seed)
        loader.batch_sampler.sampler.set_epoch(epoch)
        return next(iter(loader))[1].tolist()

    torch.manual_seed(0)
    first = epoch_of(1, 0)
    torch.manual_seed(99)
    assert epoch_of(1, 0) == first
    assert len({tuple(epoch_of(seed, epoch)) for seed in range(4) for epoch in range(4)}) == 16


def test_drawing_an_order_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    list(batches(50, 8, shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)


@given(n=st.integers(1, 100), world=st.integers(1, 5), shuffle=st.booleans())
def test_processes_share_the_rows_and_padding_makes_them_equal(n: int, world: int, shuffle: bool) -> None:
    plain = [RowOrder(n, shuffle=shuffle, rank=rank, world_size=world) for rank in range(world)]
    assert sorted(torch.cat([order() for order in plain]).tolist()) == list(range(n))
    assert [len(order) for order in plain] == [len(order()) for order in plain]
    padded = [RowOrder(n, shuffle=shuffle, rank=rank, world_size=world, pad=True) for rank in range(world)]
    if n >= world:
        assert len({len(order()) for order in padded}) == 1
        assert {len(order) for order in padded} == {len(padded[0]())}
        assert set(torch.cat([order() for order in padded]).tolist()) == set(range(n))


@given(st.integers(0, 2**32 - 1), st.integers(0, 10_000))
def test_mixed_seeds_are_valid_for_torch_and_differ_between_neighbours(seed: int, epoch: int) -> None:
    value = mix_seed(seed, epoch)
    assert 0 <= value < 2**63
    assert value not in {mix_seed(seed, epoch + 1), mix_seed(seed + 1, epoch)}


@given(
    n=st.integers(1, 200),
    size=st.integers(1, 40),
    number=st.integers(1, 9),
    limit=st.none() | st.integers(1, 50),
    shuffle=st.booleans(),
)
def test_chunks_are_the_mini_batches_one_after_the_other(
    n: int, size: int, number: int, limit: int | None, shuffle: bool
) -> None:
    chunks = Chunks(batches(n, size, shuffle=shuffle, seed=3), number, limit)
    chunks.batch_sampler.sampler.set_epoch(2)
    plain = batches(n, size, shuffle=shuffle, seed=3)
    plain.batch_sampler.sampler.set_epoch(2)
    expected = list(plain)[:limit]
    made = list(chunks)
    assert len(made) == len(chunks)
    assert chunks.n_batches == len(expected) == sum(chunk.n_batches for chunk in made)
    assert all(chunk.n_batches == number for chunk in made[:-1])
    found = [
        pair
        for features, genres, _ in made
        for pair in zip(features.split(size), genres.split(size), strict=True)
    ]
    for (x, y), (expected_x, expected_y) in zip(found, expected, strict=True):
        assert torch.equal(x, expected_x)
        assert torch.equal(y, expected_y)


def test_a_chunk_of_wide_rows_holds_fewer_mini_batches() -> None:
    row_bytes = 4 * 1000
    x = torch.zeros(64, 1000)
    loader = TensorBatches(x, torch.arange(64), 8, RowOrder(64, shuffle=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches_module, "CHUNK_BYTES", 3 * 8 * row_bytes)
        assert [chunk.n_batches for chunk in Chunks(loader, 100)] == [3, 3, 2]
        patch.setattr(batches_module, "CHUNK_BYTES", 1)
        assert [chunk.n_batches for chunk in Chunks(loader, 100)] == [1] * 8
