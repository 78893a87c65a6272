r"""Training objectives: the weighted regression of a network's output onto its target.

.. math::
    L(x_0, \epsilon, t) = w_t \cdot \tfrac1D \lVert y(x_0, \epsilon, t) - y_\theta(x_t, t) \rVert^2

y is what a perfect network of the prediction type outputs. Every error in y is an error in the
predicted x_0 times a slope, :math:`\hat x_0 = a_t x_t + b_t y_\theta`, so that a weight
:math:`\omega_t` on the error in x_0 is the weight :math:`w_t = \omega_t b_t^2` on that in y:

====================  ====================================================  =====================
weighting             :math:`\omega_t` on the error in x_0                  for :math:`\epsilon`
====================  ====================================================  =====================
``uniform``           :math:`1 / b_t^2`                                     1 (L_simple)
``snr``               :math:`\mathrm{SNR}_t`                                1
``min_snr``           :math:`\min(\mathrm{SNR}_t, \gamma)`                  min(1, γ/SNR)
``p2``                :math:`\mathrm{SNR}_t / (k + \mathrm{SNR}_t)^\gamma`  :math:`(k+SNR)^{-γ}`
====================  ====================================================  =====================

``uniform`` takes the network's own output as it is; the other three mean the same objective
whatever the network predicts. All of them are 0 or finite at zero terminal SNR.

That is the loss ``simple``. The bound itself is trained for by its terms in bits per dimension,
as a sum over the chain and not as a mean, hence T:

.. math::
    L_{\text{vlb}} = T \cdot L_t, \qquad
    L_{\text{hybrid}} = L_{\text{simple}} + \lambda\, T \cdot L_t
    \text{ with the mean of } p_\theta \text{ detached in the second term}

At t = 0 the bound's term is the discretised decoder's, elsewhere the transition's to t - 1. What
is computed with the coefficients of a timestep stands in ``objective``.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ddpm_pipeline.common import check_choice
from ddpm_pipeline.diffusion.choices import LOSS_WEIGHTINGS, Loss, LossWeighting
from ddpm_pipeline.diffusion.objective import (
    DecoderSplit,
    LossCoefficients,
    example_losses,
    noisy,
)
from ddpm_pipeline.diffusion.predictions import PredictionType, predict_x_0
from ddpm_pipeline.diffusion.reverse_model import ReverseProcess
from ddpm_pipeline.diffusion.reverse_process import VarianceType
from ddpm_pipeline.diffusion.schedule import NoiseSchedule

__all__ = ["loss_weights", "training_loss"]


_ON_X_0: dict[str, Callable[[Tensor, float, float, float], Tensor]] = {
    "snr": lambda snr, *_: snr,
    "min_snr": lambda snr, snr_gamma, *_: snr.clamp(max=snr_gamma),
    "p2": lambda snr, _, p2_gamma, p2_k: snr / (p2_k + snr) ** p2_gamma,
}


def loss_weights(
    schedule: NoiseSchedule,
    *,
    prediction_type: PredictionType = "epsilon",
    loss_weighting: LossWeighting = "uniform",
    snr_gamma: float = 5.0,
    p2_gamma: float = 1.0,
    p2_k: float = 1.0,
) -> Tensor:
    r"""Give w_t for every timestep: the weight on the squared error of the network's output.

    Arguments:
        schedule: Noise schedule with T steps.
        prediction_type: What the network predicts.
        loss_weighting: One of LOSS_WEIGHTINGS; see the module's table.
        snr_gamma: Cap on the weight of the error in x_0 under ``min_snr``, above 0.
        p2_gamma, p2_k: Exponent (at least 0) and offset (above 0) of ``p2``.
    Returns:
        float64 of shape (T,), on the CPU.
    Raises:
        ValueError: If an option is unknown or out of range.
    Source: Hang et al. 2023 (arXiv:2303.09556), eq. 8-9; Choi et al. 2022 (arXiv:2204.00227),
        eq. 8; Salimans & Ho 2022 (arXiv:2202.00512), section 4.
    """
    check_choice("loss_weighting", loss_weighting, LOSS_WEIGHTINGS)
    if snr_gamma <= 0 or p2_k <= 0 or p2_gamma < 0:
        raise ValueError(
            f"snr_gamma and p2_k must be above 0 and p2_gamma at least 0, got {snr_gamma}, {p2_k} "
            f"and {p2_gamma}"
        )
    t = torch.arange(len(schedule))
    if loss_weighting == "uniform":
        return torch.ones(len(schedule), dtype=torch.float64)
    one = torch.ones(len(schedule), 1, dtype=torch.float64)
    slope = predict_x_0(schedule, one, 0 * one, t, prediction_type=prediction_type).squeeze(1)
    return _ON_X_0[loss_weighting](schedule.snr(t), snr_gamma, p2_gamma, p2_k) * slope.square()


def training_loss(
    schedule: NoiseSchedule,
    model_output: Tensor,
    x_0: Tensor,
    eps: Tensor,
    t: Tensor,
    *,
    prediction_type: PredictionType = "epsilon",
    weights: Tensor | None = None,
    loss: Loss = "simple",
    variance_type: VarianceType = "fixed_small",
    vlb_weight: float = 1e-3,
) -> Tensor:
    """Give the loss of each example.

    Arguments:
        schedule: Noise schedule with T steps.
        model_output: The network's output at x_t, shape (B, C, *), or (B, 2C, *) for a learned
            variance; half precision is widened first.
        x_0: Clean data, shape (B, C, *).
        eps: The noise in x_t, shape (B, C, *).
        t: Timesteps, int64, shape (B,); on the CPU to keep the schedule's tables there.
        prediction_type: What the network predicts.
        weights: w_t from ``loss_weights``, shape (T,), on t's device; None is L_simple.
        loss: One of LOSSES; see ``check_loss``.
        variance_type: Variance of the reverse process; ``simple`` does not look at it.
        vlb_weight: lambda of ``hybrid``.
    Returns:
        Loss per example, shape (B,), in x_0's dtype.
    Raises:
        ValueError: If the channels do not fit the variance type.
    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 14; Nichol & Dhariwal 2021 (arXiv:2102.09672),
        eq. 16.
    """
    process = ReverseProcess(schedule, prediction_type, variance_type)
    coefficients = LossCoefficients.at(process, t, weights, loss, x_0.dtype).on(x_0.device)
    return example_losses(
        process,
        coefficients,
        None if loss == "simple" else DecoderSplit.of(t).on(x_0.device),
        model_output,
        x_0,
        eps,
        noisy(coefficients, x_0, eps),
        loss=loss,
        vlb_weight=vlb_weight,
        is_weighted=weights is not None,
    )
