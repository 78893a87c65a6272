"""DDIM's family of processes: its marginals, its ends, and diffusers' DDIM."""

from __future__ import annotations

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from ddpm_pipeline.diffusion.ddim import ddim_coefficients, ddim_posterior
from ddpm_pipeline.diffusion.forward_process import posterior_mean_coefficients, posterior_variance
from ddpm_pipeline.diffusion.schedule import NoiseSchedule

SCHEDULES = [
    NoiseSchedule.linear(100),
    NoiseSchedule.cosine(100),
    NoiseSchedule.cosine(100).zero_terminal_snr(),
]
PAIRS = st.integers(0, 99).flatmap(lambda t: st.tuples(st.just(t), st.integers(-1, t - 1)))


@given(PAIRS, st.floats(0, 1), st.sampled_from(SCHEDULES))
def test_every_eta_keeps_the_marginals(
    pair: tuple[int, int], eta: float, schedule: NoiseSchedule
) -> None:
    t, s = pair
    of_x_0, of_x_t, var = ddim_posterior(schedule, t, s, eta)
    mean = of_x_0 + of_x_t * schedule.alpha_bar(t).sqrt()
    assert_close(mean, schedule.alpha_bar(s).sqrt(), rtol=1e-12, atol=1e-12)
    spread = of_x_t.square() * schedule.one_minus_alpha_bar(t) + var
    assert_close(spread, schedule.one_minus_alpha_bar(s), rtol=1e-9, atol=1e-14)


@given(PAIRS, st.sampled_from(SCHEDULES))
def test_eta_1_is_the_posterior_of_ddpm(pair: tuple[int, int], schedule: NoiseSchedule) -> None:
    of_x_0, of_x_t, var = ddim_posterior(schedule, *pair, 1)
    expected = posterior_mean_coefficients(schedule, *pair)
    assert_close((of_x_0, of_x_t), expected, rtol=1e-9, atol=1e-12)
    assert_close(var, posterior_variance(schedule, *pair))


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_a_step_is_that_of_diffusers(eta: float, prediction_type: str) -> None:
    stock = diffusers.DDIMScheduler(
        prediction_type=prediction_type, clip_sample=False, timestep_spacing="trailing"
    )
    stock.set_timesteps(8)
    x_t, output = torch.randn(2, 2, 1, 4, 4, dtype=torch.float64)
    schedule = NoiseSchedule.linear(1000)
    for t, s in zip(stock.timesteps, [*stock.timesteps[1:], torch.tensor(-1)], strict=True):
        noise = torch.randn(x_t.shape, dtype=torch.float64)
        theirs = stock.step(output, t, x_t, eta=eta, variance_noise=noise).prev_sample
        move = ddim_coefficients(schedule, t, s, eta=eta, prediction_type=prediction_type)
        x_0 = move.x_0_from_x_t * x_t + move.x_0_from_output * output
        mean = move.mean_from_x_0 * x_0 + move.mean_from_x_t * x_t
        # Stock's tables are float32, and it goes on to alpha_bar_0 = 1.
        assert_close(mean + (0.5 * move.log_var).exp() * noise, theirs, rtol=2e-3, atol=2e-3)


def test_deterministic_steps_keep_a_variance_with_the_analytic_one() -> None:
    schedule, v = NoiseSchedule.linear(1000), torch.tensor(0.1, dtype=torch.float64)
    options = {"eta": 0, "prediction_type": "epsilon"}
    assert ddim_coefficients(schedule, 500, 300, **options).log_var == -torch.inf
    move = ddim_coefficients(schedule, 500, 300, x_0_variance=v, **options)
    # x_s - E[x_s | x_t] = a (x_0 - E[x_0 | x_t]) at eta = 0, with a the weight of x_0.
    x_0 = torch.randn(10000, dtype=torch.float64) * 0.1**0.5
    assert_close((move.mean_from_x_0 * x_0).var(), move.log_var.exp(), rtol=0.05, atol=0)


@pytest.mark.parametrize("eta", [-0.1, 1.1, True, "0"])
def test_impossible_eta_is_refused(eta: object) -> None:
    with pytest.raises(ValueError, match=r"eta must be a number in \[0, 1\], got "):
        ddim_posterior(NoiseSchedule.linear(10), 5, 2, eta)
