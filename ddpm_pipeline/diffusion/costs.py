r"""What every move t → s adds to the bound, from one number per timestep and no forward pass.

.. math::
    L(t \to s) = \mathrm{KL}\big(\mathcal N(\mu, \lambda^2)\,\|\,\mathcal N(\hat\mu, \sigma^2)\big)
    = \tfrac12\Big[\tfrac{\lambda^2}{\sigma^2} - 1 + \ln\tfrac{\sigma^2}{\lambda^2}\Big]
    + \frac{a_{s|t}^2}{2\sigma^2}\, e_t, \qquad e_t = \mathbb E\|x_0 - \hat x_0\|^2 / D

with a the weight of x_0 in the mean of the move, :math:`\lambda^2` the variance of the forward
posterior (or DDIM's) and :math:`\sigma^2` that of the model: the two means differ by a(x_0 - x̂_0).
A chain costs its prior, its moves and its decoder, so the best chain of any length is a shortest
path (``shortest_paths``). Everything is in nats per dimension.
"""

import torch
from torch import Tensor

from ddpm_pipeline.diffusion.ddim import ddim_coefficients, ddim_posterior
from ddpm_pipeline.diffusion.forward_process import posterior_variance
from ddpm_pipeline.diffusion.gaussian import Gaussian
from ddpm_pipeline.diffusion.reverse_process import ReverseMove, VarianceType, reverse_coefficients
from ddpm_pipeline.diffusion.schedule import NoiseSchedule, Timestep

__all__ = [
    "PRICED_VARIANCES",
    "gaussian_rate",
    "linear_error",
    "lost_variance_costs",
    "move_costs",
    "prior_cost",
    "step_costs",
    "wiener_error",
]


PRICED_VARIANCES = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "analytic")
"""Variance types whose moves have a price without forward passes; a learned variance has none."""

_COMPONENTS_AT_ONCE = 4096  # times T numbers are in memory
_TYPICAL_VARIANCE = 0.25  # of images in [-1, 1]


def move_costs(
    schedule: NoiseSchedule,
    t: Tensor,
    s: Tensor,
    x_0_error: Tensor,
    *,
    variance_type: VarianceType = "analytic",
    x_0_variance: Tensor | None = None,
    eta: float | None = None,
) -> Tensor:
    r"""Give the bound's terms of some moves t → s between noisy steps.

    Arguments:
        schedule: Noise schedule with T steps.
        t, s: Timesteps, int64, shape (M,), 0 <= s < t < T.
        x_0_error: e_t = E||x_0 - x_0_hat||²/D at t, float64, shape (M,).
        variance_type: One of PRICED_VARIANCES: a learned variance has no price without forwards.
        x_0_variance: v_t of the analytic variance, shape (M,); e_t by default, which is optimal.
        eta: The moves of DDIM with this eta in (0, 1], of its own or the analytic variance.
    Returns:
        Nats per dimension, float64, shape (M,).
    Raises:
        ValueError: If an option is not allowed, or eta is 0.
    Source: Bao et al. 2022 (arXiv:2201.06503), eq. 9; Ho et al. 2020 (arXiv:2006.11239), eq. 5.
    """
    x_0_variance = x_0_error if x_0_variance is None else x_0_variance
    move, posterior_var = _move(schedule, t, s, variance_type, x_0_variance, eta)
    difference = move.mean_from_x_0 * x_0_error.to(posterior_var).sqrt()
    reverse = Gaussian(torch.zeros_like(difference), move.log_var)
    return Gaussian(difference, posterior_var.log()).kl(reverse)


def step_costs(
    schedule: NoiseSchedule,
    x_0_error: Tensor,
    decoder_costs: Tensor,
    *,
    variance_type: VarianceType = "analytic",
    x_0_variance: Tensor | None = None,
    eta: float | None = None,
) -> Tensor:
    r"""Give the bound's terms of all moves t → s, the moves to the data among them.

    Arguments:
        x_0_error: e_t, float64, shape (T,).
        decoder_costs: E[-log p(x_0 | x_t)]/D of the move from t to the data, shape (T,); for
            continuous data see ``continuous_decoder_costs``.
        schedule, variance_type, x_0_variance, eta: As in ``move_costs``, of shape (T,).
    Returns:
        Costs in nats per dimension, float64, shape (T, T + 1). [t, s + 1] is the move from t to
        s, column 0 the decoder, and infinity stands where s >= t.
    Raises:
        ValueError: As ``move_costs``, or if a shape is not (T,).
    """
    T = len(schedule)
    x_0_variance = x_0_error if x_0_variance is None else x_0_variance
    tables = {
        "x_0_error": x_0_error,
        "decoder_costs": decoder_costs,
        "x_0_variance": x_0_variance,
    }
    for name, table in tables.items():
        if table.shape != (T,):
            raise ValueError(f"{name} must have shape ({T},), got {(*table.shape,)}")
    t, s = torch.tril_indices(T, T, offset=-1)
    costs = torch.full((T, T + 1), torch.inf, dtype=torch.float64)
    costs[t, s + 1] = move_costs(
        schedule,
        t,
        s,
        x_0_error[t],
        variance_type=variance_type,
        x_0_variance=x_0_variance[t],
        eta=eta,
    )
    costs[:, 0] = decoder_costs
    return costs


def _move(
    schedule: NoiseSchedule,
    t: Timestep,
    s: Timestep,
    variance_type: VarianceType,
    x_0_variance: Tensor,
    eta: float | None,
) -> tuple[ReverseMove, Tensor]:
    """Give the reverse move, and the variance of the forward posterior that it is held against."""
    _check_price(variance_type, eta)
    if eta is None:
        move = reverse_coefficients(
            schedule,
            t,
            s,
            prediction_type="sample",
            variance_type=variance_type,
            x_0_variance=x_0_variance,
        )
        return move, posterior_variance(schedule, t, s)
    analytic = x_0_variance if variance_type == "analytic" else None
    move = ddim_coefficients(
        schedule, t, s, eta=eta, prediction_type="sample", x_0_variance=analytic
    )
    return move, ddim_posterior(schedule, t, s, eta)[2]


def _check_price(variance_type: str, eta: float | None) -> None:
    if variance_type not in PRICED_VARIANCES:
        raise ValueError(
            f"variance_type must be one of {', '.join(PRICED_VARIANCES)} for costs without "
            f"forwards, got {variance_type!r}; use variational_bound"
        )
    if eta == 0:
        raise ValueError(
            "eta must be above 0 for a bound, got 0: DDIM's moves have no noise, so that every "
            "KL divergence is infinite"
        )


def prior_cost(schedule: NoiseSchedule, second_moment: float, t: Timestep) -> Tensor:
    r"""Give E KL(q(x_t | x_0) || N(0, I)) per dimension, for chains that start at t.

    Arguments:
        schedule: Noise schedule with T steps.
        second_moment: E||x_0||²/D.
        t: Timestep or timesteps.
    Source: Ho et al. 2020, eq. 5, L_T.
    """
    mean = (schedule.alpha_bar(t) * second_moment).sqrt()
    standard = Gaussian(torch.zeros_like(mean), torch.zeros_like(mean))
    return Gaussian(mean, schedule.one_minus_alpha_bar(t).log()).kl(standard)


def lost_variance_costs(schedule: NoiseSchedule, error: Tensor) -> Tensor:
    r"""Give what steps of DDIM lose of the variance of Gaussian data, each step by itself.

    .. math::
        L(t \to s) = (W_t - W_s)\, \frac{\kappa_t - \kappa_s}{\kappa_t + \kappa_s},
        \qquad \kappa_t = \sqrt{(1 - \bar\alpha_t) / \bar\alpha_t}, \quad W_{-1} = \kappa_{-1} = 0

    A step with eta = 0 leaves a component of variance c² with cos² of the variance that it should
    have at s, the cosine of the angle atan(kappa_t/c) - atan(kappa_s/c). The mean of c² sin² over
    components is this product (docs/formulas.md, steps for samples). The sum over a chain is what
    its images lose to first order, and never less than what they lose.

    Arguments:
        schedule: Noise schedule with T steps.
        error: W_t as ``wiener_error`` returns it, float64, shape (T,).
    Returns:
        Mean variance lost per dimension, float64, shape (T, T + 1), as ``step_costs``.
    Raises:
        ValueError: If the shape is not (T,).
    """
    T = len(schedule)
    if error.shape != (T,):
        raise ValueError(f"error must have shape ({T},), got {(*error.shape,)}")
    signal = schedule.snr(torch.arange(T)).sqrt()  # 1/kappa, 0 at zero SNR
    share = (signal[None, :] - signal[:, None]) / (signal[None, :] + signal[:, None])
    moves = (error[:, None] - error[None, :]) * share
    moves = torch.where(torch.ones(T, T, dtype=torch.bool).tril(-1), moves, torch.inf)
    return torch.cat([error[:, None], moves], dim=1)


def wiener_error(schedule: NoiseSchedule, spectrum: Tensor) -> Tensor:
    r"""Give the mean square error of Wiener's filter, which knows the data's spectrum, (T,).

    .. math:: W_t = \tfrac1D \sum_k \lambda_k (1 - \bar\alpha_t)
        / (\lambda_k \bar\alpha_t + 1 - \bar\alpha_t)

    With the data's principal components it is the error of the best linear estimate of x_0; with
    Fourier components that of the best filter that treats all places alike, which is not less.

    Arguments:
        schedule: Noise schedule with T steps.
        spectrum: Variances lambda of the data's components in an orthonormal basis, float64,
            shape (D,).
    Source: Wiener 1949, "Extrapolation, interpolation, and smoothing of stationary time series".
    """
    t = torch.arange(len(schedule))
    signal, noise = schedule.alpha_bar(t)[:, None], schedule.one_minus_alpha_bar(t)[:, None]
    parts = spectrum.split(_COMPONENTS_AT_ONCE)
    total = sum((part * noise / (part * signal + noise)).sum(1) for part in parts)
    return total / len(spectrum)


def gaussian_rate(
    schedule: NoiseSchedule, t: Timestep, data_variance: float = _TYPICAL_VARIANCE
) -> Tensor:
    r"""Give what x_t tells of Gaussian data of a variance, in nats per dimension.

    .. math:: \tfrac12 \ln(1 + \text{variance} \cdot \mathrm{SNR}_t)

    Without any knowledge of the data it says about where along the chain the bound is made.

    Arguments:
        schedule: Noise schedule with T steps.
        t: Timesteps.
        data_variance: Of the data, per dimension.
    Source: Shannon 1948, section 25.
    """
    return torch.log1p(data_variance * schedule.snr(t)) / 2


def linear_error(schedule: NoiseSchedule, second_moment: float) -> Tensor:
    r"""Give the mean square error of the best multiple of x_t as an estimate of x_0, (T,).

    .. math:: q\,(1 - \bar\alpha_t) / (q\,\bar\alpha_t + 1 - \bar\alpha_t),
        \qquad q = \mathbb E\|x_0\|^2/D

    E Var(x_0 | x_t) is never above it. For q <= 1, as for all data in [-1, 1], neither is it
    above 1 - alpha_bar_t, which keeps the analytic variance between fixed_small and fixed_large.
    """
    t = torch.arange(len(schedule))
    noise = schedule.one_minus_alpha_bar(t)
    return second_moment * noise / (second_moment * schedule.alpha_bar(t) + noise)
