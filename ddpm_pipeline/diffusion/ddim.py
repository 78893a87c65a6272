r"""The family of processes that share q(x_t | x_0) with DDPM and differ in the noise of a move.

.. math::
    q_\lambda(x_s \mid x_t, x_0) = \mathcal N\Big(\sqrt{\bar\alpha_s}\, x_0 +
    \sqrt{1 - \bar\alpha_s - \lambda^2}\; \tfrac{x_t - \sqrt{\bar\alpha_t}\, x_0}
    {\sqrt{1 - \bar\alpha_t}},\; \lambda^2 I\Big), \qquad
    \lambda^2 = \eta^2\, \tilde\beta_{s|t}

eta = 1 is DDPM's posterior and eta = 0 is DDIM. The best scalar variance of p(x_s | x_t) follows
as in ``reverse_process``, with the weight of x_0 in this mean:

.. math::
    \sigma^2 = \lambda^2 + \Big(\sqrt{\bar\alpha_s} - \sqrt{1 - \bar\alpha_s - \lambda^2}\,
    \sqrt{\bar\alpha_t / (1 - \bar\alpha_t)}\Big)^2 v_t

It is above 0 for eta = 0 as well: that is what x_t leaves open about x_0.
"""

import torch
from torch import Tensor

from ddpm_pipeline.diffusion.choices import check_eta
from ddpm_pipeline.diffusion.forward_process import posterior_variance
from ddpm_pipeline.diffusion.predictions import PredictionType
from ddpm_pipeline.diffusion.reverse_process import ReverseMove, reverse_coefficients
from ddpm_pipeline.diffusion.schedule import NoiseSchedule, Timestep

__all__ = ["ddim_coefficients", "ddim_posterior"]


def ddim_posterior(
    schedule: NoiseSchedule, t: Timestep, s: Timestep, eta: float
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Give the weights of x_0 and x_t in the mean of q_lambda(x_s | x_t, x_0), and its variance.

    Arguments:
        schedule: Noise schedule with T steps.
        t, s: Timesteps, int or int64, -1 <= s < t < T.
        eta: Share of the posterior's standard deviation, in [0, 1].
    Returns:
        Three float64 tensors in the shape of t.
    Raises:
        ValueError: If eta is outside [0, 1], or any s >= t.
    Source: Song et al. 2020 (arXiv:2010.02502), eq. 7 and 16.
    """
    check_eta(eta)
    posterior_var = posterior_variance(schedule, t, s)
    noise_s, noise_t = schedule.one_minus_alpha_bar(s), schedule.one_minus_alpha_bar(t)
    # noise_s - eta² posterior_var, without its cancellation at eta = 1.
    kept = (1 - eta**2) * noise_s + eta**2 * schedule.alpha(t, s) * noise_s.square() / noise_t
    from_x_t = (kept / noise_t).sqrt()
    from_x_0 = schedule.alpha_bar(s).sqrt() - from_x_t * schedule.alpha_bar(t).sqrt()
    return from_x_0, from_x_t, eta**2 * posterior_var


def ddim_coefficients(
    schedule: NoiseSchedule,
    t: Timestep,
    s: Timestep,
    *,
    eta: float,
    prediction_type: PredictionType,
    x_0_variance: Tensor | None = None,
) -> ReverseMove:
    """Give the coefficients of DDIM's reverse move (t, s), as ``reverse_coefficients`` does.

    Arguments:
        schedule, t, s, eta: As in ``ddim_posterior``.
        prediction_type: One of PREDICTION_TYPES.
        x_0_variance: v_t per dimension, for the best variance; None keeps lambda².
    Returns:
        The move, whose log_var is -inf where its variance is 0.
    Raises:
        ValueError: As ``ddim_posterior`` and ``predict_x_0``.
    Source: Song et al. 2020, eq. 12; Bao et al. 2022 (arXiv:2201.06503), eq. 8.
    """
    move = reverse_coefficients(
        schedule, t, s, prediction_type=prediction_type, variance_type="fixed_large"
    )
    from_x_0, from_x_t, var = ddim_posterior(schedule, t, s, eta)
    if x_0_variance is not None:
        var = var + from_x_0.square() * x_0_variance.to(var)
    return move._replace(mean_from_x_0=from_x_0, mean_from_x_t=from_x_t, log_var=torch.log(var))
