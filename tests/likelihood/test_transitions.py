"""Draws of transitions: unbiased, even, and a function of the seed and the example."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import kstest

from ddpm_pipeline.diffusion.schedule import NoiseSchedule
from ddpm_pipeline.likelihood.config import BOUND_SAMPLERS
from ddpm_pipeline.likelihood.transitions import make_transition_sampler

SCHEDULE = NoiseSchedule.linear(50, 1e-3, 0.3)
CHAIN = list(range(49, -1, -1))
# One row per image: what x_s holds of Gaussian data and x_t does not, for two data variances.
SNR = torch.cumprod(1 - SCHEDULE.betas, 0).flip(0)
SNR = SNR / (1 - SNR)
TERMS = torch.log1p(torch.tensor([[1.0], [0.05]], dtype=torch.float64) * SNR).diff()


def estimates(name: str, count: int, seeds: int) -> torch.Tensor:
    """Estimates of the sums of TERMS, shape (seeds, 2)."""
    sampler, images = make_transition_sampler(name, SCHEDULE, CHAIN, count), torch.arange(2)
    draws = [sampler.draw(seed, images) for seed in range(seeds)]
    return torch.stack([(weights * TERMS.gather(1, k)).sum(1) for k, weights in draws])


@pytest.mark.parametrize("name", BOUND_SAMPLERS)
@pytest.mark.parametrize("count", [1, 2, 8])
def test_two_thousand_estimates_average_to_the_sum(name: str, count: int) -> None:
    values = estimates(name, count, 2000)
    error = values.std(dim=0) / 2000**0.5
    assert ((values.mean(0) - TERMS.sum(1)).abs() < 4 * error).all()


def test_even_draws_vary_less_than_independent_ones() -> None:
    spread = {name: estimates(name, 8, 300).std(dim=0) for name in BOUND_SAMPLERS}
    assert (spread["low_discrepancy"] < 0.75 * spread["uniform"]).all()
    assert (spread["rate"] < 0.2 * spread["low_discrepancy"]).all()


@pytest.mark.parametrize("name", BOUND_SAMPLERS)
def test_weights_are_those_of_the_probabilities(name: str) -> None:
    sampler = make_transition_sampler(name, SCHEDULE, CHAIN, 4)
    k, weights = sampler.draw(0, torch.arange(30_000))
    counts = torch.bincount(k.flatten(), minlength=49) / k.numel()
    assert sampler.probabilities.sum() == pytest.approx(1)
    torch.testing.assert_close(counts.double(), sampler.probabilities, rtol=0.1, atol=1e-3)
    torch.testing.assert_close(weights, 1 / (4 * sampler.probabilities[k]))
    assert sampler.probabilities.min() >= 0.1 / 49 - 1e-12


def test_each_stratum_has_its_draw_and_the_images_fill_it_evenly() -> None:
    sampler = make_transition_sampler("low_discrepancy", SCHEDULE, CHAIN, 7)
    z = sampler.points(5, torch.arange(400), 7)
    assert torch.equal((7 * z).long(), torch.arange(7).expand(400, 7))
    for j in range(7):
        distance = kstest(7 * z[:, j] - j, "uniform").statistic
        assert distance < 0.3 / 400**0.5  # 0.7 / sqrt(N) is what independent draws have


@pytest.mark.parametrize("name", BOUND_SAMPLERS)
def test_draws_depend_on_the_seed_and_the_image_alone(name: str) -> None:
    sampler = make_transition_sampler(name, SCHEDULE, CHAIN, 3)
    together, _ = sampler.draw(9, torch.arange(100))
    assert torch.equal(sampler.draw(9, torch.tensor([70, 3]))[0], together[[70, 3]])
    assert not torch.equal(sampler.draw(8, torch.arange(100))[0], together)


@pytest.mark.parametrize("count", [49, 60, None])
def test_enough_draws_are_every_transition_once(count: int | None) -> None:
    k, weights = make_transition_sampler("rate", SCHEDULE, CHAIN, count).draw(0, torch.arange(2))
    assert torch.equal(k, torch.arange(49).expand(2, 49))
    assert (weights == 1).all()


def test_a_chain_of_one_step_has_no_transitions() -> None:
    k, weights = make_transition_sampler("rate", SCHEDULE, [49], 3).draw(0, torch.arange(2))
    assert k.shape == weights.shape == (2, 0)


def test_zero_terminal_snr_has_finite_probabilities() -> None:
    schedule = NoiseSchedule.cosine(50).zero_terminal_snr()
    sampler = make_transition_sampler("rate", schedule, CHAIN, 3)
    assert sampler.probabilities.isfinite().all()
    assert sampler.probabilities.min() > 0
