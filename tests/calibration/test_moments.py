"""Sums over forwards: the timesteps they go to, and what the histogram says of the decoder."""

from __future__ import annotations

import pytest
import torch
from helpers.oracles import gaussian, linear_betas, mixture
from torch.distributions import Normal
from torch.testing import assert_close

from ddpm_pipeline.calibration import tables
from ddpm_pipeline.calibration.moments import (
    MomentSums,
    decoder_costs_of_residuals,
    stratified_timesteps,
    timestep_shares,
)
from ddpm_pipeline.diffusion.schedule import NoiseSchedule

CPU = torch.device("cpu")


@pytest.mark.parametrize("schedule", [NoiseSchedule.linear(1000), NoiseSchedule.cosine(50)])
def test_timesteps_come_in_their_shares_in_every_stretch(schedule: NoiseSchedule) -> None:
    T = len(schedule)
    edges = timestep_shares(schedule)
    many = stratified_timesteps(edges, torch.arange(400 * T), 0.3).bincount(minlength=T)
    shares = many / many.sum()
    assert shares.min() > 0.49 / T
    assert shares[0] > 2 * shares[1]  # the decoder is worth more than any single step
    for first in (0, 7 * T, 123_456):
        stretch = stratified_timesteps(edges, torch.arange(first, first + 10 * T), 0.3)
        assert (stretch.bincount(minlength=T) - 10 * T * shares).abs().max() < 3.5
        assert stretch.bincount(minlength=T).min() >= 2


def test_sums_hold_what_a_perfect_network_leaves() -> None:
    data, T = gaussian(0, 0.5), 20
    schedule = NoiseSchedule.linear(T, 0.01, 0.5)
    model = data.denoiser(linear_betas(T, 0.01, 0.5))
    sums = MomentSums.zeros(T, (1, 4), CPU, histogram=False)
    n = 2000
    forwards = torch.arange(T * n)
    x_0 = data.sample((T * n, 1, 4), torch.Generator().manual_seed(0))
    t = forwards % T
    sums.add(model, schedule, "epsilon", x_0, t, seed=5, forwards=forwards)
    alpha_bar, noise = (
        f(torch.arange(T)) for f in (schedule.alpha_bar, schedule.one_minus_alpha_bar)
    )
    assert torch.equal(sums.count, torch.full((T,), float(n)).double())
    error = 0.25 * noise / (0.25 * alpha_bar + noise)
    assert_close(sums.error / n, error, rtol=0.06, atol=0)
    assert_close(sums.eps / n, noise / (0.25 * alpha_bar + noise), rtol=0.03, atol=0)
    assert_close(sums.data / (T * n), torch.tensor(0.25).double(), rtol=0.02, atol=0)


def test_the_noise_predicted_is_compared_with_the_noise_drawn() -> None:
    """Where all is noise, m is known to far better than the chi-square noise of ||eps||²."""
    data, T = gaussian(0, 0.5), 1000
    sums = MomentSums.zeros(T, (1, 4), CPU, histogram=False)
    x_0 = data.sample((100, 1, 4), torch.Generator().manual_seed(0))
    t = torch.full((100,), 999)
    model = data.denoiser(linear_betas(T))
    schedule = NoiseSchedule.linear(T)
    sums.add(model, schedule, "epsilon", x_0, t, seed=5, forwards=torch.arange(100))
    spread = (sums.eps_squared / 100 - (sums.eps / 100).square())[999].sqrt()
    assert spread < 0.02 * (2 / 4) ** 0.5


def levels(x: torch.Tensor) -> torch.Tensor:
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


@pytest.mark.parametrize("std", [0.004, 0.02, 0.3])
def test_the_histogram_prices_a_decoder_of_any_variance(std: float) -> None:
    """Against the probability of each bin of a normal, the outer ones open."""
    x_0 = levels(mixture((-1.0, 0.2, 0.97), 0.05).sample((200, 1, 10)))
    x_0_hat = x_0 + std * torch.randn(x_0.shape, dtype=torch.float64)
    schedule = NoiseSchedule.linear(3)
    sums = MomentSums.zeros(3, x_0.shape[1:], CPU, histogram=True)
    t = torch.ones(200, dtype=torch.int64)
    sums.add(lambda *_: x_0_hat, schedule, "sample", x_0, t, seed=0, forwards=torch.arange(200))
    assert sums.residuals[1].sum() == x_0.numel()
    for variance in (0.25 * std**2, std**2, 16 * std**2):
        normal = Normal(x_0_hat, variance**0.5)
        upper = torch.where(x_0 > 0.999, 1.0, normal.cdf(x_0 + 1 / 255))
        lower = torch.where(x_0 < -0.999, 0.0, normal.cdf(x_0 - 1 / 255))
        expected = -(upper - lower).clamp(min=1e-300).log().mean()
        table = torch.full((3,), variance, dtype=torch.float64)
        found = decoder_costs_of_residuals(sums.residuals, table)
        assert_close(found[1], expected, rtol=2e-3, atol=2e-3)
        assert found[0].isnan()


def test_cheap_images_are_priced_as_well_as_dear_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs fall from 5.5 nats to 0.1 along t, and images differ by 30 % of them everywhere."""
    T, count = 300, torch.full((300,), 8.0, dtype=torch.float64)
    log_snr = torch.linspace(-8, 10, T, dtype=torch.float64)
    true = 0.9 * torch.nn.functional.softplus(2.5 - 0.45 * log_snr)
    errors = []
    for seed in range(5):
        noise = torch.randn(T, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        seen = true * (1 + 0.3 * noise / count.sqrt())
        monkeypatch.setattr(tables, "decoder_costs_of_residuals", lambda *_, seen=seen: seen)
        pricer = tables._DecoderPricer(NoiseSchedule.linear(T), torch.ones(T, 1), log_snr, count)
        errors.append((pricer.costs(torch.ones(T)) / true - 1)[-30:].abs().mean())
    assert torch.stack(errors).mean() < 0.06
