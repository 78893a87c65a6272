"""Conversions between predictions, against each other and against derivatives."""

from itertools import pairwise

import pytest
import torch
from helpers.moves import data, moves
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from ddpm_pipeline import NoiseSchedule, marginal, posterior
from ddpm_pipeline.diffusion.choices import PREDICTION_TYPES
from ddpm_pipeline.diffusion.predictions import convert, model_target, predict_x_0

EXACT = {"rtol": 1e-12, "atol": 1e-12}


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


@pytest.mark.parametrize("prediction_type", ["epsilon", "score"])
def test_epsilon_is_refused_where_it_says_nothing(prediction_type: str) -> None:
    schedule = NoiseSchedule.linear().zero_terminal_snr()
    with pytest.raises(ValueError, match="impossible with zero terminal SNR"):
        predict_x_0(schedule, data(), data(), 5, prediction_type=prediction_type)
