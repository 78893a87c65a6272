"""What a saved scheduler's noise schedule is called in the options of training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from ddpm_pipeline.diffusion import NoiseSchedule, log_snr_shift
from ddpm_pipeline.training.ranges import RANGES

if TYPE_CHECKING:
    from ddpm_pipeline.common import Resolution
    from ddpm_pipeline.schedulers import DDPMScheduler

__all__ = ["schedule_options"]


def schedule_options(scheduler: DDPMScheduler, resolution: Resolution | None) -> dict[str, Any]:
    """Give what a scheduler's noise schedule is, in the words of options.

    Arguments:
        scheduler: Of a saved model.
        resolution: At which it is used; None if that is not known.
    """
    config = scheduler.config
    return {
        "ddpm_num_steps": config.num_train_timesteps,
        "ddpm_beta_schedule": config.beta_schedule,
        "ddpm_reference_side": resolution and _reference_side(scheduler, resolution),
        "rescale_betas_zero_snr": bool(config.rescale_betas_zero_snr),
    }


def _reference_side(scheduler: DDPMScheduler, resolution: Resolution) -> float | None:
    """Find the side by which log SNR is shifted from the named schedule; None if it is not."""
    named = _named_schedule(scheduler)
    if named is None:
        return None
    every_t = torch.arange(len(named) - named.has_zero_terminal_snr)
    shifts = (scheduler.schedule.snr(every_t) / named.snr(every_t)).log()
    if not torch.allclose(shifts, shifts[0], rtol=0, atol=1e-6) or shifts[0].abs() < 1e-6:
        return None
    side = math.exp((shifts[0].item() - log_snr_shift(resolution, 1)) / 2)
    side = float(f"{side:.9g}")  # without the rounding of the betas
    return side if RANGES["ddpm_reference_side"].holds(side) else None


def _named_schedule(scheduler: DDPMScheduler) -> NoiseSchedule | None:
    """Make the schedule that the betas were saved in place of; None if there are none."""
    config = scheduler.config
    if config.trained_betas is None:
        return None
    try:
        named = NoiseSchedule.named(
            config.beta_schedule, config.num_train_timesteps, config.beta_start, config.beta_end
        )
    except ValueError:  # the betas are all that counts, and the name may be any
        return None
    return named.zero_terminal_snr() if config.rescale_betas_zero_snr else named
