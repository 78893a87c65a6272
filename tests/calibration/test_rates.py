"""Rate and distortion of Gaussian data are Shannon's; reconstructions come ever closer."""

from __future__ import annotations

import pytest
import torch
from helpers.calibrations import calibration_from_errors
from helpers.exact_errors import denoising_errors
from helpers.oracles import gaussian, linear_betas, mixture
from torch.testing import assert_close

from ddpm_pipeline import NoiseSchedule
from ddpm_pipeline.calibration.rates import progressive_reconstructions, rate_distortion
from ddpm_pipeline.diffusion.spacing import spaced_timesteps
from ddpm_pipeline.schedulers.optimal import chain_bits_per_dim

LINEAR = NoiseSchedule.linear(1000)


@pytest.mark.parametrize("K", [10, 1000])
def test_fact_8_gaussian_data_lie_on_the_curve_of_shannon(K: int) -> None:
    known = calibration_from_errors(LINEAR, denoising_errors(gaussian(0, 0.5)), second_moment=0.25)
    chain = spaced_timesteps(1000, K, "linspace")
    curve = rate_distortion(known, LINEAR, chain)
    rate = 0.5 * torch.log2(1 + 0.25 * LINEAR.snr(chain))
    assert_close(curve.rate[:-1], rate, rtol=0, atol=1e-4)
    # D(R) = s² 2^(-2R), in the units of the distortion.
    shannon = 127.5 * (0.25 * 2 ** (-2 * rate)).sqrt()
    assert_close(curve.distortion[:-1], shannon, rtol=1e-4, atol=0)
    assert torch.equal(curve.timesteps[:-1], chain)


@pytest.mark.parametrize("variance_type", ["analytic", "fixed_large"])
def test_the_whole_code_is_the_bound_and_loses_nothing(variance_type: str) -> None:
    known = calibration_from_errors(LINEAR, denoising_errors(mixture()), second_moment=0.37)
    chain = [999, 300, 70, 8]
    curve = rate_distortion(known, LINEAR, chain, variance_type=variance_type)
    bits = chain_bits_per_dim(known, LINEAR, chain, variance_type=variance_type)
    assert curve.rate[-1].item() == pytest.approx(bits, abs=1e-12)
    assert curve.distortion[-1] == 0
    assert curve.timesteps.tolist() == [*chain, -1]
    assert (curve.distortion.diff() < 0).all()


def test_reconstructions_have_the_distortion_of_the_curve() -> None:
    data, chain = mixture(), [999, 400, 100, 10]
    known = calibration_from_errors(LINEAR, denoising_errors(data), second_moment=0.37)
    x_0 = data.sample((200, 1, 8, 8), torch.Generator().manual_seed(0))
    seen = progressive_reconstructions(
        data.denoiser(linear_betas()), LINEAR, x_0, chain, generator=torch.Generator()
    )
    assert seen.shape == (4, 200, 1, 8, 8)
    errors = 127.5 * (seen - x_0).square().flatten(1).mean(1).sqrt()
    expected = rate_distortion(known, LINEAR, chain).distortion[:-1]
    assert_close(errors, expected, rtol=0.05, atol=0)


def test_a_receiver_sees_one_code_and_not_several() -> None:
    """Neighbouring reconstructions of a chain are closer than those of independent noise."""
    data = mixture()
    x_0 = data.sample((50, 1, 8, 8), torch.Generator().manual_seed(0))
    model = data.denoiser(linear_betas())
    first, second = progressive_reconstructions(
        model, LINEAR, x_0, [400, 395], generator=torch.Generator()
    )
    (other,) = progressive_reconstructions(
        model, LINEAR, x_0, [395], generator=torch.Generator().manual_seed(1)
    )
    assert (first - second).square().mean() < 0.2 * (first - other).square().mean()


def test_another_schedule_is_refused() -> None:
    known = calibration_from_errors(LINEAR, denoising_errors(mixture()), second_moment=0.37)
    with pytest.raises(ValueError, match="another noise schedule"):
        rate_distortion(known, NoiseSchedule.cosine(1000))
