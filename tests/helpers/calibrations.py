"""Calibrations of models whose errors are known, and what a chain costs by a table of moves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ddpm_pipeline import Calibration, NoiseSchedule
from ddpm_pipeline.calibration.tables import estimate_x_0_variance
from ddpm_pipeline.diffusion.spacing import check_chain
from ddpm_pipeline.schedulers.calibration import schedule_fingerprint

__all__ = ["calibration_from_errors", "chain_cost"]


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
