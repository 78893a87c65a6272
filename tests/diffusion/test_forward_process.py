"""The forward process against its own laws, Bayes' rule and torch.distributions."""

import pytest
import torch
from helpers.moves import data, moves
from hypothesis import given
from torch.testing import assert_close

from ddpm_pipeline import Gaussian, NoiseSchedule, marginal, posterior
from ddpm_pipeline.diffusion.forward_process import forward, posterior_variance
from ddpm_pipeline.diffusion.schedule import SCHEDULES

EXACT = {"rtol": 1e-12, "atol": 1e-12}


@given(moves())
def test_posterior_after_marginal_is_marginal(move: tuple) -> None:
    """Fact 1: averaging q(x_s | x_t, x_0) over q(x_t | x_0) gives q(x_s | x_0)."""
    schedule, t, s = move
    x_0 = data()
    q_t, q_s = marginal(schedule, x_0, t), marginal(schedule, x_0, s)
    # The posterior mean is affine in x_t: two evaluations give its slope and the averaged mean.
    at_mean = posterior(schedule, x_0, q_t.mean, t, s)
    slope = posterior(schedule, x_0, q_t.mean + 1, t, s).mean - at_mean.mean
    assert_close(at_mean.mean, q_s.mean, **EXACT)
    assert_close(at_mean.var + slope**2 * q_t.var, q_s.var.expand_as(slope), **EXACT)


@given(moves())
def test_forward_steps_compose_to_the_marginal(move: tuple) -> None:
    """Rows 1, 3 and 4: moment generating functions of merged noises multiply, whatever the cut."""
    schedule, t, s = move
    x_0, u = data(), torch.linspace(-2, 2, 4, dtype=torch.float64).reshape(4, 1, 1, 1)
    q_s = marginal(schedule, x_0, s)
    step = forward(schedule, q_s.mean, t, s)
    # x_t = sqrt(alpha) x_s + noise: the generating function of x_s is taken at sqrt(alpha) u.
    scaled = u * schedule.alpha(t, s).sqrt()
    noise = Gaussian(torch.zeros_like(step.mean), step.log_var)
    merged = q_s.log_mgf(scaled) + noise.log_mgf(u)
    assert_close(merged, marginal(schedule, x_0, t).log_mgf(u), **EXACT)
    assert_close(step.mean, marginal(schedule, x_0, t).mean, **EXACT)


def test_forward_is_one_step_by_default() -> None:
    schedule, x_s = NoiseSchedule.linear(), data()
    q = forward(schedule, x_s, 700)
    beta = 1e-4 + 700 / 999 * (0.02 - 1e-4)
    assert_close(q.var.item(), beta, rtol=1e-12, atol=0)
    assert_close(q.mean, (1 - beta) ** 0.5 * x_s, **EXACT)
    with pytest.raises(ValueError, match="s must be below t"):
        forward(schedule, x_s, 5, 5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_pair_form_is_the_published_per_step_form(name: str) -> None:
    """Fact 2: Ho et al.'s eq. 7, from the betas by products in float64."""
    schedule = NoiseSchedule.named(name)
    beta = schedule.betas
    alpha_bar = torch.cumprod(1 - beta, 0)
    before = torch.cat([torch.ones(1).double(), alpha_bar[:-1]])
    t = torch.arange(1000)
    x_0, x_t = data(1000, 1), data(1000, 1)
    q = posterior(schedule, x_0, x_t, t)
    from_x_0 = (before.sqrt() * beta / (1 - alpha_bar))[:, None]
    from_x_t = ((1 - beta).sqrt() * (1 - before) / (1 - alpha_bar))[:, None]
    # cumprod itself cancels at small t, where 1 - alpha_bar is 1e-4.
    assert_close(q.mean, from_x_0 * x_0 + from_x_t * x_t, rtol=1e-11, atol=1e-11)
    variance = (1 - before) / (1 - alpha_bar) * beta
    assert_close(posterior_variance(schedule, t), variance, rtol=1e-11, atol=1e-15)


@given(moves())
def test_posterior_obeys_bayes(move: tuple) -> None:
    """q(x_s | x_t, x_0) ∝ q(x_t | x_s) q(x_s | x_0), as log-densities up to a constant."""
    schedule, t, s = move
    if s < 0:
        return
    x_0, x_t = data(1, 1), data(1, 1)
    x_s = posterior(schedule, x_0, x_t, t, s).sample() + torch.linspace(-1, 1, 5).double()[:, None]
    step = torch.distributions.Normal(
        schedule.alpha(t, s).sqrt() * x_s, schedule.beta(t, s).sqrt()
    )
    joint = step.log_prob(x_t) + marginal(schedule, x_0, s).log_prob(x_s)
    ratio = joint - posterior(schedule, x_0, x_t, t, s).log_prob(x_s)
    assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-8, atol=1e-8)


def test_the_end_of_the_chain_is_clean_data() -> None:
    schedule, x_0, x_t = NoiseSchedule.linear(10), data(), data()
    assert torch.equal(marginal(schedule, x_0, -1).sample(), x_0)
    q = posterior(schedule, x_0, x_t, 4, -1)
    assert_close(q.mean, x_0, **EXACT)
    assert q.var == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_data_gets_the_right_noise(dtype: torch.dtype) -> None:
    schedule = NoiseSchedule.linear()
    t = torch.arange(1000)
    q = marginal(schedule, torch.zeros(1000, 1, dtype=dtype), t)
    assert q.mean.dtype == torch.float32
    assert_close(
        q.std.flatten().double(), schedule.one_minus_alpha_bar(t).sqrt(), rtol=1e-5, atol=0
    )
