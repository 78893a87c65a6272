"""The decoder's cost against densities, its exact form, and probabilities of 8-bit levels."""

from __future__ import annotations

import pytest
import torch
from helpers.oracles import mixture
from torch import Tensor
from torch.distributions import Normal
from torch.testing import assert_close

from ddpm_pipeline import NoiseSchedule
from ddpm_pipeline.calibration.moments import (
    MomentSums,
    decoder_costs_of_residuals,
)
from ddpm_pipeline.diffusion.decoder_costs import (
    DECODER_RATIOS,
    continuous_decoder_costs,
    decoder_costs_at,
)

CPU = torch.device("cpu")


def test_the_decoder_is_a_density() -> None:
    residual = torch.randn(1000, dtype=torch.float64) * 0.1
    error = residual.square().mean()[None]
    for variance in (error, 3 * error):
        expected = -Normal(0.0, variance.sqrt()).log_prob(residual).mean()
        assert_close(continuous_decoder_costs(error, variance)[0], expected)
    assert continuous_decoder_costs(error)[0] < continuous_decoder_costs(error, 1.1 * error)[0]


def test_the_decoder_s_form_is_exact_for_a_density() -> None:
    ratio = torch.tensor([1e-3, 1 / 32, 0.2, 0.9, 1.0, 3.0], dtype=torch.float64)

    def cost(r: Tensor) -> Tensor:
        return 0.3 + 0.5 * r.log() + 0.1 / r

    table = cost(torch.tensor(DECODER_RATIOS, dtype=torch.float64))[:, None]
    assert_close(decoder_costs_at(table.expand(-1, len(ratio)), ratio), cost(ratio))


def levels(x: torch.Tensor) -> torch.Tensor:
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


@pytest.mark.parametrize("noise", [0.006, 0.02, 0.3])
def test_costs_between_those_that_are_kept_are_nearly_exact(noise: float) -> None:
    """Residuals of half the noise, of 8-bit levels of which the outer ones bend the costs."""
    x_0 = levels(mixture((-1.0, 0.2, 0.97), 0.05).sample((200, 1, 10)))
    x_0_hat = x_0 + 0.7 * noise * torch.randn(x_0.shape, dtype=torch.float64)
    sums = MomentSums.zeros(3, x_0.shape[1:], CPU, histogram=True)
    t = torch.ones(200, dtype=torch.int64)
    sums.add(
        lambda *_: x_0_hat,
        NoiseSchedule.linear(3),
        "sample",
        x_0,
        t,
        seed=0,
        forwards=torch.arange(200),
    )

    def exact(ratio: float) -> torch.Tensor:
        variance = torch.full((3,), ratio * noise**2, dtype=torch.float64)
        return decoder_costs_of_residuals(sums.residuals, variance)[1:2]

    table = torch.stack([exact(ratio) for ratio in DECODER_RATIOS])
    for ratio in (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9):
        found = decoder_costs_at(table, torch.tensor([ratio], dtype=torch.float64))
        assert_close(found, exact(ratio), rtol=1e-3, atol=3e-3)
