r"""What a network predicts, and how each kind of prediction turns into any other.

==================  =====================================================================
prediction type     what a perfect network outputs at :math:`x_t`
==================  =====================================================================
``epsilon``         the noise :math:`\epsilon`
``sample``          the data :math:`x_0`
``v_prediction``    :math:`v = \sqrt{\bar\alpha_t}\,\epsilon - \sqrt{1 - \bar\alpha_t}\,x_0`
``score``           :math:`\nabla_{x_t} \log q(x_t \mid x_0) = -\epsilon/\sqrt{1-\bar\alpha_t}`
``mean``            the mean of :math:`q(x_s \mid x_t, x_0)`
==================  =====================================================================

Whatever it is, x_0 is linear in it and in x_t,

.. math::
    x_0 = a\, x_t + b\, y, \qquad y = c\, x_t + d\, x_0

PREDICTIONS holds (a, b) and (c, d) of each type, and every conversion composes two of its rows.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_pipeline.common import check_choice
from ddpm_pipeline.diffusion.choices import PredictionType
from ddpm_pipeline.diffusion.forward_process import landing_of, posterior_mean_coefficients
from ddpm_pipeline.diffusion.schedule import NoiseSchedule, Timestep
from ddpm_pipeline.diffusion.tensors import broadcast, combine

__all__ = [
    "PREDICTIONS",
    "check_prediction_type",
    "conversion_weights",
    "convert",
    "levels_at",
    "model_target",
    "predict_x_0",
    "prediction_row",
    "target_weights",
    "velocity_at",
]


class Levels(NamedTuple):
    """Coefficients of a move (t, s), float64, that a row of PREDICTIONS may use."""

    signal: Tensor  # sqrt(alpha_bar_t)
    noise: Tensor  # sqrt(1 - alpha_bar_t)
    mean_x_0: Tensor  # weight of x_0 in the posterior mean
    mean_x_t: Tensor  # weight of x_t in the posterior mean


class Prediction(NamedTuple):
    """Coefficients (of x_t, of the other) that turn an output into x_0, and x_0 into an output."""

    to_x_0: Callable[[Levels], tuple[Tensor, Tensor]]
    from_x_0: Callable[[Levels], tuple[Tensor, Tensor]]


PREDICTIONS: dict[str, Prediction] = {
    "epsilon": Prediction(
        lambda c: (1 / c.signal, -c.noise / c.signal),
        lambda c: (1 / c.noise, -c.signal / c.noise),
    ),
    "sample": Prediction(
        lambda c: (torch.zeros_like(c.signal), torch.ones_like(c.signal)),
        lambda c: (torch.zeros_like(c.signal), torch.ones_like(c.signal)),
    ),
    "v_prediction": Prediction(
        lambda c: (c.signal, -c.noise),
        lambda c: (c.signal / c.noise, -1 / c.noise),
    ),
    "score": Prediction(
        lambda c: (1 / c.signal, c.noise**2 / c.signal),
        lambda c: (-1 / c.noise**2, c.signal / c.noise**2),
    ),
    "mean": Prediction(
        lambda c: (-c.mean_x_t / c.mean_x_0, 1 / c.mean_x_0),
        lambda c: (c.mean_x_t, c.mean_x_0),
    ),
}


def predict_x_0(
    schedule: NoiseSchedule,
    prediction: Tensor,
    x_t: Tensor,
    t: Timestep,
    s: Timestep | None = None,
    *,
    prediction_type: PredictionType = "epsilon",
) -> Tensor:
    r"""Give the x_0 that an output implies, e.g. (x_t - sqrt(1-alpha_bar) eps)/sqrt(alpha_bar).

    Arguments:
        schedule: Noise schedule with T steps.
        prediction: Output of the network without any variance channels, shape (B, *).
        x_t: Noisy data at t, shape (B, *).
        t, s: Timesteps as in ``posterior``; s only matters for prediction_type "mean".
        prediction_type: One of PREDICTION_TYPES.
    Returns:
        Estimate of x_0, shape (B, *), not clipped.
    Raises:
        ValueError: If the type is unknown, a timestep is out of range, or alpha_bar is zero
            somewhere in the schedule and the type (epsilon, score) cannot tell x_0 there.
    Source: Ho et al. 2020, eq. 15; Salimans & Ho 2022 (arXiv:2202.00512), appendix D.
    """
    return convert(schedule, prediction, x_t, t, s, from_type=prediction_type, to_type="sample")


def convert(
    schedule: NoiseSchedule,
    value: Tensor,
    x_t: Tensor,
    t: Timestep,
    s: Timestep | None = None,
    *,
    from_type: PredictionType,
    to_type: PredictionType,
) -> Tensor:
    """Express a prediction of one type as another; both rows compose in float64.

    Arguments, Returns and Raises are those of ``predict_x_0``, for ``to_type`` instead of x_0.
    """
    levels = levels_at(schedule, t, landing_of(t, s))
    rows = prediction_row(schedule, from_type), prediction_row(schedule, to_type)
    of_x_t, of_value = _composed(*rows, levels, levels)
    return combine(broadcast(of_x_t, x_t), x_t, broadcast(of_value, x_t), value)


def conversion_weights(
    seen: tuple[Tensor, Tensor], meant: tuple[Tensor, Tensor], *, from_type: str, to_type: str
) -> tuple[Tensor, Tensor]:
    r"""Give (a, b) with a x_t + b y the prediction that another network would have given.

    Arguments:
        seen: :math:`\sqrt{\bar\alpha}` and :math:`\sqrt{1-\bar\alpha}` that the network which
            gave y takes x_t to have, float64.
        meant: Those that x_t has.
        from_type, to_type: Of y and of what is wanted; not "mean", which needs a move.
    """
    unused = torch.full_like(seen[0], torch.nan)
    levels = (Levels(*pair, unused, unused) for pair in (seen, meant))
    return _composed(PREDICTIONS[from_type], PREDICTIONS[to_type], *levels)


def _composed(
    from_row: Prediction, to_row: Prediction, seen: Levels, meant: Levels
) -> tuple[Tensor, Tensor]:
    """Go from one row over x_0 to another: the weights of x_t and of the prediction."""
    to_x_t, to_value = from_row.to_x_0(seen)
    from_x_t, from_x_0 = to_row.from_x_0(meant)
    return from_x_t + from_x_0 * to_x_t, from_x_0 * to_value


def velocity_at(
    alpha_bar: Tensor, one_minus: Tensor, value: Tensor, x: Tensor, *, from_type: PredictionType
) -> Tensor:
    """Express a prediction as v at any level of noise, between two timesteps too.

    Arguments:
        alpha_bar, one_minus: Shares of signal and noise, float64, of shape () or (B,).
        value: A prediction of a type other than "mean", shape (B, *).
        x: Noisy data of that level, shape (B, *).
        from_type: Of the prediction.
    """
    levels = Levels(alpha_bar.sqrt(), one_minus.sqrt(), alpha_bar, alpha_bar)
    if from_type == "v_prediction":
        return value
    to_x, to_value = PREDICTIONS[from_type].to_x_0(levels)
    from_x, from_x_0 = PREDICTIONS["v_prediction"].from_x_0(levels)
    of_x = broadcast(from_x + from_x_0 * to_x, x)
    return combine(of_x, x, broadcast(from_x_0 * to_value, x), value)


def model_target(
    schedule: NoiseSchedule,
    x_0: Tensor,
    eps: Tensor,
    t: Timestep,
    s: Timestep | None = None,
    *,
    prediction_type: PredictionType = "epsilon",
) -> Tensor:
    r"""Give what a perfect network of the type outputs at x_t = signal * x_0 + noise * eps.

    Arguments:
        schedule: Noise schedule with T steps.
        x_0: Clean data, shape (B, *).
        eps: The noise that was added, shape (B, *).
        t, s: Timesteps as in ``posterior``, 0 <= t; s only matters for prediction_type "mean".
        prediction_type: One of PREDICTION_TYPES.
    Returns:
        Target of the regression, shape (B, *). It is eps itself, x_0 itself, v = signal*eps -
        noise*x_0, the score -eps/noise, or the posterior mean.
    Raises:
        ValueError: As ``predict_x_0``.
    Source: Salimans & Ho 2022 (arXiv:2202.00512), appendix D.
    """
    of_x_0, of_eps = target_weights(schedule, t, s, prediction_type=prediction_type)
    return combine(broadcast(of_x_0, x_0), x_0, broadcast(of_eps, x_0), eps)


def target_weights(
    schedule: NoiseSchedule,
    t: Timestep,
    s: Timestep | None = None,
    *,
    prediction_type: PredictionType = "epsilon",
) -> tuple[Tensor, Tensor]:
    """Give the weights of x_0 and of eps in ``model_target``, float64 in the shape of t."""
    levels = levels_at(schedule, t, landing_of(t, s))
    from_x_t, from_x_0 = prediction_row(schedule, prediction_type).from_x_0(levels)
    return from_x_t * levels.signal + from_x_0, from_x_t * levels.noise


def check_prediction_type(schedule: NoiseSchedule, prediction_type: str) -> None:
    """Refuse a type that is unknown, or cannot tell x_0 under this schedule.

    Raises:
        ValueError: If it is one of these.
    """
    check_choice("prediction_type", prediction_type, PREDICTIONS)
    if prediction_type in ("epsilon", "score") and schedule.has_zero_terminal_snr:
        raise ValueError(
            f"prediction_type {prediction_type!r} is impossible with zero terminal SNR, where x_t "
            "holds nothing of x_0; use v_prediction or sample"
        )


def prediction_row(schedule: NoiseSchedule, prediction_type: str) -> Prediction:
    """Give a type's row of PREDICTIONS, checked as ``check_prediction_type`` does."""
    check_prediction_type(schedule, prediction_type)
    return PREDICTIONS[prediction_type]


def levels_at(schedule: NoiseSchedule, t: Timestep, s: Timestep) -> Levels:
    """Give the coefficients of the move (t, s)."""
    signal, noise = schedule.alpha_bar(t).sqrt(), schedule.one_minus_alpha_bar(t).sqrt()
    return Levels(signal, noise, *posterior_mean_coefficients(schedule, t, s))
