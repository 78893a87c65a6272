r"""The forward process q, each of its distributions as a Gaussian, for any pair (t, s).

.. math::
    q(x_t \mid x_s) = \mathcal N(\sqrt{\alpha_{t|s}}\, x_s,\; \beta_{t|s} I)

.. math::
    q(x_t \mid x_0) = \mathcal N(\sqrt{\bar\alpha_t}\, x_0,\; (1 - \bar\alpha_t) I)

.. math::
    q(x_s \mid x_t, x_0) = \mathcal N\Big(
    \tfrac{\sqrt{\bar\alpha_s}\,\beta_{t|s}}{1 - \bar\alpha_t}\, x_0 +
    \tfrac{\sqrt{\alpha_{t|s}}\,(1 - \bar\alpha_s)}{1 - \bar\alpha_t}\, x_t,\;
    \tfrac{\beta_{t|s}\,(1 - \bar\alpha_s)}{1 - \bar\alpha_t} I\Big)

-1 <= s < t < T, and s = -1 is clean data. The last variance is the paper's :math:`\tilde\beta_t`
if s = t - 1.
"""

import numpy as np
from torch import Tensor

from ddpm_pipeline.diffusion.gaussian import Gaussian
from ddpm_pipeline.diffusion.schedule import NoiseSchedule, Timestep, is_any
from ddpm_pipeline.diffusion.tensors import broadcast, combine

__all__ = [
    "forward",
    "landing_of",
    "marginal",
    "posterior",
    "posterior_mean_coefficients",
    "posterior_variance",
]


def forward(
    schedule: NoiseSchedule, x_s: Tensor, t: Timestep, s: Timestep | None = None
) -> Gaussian:
    r"""Give q(x_t | x_s), the forward process from s up to t; one step of it for s = t - 1.

    Arguments:
        schedule: Noise schedule with T steps.
        x_s: Data at s, shape (B, *), floating point.
        t, s: Timesteps, int or int64 of shape (B,) or (), -1 <= s < t < T; s defaults to t - 1.
    Returns:
        Gaussian with mean (B, *) in float32 or float64, log_var of shape () or (B, 1, ..., 1).
    Raises:
        ValueError: If any s >= t, or a timestep lies outside its range.
    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 2.
    """
    s = landing_of(t, s)
    mean = broadcast(schedule.alpha(t, s).sqrt(), x_s) * x_s
    return Gaussian(mean, broadcast(schedule.beta(t, s).log(), x_s))


def marginal(schedule: NoiseSchedule, x_0: Tensor, t: Timestep) -> Gaussian:
    r"""Give q(x_t | x_0), the closed form of t forward steps.

    Arguments:
        schedule: Noise schedule with T steps.
        x_0: Clean data, shape (B, *), floating point.
        t: Timesteps, int or int64 of shape (B,) or (); -1 gives a point mass at x_0.
    Returns:
        Gaussian with mean (B, *) in float32 or float64, log_var of shape () or (B, 1, ..., 1).
    Raises:
        ValueError: If t lies outside [-1, T-1].
    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 4.
    """
    mean = broadcast(schedule.alpha_bar(t).sqrt(), x_0) * x_0
    return Gaussian(mean, broadcast(schedule.one_minus_alpha_bar(t).log(), x_0))


def posterior(
    schedule: NoiseSchedule, x_0: Tensor, x_t: Tensor, t: Timestep, s: Timestep | None = None
) -> Gaussian:
    r"""Give q(x_s | x_t, x_0), the forward posterior for s < t; DDPM's eq. 6-7 at s = t - 1.

    Arguments:
        schedule: Noise schedule with T steps.
        x_0: Clean data, shape (B, *), floating point.
        x_t: Noisy data at t, shape (B, *).
        t, s: Timesteps, int or int64 of shape (B,) or (), -1 <= s < t < T; s defaults to t - 1.
    Returns:
        Gaussian with mean (B, *), log_var of shape () or (B, 1, ..., 1); a point mass at x_0
        (log_var = -inf) at s = -1.
    Raises:
        ValueError: If any s >= t, or a timestep lies outside its range.
    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 6-7.
    """
    s = landing_of(t, s)
    from_x_0, from_x_t = (broadcast(c, x_t) for c in posterior_mean_coefficients(schedule, t, s))
    log_var = posterior_variance(schedule, t, s).log()
    return Gaussian(combine(from_x_0, x_0, from_x_t, x_t), broadcast(log_var, x_t))


def posterior_mean_coefficients(
    schedule: NoiseSchedule, t: Timestep, s: Timestep
) -> tuple[Tensor, Tensor]:
    """Give the weights of x_0 and of x_t in the mean of q(x_s | x_t, x_0), float64."""
    noise_t = schedule.one_minus_alpha_bar(t)
    from_x_0 = schedule.alpha_bar(s).sqrt() * schedule.beta(t, s) / noise_t
    from_x_t = schedule.alpha(t, s).sqrt() * schedule.one_minus_alpha_bar(s) / noise_t
    return from_x_0, from_x_t


def posterior_variance(schedule: NoiseSchedule, t: Timestep, s: Timestep | None = None) -> Tensor:
    """Give the variance of q(x_s | x_t, x_0), float64 in the shape of t; 0 at s = -1 (eq. 7)."""
    s = landing_of(t, s)
    noise_share = schedule.one_minus_alpha_bar(s) / schedule.one_minus_alpha_bar(t)
    return schedule.beta(t, s) * noise_share


def landing_of(t: Timestep, s: Timestep | None) -> Timestep:
    """Give s, by default t - 1, checked to be below t if that needs no synchronisation."""
    if s is None:
        return t - 1
    if is_any(np.greater_equal, s, t):
        raise ValueError(f"s must be below t, got t = {t} and s = {s}")
    return s
