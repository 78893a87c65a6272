r"""The noise of steps with one variance for each frequency.

.. math::
    \sigma_k^2 = \sigma_\mathrm{low}^2 + (\sigma^2 - \sigma_\mathrm{low}^2)\, w_k(t), \qquad
    w_k(t) = S_k(t) \,/\, \tfrac1D \textstyle\sum_j S_j(t)

from the mean variance of a step, which the step's table holds, and the variance that the forward
posterior has in every direction. White noise is white in any orthonormal basis, so it is drawn as
coefficients, and one inverse transform takes it to the pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ddpm_pipeline.common import moved
from ddpm_pipeline.diffusion import (
    BasisGaussian,
    ErrorSpectrum,
    Gaussian,
    NoiseSchedule,
    ReverseMove,
    posterior_variance,
)
from ddpm_pipeline.schedulers.calibration import Calibration
from ddpm_pipeline.schedulers.chain import Chain, StepTable
from ddpm_pipeline.schedulers.drawing import scaled_noise
from ddpm_pipeline.schedulers.kept_tables import KeptTables
from ddpm_pipeline.schedulers.spectral import error_spectrum

__all__ = ["SpectralNoise", "spectral_noise"]

_Place = tuple[torch.device, torch.dtype]


@dataclass(frozen=True, eq=False)
class SpectralNoise:
    """The variances of all steps of a chain by component.

    Arguments:
        shape: w_k(t), whose mean over k is 1.
        lowest: Variance of the forward posterior, or of DDIM's, float64, shape (T,).
        drawn: Mean variance of the noise that a step draws, 0 on clean data, shape (T,).
        exact: Mean variance of p(x_s | x_t), shape (T,).
        is_flat: Where p(x_s | x_t) has one variance for all components, bool, shape (T,).
        to_data: Gives the logarithm of the variances of single pixels there, from the mean and t;
            None for the one variance.
    """

    shape: ErrorSpectrum
    lowest: Tensor
    drawn: Tensor
    exact: Tensor
    is_flat: Tensor
    to_data: Callable[[Tensor, Tensor], Tensor] | None = None
    _stds: KeptTables = field(init=False, repr=False, default_factory=KeptTables)
    _tables: dict[_Place, tuple[ErrorSpectrum, Tensor, Tensor]] = field(
        init=False, repr=False, default_factory=dict
    )

    def added_to(
        self,
        x: Tensor,
        factor: float,
        t: int | Tensor,
        generator: torch.Generator | list[torch.Generator] | None,
    ) -> Tensor:
        """Give a multiple of x plus the noise of a step from t, int64 of shape () or (B,).

        Raises:
            ValueError: If the spectrum is that of images of another shape.
        """
        basis = self.shape.basis
        basis.check_shape(x.shape[1:])
        noise = scaled_noise(x, 1.0, generator).mul_(self._std(t, x))
        return basis.added_pixels(x, factor, noise)

    def around(self, mean: Tensor, t: int | Tensor) -> Gaussian | BasisGaussian:
        """Give p(x_s | x_t) around a mean, for t as in ``added_to``."""
        t = torch.as_tensor(t).reshape(-1).cpu()
        if self.to_data is not None and self.is_flat[t].all():
            return Gaussian(mean, self.to_data(mean, t))
        w = self.shape.at(t)
        w = torch.where(_over(self.is_flat[t], w), 1.0, w)
        lowest, exact = _over(self.lowest[t], w), _over(self.exact[t], w)
        variance = lowest + (exact - lowest) * w
        return BasisGaussian(
            mean, moved(variance.log().to(mean.dtype), mean.device), self.shape.basis
        )

    def _std(self, t: int | Tensor, x: Tensor) -> Tensor:
        """Give the standard deviations of the components, without a synchronisation."""
        place = (x.device, x.dtype)
        if isinstance(t, Tensor) and (t.ndim or t.device.type != "cpu"):
            shape, lowest, drawn = self._on(place)
            t = moved(t, x.device).reshape(-1)
            return _std_at(shape, lowest, drawn, t)
        t = int(t)
        return self._stds.get((t, place), lambda: (self._std_of(t, *place),))[0]

    def _std_of(self, t: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        std = _std_at(self.shape, self.lowest, self.drawn, torch.tensor([t]))
        return moved(std[0].to(dtype), device)

    def _on(self, place: _Place) -> tuple[ErrorSpectrum, Tensor, Tensor]:
        if place not in self._tables:
            device, dtype = place
            tables = (moved(table.to(dtype), device) for table in (self.lowest, self.drawn))
            self._tables[place] = (self.shape.to(device, dtype), *tables)
        return self._tables[place]


def spectral_noise(
    calibration: Calibration,
    schedule: NoiseSchedule,
    chain: Chain,
    table: StepTable,
    eta: float | None,
) -> SpectralNoise:
    """Spread the variances of a chain's steps over frequencies.

    Arguments:
        calibration: With a spectrum.
        schedule: That it was made with.
        chain: Of the steps.
        table: The steps, with the analytic variance and its noise.
        eta: Of DDIM; None is for DDPM's own steps.
    """
    spectrum, every_t = error_spectrum(calibration, schedule), torch.arange(chain.T)
    move, std = table.columns[:, : len(ReverseMove._fields)].unbind(1), table.columns[:, -2]
    share = 1.0 if eta is None else eta**2
    by_value = calibration.value_decoder
    return SpectralNoise(
        # Of mean 1: the mean of S_k is known, and no S_k is computed for it.
        shape=spectrum.scaled(1 / calibration.x_0_error),
        lowest=share * posterior_variance(schedule, every_t, chain.landing),
        drawn=std.square(),
        exact=ReverseMove(*move).log_var.exp(),
        # To 8-bit data the decoder's variance is one for all pixels.
        is_flat=(chain.landing < 0) & (len(calibration.decoder) > 0),
        to_data=None if by_value is None else partial(by_value.log_var, schedule),
    )


def _std_at(shape: ErrorSpectrum, lowest: Tensor, drawn: Tensor, t: Tensor) -> Tensor:
    w = shape.at(t)
    drawn = _over(drawn[t], w)
    lowest = torch.minimum(_over(lowest[t], w), drawn)
    return (lowest + (drawn - lowest) * w).sqrt()


def _over(table: Tensor, w: Tensor) -> Tensor:
    """Shape one value for each timestep so that it broadcasts against components."""
    return table.reshape(-1, *[1] * (w.ndim - 1))
