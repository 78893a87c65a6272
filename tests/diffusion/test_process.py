"""The process against its own laws, closed-form data models, and torch.distributions."""

import inspect
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from ddpm_pipeline import Gaussian, NoiseSchedule, marginal, posterior, reverse
from ddpm_pipeline.diffusion.choices import PREDICTION_TYPES, VARIANCE_TYPES
from ddpm_pipeline.diffusion.forward_process import forward, posterior_variance
from ddpm_pipeline.diffusion.predictions import convert, model_target, predict_x_0
from ddpm_pipeline.diffusion.reverse_process import analytic_variance
from ddpm_pipeline.diffusion.schedule import SCHEDULES
from ddpm_pipeline.diffusion.tensors import broadcast

EXACT = {"rtol": 1e-12, "atol": 1e-12}
FIXED = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")

schedules = st.builds(NoiseSchedule.named, st.sampled_from(sorted(SCHEDULES)), st.integers(2, 200))


@st.composite
def moves(draw: st.DrawFn, zero_snr: bool = True) -> tuple[NoiseSchedule, int, int]:
    """A schedule and a pair -1 <= s < t < T."""
    schedule = draw(schedules)
    if zero_snr and draw(st.booleans()):
        schedule = schedule.zero_terminal_snr()
    t = draw(st.integers(0, len(schedule) - 1))
    return schedule, t, draw(st.integers(-1, t - 1))


def data(*shape: int) -> Tensor:
    return torch.randn(shape or (4, 2, 3, 3), dtype=torch.float64)


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


@given(moves(zero_snr=False), st.permutations(PREDICTION_TYPES), st.integers(2, 5))
def test_any_cycle_of_conversions_is_the_identity(
    move: tuple, types: list[str], length: int
) -> None:
    schedule, t, s = move
    value, x_t = data(), data()
    cycle = [*types[:length], types[0]]
    result = value
    for from_type, to_type in pairwise(cycle):
        result = convert(schedule, result, x_t, t, s, from_type=from_type, to_type=to_type)
    # Rounding grows with what a conversion divides by: the signal, and the noise level.
    scale = 1 / (schedule.alpha_bar(t) * schedule.one_minus_alpha_bar(t))
    assert_close(result, value, rtol=0, atol=1e-12 * scale.item() * 100)


@given(moves(), st.sampled_from(PREDICTION_TYPES))
def test_a_perfect_network_gives_back_x_0(move: tuple, prediction_type: str) -> None:
    schedule, t, s = move
    if schedule.has_zero_terminal_snr and prediction_type in ("epsilon", "score"):
        return
    x_0, eps = data(), data()
    x_t = marginal(schedule, x_0, t).reparameterize(eps)
    target = model_target(schedule, x_0, eps, t, s, prediction_type=prediction_type)
    x_0_hat = predict_x_0(schedule, target, x_t, t, s, prediction_type=prediction_type)
    signal = schedule.alpha_bar(t).sqrt().clamp(min=1e-6).item()
    assert_close(x_0_hat, x_0, rtol=1e-9, atol=1e-11 / signal)


def test_targets_are_what_the_names_say() -> None:
    schedule, x_0, eps, t = NoiseSchedule.cosine(50), data(), data(), 20
    x_t = marginal(schedule, x_0, t).reparameterize(eps)
    target = {p: model_target(schedule, x_0, eps, t, prediction_type=p) for p in PREDICTION_TYPES}
    assert_close(target["epsilon"], eps, **EXACT)
    assert_close(target["sample"], x_0, **EXACT)
    # v is the derivative of x along the angle between signal and noise.
    angle = torch.atan2(schedule.one_minus_alpha_bar(t).sqrt(), schedule.alpha_bar(t).sqrt())
    along = torch.func.jvp(
        lambda a: a.cos() * x_0 + a.sin() * eps, (angle,), (torch.ones(()).double(),)
    )
    assert_close(target["v_prediction"], along[1], **EXACT)
    # The score is the gradient of log q(x_t | x_0).
    leaf = x_t.clone().requires_grad_()
    marginal(schedule, x_0, t).log_prob(leaf).sum().backward()
    assert_close(target["score"], leaf.grad, **EXACT)
    assert_close(target["mean"], posterior(schedule, x_0, x_t, t).mean, **EXACT)


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_data_gets_the_right_noise(dtype: torch.dtype) -> None:
    schedule = NoiseSchedule.linear()
    t = torch.arange(1000)
    q = marginal(schedule, torch.zeros(1000, 1, dtype=dtype), t)
    assert q.mean.dtype == torch.float32
    assert_close(
        q.std.flatten().double(), schedule.one_minus_alpha_bar(t).sqrt(), rtol=1e-5, atol=0
    )


def test_broadcast_puts_the_batch_first() -> None:
    x = torch.zeros(4, 3, 2, 2)
    assert broadcast(torch.arange(4).double(), x).shape == (4, 1, 1, 1)
    assert broadcast(torch.ones(()).double(), x).shape == ()
    assert broadcast(torch.ones(4).double(), x).dtype == torch.float32


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


@pytest.mark.parametrize("prediction_type", ["epsilon", "score"])
def test_epsilon_is_refused_where_it_says_nothing(prediction_type: str) -> None:
    schedule = NoiseSchedule.linear().zero_terminal_snr()
    with pytest.raises(ValueError, match="impossible with zero terminal SNR"):
        predict_x_0(schedule, data(), data(), 5, prediction_type=prediction_type)


def test_every_option_name_is_documented() -> None:
    text = inspect.getdoc(reverse)
    assert all(name in text for name in VARIANCE_TYPES if not name.endswith("_log"))
