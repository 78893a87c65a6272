"""Covariances in a basis against torch.distributions, and against data whose truth is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence
from torch.testing import assert_close

from ddpm_pipeline.diffusion.costs import move_costs, prior_cost
from ddpm_pipeline.diffusion.dct import FrequencyBasis
from ddpm_pipeline.diffusion.forward_process import posterior
from ddpm_pipeline.diffusion.gaussian import Gaussian
from ddpm_pipeline.diffusion.reverse_process import analytic_variance
from ddpm_pipeline.diffusion.schedule import NoiseSchedule
from ddpm_pipeline.diffusion.spacing import spaced_timesteps
from ddpm_pipeline.diffusion.spectral import (
    NUM_KNOTS,
    BasisGaussian,
    ErrorSpectrum,
    knots_around,
    linear_errors,
    spectral_move_costs,
)

C, SIZES = 2, (3, 4)
D = C * math.prod(SIZES)
LINEAR = NoiseSchedule.linear(1000)
SCHEDULES = [LINEAR, NoiseSchedule.cosine(200).zero_terminal_snr()]


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def basis() -> FrequencyBasis:
    return FrequencyBasis(torch.linalg.qr(values(C, C)).Q, SIZES)


def matrix() -> Tensor:
    """The basis as one orthonormal matrix, (D, D)."""
    return basis().to_frequencies(torch.eye(D, dtype=torch.float64).reshape(D, C, *SIZES)).reshape(
        D, D
    ).T  # fmt: skip


def dense(mean: Tensor, variance: Tensor) -> MultivariateNormal:
    """Of one image, with variances in the basis."""
    U = matrix()
    return MultivariateNormal(mean.flatten(), U.T @ torch.diag(variance.flatten()) @ U)


def test_a_gaussian_in_a_basis_is_the_dense_one() -> None:
    mean, variance, x = (
        values(1, C, *SIZES),
        values(1, C, *SIZES, seed=1) + 0.1,
        values(1, C, *SIZES, seed=2),
    )
    found, expected = BasisGaussian(mean, variance.log(), basis()), dense(mean, variance)
    assert_close(found.log_prob(x).sum(), expected.log_prob(x.flatten()))
    q = Gaussian(values(1, C, *SIZES, seed=3), torch.tensor(0.3, dtype=torch.float64).log())
    isotropic = MultivariateNormal(q.mean.flatten(), 0.3 * torch.eye(D, dtype=torch.float64))
    assert_close(found.kl_from(q).sum(), kl_divergence(isotropic, expected))


def test_its_draws_have_the_dense_covariance() -> None:
    variance = values(1, C, *SIZES, seed=1)
    p = BasisGaussian(torch.zeros(D, C, *SIZES, dtype=torch.float64), variance.log(), basis())
    # The draws of unit vectors are the rows of the root of the covariance, transposed.
    root = p.reparameterize(torch.eye(D, dtype=torch.float64).reshape(D, C, *SIZES)).reshape(D, D)
    assert_close(root.T @ root, dense(p.mean[0], variance).covariance_matrix)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_cost_is_the_divergence_of_dense_gaussians(schedule: NoiseSchedule) -> None:
    error, variance = values(C, *SIZES), values(C, *SIZES, seed=1)
    T = len(schedule)
    for t, s in [(T - 1, 0), (T // 2, T // 2 - 1), (7, 2)]:
        # Means that are as far apart as the error says, in every component.
        x_0, x_t = basis().to_pixels(error.sqrt()[None]), torch.zeros(1, C, *SIZES).double()
        q, p = (posterior(schedule, x, x_t, t, s) for x in (x_0, 0 * x_0))
        sigma = analytic_variance(schedule, t, s, variance)
        exact = MultivariateNormal(q.mean.flatten(), q.var * torch.eye(D, dtype=torch.float64))
        expected = kl_divergence(exact, dense(p.mean, sigma)) / D
        arguments = (torch.tensor([t]), torch.tensor([s]), error.reshape(1, -1))
        found = spectral_move_costs(schedule, *arguments, variance.reshape(1, -1))
        assert_close(found[0], expected, rtol=1e-9, atol=1e-12)


def test_no_other_variances_cost_less_and_one_for_all_costs_more() -> None:
    t, s, error = torch.tensor([999, 500, 20]), torch.tensor([600, 499, 3]), values(3, D)
    best = spectral_move_costs(LINEAR, t, s, error)
    for seed in range(20):
        other = error * values(3, D, seed=seed) * 2
        assert (spectral_move_costs(LINEAR, t, s, error, other) > best).all()
    scalar = move_costs(LINEAR, t, s, error.mean(1))
    assert (best < scalar).all()
    flat = error.mean(1, keepdim=True).expand(3, D)
    assert_close(spectral_move_costs(LINEAR, t, s, flat), scalar)
    assert_close(spectral_move_costs(LINEAR, t, s, error, flat), scalar)


def test_components_can_be_weighed() -> None:
    t, s, error = torch.tensor([500]), torch.tensor([100]), values(1, 3)
    twice = error[:, [0, 1, 2, 2]]
    shares = torch.tensor([[0.25, 0.25, 0.5]], dtype=torch.float64)
    assert_close(
        spectral_move_costs(LINEAR, t, s, error, shares=shares),
        spectral_move_costs(LINEAR, t, s, twice),
    )


def gaussian_spectrum(schedule: NoiseSchedule, seed: int = 0) -> tuple[ErrorSpectrum, Tensor]:
    """What is left open of Gaussian data that are uncorrelated in the basis; their variances."""
    variance = (6 * values(C, *SIZES, seed=seed) - 5).exp()
    ratios = torch.ones(len(schedule), C, *SIZES, dtype=torch.float64)
    bands = tuple(map(torch.arange, SIZES))
    snr = schedule.snr(torch.arange(len(schedule)))
    return ErrorSpectrum(basis(), variance, ratios, bands, snr), variance


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("K", [1, 2, 10, 200])
@pytest.mark.parametrize("seed", [0, 1])
def test_gaussian_data_cost_their_entropy_at_every_number_of_steps(
    schedule: NoiseSchedule, K: int, seed: int
) -> None:
    spectrum, variance = gaussian_spectrum(schedule, seed)
    chain = spaced_timesteps(len(schedule), K, "linspace")
    t, s = chain[:-1], chain[1:]
    moves = spectral_move_costs(schedule, t, s, spectrum.at(t).flatten(1)).sum()
    last = spectrum.at(chain[-1:]).flatten()
    decoder = MultivariateNormal(torch.zeros(D).double(), torch.diag(last)).entropy() / D
    prior = prior_cost(schedule, variance.mean().item(), chain[0])
    entropy = MultivariateNormal(torch.zeros(D).double(), torch.diag(variance.flatten())).entropy()
    assert (prior + moves + decoder - entropy / D).item() == pytest.approx(0, abs=1e-6)


def test_a_spectrum_is_widened_from_bands_and_scaled_to_a_mean() -> None:
    spectrum, variance = gaussian_spectrum(LINEAR)
    ratios = values(1000, C, 2, 1) + 0.5
    bands = (torch.tensor([0, 1, 1]), torch.zeros(4, dtype=torch.int64))
    pooled = ErrorSpectrum(spectrum.basis, variance, ratios, bands, spectrum.snr)
    t = torch.tensor([3, 900])
    expected = ratios[t][:, :, [0, 1, 1]].expand(2, C, 3, 4) * spectrum.at(t)
    assert_close(pooled.at(t), expected)
    assert_close(spectrum.at(t), linear_errors(variance, LINEAR.snr(t)))
    mean = values(1000, seed=5)
    scaled = pooled.with_mean(mean)
    assert_close(scaled.at(t).mean((1, 2, 3)), mean[t])
    assert_close(scaled.at(t) / pooled.at(t), (mean[t] / expected.mean((1, 2, 3)))
                 .reshape(2, 1, 1, 1).expand(2, C, 3, 4))  # fmt: skip
    assert scaled.to("cpu", torch.float32).at(t).dtype == torch.float32


def test_what_is_left_open_is_the_variance_given_x_t() -> None:
    spectrum, variance = gaussian_spectrum(LINEAR)
    for t in (0, 400, 999):
        noise = LINEAR.one_minus_alpha_bar(t) / LINEAR.alpha_bar(t)
        covariance = torch.diag(variance.flatten())
        gain = covariance @ torch.linalg.inv(covariance + noise * torch.eye(D).double())
        expected = (covariance - gain @ covariance).diagonal()
        assert_close(spectrum.at(torch.tensor([t])).flatten(), expected, rtol=1e-9, atol=1e-12)


def test_knots_are_next_to_log_snr_and_end_where_they_end() -> None:
    snr = torch.tensor([0.0, math.exp(-30), 1.0, math.exp(0.25), math.exp(40)]).double()
    below, share = knots_around(snr)
    assert below.tolist() == [0, 0, 12, 12, NUM_KNOTS - 2]
    assert share.tolist() == pytest.approx([0, 0, 0, 0.25, 1])
