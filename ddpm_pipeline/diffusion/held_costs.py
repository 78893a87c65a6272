r"""What steps cost that hold their prediction of x_0, by the errors that were measured of it.

With :math:`z = x/\sigma` and :math:`\kappa = \sqrt{\mathrm{SNR}}` the flow without noise is
:math:`dz = \hat x_0\, d\kappa`. A component of variance :math:`\lambda` that is predicted with an
error of :math:`S_t = \mathbb E(x_0 - \hat x_0)^2` has predictions of the size p, which answer what
is added to :math:`x_t` by Tweedie's formula:

.. math::
    p_t^2 = \lambda - S_t, \qquad
    \frac{\partial\hat x_0}{\partial x_t} = \frac{\sqrt{\bar\alpha_t}}{1 - \bar\alpha_t}\, S_t

A step that holds its prediction from t to s puts the image off by

.. math::
    b_s \int_{\kappa_t}^{\kappa_s} (p - p_t)\, d\kappa, \qquad
    b_s = \kappa_0 S_0 \exp \tfrac12 \int_{\mathrm{SNR}_s}^{\mathrm{SNR}_0} S\, d\,\mathrm{SNR}

and a step to the data by :math:`\sqrt\lambda - p_t`. A network that knows more than a linear
filter answers less: what is done at high noise then matters less than it would for Gaussian data.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_pipeline.diffusion.schedule import NoiseSchedule
from ddpm_pipeline.diffusion.solver_errors import component_groups
from ddpm_pipeline.diffusion.spectral import ErrorSpectrum

__all__ = ["ComponentErrors", "held_prediction_costs"]


_LEAST_ERROR = 1e-30  # instead of 0, whose inverse is no number


class ComponentErrors(NamedTuple):
    """The errors of x_0 in a few groups of components.

    Arguments:
        variance: lambda of a component of each group, float64, above 0, shape (G,).
        share: Of all components that are of the group, float64, shape (G,).
        error: S_t of a component of each group, from 0 to lambda, float64, shape (T, G).
    """

    variance: Tensor
    share: Tensor
    error: Tensor

    @classmethod
    def of(cls, spectrum: ErrorSpectrum) -> "ComponentErrors":
        """Group the components of a spectrum by the logarithm of their variance.

        An error above that of a linear filter counts as that of the filter. As no best estimate
        is worse where there is less noise, what a measurement of few forwards says otherwise is
        evened out.
        """
        variance, group = component_groups(spectrum.data_variance)
        count = torch.bincount(group).double()
        known = []
        for t in spectrum.parts():
            ratio = (spectrum.at(t) / spectrum.limit(t)).clamp(max=1) * spectrum.limit(t)
            ratio = (ratio / spectrum.data_variance).flatten(1)
            sums = ratio.new_zeros(len(t), len(count)).index_add_(1, group, ratio)
            known.append(sums / count)
        mean = torch.bincount(group, variance) / count
        rising = [never_falling(column) for column in torch.cat(known).T * mean[:, None]]
        return cls(mean, count / count.sum(), torch.stack(rising, dim=1))


def never_falling(values: Tensor) -> Tensor:
    """Give the sequence nearest to another, by squares, that never falls; float64, shape (T,).

    Source: Ayer et al. 1955, "An empirical distribution function for sampling with incomplete
        information", Ann. Math. Statist. 26: neighbours that fall share their mean.
    """
    means: list[float] = []
    counts: list[int] = []
    for value in values.tolist():
        mean, count = value, 1
        while means and means[-1] >= mean:
            mean = (mean * count + means[-1] * counts[-1]) / (count + counts[-1])
            count += counts.pop()
            means.pop()
        means.append(mean)
        counts.append(count)
    return torch.tensor(means, dtype=values.dtype).repeat_interleave(torch.tensor(counts))


def held_prediction_costs(schedule: NoiseSchedule, components: ComponentErrors) -> Tensor:
    """Give the mean squared error of images that each step makes.

    Arguments:
        schedule: Noise schedule with T steps.
        components: Of the data, and how they are predicted.
    Returns:
        The error of the step from t to s at [t, s + 1], s = -1 being the data, float64, shape
        (T, T + 1); entries with s >= t mean nothing.
    Source: Derived here (docs/formulas.md, steps for solvers of high order).
    """
    snr = schedule.snr(torch.arange(len(schedule)))
    signal = snr.sqrt()
    total = torch.zeros(len(schedule), len(schedule) + 1, dtype=torch.float64)
    move = signal[None, :] - signal[:, None]
    for variance, share, error in zip(*components[:2], components.error.T, strict=True):
        size = (variance - error).clamp(min=0).sqrt()
        missed = _integral(size, signal)
        missed = missed[None, :] - missed[:, None] - size[:, None] * move
        total[:, 1:] += share * (_carried(snr, error) * missed).square()
        total[:, 0] += share * (variance.sqrt() - size).square()
    return total


def _integral(size: Tensor, signal: Tensor) -> Tensor:
    """Integrate p over kappa from the noisiest timestep to each other, shape (T,)."""
    pieces = (size[1:] + size[:-1]) / 2 * (signal[:-1] - signal[1:])
    return torch.cat([pieces.flip(0).cumsum(0).flip(0), signal.new_zeros(1)])


def _carried(snr: Tensor, error: Tensor) -> Tensor:
    """Give b_s, shape (T,); 1/S is taken as straight in SNR between timesteps, as of Gaussians."""
    inverse = 1 / error.clamp(min=_LEAST_ERROR)
    step = snr[:-1] - snr[1:]
    ratio = (inverse[:-1] - inverse[1:]) / inverse[1:]
    # log(1 + r)/r, which is 1 where the error stays as it is.
    slope = torch.where(ratio.abs() < 1e-9, torch.ones_like(ratio), ratio.log1p() / ratio)
    growth = torch.cat([step.new_zeros(1), (step / inverse[1:] * slope).cumsum(0) / 2])
    return snr[0].sqrt() * error[0] * growth.exp()
