"""The terms of the bound on models whose bound is known, by quadrature over data and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from helpers.oracles import Mixture, gaussian, linear_betas, mixture
from torch.distributions import Normal

from ddpm_pipeline.diffusion.bound_terms import (
    ReverseProcess,
    bits_per_dim,
    decoder_nats,
    prior_nats,
    transition_nats,
)
from ddpm_pipeline.diffusion.choices import DECODERS, SPACINGS
from ddpm_pipeline.diffusion.forward_process import marginal
from ddpm_pipeline.diffusion.gaussian import Gaussian
from ddpm_pipeline.diffusion.schedule import NoiseSchedule
from ddpm_pipeline.diffusion.spacing import spaced_timesteps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

BETAS = linear_betas()
SCHEDULE = NoiseSchedule.from_betas(BETAS)


@cache
def normal_nodes(count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights that average functions of a standard normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())


def nodes_of(data: Mixture, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """x_0 and noise of shape (N, 1), and weights (N,), that average over both."""
    z, w = normal_nodes(count)
    parts = zip(data.weights, data.means, data.stds, strict=True)
    x_0, weights = zip(*((m + s * z, p * w) for p, m, s in parts), strict=True)
    x_0, weights = torch.cat(x_0), torch.cat(weights)
    grid = torch.cartesian_prod(x_0, z)
    return grid[:, :1], grid[:, 1:], torch.cartesian_prod(weights, w).prod(1)


@dataclass
class Expected:
    """Parts of the bound in nats, averaged over all data and all noise."""

    prior: float
    transitions: list[float]
    best_decoder: float

    @property
    def total(self) -> float:
        return self.prior + math.fsum(self.transitions) + self.best_decoder


def expected_bound(
    data: Mixture,
    chain: list[int],
    variance_type: str,
    *,
    prediction_type: str = "epsilon",
    count: int = 8,
) -> Expected:
    x_0, eps, weights = nodes_of(data, count)
    model = data.denoiser(BETAS, prediction_type)
    process = ReverseProcess(SCHEDULE, prediction_type, variance_type)

    def rows(steps: Sequence[int]) -> tuple[Tensor, ...]:
        """x_0, x_t, t and the network's output at every node of every step."""
        t = torch.tensor(steps).repeat_interleave(len(x_0))
        clean, noise = (v.repeat(len(steps), 1) for v in (x_0, eps))
        x_t = marginal(SCHEDULE, clean, t).reparameterize(noise)
        return clean, x_t, t, model(x_t, t)

    def means(values: Tensor) -> list[float]:
        return (weights * values.reshape(-1, len(weights))).sum(1).tolist()

    transitions = []
    if len(chain) > 1:
        clean, x_t, t, output = rows(chain[:-1])
        s = torch.tensor(chain[1:]).repeat_interleave(len(x_0))
        transitions = means(transition_nats(process, output, clean, x_t, t, s))
    clean, x_t, t, output = rows(chain[-1:])
    (error,) = means(process.squared_error(output, clean, x_t, t, torch.full_like(t, -1)))
    (prior,) = means(prior_nats(SCHEDULE, x_0, torch.full((len(x_0),), chain[0])))
    return Expected(prior, transitions, 0.5 * math.log(2 * math.pi * math.e * error))


def linspace(K: int) -> list[int]:
    return spaced_timesteps(1000, K, "linspace").tolist()


def gap(data: Mixture, chain: list[int], variance_type: str, **options: object) -> float:
    """Bits per dimension that the bound is above the true negative log-likelihood."""
    excess = expected_bound(data, chain, variance_type, **options).total - data.entropy
    return bits_per_dim(excess, 1)


# The digits of shared facts 5 and 6, which were computed elsewhere.
GAUSSIAN_GAPS = [
    ("fixed_large", 10, 0.147, 6e-4),
    ("fixed_large", 1000, 0.0016, 5e-5),
    ("fixed_small", 10, 656, 0.5),
    ("fixed_small", 1000, 0.66, 5e-3),
]
MIXTURE_GAPS = [("fixed_large", 10, 1.4632), ("fixed_large", 50, 0.4693)]


@pytest.mark.parametrize(("variance_type", "K", "bits", "digits"), GAUSSIAN_GAPS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_the_gap_on_gaussian_data(
    variance_type: str, K: int, bits: float, digits: float, prediction_type: str
) -> None:
    found = gap(gaussian(0, 0.5), linspace(K), variance_type, prediction_type=prediction_type)
    assert abs(found - bits) < digits


@pytest.mark.parametrize(("variance_type", "K", "bits"), MIXTURE_GAPS)
def test_the_gap_on_a_mixture(variance_type: str, K: int, bits: float) -> None:
    assert abs(gap(mixture(), linspace(K), variance_type, count=40) - bits) < 1e-4


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("K", [1, 2, 7, 100])
def test_standard_normal_data_have_a_tight_bound_for_every_spacing(spacing: str, K: int) -> None:
    chain = spaced_timesteps(1000, K, spacing).tolist()
    expected = expected_bound(gaussian(0, 1), chain, "fixed_large").total
    # ½ ln(2πe) is the entropy of N(0, 1).
    assert abs(expected - Normal(0.0, 1.0).entropy().item()) < 1e-6


def test_the_rate_lies_on_shannons_curve() -> None:
    """Fact 8: what x_t holds of N(0, 1) data is ½ ln(1 + SNR_t)."""
    chain = linspace(101)
    expected = expected_bound(gaussian(0, 1), chain, "fixed_large")
    rates = np.cumsum([expected.prior, *expected.transitions])
    snr = SCHEDULE.snr(torch.tensor(chain)).numpy()
    np.testing.assert_allclose(rates, 0.5 * np.log1p(snr), rtol=0, atol=1e-8)


@pytest.mark.parametrize("K", [1, 2, 10, 300])
def test_the_best_learned_variance_is_tight_on_gaussian_data(K: int) -> None:
    """Fact 5, analytic: with its own variance for each move the gap is 0 at every K."""
    data, chain = gaussian(0.2, 0.5), linspace(K)
    x_0, eps, weights = nodes_of(data, 8)
    model = data.denoiser(BETAS)
    alpha_bar, one_minus = (table.tolist() for table in model.tables)
    process = ReverseProcess(SCHEDULE, variance_type="learned")
    total = (weights * prior_nats(SCHEDULE, x_0, chain[0])).sum()
    for step, below in pairwise([*chain, -1]):
        # The variance of p(x_s | x_t) for jointly Gaussian x_s and x_t.
        a_s, b_s = (alpha_bar[below], one_minus[below]) if below >= 0 else (1.0, 0.0)
        var_s, var_t = (0.25 * a + b for a, b in ((a_s, b_s), (alpha_bar[step], one_minus[step])))
        ratio = alpha_bar[step] / a_s
        log_var = math.log(var_s - ratio * var_s**2 / var_t)
        t = torch.full((len(x_0),), step)
        x_t = marginal(SCHEDULE, x_0, t).reparameterize(eps)
        output = torch.cat([model(x_t, t), torch.full_like(x_t, log_var)], dim=1)
        s = torch.full_like(t, below)
        if below >= 0:
            nats = transition_nats(process, output, x_0, x_t, t, s)
        else:
            nats = decoder_nats(process.move(output, x_t, t, s, None), x_0, "continuous")
        total += (weights * nats).sum()
    assert abs(total.item() - data.entropy) < 1e-6


@pytest.mark.parametrize("log_std", np.linspace(-4, 1, 11))
def test_the_bins_of_the_decoder_sum_to_one(log_std: float) -> None:
    levels = (torch.arange(256, dtype=torch.float64) * 2 / 255 - 1)[:, None]
    for mean in (-2.0, -1.0, -0.9999, 0.0, 0.003, 0.5, 1.0, 1.7):
        p = Gaussian(
            torch.full_like(levels, mean), torch.full_like(levels, 2 * log_std * math.log(10))
        )
        nats = decoder_nats(p, levels, "discretized")
        assert abs(torch.logsumexp(-nats, 0).item()) < 1e-12


def test_decoders_agree_where_the_density_is_flat_and_the_tanh_is_close() -> None:
    levels = (torch.arange(100, 156, dtype=torch.float64) * 2 / 255 - 1)[:, None]
    p = Gaussian(torch.zeros_like(levels), torch.zeros_like(levels))
    bins, density, tanh = (decoder_nats(p, levels, name) for name in DECODERS)
    torch.testing.assert_close(bins, density - math.log(2 / 255), rtol=0, atol=1e-4)
    torch.testing.assert_close(bins, tanh, rtol=0, atol=1e-2)
    assert (bins - tanh).abs().max() > 1e-6


def test_an_unknown_decoder_is_an_error() -> None:
    p = Gaussian(torch.zeros(1, 1), torch.zeros(1, 1))
    with pytest.raises(ValueError, match="decoder must be one of discretized, continuous"):
        decoder_nats(p, torch.zeros(1, 1), "logistic")


def test_bits_per_dim_of_a_uniform_guess_over_256_levels_is_eight() -> None:
    assert bits_per_dim(3072 * math.log(256), 3072) == pytest.approx(8, abs=1e-12)
