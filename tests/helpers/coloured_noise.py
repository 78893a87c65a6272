"""Gaussian images that are uncorrelated in a cosine basis, and all that is known of them."""

from __future__ import annotations

import math

import torch
from helpers.calibrations import calibration_from_errors
from torch import Tensor

from ddpm_pipeline import Calibration, DDPMScheduler, NoiseSchedule
from ddpm_pipeline.diffusion.dct import FrequencyBasis
from ddpm_pipeline.diffusion.spectral import NUM_KNOTS
from ddpm_pipeline.schedulers.spectrum import MeasuredSpectrum

__all__ = ["SHAPE", "ColouredNoise", "coloured_scheduler"]

SHAPE = (3, 6, 9)


class ColouredNoise:
    """Colour images whose components are independent, and the best network for them.

    Arguments:
        schedule: That the network is for; it predicts x_0.
        steepness: How fast the variances fall towards high frequencies.
        mean: Of every value.
    """

    def __init__(
        self, schedule: NoiseSchedule, *, steepness: float = 0.4, mean: float = 0.0
    ) -> None:
        generator = torch.Generator().manual_seed(3)
        mixing = torch.randn(3, 3, generator=generator, dtype=torch.float64)
        self.basis = FrequencyBasis(torch.linalg.qr(mixing).Q, SHAPE[1:])
        fall = torch.arange(6.0)[:, None] + 0.5 * torch.arange(9.0)
        strength = torch.tensor([1.0, 0.2, 0.04])[:, None, None]
        self.variance = (0.5 * strength * (-steepness * fall).exp()).double()
        self.schedule, self.mean = schedule, mean

    def sample(self, count: int, seed: int = 1) -> Tensor:
        """Images, float64, shape (count, 3, 6, 9)."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)
        return self.mean + self.basis.to_pixels(self.variance.sqrt() * noise)

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The mean of x_0 given x_t, by Wiener's filter."""
        signal, noise = (
            level(t).reshape(-1, 1, 1, 1).to(x_t)
            for level in (self.schedule.alpha_bar, self.schedule.one_minus_alpha_bar)
        )
        gain = self.variance * signal.sqrt() / (self.variance * signal + noise)
        centred = self.basis.to_frequencies(x_t - self.mean * signal.sqrt())
        return self.mean + self.basis.to_pixels(gain.to(x_t) * centred)

    @property
    def bits_per_dim(self) -> float:
        """The entropy of an image over its dimensions."""
        return (2 * math.pi * math.e * self.variance).log2().mean().item() / 2

    def marginal_variance(self, t: int) -> Tensor:
        """Of the components of x_t, shape (3, 6, 9)."""
        return self.variance * self.schedule.alpha_bar(t) + self.schedule.one_minus_alpha_bar(t)

    def calibration(self) -> Calibration:
        """What a perfect calibration would find, for a continuous decoder."""
        T = len(self.schedule)
        snr = self.schedule.snr(torch.arange(T))[:, None]
        variance = self.variance.flatten()
        spectrum = MeasuredSpectrum(
            channels=self.basis.channels,
            sizes=SHAPE[1:],
            data_variance=self.variance,
            log_ratio=torch.zeros(NUM_KNOTS, 3, 2, 2, dtype=torch.float64),
            standard_error=torch.zeros(NUM_KNOTS, dtype=torch.float64),
        )
        return calibration_from_errors(
            self.schedule,
            (variance / (1 + variance * snr)).mean(1),
            second_moment=variance.mean().item() + self.mean**2,
            spectrum=spectrum,
        )


def coloured_scheduler(
    *, mean: float = 0.0, steepness: float = 0.4, levels: float = 1e9, **options: object
) -> tuple[DDPMScheduler, ColouredNoise]:
    """A scheduler with the perfect calibration for coloured noise, and the noise.

    Arguments:
        mean, steepness: Of the noise.
        levels: ``last_noise_levels``.
        options: Of the scheduler; variance_type is spectral by default.
    """
    chosen = {"variance_type": "spectral", "timestep_spacing": "trailing"}
    names = ("variance_type", "timestep_spacing", "solver")
    chosen |= {name: options.pop(name) for name in names if name in options}
    plain = DDPMScheduler(prediction_type="sample", clip_sample=False, **options)
    data = ColouredNoise(plain.schedule, steepness=steepness, mean=mean)
    scheduler = plain.with_calibration(data.calibration(), last_noise_levels=levels, **chosen)
    return scheduler, data
