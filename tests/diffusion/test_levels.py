"""Levels of data that are no bytes."""

from __future__ import annotations

import mpmath
import pytest
import torch

from ddpm_pipeline.diffusion.bound_terms import decoder_nats
from ddpm_pipeline.diffusion.gaussian import Gaussian
from ddpm_pipeline.diffusion.levels import Levels


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_of_bytes_they_are_what_the_decoder_of_bytes_gives() -> None:
    k = torch.arange(256, dtype=torch.float64).view(1, 1, 16, 16)
    x = 2 * k / 255 - 1
    levels = Levels(double(-1.0), double(2 / 255), 256)
    for mean, var in ((0.1, 1e-3), (-0.97, 0.3), (5.0, 1e-5)):
        p = Gaussian(torch.full_like(x, mean), double(var)[0].log())
        torch.testing.assert_close(
            decoder_nats(p, x, levels=levels), decoder_nats(p, x), rtol=1e-12, atol=1e-9
        )


@pytest.mark.parametrize(("mean", "std"), [(0.2, 0.4), (-3.0, 0.01), (1.9, 5.0)])
def test_their_probabilities_sum_to_one_and_are_those_of_mpmath(mean: float, std: float) -> None:
    first = torch.tensor([-1.3, 0.0], dtype=torch.float64)
    width = torch.tensor([0.03, 0.5], dtype=torch.float64)
    levels = Levels(first, width, 40)
    x = (first[:, None] + torch.arange(40) * width[:, None]).view(1, 2, 40)
    p = Gaussian(torch.full_like(x, mean), 2 * double(std)[0].log())
    found = levels.log_prob(p, x)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(1, 2).double(), rtol=0, atol=1e-12)
    for c, k in ((0, 0), (0, 17), (1, 3), (1, 39)):
        low, high = (mpmath.mpf(x[0, c, k].item()) + s * width[c].item() / 2 for s in (-1, 1))
        low = -mpmath.inf if k == 0 else low
        high = mpmath.inf if k == 39 else high
        if low > mean:  # where both are nearly one
            low, high = 2 * mean - high, 2 * mean - low
        with mpmath.workdps(40):
            exact = mpmath.log(mpmath.ncdf(high, mean, std) - mpmath.ncdf(low, mean, std))
        assert found[0, c, k].item() == pytest.approx(float(exact), rel=1e-9, abs=1e-12)


def test_values_between_levels_are_seen_at_16_bits_in_float32() -> None:
    width = torch.tensor([2 / 65535], dtype=torch.float64)
    levels = Levels(torch.tensor([-1.0], dtype=torch.float64), width, 65536)
    k = torch.arange(65536, dtype=torch.float64).view(1, 1, -1)
    on = (k * width - 1).float()
    assert not levels.between(on).any()
    assert levels.between((on.double() + width / 2).float())[..., :-1].all()
    assert levels.between(torch.tensor([[[1.001, -1.001]]])).all()


def test_levels_of_a_density_are_refused() -> None:
    levels = Levels(torch.zeros(1), torch.ones(1), 2)
    p = Gaussian(torch.zeros(1, 1, 1), torch.zeros(()))
    with pytest.raises(ValueError, match="levels are for decoder 'discretized', got 'continuous'"):
        decoder_nats(p, torch.zeros(1, 1, 1), "continuous", levels)
