"""What a scheduler offers of the forward process: noisy images, and v-prediction's targets.

    scheduler.add_noise(x_0, noise, t)         draws from q(x_t | x_0)
    scheduler.get_velocity(x_0, noise, t)      what a network that predicts v should answer

They are diffusers' methods, with coefficients in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ddpm_pipeline.diffusion import marginal, model_target
from ddpm_pipeline.schedulers.calibrated import CalibratedScheduler
from ddpm_pipeline.schedulers.chain import check_timestep

__all__ = ["NoisingScheduler"]


class NoisingScheduler(CalibratedScheduler):
    """The part of ``DDPMScheduler`` that adds noise; it takes none away."""

    def _set_attributes_of_stock(self) -> None:
        """Set what users of stock's scheduler read from it, in float64."""
        every_t = torch.arange(len(self.schedule))
        self.betas = self.schedule.betas
        self.alphas = self.schedule.alpha(every_t)
        self.alphas_cumprod = self.schedule.alpha_bar(every_t)
        self.one = torch.ones((), dtype=torch.float64)
        self.init_noise_sigma = 1.0
        self.custom_timesteps = False
        self.num_inference_steps: int | None = None

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Draw from q(x_t | x_0) with the given noise, in the dtype of ``original_samples``.

        Arguments:
            original_samples: x_0, shape (B, *).
            noise: Standard normal noise, shape (B, *).
            timesteps: t, int64, shape (B,) or (), in [0, T-1].
        """
        check_timestep(timesteps, len(self), len(original_samples))
        x_t = marginal(self.schedule, original_samples, timesteps).reparameterize(noise)
        return x_t.to(original_samples.dtype)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Give v-prediction's target for x_0 = ``sample``; arguments as in ``add_noise``."""
        check_timestep(timesteps, len(self), len(sample))
        v = model_target(self.schedule, sample, noise, timesteps, prediction_type="v_prediction")
        return v.to(sample.dtype)
