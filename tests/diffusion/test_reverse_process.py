"""The reverse process on closed-form data models, and its variances against brute force."""

import inspect

import pytest
import torch
from helpers.moves import data, moves
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from ddpm_pipeline import NoiseSchedule, marginal, posterior, reverse
from ddpm_pipeline.diffusion.choices import PREDICTION_TYPES, VARIANCE_TYPES
from ddpm_pipeline.diffusion.forward_process import posterior_variance
from ddpm_pipeline.diffusion.predictions import model_target, predict_x_0
from ddpm_pipeline.diffusion.reverse_process import analytic_variance

EXACT = {"rtol": 1e-12, "atol": 1e-12}


FIXED = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")


@given(moves(), st.sampled_from(PREDICTION_TYPES), st.sampled_from(FIXED))
def test_reverse_with_the_truth_is_the_posterior_mean(
    move: tuple, prediction_type: str, variance_type: str
) -> None:
    schedule, t, s = move
    if schedule.has_zero_terminal_snr and prediction_type in ("epsilon", "score"):
        return
    x_0, eps = data(), data()
    x_t = marginal(schedule, x_0, t).reparameterize(eps)
    output = model_target(schedule, x_0, eps, t, s, prediction_type=prediction_type)
    p = reverse(
        schedule, output, x_t, t, s, prediction_type=prediction_type, variance_type=variance_type
    )
    assert_close(p.mean, posterior(schedule, x_0, x_t, t, s).mean, rtol=1e-6, atol=1e-6)
    if s >= 0:
        low, high = posterior_variance(schedule, t, s), schedule.beta(t, s)
        assert_close(p.var, low if "small" in variance_type else high, rtol=1e-12, atol=0)
    assert p.var > 0


@given(st.sampled_from([1, 2, 3, 7, 100]), st.sampled_from(["linear", "squaredcos_cap_v2"]))
def test_reverse_chain_reproduces_unit_variance_data(K: int, name: str) -> None:
    """Fact 3: for data N(m, 1), exact ε and variance β, every marginal is reproduced."""
    schedule, m = NoiseSchedule.named(name, 100), 0.7
    chain = torch.linspace(99, 0, K).round().long().tolist() if K > 1 else [99]
    mean, var = schedule.alpha_bar(chain[0]).sqrt() * m, torch.ones(()).double()
    for t, s in zip(chain, [*chain[1:], -1], strict=True):
        # E[x_0 | x_t] for x_0 ~ N(m, 1) is affine; so is the reverse mean: propagate moments.
        x_t = torch.stack([mean, mean + 1]).reshape(2, 1)
        signal, noise = schedule.alpha_bar(t).sqrt(), schedule.one_minus_alpha_bar(t)
        eps = noise.sqrt() * (x_t - signal * m)
        p = reverse(schedule, eps, x_t, t, s, variance_type="fixed_large")
        mean, slope = p.mean[0, 0], p.mean[1, 0] - p.mean[0, 0]
        var = slope**2 * var + p.var
        assert_close(mean, schedule.alpha_bar(s).sqrt() * m, **EXACT)
        assert_close(var, torch.ones(()).double(), **EXACT)


@given(st.sampled_from([1, 2, 3, 7, 100]))
def test_reverse_chain_reproduces_a_point_mass(K: int) -> None:
    """Fact 3: for a point mass and variance β̃, every marginal is q(x_s | x_0)."""
    schedule, m = NoiseSchedule.linear(100), -0.4
    chain = torch.linspace(99, 0, K).round().long().tolist() if K > 1 else [99]
    x_0 = torch.full((1, 1), m, dtype=torch.float64)
    var = marginal(schedule, x_0, chain[0]).var
    for t, s in zip(chain, [*chain[1:], -1], strict=True):
        q_t = marginal(schedule, x_0, t)
        x_t = torch.cat([q_t.mean, q_t.mean + 1])
        eps = (x_t - q_t.mean) / q_t.std
        p = reverse(schedule, eps, x_t, t, s, variance_type="fixed_small")
        slope = p.mean[1, 0] - p.mean[0, 0]
        var = slope**2 * var + (p.var if s >= 0 else 0)
        assert_close(p.mean[:1], marginal(schedule, x_0, s).mean, **EXACT)
        assert_close(var, marginal(schedule, x_0, s).var, **EXACT)


def test_learned_range_spans_the_two_fixed_variances() -> None:
    schedule, x_t, t = NoiseSchedule.linear(), data(), torch.tensor([999, 500, 1, 0])
    ends = {}
    for value, fixed in ((-1.0, "fixed_small"), (1.0, "fixed_large")):
        output = torch.cat([data(), torch.full_like(x_t, value)], dim=1)
        p = reverse(schedule, output, x_t, t, variance_type="learned_range")
        fixed_p = reverse(schedule, output[:, :2], x_t, t, variance_type=fixed)
        assert_close(p.log_var, fixed_p.log_var.expand_as(p.log_var), **EXACT)
        assert_close(p.mean, fixed_p.mean, **EXACT)
        ends[value] = p.log_var
    output = torch.cat([data(), torch.full_like(x_t, 3.0)], dim=1)
    beyond = reverse(schedule, output, x_t, t, variance_type="learned_range").log_var
    assert_close(beyond, 2 * ends[1.0] - ends[-1.0], **EXACT)  # never clamped


def test_learned_is_the_log_variance_itself() -> None:
    schedule, x_t, log_var = NoiseSchedule.linear(), data(), data()
    p = reverse(schedule, torch.cat([data(), log_var], 1), x_t, 3, variance_type="learned")
    assert torch.equal(p.log_var, log_var)


def test_the_last_small_variance_is_that_of_the_chains_next_step() -> None:
    schedule, x_t, eps = NoiseSchedule.linear(), data(), data()
    assert_close(reverse(schedule, eps, x_t, 0).var, posterior_variance(schedule, 1, 0))
    strided = reverse(schedule, eps, x_t, 19, -1, above=39)
    assert_close(strided.var, posterior_variance(schedule, 39, 19))
    alone = reverse(schedule, eps, x_t, 999, -1)
    assert_close(alone.var, schedule.beta(999, -1))


@given(moves(zero_snr=False), st.floats(0, 1))
def test_the_analytic_variance_is_the_best_scalar(move: tuple, spread: float) -> None:
    """Brute force: for Gaussian data the expected KL to the reverse step is smallest there."""
    schedule, t, s = move
    if s < 0:
        return
    # x_0 ~ N(0, spread): Var(x_0 | x_t) in closed form.
    noise = schedule.one_minus_alpha_bar(t)
    left = spread * noise / (noise + schedule.alpha_bar(t) * spread)
    best = analytic_variance(schedule, t, s, left)
    assert posterior_variance(schedule, t, s) * (1 - 1e-12) <= best
    assert best <= schedule.beta(t, s) * (1 + 1e-12)
    step = schedule.alpha_bar(s).sqrt() * schedule.beta(t, s) / noise
    var_q = posterior_variance(schedule, t, s)

    def expected_kl(variance: Tensor) -> float:
        return (0.5 * (variance / var_q).log() + (var_q + step**2 * left) / (2 * variance)).item()

    # At the optimum the derivative vanishes: neighbours on both sides are no better.
    assert expected_kl(best) <= expected_kl(best * 1.01) + 1e-12
    assert expected_kl(best) <= expected_kl(best * 0.99) + 1e-12


def test_x_0_map_acts_on_the_prediction() -> None:
    schedule, x_t, eps = NoiseSchedule.linear(), data(), 3 * data()
    clipped = reverse(schedule, eps, x_t, 900, 400, x_0_map=lambda x: x.clamp(-1, 1))
    x_0 = predict_x_0(schedule, eps, x_t, 900).clamp(-1, 1)
    assert_close(clipped.mean, posterior(schedule, x_0, x_t, 900, 400).mean, **EXACT)


EXAMPLE = {"schedule": NoiseSchedule.linear(10), "x_t": torch.zeros(2, 3, 4, 4)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prediction_type": "noise"}, "prediction_type must be one of .*got 'noise'"),
        ({"variance_type": "other"}, "variance_type must be one of .*got 'other'"),
        ({"variance_type": "learned_range"}, "must have 6 channels .* got 3"),
        ({"variance_type": "learned"}, "must have 6 channels .* got 3"),
        ({"variance_type": "analytic"}, "needs x_0_variance"),
        ({"s": 5}, "s must be below t, got t = 5 and s = 5"),
        ({"s": torch.tensor([4, 6])}, "s must be below t"),
        ({"t": 10, "s": 3}, r"lie in \[-1, 9\]"),
        ({"s": -2}, r"lie in \[-1, 9\]"),
    ],
)
def test_caller_mistakes_are_named(options: dict, message: str) -> None:
    arguments = {"model_output": torch.zeros(2, 3, 4, 4), "t": 5, "s": 4} | EXAMPLE | options
    with pytest.raises(ValueError, match=message):
        reverse(**arguments)


def test_fixed_variance_refuses_two_c_channels() -> None:
    with pytest.raises(ValueError, match="must have 3 channels for variance_type 'fixed_small'"):
        reverse(model_output=torch.zeros(2, 6, 4, 4), t=5, **EXAMPLE)


def test_every_option_name_is_documented() -> None:
    text = inspect.getdoc(reverse)
    assert all(name in text for name in VARIANCE_TYPES if not name.endswith("_log"))
