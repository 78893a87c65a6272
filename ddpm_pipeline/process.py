r"""The forward process q and the reverse process p, each as a Gaussian, for any pair (t, s).

.. math::
    q(x_t \mid x_s) = \mathcal N(\sqrt{\alpha_{t|s}}\, x_s,\; \beta_{t|s} I)

.. math::
    q(x_t \mid x_0) = \mathcal N(\sqrt{\bar\alpha_t}\, x_0,\; (1 - \bar\alpha_t) I)

.. math::
    q(x_s \mid x_t, x_0) = \mathcal N\Big(
    \tfrac{\sqrt{\bar\alpha_s}\,\beta_{t|s}}{1 - \bar\alpha_t}\, x_0 +
    \tfrac{\sqrt{\alpha_{t|s}}\,(1 - \bar\alpha_s)}{1 - \bar\alpha_t}\, x_t,\;
    \tfrac{\beta_{t|s}\,(1 - \bar\alpha_s)}{1 - \bar\alpha_t} I\Big)

.. math::
    p_\theta(x_s \mid x_t) = q(x_s \mid x_t, \hat x_0)\text{ with a variance of its own}

The move goes from t down to s, -1 <= s < t < T, where s = -1 is clean data. Whatever a network
predicts, x_0 is linear in that prediction and x_t: PREDICTIONS holds the two coefficients in
each direction, and every conversion composes two of its rows.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from ddpm_pipeline.gaussian import Gaussian
from ddpm_pipeline.schedule import NoiseSchedule, Timestep, is_any

__all__ = [
    "PREDICTION_TYPES",
    "VARIANCE_TYPES",
    "PredictionType",
    "VarianceType",
    "broadcast",
    "convert",
    "forward",
    "marginal",
    "model_target",
    "posterior",
    "posterior_variance",
    "predict_x_0",
    "reverse",
    "x_0_variance_of_moves",
]

PredictionType = Literal["epsilon", "sample", "v_prediction", "score", "mean"]
VarianceType = Literal[
    "fixed_small",
    "fixed_small_log",
    "fixed_large",
    "fixed_large_log",
    "learned",
    "learned_range",
    "analytic",
]
PREDICTION_TYPES: tuple[str, ...] = get_args(PredictionType)
VARIANCE_TYPES: tuple[str, ...] = get_args(VarianceType)
LEARNED_VARIANCES = ("learned", "learned_range")

Coefficient = float | Tensor


def broadcast(coefficient: Tensor, x: Tensor) -> Tensor:
    """A per-example coefficient, shape () or (B,), as (B, 1, ..., 1) in x's dtype and device.

    Half-precision x gets float32 coefficients: bfloat16 cannot hold 1 - 1e-4.
    """
    dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
    coefficient = coefficient.to(x.device, dtype)
    return coefficient.reshape(-1, *[1] * (x.ndim - 1)) if coefficient.ndim else coefficient


def forward(
    schedule: NoiseSchedule, x_s: Tensor, t: Timestep, s: Timestep | None = None
) -> Gaussian:
    r"""q(x_t | x_s), the forward process from s up to t; one step of it for s = t - 1.

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
    s = _landing(t, s)
    mean = broadcast(schedule.alpha(t, s).sqrt(), x_s) * x_s
    return Gaussian(mean, broadcast(schedule.beta(t, s).log(), x_s))


def marginal(schedule: NoiseSchedule, x_0: Tensor, t: Timestep) -> Gaussian:
    r"""q(x_t | x_0), the closed form of t forward steps.

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
    r"""q(x_s | x_t, x_0), the forward posterior for s < t; DDPM's eq. 6-7 at s = t - 1.

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
    s = _landing(t, s)
    from_x_0, from_x_t = (broadcast(c, x_t) for c in posterior_mean_coefficients(schedule, t, s))
    log_var = posterior_variance(schedule, t, s).log()
    return Gaussian(_combine(from_x_0, x_0, from_x_t, x_t), broadcast(log_var, x_t))


def posterior_mean_coefficients(
    schedule: NoiseSchedule, t: Timestep, s: Timestep
) -> tuple[Tensor, Tensor]:
    """Weights of x_0 and of x_t in the mean of q(x_s | x_t, x_0), float64."""
    noise_t = schedule.one_minus_alpha_bar(t)
    from_x_0 = schedule.alpha_bar(s).sqrt() * schedule.beta(t, s) / noise_t
    from_x_t = schedule.alpha(t, s).sqrt() * schedule.one_minus_alpha_bar(s) / noise_t
    return from_x_0, from_x_t


def posterior_variance(schedule: NoiseSchedule, t: Timestep, s: Timestep | None = None) -> Tensor:
    """Variance of q(x_s | x_t, x_0), float64 in the shape of t; 0 at s = -1 (eq. 7)."""
    s = _landing(t, s)
    noise_share = schedule.one_minus_alpha_bar(s) / schedule.one_minus_alpha_bar(t)
    return schedule.beta(t, s) * noise_share


class _Levels(NamedTuple):
    """What a row of PREDICTIONS may use."""

    signal: Tensor  # sqrt(alpha_bar_t)
    noise: Tensor  # sqrt(1 - alpha_bar_t)
    mean_x_0: Tensor  # weight of x_0 in the posterior mean
    mean_x_t: Tensor  # weight of x_t in the posterior mean


class _Prediction(NamedTuple):
    """Coefficients (of x_t, of the other) that turn an output into x_0, and x_0 into an output."""

    to_x_0: Callable[[_Levels], tuple[Tensor, Tensor]]
    from_x_0: Callable[[_Levels], tuple[Tensor, Tensor]]


PREDICTIONS: dict[str, _Prediction] = {
    "epsilon": _Prediction(
        lambda c: (1 / c.signal, -c.noise / c.signal),
        lambda c: (1 / c.noise, -c.signal / c.noise),
    ),
    "sample": _Prediction(
        lambda c: (torch.zeros_like(c.signal), torch.ones_like(c.signal)),
        lambda c: (torch.zeros_like(c.signal), torch.ones_like(c.signal)),
    ),
    "v_prediction": _Prediction(
        lambda c: (c.signal, -c.noise),
        lambda c: (c.signal / c.noise, -1 / c.noise),
    ),
    "score": _Prediction(
        lambda c: (1 / c.signal, c.noise**2 / c.signal),
        lambda c: (-1 / c.noise**2, c.signal / c.noise**2),
    ),
    "mean": _Prediction(
        lambda c: (-c.mean_x_t / c.mean_x_0, 1 / c.mean_x_0),
        lambda c: (c.mean_x_t, c.mean_x_0),
    ),
}


def predict_x_0(
    schedule: NoiseSchedule,
    model_output: Tensor,
    x_t: Tensor,
    t: Timestep,
    s: Timestep | None = None,
    *,
    prediction_type: PredictionType = "epsilon",
) -> Tensor:
    r"""x_0 as the network's output implies it, e.g. (x_t - sqrt(1-alpha_bar) eps)/sqrt(alpha_bar).

    Arguments:
        schedule: Noise schedule with T steps.
        model_output: Output of the network without any variance channels, shape (B, *).
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
    return convert(schedule, model_output, x_t, t, s, from_type=prediction_type, to_type="sample")


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
    """A prediction of one type expressed as another; both rows compose in float64.

    Arguments, Returns and Raises are those of ``predict_x_0``, for ``to_type`` instead of x_0.
    """
    levels = _levels(schedule, t, _landing(t, s))
    to_x_t, to_value = _row(schedule, from_type).to_x_0(levels)
    from_x_t, from_x_0 = _row(schedule, to_type).from_x_0(levels)
    of_x_t = broadcast(from_x_t + from_x_0 * to_x_t, x_t)
    return _combine(of_x_t, x_t, broadcast(from_x_0 * to_value, x_t), value)


def model_target(
    schedule: NoiseSchedule,
    x_0: Tensor,
    eps: Tensor,
    t: Timestep,
    s: Timestep | None = None,
    *,
    prediction_type: PredictionType = "epsilon",
) -> Tensor:
    r"""What a perfect network of the given type outputs at x_t = signal * x_0 + noise * eps.

    Arguments:
        schedule: Noise schedule with T steps.
        x_0: Clean data, shape (B, *).
        eps: The noise that was added, shape (B, *).
        t, s: Timesteps as in ``posterior``, 0 <= t; s only matters for prediction_type "mean".
        prediction_type: One of PREDICTION_TYPES.
    Returns:
        Target of the regression, shape (B, *): eps itself, x_0 itself, v = signal*eps -
        noise*x_0, the score -eps/noise, or the posterior mean.
    Raises:
        ValueError: As ``predict_x_0``.
    Source: Salimans & Ho 2022 (arXiv:2202.00512), appendix D.
    """
    levels = _levels(schedule, t, _landing(t, s))
    from_x_t, from_x_0 = _row(schedule, prediction_type).from_x_0(levels)
    of_x_0 = broadcast(from_x_t * levels.signal + from_x_0, x_0)
    return _combine(of_x_0, x_0, broadcast(from_x_t * levels.noise, x_0), eps)


def _row(schedule: NoiseSchedule, prediction_type: str) -> _Prediction:
    check_prediction_type(schedule, prediction_type)
    return PREDICTIONS[prediction_type]


def check_prediction_type(schedule: NoiseSchedule, prediction_type: str) -> None:
    """ValueError if the type is unknown or cannot tell x_0 under this schedule."""
    if prediction_type not in PREDICTIONS:
        allowed = ", ".join(PREDICTIONS)
        raise ValueError(f"prediction_type must be one of {allowed}, got {prediction_type!r}")
    if prediction_type in ("epsilon", "score") and schedule.has_zero_terminal_snr:
        raise ValueError(
            f"prediction_type {prediction_type!r} is impossible with zero terminal SNR, where x_t "
            "holds nothing of x_0; use v_prediction or sample"
        )


def _levels(schedule: NoiseSchedule, t: Timestep, s: Timestep) -> _Levels:
    signal, noise = schedule.alpha_bar(t).sqrt(), schedule.one_minus_alpha_bar(t).sqrt()
    return _Levels(signal, noise, *posterior_mean_coefficients(schedule, t, s))


def reverse(
    schedule: NoiseSchedule,
    model_output: Tensor,
    x_t: Tensor,
    t: Timestep,
    s: Timestep | None = None,
    *,
    prediction_type: PredictionType = "epsilon",
    variance_type: VarianceType = "fixed_small",
    above: Timestep | None = None,
    x_0_variance: Tensor | None = None,
    x_0_map: Callable[[Tensor], Tensor] | None = None,
) -> Gaussian:
    r"""p(x_s | x_t): the posterior at the predicted x_0, with the chosen variance.

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
    s = _landing(t, s)
    move = reverse_coefficients(
        schedule,
        t,
        s,
        prediction_type=prediction_type,
        variance_type=variance_type,
        above=above,
        x_0_variance=x_0_variance,
    )
    move = ReverseMove(*(broadcast(c, x_t) for c in move))
    model_output, log_var_output = split_output(model_output, x_t, variance_type)
    x_0_hat = reverse_x_0(move, model_output, x_t)
    if x_0_map is not None:
        x_0_hat = x_0_map(x_0_hat)
    return Gaussian(
        reverse_mean(move, x_0_hat, x_t), reverse_log_var(move, log_var_output, variance_type)
    )


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
    """All that ``reverse`` needs of the schedule for the move (t, s); arguments as there."""
    check_variance_type(variance_type)
    levels = _levels(schedule, t, s)
    to_x_0 = _row(schedule, prediction_type).to_x_0(levels)
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
    r"""The scalar variance of p(x_s | x_t) that minimises the bound, float64.

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


def x_0_variance_of_moves(
    x_0_variance: Tensor, decoder_variance: Tensor, t: Tensor, s: Tensor
) -> Tensor:
    """v_t of moves t → s, and the decoder's own variance where they end at the data.

    Arguments:
        x_0_variance, decoder_variance: Shape (T,), on the device of the timesteps.
        t, s: Timesteps, int64, of one shape, -1 <= s < t < T.
    Returns:
        The dtype of the tables, the shape of t.
    """
    return torch.where(s < 0, decoder_variance[t], x_0_variance[t])


def _open_posterior_log_var(
    schedule: NoiseSchedule, t: Timestep, s: Timestep, above: Timestep | None
) -> Tensor:
    """log of the posterior variance; at s = -1, where it is 0, that of the move (above, t).

    A chain of one step has nothing above t: there it is log beta_{t|-1}.
    """
    t, s = torch.as_tensor(t), torch.as_tensor(s)
    above = t + 1 if above is None else torch.as_tensor(above, device=t.device)
    is_last = s < 0
    has_above = is_last & (above < len(schedule)) & (above > t)
    upper = torch.where(has_above, above, t)
    lower = torch.where(has_above, t, s)
    var = posterior_variance(schedule, upper, lower)
    return torch.where(is_last & ~has_above, schedule.beta(t, s), var).log()


def split_output(
    model_output: Tensor, x_t: Tensor, variance_type: str
) -> tuple[Tensor, Tensor | None]:
    """(prediction, variance output or None), with the channels checked against x_t.

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
    """The predicted x_0 of a move whose coefficients broadcast against x_t."""
    return _combine(move.x_0_from_x_t, x_t, move.x_0_from_output, model_output)


def reverse_mean(move: ReverseMove, x_0_hat: Tensor, x_t: Tensor) -> Tensor:
    """The mean of p(x_s | x_t) for a predicted, possibly clipped, x_0."""
    return _combine(move.mean_from_x_0, x_0_hat, move.mean_from_x_t, x_t)


def reverse_log_var(
    move: ReverseMove, log_var_output: Tensor | None, variance_type: str
) -> Coefficient:
    """The log-variance of p(x_s | x_t), given the network's variance output if it has one."""
    if variance_type == "learned":
        return log_var_output
    if variance_type == "learned_range":
        return move.log_var + (log_var_output + 1) / 2 * (move.log_var_high - move.log_var)
    return move.log_var


def check_variance_type(variance_type: str) -> None:
    """ValueError unless the type is one of VARIANCE_TYPES."""
    if variance_type not in VARIANCE_TYPES:
        allowed = ", ".join(VARIANCE_TYPES)
        raise ValueError(f"variance_type must be one of {allowed}, got {variance_type!r}")


def add_scaled_(x: Tensor, b: Coefficient, y: Tensor) -> Tensor:
    """x + b y in place, in one kernel, for a float or a broadcastable tensor b."""
    return x.addcmul_(b, y.to(b.dtype)) if isinstance(b, Tensor) else x.add_(y, alpha=b)


def _combine(a: Coefficient, x: Tensor, b: Coefficient, y: Tensor) -> Tensor:
    """a x + b y in the dtype of the coefficients."""
    return add_scaled_(torch.mul(x.to(a.dtype) if isinstance(a, Tensor) else x, a), b, y)


def _landing(t: Timestep, s: Timestep | None) -> Timestep:
    """s, or t - 1; checked to be below t where that needs no device synchronisation."""
    if s is None:
        return t - 1
    if is_any(np.greater_equal, s, t):
        raise ValueError(f"s must be below t, got t = {t} and s = {s}")
    return s
