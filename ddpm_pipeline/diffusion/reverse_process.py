r"""The reverse process p: q's posterior at the x_0 that the network predicts.

.. math::
    p_\theta(x_s \mid x_t) = \mathcal N\big(\mu(\hat x_0, x_t),\; \sigma^2 I\big), \qquad
    \mu(\hat x_0, x_t) = \mathbb E_q[x_s \mid x_t, \hat x_0]

====================  ======================================================================
variance type         :math:`\sigma^2` of the move t → s
====================  ======================================================================
``fixed_small``       :math:`\tilde\beta_{t|s}`, the variance of :math:`q(x_s \mid x_t, x_0)`
``fixed_large``       :math:`\beta_{t|s}`
``learned_range``     between the two, where the network's second half of channels says
``learned``           what the network's second half of channels says
``analytic``          :math:`\tilde\beta_{t|s} + a_{t|s}^2\, v_t`, the best of all scalars
====================  ======================================================================

a is the weight of x_0 in the mean, and :math:`v_t = \mathbb E\,\mathrm{Var}(x_0 \mid x_t)/D`. The
names with ``_log`` mean what they mean without. All coefficients of a move come first
(``ReverseMove``), so that a chain of moves can be tabulated before there is any data.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_pipeline.common import check_choice
from ddpm_pipeline.diffusion.choices import LEARNED_VARIANCES, VARIANCE_TYPES, VarianceType
from ddpm_pipeline.diffusion.forward_process import (
    landing_of,
    posterior_mean_coefficients,
    posterior_variance,
)
from ddpm_pipeline.diffusion.gaussian import Gaussian
from ddpm_pipeline.diffusion.predictions import PredictionType, levels_at, prediction_row
from ddpm_pipeline.diffusion.schedule import NoiseSchedule, Timestep
from ddpm_pipeline.diffusion.tensors import Coefficient, broadcast, combine

__all__ = [
    "ReverseMove",
    "analytic_variance",
    "apply_move",
    "reverse",
    "reverse_coefficients",
    "reverse_log_var",
    "reverse_mean",
    "reverse_x_0",
    "split_output",
]


def reverse(
    schedule: NoiseSchedule,
    model_output: Tensor,
    x_t: Tensor,
    t: Timestep,
    s: Timestep | None = None,
    *,
    variance_type: VarianceType = "fixed_small",
    prediction_type: PredictionType = "epsilon",
    above: Timestep | None = None,
    x_0_variance: Tensor | None = None,
    x_0_map: Callable[[Tensor], Tensor] | None = None,
) -> Gaussian:
    r"""Give p(x_s | x_t): the posterior at the predicted x_0, with the chosen variance.

    fixed_small is the posterior variance, fixed_large is beta_{t|s}; learned_range puts log_var
    between the two by u = (o + 1)/2, never clamped; learned takes o as the log-variance; analytic
    adds to the posterior variance what x_t leaves open about x_0. The ``_log`` names are the
    same as without. At s = -1 the posterior variance is 0, so fixed_small and learned_range use
    its value at the chain's next step (above, t) instead, as Nichol & Dhariwal's code does.

    Arguments:
        schedule: Noise schedule with T steps.
        model_output: Output of the network, shape (B, C, *); (B, 2C, *) for learned variances,
            the second half being o.
        x_t: Noisy data at t, shape (B, C, *).
        t, s: Timesteps as in ``posterior``.
        prediction_type: One of PREDICTION_TYPES.
        variance_type: One of VARIANCE_TYPES.
        above: The chain's timestep before t, used at s = -1 only; t + 1 by default.
        x_0_variance: v_t = E Var(x_0 | x_t) per dimension, shape () or (B,); analytic only. At
            s = -1 it is the variance itself, which for 8-bit data need not be v_t.
        x_0_map: Applied to the predicted x_0, e.g. clipping; None leaves it alone.
    Returns:
        Gaussian with mean (B, C, *) and a log_var in nats that broadcasts against it.
    Raises:
        ValueError: If an option is unknown, a timestep is out of range, s >= t, the channels do
            not fit the variance type, or analytic has no x_0_variance.
    Source: Ho et al. 2020, eq. 1 and section 3.2; Nichol & Dhariwal 2021, eq. 15; Bao et al.
        2022, theorem 1.
    """
    s = landing_of(t, s)
    move = reverse_coefficients(
        schedule,
        t,
        s,
        prediction_type=prediction_type,
        variance_type=variance_type,
        above=above,
        x_0_variance=x_0_variance,
    )
    return apply_move(move, model_output, x_t, variance_type, x_0_map=x_0_map)


class ReverseMove(NamedTuple):
    """Coefficients of one reverse move, or of many: float64 tensors in the shape of t.

    ``log_var`` is the log-variance of the fixed types; learned_range moves it towards
    ``log_var_high`` and learned replaces it.
    """

    x_0_from_x_t: Coefficient
    x_0_from_output: Coefficient
    mean_from_x_0: Coefficient
    mean_from_x_t: Coefficient
    log_var: Coefficient
    log_var_high: Coefficient


def reverse_coefficients(
    schedule: NoiseSchedule,
    t: Timestep,
    s: Timestep,
    *,
    prediction_type: PredictionType,
    variance_type: VarianceType,
    above: Timestep | None = None,
    x_0_variance: Tensor | None = None,
) -> ReverseMove:
    """Compute all that ``reverse`` needs of the schedule; arguments as there."""
    check_choice("variance_type", variance_type, VARIANCE_TYPES)
    levels = levels_at(schedule, t, s)
    to_x_0 = prediction_row(schedule, prediction_type).to_x_0(levels)
    high = schedule.beta(t, s).log()
    if variance_type in ("fixed_large", "fixed_large_log"):
        log_var = high
    elif variance_type == "analytic":
        if x_0_variance is None:
            raise ValueError("variance_type 'analytic' needs x_0_variance, got None; calibrate")
        log_var = analytic_variance(schedule, t, s, x_0_variance).log()
    else:
        log_var = _open_posterior_log_var(schedule, t, s, above)
    return ReverseMove(*to_x_0, levels.mean_x_0, levels.mean_x_t, log_var, high)


def analytic_variance(
    schedule: NoiseSchedule, t: Timestep, s: Timestep, x_0_variance: Tensor
) -> Tensor:
    r"""Give the scalar variance of p(x_s | x_t) that minimises the bound, float64.

    .. math:: \sigma^2_{s|t} = \tilde\beta_{s|t}
        + \bar\alpha_s \beta_{t|s}^2 / (1 - \bar\alpha_t)^2 \cdot v_t

    Arguments:
        schedule: Noise schedule with T steps.
        t, s: Timesteps as in ``posterior``.
        x_0_variance: v_t = E||x_0 - E[x_0|x_t]||²/D, shape () or (B,).
    Source: Bao et al. 2022 (arXiv:2201.06503), theorem 1.
    """
    mean_x_0, _ = posterior_mean_coefficients(schedule, t, s)
    return posterior_variance(schedule, t, s) + mean_x_0.square() * x_0_variance.to(mean_x_0)


def _open_posterior_log_var(
    schedule: NoiseSchedule, t: Timestep, s: Timestep, above: Timestep | None
) -> Tensor:
    """Give the log of the posterior variance; at s = -1, where it is 0, of the move (above, t).

    A chain of one step has nothing above t: there it is log beta_{t|-1}.
    """
    t, s = torch.as_tensor(t), torch.as_tensor(s)
    above = t + 1 if above is None else above
    if isinstance(above, Tensor):  # a number stays one: a copy to a device would wait for it
        above = above.to(t.device)
    is_last = s < 0
    has_above = is_last & (above < len(schedule)) & (above > t)
    upper = torch.where(has_above, above, t)
    lower = torch.where(has_above, t, s)
    var = posterior_variance(schedule, upper, lower)
    return torch.where(is_last & ~has_above, schedule.beta(t, s), var).log()


def apply_move(
    move: ReverseMove,
    model_output: Tensor,
    x_t: Tensor,
    variance_type: VarianceType,
    *,
    x_0_map: Callable[[Tensor], Tensor] | None = None,
) -> Gaussian:
    """Give p(x_s | x_t) by the coefficients of a move; the other arguments as in ``reverse``."""
    move = ReverseMove(*(broadcast(c, x_t) for c in move))
    model_output, log_var_output = split_output(model_output, x_t, variance_type)
    x_0_hat = reverse_x_0(move, model_output, x_t)
    if x_0_map is not None:
        x_0_hat = x_0_map(x_0_hat)
    return Gaussian(
        reverse_mean(move, x_0_hat, x_t), reverse_log_var(move, log_var_output, variance_type)
    )


def split_output(
    model_output: Tensor, x_t: Tensor, variance_type: str
) -> tuple[Tensor, Tensor | None]:
    """Split an output into (prediction, variance output or None); check its channels by x_t.

    Raises:
        ValueError: If model_output has other channels than x_t and variance_type ask for.
    """
    channels = x_t.shape[1]
    learned = variance_type in LEARNED_VARIANCES
    expected = 2 * channels if learned else channels
    if model_output.shape[1] != expected:
        raise ValueError(
            f"model_output must have {expected} channels for variance_type {variance_type!r} and "
            f"{channels} image channels, got {model_output.shape[1]}"
        )
    if not learned:
        return model_output, None
    prediction, log_var_output = model_output.chunk(2, dim=1)
    return prediction, log_var_output


def reverse_x_0(move: ReverseMove, model_output: Tensor, x_t: Tensor) -> Tensor:
    """Give the predicted x_0 of a move whose coefficients broadcast against x_t."""
    return combine(move.x_0_from_x_t, x_t, move.x_0_from_output, model_output)


def reverse_mean(move: ReverseMove, x_0_hat: Tensor, x_t: Tensor) -> Tensor:
    """Give the mean of p(x_s | x_t) for a predicted, possibly clipped, x_0."""
    return combine(move.mean_from_x_0, x_0_hat, move.mean_from_x_t, x_t)


def reverse_log_var(
    move: ReverseMove, log_var_output: Tensor | None, variance_type: str
) -> Coefficient:
    """Give the log-variance of p(x_s | x_t), from the network's variance output if it has one."""
    if variance_type == "learned":
        return log_var_output
    if variance_type == "learned_range":
        return move.log_var + (log_var_output + 1) / 2 * (move.log_var_high - move.log_var)
    return move.log_var
