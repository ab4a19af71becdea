import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from genre_classifier.training.engine.noise import DropoutNoise, MixupDraws


def dropout(probabilities: list[list[float]], widths: list[int], batch_size: int = 16) -> DropoutNoise:
    noise = DropoutNoise(probabilities, widths, batch_size)
    noise.start_epoch(list(range(len(probabilities))), [0] * len(probabilities))
    return noise


def drawn(noise: DropoutNoise, steps: int) -> Tensor:
    """Return the factors of some steps, (step, member, activation)."""
    return torch.stack([torch.cat([own.flatten(1) for own in noise.draw()], dim=1) for _ in range(steps)])


@pytest.mark.parametrize("p", [2**-8, 0.1, 0.3, 0.5, 0.9, 1 - 2**-8])
def test_dropout_drops_the_asked_share_independently_and_keeps_the_mean(p: float) -> None:
    factors = drawn(dropout([[p, p]], [300, 101], batch_size=64), 40).flatten()
    kept = (factors > 0).double()
    n = len(kept)
    assert abs(kept.mean().item() - (1 - p)) < 5 * (p * (1 - p) / n) ** 0.5
    assert factors.unique().numel() == 2
    assert factors.max().item() == pytest.approx(1 / (1 - p), rel=2**-8)
    centred = kept - kept.mean()
    step = n // 40
    for lag in (1, 2, 3, 4, 8, 101, 300, step, 2 * step):  # four values share one draw of the generator
        correlation = (centred[lag:] * centred[:-lag]).mean() / centred.square().mean()
        assert abs(correlation.item()) < 5 / n**0.5


def test_as_many_activations_stay_in_a_row_as_under_torchs_dropout() -> None:
    kept = (drawn(dropout([[0.3]], [128], batch_size=64), 100).view(-1, 128) > 0).sum(dim=1)
    torch.manual_seed(0)
    expected = (torch.nn.Dropout(0.3)(torch.ones(6400, 128)) > 0).sum(dim=1)
    assert stats.ks_2samp(kept.numpy(), expected.numpy()).pvalue > 0.001


def test_each_layer_of_each_member_has_its_own_probability() -> None:
    factors = dropout([[0.1, 0.5], [0.9, 0.0]], [500, 300], batch_size=64).draw()
    shares = [[(own[member] == 0).float().mean().item() for own in factors] for member in (0, 1)]
    np.testing.assert_allclose(shares, [[0.1, 0.5], [0.9, 0.0]], atol=0.02)
    assert torch.equal(factors[1][1], torch.ones(64, 300))


def test_what_a_member_draws_does_not_depend_on_the_others() -> None:
    alone = DropoutNoise([[0.3, 0.3]], [7, 5], 16)
    alone.start_epoch([11], [4])
    several = DropoutNoise([[0.5, 0.1], [0.3, 0.3], [0.0, 0.0]], [7, 5], 16)
    several.start_epoch([1, 11, 11], [0, 4, 4])
    for _ in range(5):
        for one, all_members in zip(alone.draw(), several.draw(), strict=True):
            assert torch.equal(one[0], all_members[1])


def test_another_device_gets_the_same_factors() -> None:
    probabilities = [[0.5, 0.1], [0.3, 0.3], [0.0, 0.0]]
    here, there = dropout(probabilities, [7, 5]), dropout(probabilities, [7, 5])
    there._fill = there._fill_on_device  # type: ignore[method-assign]
    for _ in range(3):
        for one, other in zip(here.draw(), there.draw(), strict=True):
            assert torch.equal(one, other)


def test_seeds_and_epochs_draw_apart_and_an_epoch_can_be_repeated() -> None:
    def of(seed: int, epoch: int) -> Tensor:
        noise = DropoutNoise([[0.5]], [100], 16)
        noise.start_epoch([seed], [epoch])
        return drawn(noise, 3)

    assert torch.equal(of(1, 2), of(1, 2))
    for other in (of(2, 1), of(1, 3), of(3, 2)):
        assert 0.4 < (of(1, 2) != other).float().mean().item() < 0.6


def mixup(alphas: list[float], n_steps: list[int], seeds: list[int], batch_size: int = 16) -> MixupDraws:
    draws = MixupDraws(alphas, batch_size)
    draws.start_epoch(seeds, [0] * len(alphas), n_steps)
    return draws


def test_mixups_shares_follow_the_beta_distribution() -> None:
    draws = mixup([0.4], [2000], [5])
    valid = torch.ones(1, 16, dtype=torch.bool)
    shares = [float(draws.read_step(step, valid)[0][0]) for step in range(2000)]
    assert stats.kstest(shares, stats.beta(0.4, 0.4).cdf).pvalue > 0.001


def test_mixups_partners_are_a_permutation_and_every_one_is_equally_likely() -> None:
    draws = mixup([0.4], [4000], [5], batch_size=4)
    counts = torch.zeros(4, 4)
    for step in range(4000):
        _, other = draws.read_step(step, torch.ones(1, 4, dtype=torch.bool))
        assert sorted(other[0].tolist()) == [0, 1, 2, 3]
        counts[torch.arange(4), other[0]] += 1
    assert stats.chisquare(counts.flatten().numpy()).pvalue > 0.001


def test_padding_rows_are_mixed_among_themselves() -> None:
    draws = mixup([0.4], [50], [5])
    valid = (torch.arange(16) < 11)[None]
    for step in range(50):
        _, other = draws.read_step(step, valid)
        assert sorted(other[0, :11].tolist()) == list(range(11))


def test_what_a_member_mixes_does_not_depend_on_the_others() -> None:
    alone = mixup([0.4], [5], [7])
    several = mixup([0.0, 0.4, 0.2], [9, 5, 2], [7, 7, 8])
    valid = torch.ones(3, 16, dtype=torch.bool)
    for step in range(5):
        share, other = alone.read_step(step, valid[:1])
        shares, others = several.read_step(step, valid)
        assert share[0] == shares[1]
        assert torch.equal(other[0], others[1])
        assert shares[0] == 1.0
