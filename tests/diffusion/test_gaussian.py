"""Gaussian against torch.distributions, mpmath and sampling."""

import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from ddpm_pipeline import Gaussian

EXACT = {"rtol": 1e-12, "atol": 1e-12}
LEVELS = torch.linspace(-1, 1, 256, dtype=torch.float64)


def gaussian(mean: float, std: float, dtype: torch.dtype = torch.float64) -> Gaussian:
    return Gaussian(torch.tensor(mean, dtype=dtype), 2 * torch.tensor(std, dtype=dtype).log())


def random_gaussian(*shape: int) -> Gaussian:
    return Gaussian(torch.randn(shape, dtype=torch.float64), torch.randn(shape[0], 1).double())


def as_normal(p: Gaussian) -> Normal:
    return Normal(p.mean, p.std.expand_as(p.mean))


def test_log_prob_agrees_with_torch_distributions() -> None:
    p, x = random_gaussian(5, 7), torch.randn(5, 7, dtype=torch.float64)
    assert_close(p.log_prob(x), as_normal(p).log_prob(x), **EXACT)


def test_kl_agrees_with_torch_distributions() -> None:
    q, p = random_gaussian(50, 7), random_gaussian(50, 7)
    assert_close(q.kl(p), kl_divergence(as_normal(q), as_normal(p)), **EXACT)


@pytest.mark.parametrize("delta", [1e-12, 1e-8, 1e-4, 1e-2, 0.099, 0.101, 1.0])
def test_kl_of_close_variances_keeps_its_digits(delta: float) -> None:
    q = Gaussian(torch.zeros((), dtype=torch.float64), torch.tensor(delta, dtype=torch.float64))
    p = Gaussian(torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64))
    with mpmath.workdps(50):
        d = mpmath.mpf(delta)
        exact = float((mpmath.exp(d) - 1 - d) / 2)
    assert_close(q.kl(p).item(), exact, rtol=1e-12, atol=0)


finite = st.floats(-20, 20)


@given(finite, finite, st.floats(-30, 5), st.floats(-30, 5))
def test_kl_is_never_negative_and_is_zero_for_equals(
    m_q: float, m_p: float, l_q: float, l_p: float
) -> None:
    q, p = (
        Gaussian(torch.tensor(m, dtype=torch.float64), torch.tensor(v, dtype=torch.float64))
        for m, v in ((m_q, l_q), (m_p, l_p))
    )
    assert q.kl(p) >= 0
    assert q.kl(q) == 0


def test_kl_with_point_masses() -> None:
    point = Gaussian(torch.zeros(1), torch.tensor([-math.inf]))
    elsewhere = Gaussian(torch.ones(1), torch.tensor([-math.inf]))
    wide = Gaussian(torch.zeros(1), torch.zeros(1))
    assert point.kl(point) == 0
    assert point.kl(elsewhere) == math.inf
    assert point.kl(wide) == math.inf
    assert wide.kl(point) == math.inf


def test_kl_gradient_is_finite_for_equal_variances() -> None:
    log_var = torch.zeros(3, requires_grad=True)
    mean = torch.ones(3, requires_grad=True)
    Gaussian(torch.zeros(3), torch.zeros(3)).kl(Gaussian(mean, log_var)).sum().backward()
    assert_close(mean.grad, torch.ones(3))
    assert_close(log_var.grad, -torch.ones(3) / 2)


@pytest.mark.parametrize("u", [-2.0, 0.0, 0.7, 3.0])
def test_log_mgf_is_the_mean_of_the_exponential(u: float) -> None:
    p = gaussian(0.3, 0.8)
    mean, _ = integrate.quad(lambda x: math.exp(u * x) * stats.norm.pdf(x, 0.3, 0.8), -12, 14)
    assert_close(
        p.log_mgf(torch.tensor(u, dtype=torch.float64)).item(),
        math.log(mean),
        rtol=1e-9,
        atol=1e-9,
    )


def test_samples_follow_the_distribution_and_the_generator() -> None:
    p = Gaussian(torch.full((4000,), 0.7), torch.tensor(-1.3))
    draws = [p.sample(torch.Generator().manual_seed(0)) for _ in range(2)]
    assert torch.equal(*draws)
    cdf = stats.norm(0.7, math.exp(-0.65)).cdf
    assert stats.kstest(draws[0].numpy(), cdf).pvalue > 0.01


@pytest.mark.parametrize("std", [1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("mean", [-3.0, -1.0, -0.3, 0.0, 0.7 / 255, 0.99, 2.0])
def test_the_bins_sum_to_one(mean: float, std: float) -> None:
    total = torch.logsumexp(gaussian(mean, std).discretized_log_prob(LEVELS), dim=0)
    assert_close(total.item(), 0.0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("std", [1e-4, 0.01, 0.3, 10.0])
@pytest.mark.parametrize("level", [0, 1, 100, 128, 254, 255])
def test_bins_agree_with_mpmath(level: int, std: float) -> None:
    mean = 0.123
    x = LEVELS[level].item()
    with mpmath.workdps(60):
        upper = mpmath.inf if level == 255 else mpmath.mpf(x) + mpmath.mpf(1) / 255
        lower = -mpmath.inf if level == 0 else mpmath.mpf(x) - mpmath.mpf(1) / 255
        # Phi(b) - Phi(a) as an integral over the side where it does not cancel.
        a, b = ((v - mpmath.mpf(mean)) / mpmath.mpf(std) for v in (lower, upper))
        if a + b > 0:
            a, b = -b, -a
        exact = mpmath.log(
            (mpmath.erfc(-b / mpmath.sqrt(2)) - mpmath.erfc(-a / mpmath.sqrt(2))) / 2
        )
    result = gaussian(mean, std).discretized_log_prob(LEVELS[level]).item()
    # The bin's edges themselves carry float64 rounding, magnified by the slope (x - mean)/std².
    rounding = 1e-15 * (1 + abs(x - mean) / std**2)
    assert result == pytest.approx(float(exact), rel=1e-11, abs=rounding + 1e-13)


def test_a_point_mass_has_a_density_and_bins() -> None:
    point = Gaussian(torch.zeros(2), torch.full((2,), -math.inf))
    x = torch.tensor([0.0, 0.5])
    assert point.log_prob(x).tolist() == [math.inf, -math.inf]
    levels = LEVELS[[127, 200]]
    narrow = Gaussian(torch.full((2,), LEVELS[127]), torch.full((2,), -800.0).double())
    assert narrow.discretized_log_prob(levels).tolist() == [0.0, -math.inf]


def test_the_tail_is_a_bound_where_the_tanh_version_is_not() -> None:
    p, x = gaussian(-0.9, 1e-3), torch.tensor(0.9, dtype=torch.float64).mul(255).round() / 255
    exact = p.discretized_log_prob(x)
    floored = p.discretized_log_prob(x, cdf="tanh")
    assert exact < -1e6
    assert floored.item() == pytest.approx(-27.6, abs=0.1)


def test_tanh_version_is_close_where_it_is_meant_to_be() -> None:
    p = gaussian(0.1, 0.05)
    near = LEVELS[(LEVELS - 0.1).abs() < 0.05]
    difference = p.discretized_log_prob(near) - p.discretized_log_prob(near, cdf="tanh")
    assert difference.abs().max() < 1e-2


def test_float32_inputs_keep_float32_results() -> None:
    p = gaussian(0.2, 10.0, torch.float32)
    result = p.discretized_log_prob(LEVELS.float())
    assert result.dtype == torch.float32
    expected = gaussian(0.2, 10.0).discretized_log_prob(LEVELS)
    assert_close(result.double(), expected, rtol=1e-6, atol=1e-6)


def test_other_numbers_of_bins_sum_to_one_too() -> None:
    grid = torch.linspace(-1, 1, 17, dtype=torch.float64)
    assert_close(gaussian(0.1, 0.2).discretized_log_prob(grid, 17).exp().sum().item(), 1.0)


def test_caller_mistakes_are_named() -> None:
    p = gaussian(0, 1)
    with pytest.raises(ValueError, match="num_bins must be at least 2, got 1"):
        p.discretized_log_prob(LEVELS, num_bins=1)
    with pytest.raises(ValueError, match="cdf must be one of exact, tanh, got 'erf'"):
        p.discretized_log_prob(LEVELS, cdf="erf")
