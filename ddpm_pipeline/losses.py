r"""Training objectives: the weighted regression of a network's output onto its target.

.. math::
    L(x_0, \epsilon, t) = w_t \cdot \tfrac1D \lVert y(x_0, \epsilon, t) - y_\theta(x_t, t) \rVert^2

y is what a perfect network of the prediction type outputs. Every error in y is an error in the
predicted x_0 times a slope, :math:`\hat x_0 = a_t x_t + b_t y_\theta`, so that a weight
:math:`\omega_t` on the error in x_0 is the weight :math:`w_t = \omega_t b_t^2` on that in y:

====================  ===================================================  ====================
weighting             :math:`\omega_t` on the error in x_0                 for :math:`\epsilon`
====================  ===================================================  ====================
``uniform``           :math:`1 / b_t^2`                                    1 (L_simple)
``snr``               :math:`\mathrm{SNR}_t`                               1
``min_snr``           :math:`\min(\mathrm{SNR}_t, \gamma)`                 min(1, γ/SNR)
``p2``                :math:`\mathrm{SNR}_t / (k + \mathrm{SNR}_t)^\gamma` :math:`(k+SNR)^{-γ}`
====================  ===================================================  ====================

``uniform`` takes the network's own output as it is; the other three mean the same objective
whatever the network predicts. All of them are 0 or finite at zero terminal SNR.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from ddpm_pipeline.process import PredictionType, broadcast, model_target, predict_x_0
from ddpm_pipeline.schedule import NoiseSchedule

__all__ = [
    "LOSS_WEIGHTINGS",
    "LossWeighting",
    "loss_weights",
    "training_loss",
]

LossWeighting = Literal["uniform", "snr", "min_snr", "p2"]
LOSS_WEIGHTINGS: tuple[str, ...] = get_args(LossWeighting)

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
    r"""w_t for every timestep: the weight on the squared error of the network's own output.

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
    if loss_weighting not in LOSS_WEIGHTINGS:
        allowed = ", ".join(LOSS_WEIGHTINGS)
        raise ValueError(f"loss_weighting must be one of {allowed}, got {loss_weighting!r}")
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
) -> Tensor:
    """The weighted mean squared error of each example.

    Arguments:
        schedule: Noise schedule with T steps.
        model_output: The network's output at x_t, shape (B, *); half precision is widened first.
        x_0: Clean data, shape (B, *).
        eps: The noise in x_t, shape (B, *).
        t: Timesteps, int64, shape (B,); on the CPU to keep the schedule's tables there.
        prediction_type: What the network predicts.
        weights: w_t from ``loss_weights``, shape (T,), on t's device; None is L_simple.
    Returns:
        Loss per example, shape (B,), in x_0's dtype.
    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 14.
    """
    target = model_target(schedule, x_0, eps, t, prediction_type=prediction_type)
    losses = (model_output.to(x_0.dtype) - target).square().flatten(1).mean(1)
    return losses if weights is None else broadcast(weights[t], losses) * losses
