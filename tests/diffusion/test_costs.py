"""Costs of moves against closed-form data, torch.distributions and the process itself."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from helpers.calibrations import chain_cost
from helpers.exact_errors import denoising_errors
from helpers.oracles import Mixture, alpha_bars, gaussian, linear_betas, mixture
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from ddpm_pipeline.diffusion.costs import (
    PRICED_VARIANCES,
    gaussian_rate,
    linear_error,
    lost_variance_costs,
    move_costs,
    prior_cost,
    step_costs,
    wiener_error,
)
from ddpm_pipeline.diffusion.ddim import ddim_posterior
from ddpm_pipeline.diffusion.decoder_costs import continuous_decoder_costs
from ddpm_pipeline.diffusion.forward_process import marginal, posterior, posterior_variance
from ddpm_pipeline.diffusion.predictions import predict_x_0
from ddpm_pipeline.diffusion.reverse_process import reverse
from ddpm_pipeline.diffusion.schedule import NoiseSchedule
from ddpm_pipeline.diffusion.spacing import shortest_paths, spaced_timesteps

LINEAR = NoiseSchedule.linear(1000)


def gaps(data: Mixture, variance_type: str, K: int) -> tuple[float, float]:
    """(even, optimal): by how many bits/dim the bound of K steps exceeds the entropy."""
    errors = denoising_errors(data)
    costs = step_costs(
        LINEAR, errors, continuous_decoder_costs(errors), variance_type=variance_type
    )
    second_moment = sum(
        w * (m**2 + s**2) for w, m, s in zip(data.weights, data.means, data.stds, strict=True)
    )
    fixed = prior_cost(LINEAR, second_moment, 999) - data.entropy
    even = spaced_timesteps(1000, K, "linspace")
    optimal = even if K == 1000 else shortest_paths(costs, K).chain(K)
    return tuple(((chain_cost(costs, c) + fixed) / math.log(2)).item() for c in (even, optimal))


@pytest.mark.parametrize("t", [0, 999])
def test_the_quadrature_agrees_with_an_adaptive_one(t: int) -> None:
    data = mixture()
    levels = [table[t] for table in alpha_bars(linear_betas())]
    assert denoising_errors(data)[t].item() == pytest.approx(
        data.denoising_error(*levels), rel=1e-9
    )


@pytest.mark.parametrize("K", [10, 50, 1000])
def test_fact_5_gaussian_data_cost_nothing_with_the_analytic_variance(K: int) -> None:
    assert gaps(gaussian(0, 0.5), "analytic", K) == pytest.approx((0, 0), abs=1e-8)


@pytest.mark.parametrize(
    ("variance_type", "K", "gap"),
    [
        ("fixed_large", 10, 0.147),
        ("fixed_large", 1000, 0.0016),
        ("fixed_small", 10, 656),
        ("fixed_small", 1000, 0.66),
    ],
)
def test_fact_5_what_gaussian_data_cost_with_fixed_variances(
    variance_type: str, K: int, gap: float
) -> None:
    # Half a unit of the last digit given, or of the third for the digits that are cut off.
    assert gaps(gaussian(0, 0.5), variance_type, K)[0] == pytest.approx(gap, rel=5e-3, abs=5e-5)


@pytest.mark.parametrize(
    ("variance_type", "K", "even", "optimal"),
    [
        ("fixed_large", 10, 1.4632, 0.2873),
        ("analytic", 10, 1.2859, 0.1203),
        ("fixed_large", 50, 0.4693, 0.0687),
        ("analytic", 50, 0.1567, 0.0230),
    ],
)
def test_fact_6_a_mixture_with_even_and_with_optimal_steps(
    variance_type: str, K: int, even: float, optimal: float
) -> None:
    found = gaps(mixture(), variance_type, K)
    assert found == pytest.approx((even, optimal), abs=1e-4)


@pytest.mark.parametrize("variance_type", PRICED_VARIANCES)
@pytest.mark.parametrize("schedule", [NoiseSchedule.linear(20), NoiseSchedule.cosine(20)])
def test_a_cost_is_the_mean_of_the_divergences_of_a_sample(
    variance_type: str, schedule: NoiseSchedule
) -> None:
    generator = torch.Generator().manual_seed(0)
    x_0 = mixture().sample((64, 1, 3), generator)
    for t, s in [(19, 0), (10, 9), (7, 2)]:
        x_t = marginal(schedule, x_0, t).sample(generator)
        output = torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
        x_0_hat = predict_x_0(schedule, output, x_t, t)
        error = (x_0 - x_0_hat).square().mean()
        v = 0.7 * error
        q = posterior(schedule, x_0, x_t, t, s)
        p = reverse(schedule, output, x_t, t, s, variance_type=variance_type, x_0_variance=v)
        divergences = kl_divergence(Normal(q.mean, q.std), Normal(p.mean, p.std))
        costs = move_costs(
            schedule,
            torch.tensor([t]),
            torch.tensor([s]),
            error[None],
            variance_type=variance_type,
            x_0_variance=v[None],
        )
        assert_close(costs[0], divergences.mean(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("eta", [None, 0.3, 1.0])
def test_no_scalar_is_better_than_the_analytic_variance(eta: float | None) -> None:
    errors = denoising_errors(mixture())
    t, s = torch.tensor([999, 999, 500, 20, 1]), torch.tensor([998, 3, 100, 19, 0])
    best = move_costs(LINEAR, t, s, errors[t], eta=eta)
    for factor in (0.5, 0.99, 1.01, 2.0):
        other = move_costs(LINEAR, t, s, errors[t], x_0_variance=factor * errors[t], eta=eta)
        assert (other > best).all()


@pytest.mark.parametrize("data", [gaussian(0, 0.5), mixture(), gaussian(0, 1)])
def test_the_analytic_variance_lies_between_the_fixed_ones(data: Mixture) -> None:
    errors = denoising_errors(data)
    t, s = torch.tril_indices(1000, 1000, offset=-1)
    t, s = t[::37], s[::37]
    small = posterior_variance(LINEAR, t, s)
    weight = posterior(LINEAR, torch.ones(len(t), 1).double(), 0 * small[:, None], t, s).mean[:, 0]
    analytic = small + weight.square() * errors[t]
    assert (analytic >= small).all()
    assert (analytic <= LINEAR.beta(t, s) * (1 + 1e-9)).all()


def test_no_estimate_is_worse_than_the_linear_one_which_is_best_for_a_gaussian() -> None:
    assert_close(denoising_errors(gaussian(0, 0.5)), linear_error(LINEAR, 0.25), rtol=1e-9, atol=0)
    assert (denoising_errors(mixture()) <= linear_error(LINEAR, 0.37)).all()


def test_moves_of_ddim_with_eta_1_are_those_of_ddpm() -> None:
    errors = denoising_errors(mixture())
    t, s = torch.tensor([999, 500, 1]), torch.tensor([3, 499, 0])
    for variance_type in ("analytic", "fixed_small"):
        ddpm, ddim = (
            move_costs(LINEAR, t, s, errors[t], variance_type=variance_type, eta=eta)
            for eta in (None, 1)
        )
        assert_close(ddim, ddpm, rtol=1e-8, atol=1e-12)


def test_the_prior_is_a_divergence_between_gaussians() -> None:
    x_0 = torch.randn(100, dtype=torch.float64)
    for t in (0, 300, 999):
        q = marginal(LINEAR, x_0, t)
        expected = kl_divergence(Normal(q.mean, q.std), Normal(0.0, 1.0)).mean()
        found = prior_cost(LINEAR, x_0.square().mean().item(), t)
        assert_close(found, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    "schedule",
    [NoiseSchedule.linear(20, 0.001, 0.4), NoiseSchedule.cosine(20).zero_terminal_snr()],
)
def test_lost_variance_is_what_a_step_of_ddim_loses(schedule: NoiseSchedule) -> None:
    """The step itself, on a Gaussian whose components are known, against its true marginals."""
    spectrum = torch.tensor([0.01, 0.3, 5.0, 40.0], dtype=torch.float64)
    costs = lost_variance_costs(schedule, wiener_error(schedule, spectrum))
    for t, s in [(19, 18), (19, 3), (10, 9), (7, 0), (4, -1), (19, -1)]:
        signal, noise = schedule.alpha_bar(t), schedule.one_minus_alpha_bar(t)
        x_0_from_x_t = signal.sqrt() * spectrum / (spectrum * signal + noise)
        from_x_0, from_x_t, _ = ddim_posterior(schedule, torch.tensor(t), torch.tensor(s), 0.0)
        gain = from_x_0 * x_0_from_x_t + from_x_t
        drawn = gain.square() * (spectrum * signal + noise)
        true = spectrum * schedule.alpha_bar(s) + schedule.one_minus_alpha_bar(s)
        assert_close(costs[t, s + 1], (spectrum * (1 - drawn / true)).mean(), rtol=1e-9, atol=0)
    assert torch.isinf(costs[5, 6:]).all()


def test_data_of_variance_1_have_their_best_steps_even_in_angle() -> None:
    schedule = NoiseSchedule.cosine(1000).zero_terminal_snr()
    costs = lost_variance_costs(schedule, wiener_error(schedule, torch.ones(1).double()))
    found = shortest_paths(costs, 25).chain(25)
    angle = schedule.alpha_bar(found).sqrt().acos()
    assert_close(angle.diff(), torch.full((24,), -math.pi / 50).double(), rtol=0, atol=2e-3)


def test_images_lose_no_more_than_the_sum_and_nearly_that_with_many_steps() -> None:
    """The variance of what a whole chain draws, against the sum that the chain is chosen by."""
    schedule = NoiseSchedule.cosine(200).zero_terminal_snr()
    spectrum = torch.logspace(-3, 2, 20, dtype=torch.float64)
    error = wiener_error(schedule, spectrum)
    costs = lost_variance_costs(schedule, error)
    lost = {}
    for K in (2, 5, 25, 100):
        chain = shortest_paths(costs, K).chain(K)
        variance = torch.ones(20, dtype=torch.float64)
        for t, s in pairwise([*chain.tolist(), -1]):
            signal, noise = schedule.alpha_bar(t), schedule.one_minus_alpha_bar(t)
            from_x_0, from_x_t, _ = ddim_posterior(schedule, torch.tensor(t), torch.tensor(s), 0.0)
            x_0_from_x_t = signal.sqrt() * spectrum / (spectrum * signal + noise)
            variance = (from_x_0 * x_0_from_x_t + from_x_t).square() * variance
        true = (spectrum - variance).mean().item()
        lost[K] = true / spectrum.mean().item()
        assert true <= chain_cost(costs, chain) * (1 + 1e-5)
        even = spaced_timesteps(200, K, "trailing")
        assert chain_cost(costs, chain) <= chain_cost(costs, even)
    assert true == pytest.approx(chain_cost(costs, chain).item(), rel=0.03)
    assert lost[5] > lost[25] > lost[100]


def test_wiener_s_error_is_that_of_the_best_matrix() -> None:
    """On a ring, where every stationary covariance has the Fourier components as its axes."""
    schedule, D = NoiseSchedule.linear(10, 0.01, 0.5), 8
    row = torch.tensor([2.0, 1.2, 0.5, 0.1, 0.0, 0.1, 0.5, 1.2], dtype=torch.float64)
    covariance = torch.stack([row.roll(k) for k in range(D)])
    found = wiener_error(schedule, torch.linalg.eigvalsh(covariance))
    for t in range(10):
        signal, noise = schedule.alpha_bar(t), schedule.one_minus_alpha_bar(t)
        of_x_t = signal * covariance + noise * torch.eye(D)
        best = signal.sqrt() * torch.linalg.solve(of_x_t, covariance)
        error = (covariance - signal.sqrt() * best.T @ covariance).trace() / D
        assert_close(found[t], error)


def test_zero_terminal_snr_has_finite_costs() -> None:
    schedule = NoiseSchedule.linear(30).zero_terminal_snr()
    errors = linear_error(schedule, 0.25)
    for variance_type in PRICED_VARIANCES:
        costs = step_costs(
            schedule, errors, continuous_decoder_costs(errors), variance_type=variance_type
        )
        assert costs.tril().isfinite().all()
        assert prior_cost(schedule, 0.25, 29) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variance_type": "learned_range"}, "variance_type must be one of .*got 'learned_range'"),
        ({"eta": 0}, "eta must be above 0 for a bound, got 0"),
        ({"eta": 1.2}, r"eta must be a number in \[0, 1\], got 1.2"),
        ({"x_0_variance": torch.ones(3)}, r"x_0_variance must have shape \(10,\), got \(3,\)"),
        ({"decoder_costs": torch.ones(2)}, r"decoder_costs must have shape \(10,\), got \(2,\)"),
    ],
)
def test_mistakes_are_named(options: dict, message: str) -> None:
    ones = torch.ones(10, dtype=torch.float64)
    arguments = {"x_0_error": ones, "decoder_costs": ones} | options
    with pytest.raises(ValueError, match=message):
        step_costs(NoiseSchedule.linear(10), **arguments)


def test_the_rate_of_gaussian_data_is_what_x_t_tells_of_it() -> None:
    """The mutual information of two Gaussian variables, from their correlation."""
    t = torch.tensor([0, 300, 999])
    for variance in (0.25, 1.0):
        signal, noise = LINEAR.alpha_bar(t), LINEAR.one_minus_alpha_bar(t)
        squared_correlation = signal * variance / (signal * variance + noise)
        information = -0.5 * torch.log1p(-squared_correlation)
        assert_close(gaussian_rate(LINEAR, t, variance), information, rtol=1e-12, atol=0)
    zero_snr = LINEAR.zero_terminal_snr()
    assert gaussian_rate(zero_snr, 999) == 0
