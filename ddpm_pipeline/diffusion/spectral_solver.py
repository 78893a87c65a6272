r"""Steps without noise that are exact for Gaussian data of any spectrum, of order 1 and 2.

For a component of variance :math:`\lambda` and mean m the flow without noise is a multiplication
of what is above the mean. With :math:`\alpha = \sqrt{\bar\alpha}` and
:math:`V_t = \lambda\bar\alpha_t + 1 - \bar\alpha_t`,

.. math::
    x_s - \alpha_s m = \sqrt{V_s / V_t}\, (x_t - \alpha_t m), \qquad
    m = \frac{V_t \hat x_0 - \lambda \alpha_t x_t}{1 - \bar\alpha_t}

so that for other data m is a forcing that changes slowly: :math:`z = x/\sqrt V` and
:math:`\varphi = \alpha/\sqrt V` obey :math:`dz = m\, d\varphi`. Order 1 keeps m; order 2 goes on
from the step before in a straight line over :math:`\ln\varphi`. For :math:`\lambda = 0` they are
DDIM and DPM-Solver++ 2M. The variance that a step takes for granted is the one that explains the
measured error of x_0 at t:

.. math:: S = \frac{\lambda}{1 + \lambda\,\mathrm{SNR}_t}
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_pipeline.diffusion.schedule import NoiseSchedule
from ddpm_pipeline.diffusion.spectral import ErrorSpectrum

__all__ = ["SpectralStep", "local_variances", "spectral_step"]


class SpectralStep(NamedTuple):
    """Weights of one step by component: float64, in the shape of the variances."""

    from_x_t: Tensor
    from_x_0: Tensor
    from_last_x_t: Tensor
    from_last_x_0: Tensor


def local_variances(spectrum: ErrorSpectrum, t: Tensor) -> Tensor:
    r"""Give the variances lambda that explain the errors of x_0 at t, (B, C, *).

    A component whose error is above that of a linear filter gets the variance of the data.

    Arguments:
        spectrum: The errors, of T timesteps.
        t: Timesteps, int64, shape (B,).
    """
    variance = spectrum.data_variance
    ratio = (spectrum.at(t) / spectrum.limit(t)).clamp(max=1)
    snr = spectrum.snr[t].reshape(-1, *[1] * variance.ndim)
    return ratio * variance / (1 + variance * snr * (1 - ratio))


def spectral_step(
    schedule: NoiseSchedule,
    t: int,
    s: int,
    variance: Tensor,
    last: int | None = None,
) -> SpectralStep:
    """Compute the weights of the step from t to s.

    Arguments:
        schedule: Noise schedule with T steps.
        t, s: Timesteps, -1 <= s < t < T.
        variance: lambda by component, above 0, float64.
        last: The timestep before t, whose state and prediction are known, for order 2; None is
            for order 1, which is also that of a step to the data.
    Returns:
        The weights, so that x_s is the sum of the products; those of the last are 0 for order 1.
    """
    alpha_t, alpha_s = (schedule.alpha_bar(i).sqrt() for i in (t, s))
    noise_t, noise_s = (schedule.one_minus_alpha_bar(i) for i in (t, s))
    var_t, var_s = (_marginal_variance(schedule, variance, i) for i in (t, s))
    # (sqrt(V_s V_t) - lambda alpha_s alpha_t) / (1 - alpha_bar_t), without its cancellation.
    from_x_t = variance * alpha_s.square() + noise_s * var_t / noise_t
    from_x_t = from_x_t / ((var_s * var_t).sqrt() + variance * alpha_s * alpha_t)
    from_x_0 = alpha_s - from_x_t * alpha_t
    zeros = torch.zeros_like(variance)
    step = SpectralStep(from_x_t, from_x_0, zeros, zeros)
    if last is None or s < 0 or schedule.alpha_bar(last) == 0:
        return step
    change = _change(schedule, t, s, last, variance)
    now, before = (_implied_mean(schedule, variance, i) for i in (t, last))
    return SpectralStep(
        from_x_t + change * now.from_x_t,
        from_x_0 + change * now.from_x_0,
        -change * before.from_x_t,
        -change * before.from_x_0,
    )


def _change(schedule: NoiseSchedule, t: int, s: int, last: int, variance: Tensor) -> Tensor:
    """Give the weight of what the mean changed since the last step."""
    places = [
        schedule.alpha_bar(i).sqrt() / _marginal_variance(schedule, variance, i).sqrt()
        for i in (last, t, s)
    ]
    h_last, h = (torch.log(b / a) for a, b in pairwise(places))
    # sqrt(V_s) (phi_s - phi_t), from the difference of the squares.
    squares = schedule.alpha_bar(s) * schedule.beta(t, s)
    var_t, var_s = (_marginal_variance(schedule, variance, i) for i in (t, s))
    move = squares / (var_s.sqrt() * var_t * (places[1] + places[2]))
    return move * h / (2 * h_last)


def _marginal_variance(schedule: NoiseSchedule, variance: Tensor, t: int) -> Tensor:
    return variance * schedule.alpha_bar(t) + schedule.one_minus_alpha_bar(t)


class _Mean(NamedTuple):
    from_x_t: Tensor
    from_x_0: Tensor


def _implied_mean(schedule: NoiseSchedule, variance: Tensor, t: int) -> _Mean:
    """Give the weights of x_t and x_0_hat in the mean m that Gaussian data would have."""
    noise = schedule.one_minus_alpha_bar(t)
    from_x_0 = _marginal_variance(schedule, variance, t) / noise
    return _Mean(-variance * schedule.alpha_bar(t).sqrt() / noise, from_x_0)
