r"""Progressive coding: what is known of an image once part of its code has arrived.

.. math::
    \text{rate}(t) = L_T + \sum_{i > t} L(t_i \to t_{i-1}), \qquad
    \text{distortion}(t) = \tfrac{255}{2} \sqrt{\mathbb E\|x_0 - \hat x_0(x_t)\|^2 / D}

The rate is the part of the bound that tells x_t: its prior, and the moves that end at t or above.
For data N(0, s²) with exact reverse steps it is 1/2 ln(1 + s² SNR_t), Shannon's rate for that
distortion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_pipeline.diffusion import (
    NoiseSchedule,
    PredictionType,
    VarianceType,
    bits_per_dim,
    check_chain,
    marginal,
    posterior,
    predict_x_0,
    prior_cost,
    split_output,
)
from ddpm_pipeline.networks import Denoiser, Told, evaluating, run_denoiser
from ddpm_pipeline.schedulers import Calibration, chain_costs

__all__ = ["RateDistortion", "progressive_reconstructions", "rate_distortion"]


class RateDistortion(NamedTuple):
    """Rate and distortion at every timestep of a chain and, last, with the whole code.

    Arguments:
        timesteps: The chain and then -1, int64, shape (K + 1,).
        rate: Bits per dimension that have arrived, float64, shape (K + 1,).
        distortion: Root mean square error in units of 0 ... 255, float64, shape (K + 1,).
    """

    timesteps: Tensor
    rate: Tensor
    distortion: Tensor


def rate_distortion(
    calibration: Calibration,
    schedule: NoiseSchedule,
    timesteps: Sequence[int] | Tensor | None = None,
    *,
    variance_type: VarianceType = "analytic",
) -> RateDistortion:
    """Give the rate–distortion curve of a model, from its calibration alone.

    Arguments:
        calibration: Of the model.
        schedule: That it was made with.
        timesteps: The chain that codes, strictly decreasing; the full one by default.
        variance_type: One of PRICED_VARIANCES.
    Returns:
        The curve, from almost nothing to the whole image.
    Raises:
        ValueError: If the timesteps are no chain, the variance type is not allowed, or the
            schedule is another one.
    Source: Ho et al. 2020 (arXiv:2006.11239), section 4.3 and figure 5.
    """
    calibration.check_schedule(schedule)
    T = len(schedule)
    chain = torch.tensor(check_chain(range(T - 1, -1, -1) if timesteps is None else timesteps, T))
    prior = prior_cost(schedule, calibration.second_moment, chain[:1])
    costs = chain_costs(calibration, schedule, chain, variance_type)
    nats = torch.cat([prior, costs]).cumsum(0)
    error = torch.cat([calibration.x_0_error[chain], torch.zeros(1, dtype=torch.float64)])
    chain = torch.cat([chain, torch.tensor([-1])])
    return RateDistortion(chain, bits_per_dim(nats, 1), 127.5 * error.sqrt())


def progressive_reconstructions(
    model: Denoiser,
    schedule: NoiseSchedule,
    x_0: Tensor,
    timesteps: Sequence[int] | Tensor,
    *,
    prediction_type: PredictionType = "epsilon",
    variance_type: VarianceType = "fixed_small",
    class_labels: Told = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Predict images from ever more of their code: x_0_hat(x_t) down a chain.

    Every x_s is drawn from q(x_s | x_t, x_0), as a receiver would see it arrive.

    Arguments:
        model: Called as model(x_t, t) with t of shape (B,), or with class_labels.
        schedule, prediction_type, variance_type: The scheduler's.
        x_0: Images in [-1, 1], shape (B, C, *), on the model's device.
        timesteps: The chain, strictly decreasing.
        class_labels: int64, shape (B,), for a class-conditional model.
        generator: Source of the noise.
    Returns:
        Shape (K, B, C, *), clamped to [-1, 1].
    Source: Ho et al. 2020, section 4.3 and figure 6.
    """
    chain = check_chain(timesteps, len(schedule))
    x_t, seen = marginal(schedule, x_0, chain[0]).sample(generator), []
    with evaluating(model):
        for t, s in zip(chain, [*chain[1:], None], strict=True):
            every = torch.full((len(x_0),), t, device=x_0.device)
            output = run_denoiser(model, x_t, every, class_labels)
            output, _ = split_output(output, x_t, variance_type)
            x_0_hat = predict_x_0(schedule, output, x_t, t, prediction_type=prediction_type)
            seen.append(x_0_hat.clamp(-1, 1))
            if s is not None:
                x_t = posterior(schedule, x_0, x_t, t, s).sample(generator)
    return torch.stack(seen)
