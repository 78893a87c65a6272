"""The steps of a chain, with a calibration's variance and with DDIM's noise."""

from __future__ import annotations

import math
from collections.abc import Callable

import diffusers
import pytest
import torch
from helpers.calibrations import calibrated, known, noise_of
from helpers.oracles import gaussian, linear_betas, mixture
from torch.testing import assert_close

from ddpm_pipeline import DDPMScheduler, NoiseSchedule
from ddpm_pipeline.diffusion.forward_process import posterior_variance
from ddpm_pipeline.diffusion.reverse_process import reverse

LINEAR = NoiseSchedule.linear(1000)
MakeUNet = Callable[..., diffusers.UNet2DModel]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(scheduler: DDPMScheduler, data: str, count: int, eta: float | None = None) -> torch.Tensor:
    """Samples by the scheduler's chain with a perfect network, float64."""
    model = {"gaussian": gaussian(0, 0.5), "mixture": mixture()}[data].denoiser(linear_betas())
    x = torch.randn(count, 1, dtype=torch.float64, generator=seeded(3))
    for t in scheduler.timesteps:
        output = model(x, t.expand(count))
        x = scheduler.step(output, t, x, generator=seeded(int(t)), eta=eta).prev_sample
    return x


@pytest.mark.parametrize("eta", [None, 0.0, 0.5, 1.0])
def test_a_gaussian_is_drawn_right_with_few_steps_and_any_eta(eta: float | None) -> None:
    """The analytic variance makes every marginal right, with or without the noise of DDIM."""
    scheduler = DDPMScheduler(clip_sample=False).with_calibration(known("gaussian"))
    scheduler.set_timesteps(timesteps=[999, 600, 300, 100, 20, 2, 0])
    x = run(scheduler, "gaussian", 40_000, eta)
    assert x.std().item() == pytest.approx(0.5, rel=0.015)
    small = DDPMScheduler(clip_sample=False)
    small.set_timesteps(timesteps=[999, 600, 300, 100, 20, 2, 0])
    assert abs(run(small, "gaussian", 40_000, eta).std().item() / 0.5 - 1) > 0.03


def test_reverse_is_the_process_with_the_variance_never_capped() -> None:
    scheduler = calibrated()
    scheduler.set_timesteps(timesteps=[999, 500, 3, 0])
    x_t, output = torch.randn(2, 3, 1, 4, 4, dtype=torch.float64)
    for t, s in [(999, 500), (500, 3), (3, 0), (0, -1)]:
        found = scheduler.reverse(output, t, x_t)
        v = known().x_0_variance[t]
        expected = reverse(
            scheduler.schedule, output, x_t, t, s, variance_type="analytic", x_0_variance=v
        )
        assert_close(found.mean, expected.mean)
        assert_close(found.log_var, expected.log_var)


@pytest.mark.parametrize("levels", [1, 2])
def test_the_last_noise_is_capped_and_no_other(levels: int) -> None:
    scheduler = calibrated(last_noise_levels=levels)
    scheduler.set_timesteps(timesteps=[999, 500, 200, 0])
    uncapped = [scheduler.reverse(torch.zeros(1, 1), t, torch.zeros(1, 1)) for t in (500, 200)]
    assert noise_of(scheduler, 500) == pytest.approx(uncapped[0].std.item(), rel=0.02)
    assert uncapped[1].std > 0.02
    mean_noise = noise_of(scheduler, 200) * math.sqrt(2 / math.pi)
    forward = posterior_variance(LINEAR, 200, 0).sqrt().item() * math.sqrt(2 / math.pi)
    assert mean_noise == pytest.approx(max(levels * 2 / 255, forward), rel=0.02)
    assert noise_of(scheduler, 0) == 0


def test_a_chain_that_ends_in_noise_keeps_the_noise_of_the_forward_process() -> None:
    scheduler = calibrated()
    scheduler.set_timesteps(timesteps=[999, 500])
    forward = posterior_variance(LINEAR, 999, 500).sqrt().item()
    assert noise_of(scheduler, 999) == pytest.approx(forward, rel=0.02)
    assert noise_of(scheduler, 999, eta=0.5) == pytest.approx(forward / 2, rel=0.02)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_eta_takes_the_steps_of_diffusers_ddim(eta: float) -> None:
    ours = DDPMScheduler(clip_sample=False, timestep_spacing="trailing")
    stock = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    ours.set_timesteps(10)  # stock lands between its own timesteps unless K divides T
    stock.set_timesteps(10)
    x_t, output = torch.randn(2, 4, 1, 8, 8)
    for t in ours.timesteps:
        generators = seeded(1), seeded(1)
        found = ours.step(output, t, x_t, generators[0], eta=eta).prev_sample
        expected = stock.step(output, t, x_t, eta=eta, generator=generators[1]).prev_sample
        assert_close(found, expected, rtol=1e-4, atol=1e-4)
        if eta == 0:
            assert torch.equal(generators[0].get_state(), seeded(1).get_state())
    batched = ours.step(output, ours.timesteps[2].expand(4), x_t, seeded(1), eta=eta)
    alone = ours.step(output, ours.timesteps[2], x_t, seeded(1), eta=eta)
    assert_close(batched.prev_sample, alone.prev_sample)


def test_eta_leaves_learned_variances_aside() -> None:
    learned, fixed = DDPMScheduler(variance_type="learned_range"), DDPMScheduler()
    x_t, output = torch.randn(4, 1, 8, 8), torch.randn(4, 2, 8, 8)
    found = learned.step(output, 500, x_t, seeded(), eta=0.5).prev_sample
    expected = fixed.step(output[:, :1], 500, x_t, seeded(), eta=0.5).prev_sample
    assert torch.equal(found, expected)
    assert learned.reverse(output, 500, x_t, eta=0.5).log_var.ndim == 0


def test_impossible_eta_is_refused() -> None:
    x_t = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"eta must be a number in \[0, 1\], got 1.5"):
        DDPMScheduler().step(x_t, 5, x_t, eta=1.5)
