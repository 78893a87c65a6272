"""Calibrations of models whose errors are known, schedulers with them, and what chains cost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import torch
from helpers.exact_errors import denoising_errors
from helpers.oracles import gaussian, mixture
from torch import Tensor

from ddpm_pipeline import Calibration, DDPMScheduler, NoiseSchedule
from ddpm_pipeline.calibration.tables import estimate_x_0_variance
from ddpm_pipeline.diffusion.spacing import check_chain
from ddpm_pipeline.schedulers.calibration import schedule_fingerprint

__all__ = ["calibrated", "calibration_from_errors", "chain_cost", "known", "noise_of"]

LINEAR = NoiseSchedule.linear(1000)


def calibration_from_errors(
    schedule: NoiseSchedule,
    x_0_error: Tensor,
    *,
    second_moment: float = 1.0,
    m: Tensor | None = None,
    **options: object,
) -> Calibration:
    """A calibration from errors that are known otherwise, for a continuous decoder.

    Arguments:
        schedule: Noise schedule with T steps.
        x_0_error: e_t, float64, shape (T,).
        second_moment: E||x_0||²/D of the data.
        m: m_t; that of a perfect network with these errors by default.
        options: Further fields.
    """
    zeros = torch.zeros_like(x_0_error)
    if m is None:
        m = 1 - schedule.snr(torch.arange(len(schedule))) * x_0_error
    x_0_variance = estimate_x_0_variance(schedule, "error", m, x_0_error, second_moment)
    defaults = {
        "m": m,
        "m_standard_error": zeros,
        "x_0_error": x_0_error,
        "x_0_error_standard_error": zeros,
        "x_0_variance": x_0_variance,
        "decoder_variance": x_0_variance,
        "decoder": zeros.new_zeros(0, len(zeros)),
        "alpha_bar": schedule_fingerprint(schedule),
        "second_moment": second_moment,
    }
    return Calibration(**(defaults | options))


def chain_cost(costs: Tensor, timesteps: Sequence[int] | Tensor) -> Tensor:
    """Sum of the moves of a chain down to the data, without its prior.

    Arguments:
        costs: As ``step_costs`` returns them, shape (T, T + 1).
        timesteps: The chain, strictly decreasing in [0, T-1].
    """
    chain = check_chain(timesteps, len(costs))
    t, s = torch.tensor(list(pairwise([*chain, -1]))).T
    return costs[t, s + 1].sum()


@lru_cache
def known(data: str = "mixture") -> Calibration:
    """The exact calibration of a perfect network for "mixture" or "gaussian", T = 1000."""
    data, second_moment = {
        "mixture": (mixture(), 0.37),
        "gaussian": (gaussian(0, 0.5), 0.25),
    }[data]
    return calibration_from_errors(LINEAR, denoising_errors(data), second_moment=second_moment)


def calibrated(**options: object) -> DDPMScheduler:
    """A scheduler with the calibration for the mixture."""
    return DDPMScheduler(clip_sample=False).with_calibration(known(), **options)


def noise_of(scheduler: DDPMScheduler, t: int, eta: float | None = None) -> float:
    """The standard deviation of the noise that a step from t draws."""
    zeros = torch.zeros(100_000, 1, dtype=torch.float64)
    step = scheduler.step(zeros, t, zeros, generator=torch.Generator().manual_seed(0), eta=eta)
    return step.prev_sample.std().item()
