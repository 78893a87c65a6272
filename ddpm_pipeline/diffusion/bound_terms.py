r"""The terms of the variational bound, each from one output of the network.

For a chain t_K > ... > t_1 of timesteps, and s the one below t,

.. math::
    -\log p_\theta(x_0) \le
    \underbrace{\mathrm{KL}(q(x_{t_K} \mid x_0)\,\|\,\mathcal N(0, I))}_{\text{prior}}
    + \sum_{t > t_1} \underbrace{\mathbb E_q\,
      \mathrm{KL}(q(x_s \mid x_t, x_0)\,\|\,p_\theta(x_s \mid x_t))}_{\text{transitions}}
    + \underbrace{\mathbb E_q[-\log p_\theta(x_0 \mid x_{t_1})]}_{\text{decoder}}

Each is a sum over the elements of an example, in nats. ``bits_per_dim`` is the only place where
the unit changes.
"""

import math
from collections.abc import Callable

from torch import Tensor

from ddpm_pipeline.common import check_choice
from ddpm_pipeline.diffusion.choices import DECODERS, Decoder
from ddpm_pipeline.diffusion.forward_process import marginal, posterior
from ddpm_pipeline.diffusion.gaussian import Gaussian
from ddpm_pipeline.diffusion.levels import Levels
from ddpm_pipeline.diffusion.reverse_model import ReverseProcess
from ddpm_pipeline.diffusion.schedule import NoiseSchedule, Timestep
from ddpm_pipeline.diffusion.spectral import BasisGaussian
from ddpm_pipeline.diffusion.tensors import sum_elements

__all__ = [
    "bits_per_dim",
    "decoder_nats",
    "prior_nats",
    "transition_nats",
]


def bits_per_dim(nats: float | Tensor, dims: int) -> float | Tensor:
    """Turn nats per example into bits per dimension: nats / (dims ln 2)."""
    return nats / (dims * math.log(2))


def prior_nats(schedule: NoiseSchedule, x_0: Tensor, t: Timestep) -> Tensor:
    """Give KL(q(x_t | x_0) || N(0, I)) of each example, (B,): L_T of Ho et al. 2020, eq. 5."""
    standard = Gaussian(x_0.new_zeros(()), x_0.new_zeros(()))
    return sum_elements(marginal(schedule, x_0, t).kl(standard))


def transition_nats(
    process: ReverseProcess,
    model_output: Tensor,
    x_0: Tensor,
    x_t: Tensor,
    t: Tensor,
    s: Tensor,
) -> Tensor:
    """Give KL(q(x_s | x_t, x_0) || p(x_s | x_t)) of each example: L_{t-1} of the paper.

    Arguments:
        process: The reverse process.
        model_output: Output of the network at x_t, shape (B, C, *) or (B, 2C, *).
        x_0: Clean data, shape (B, C, *).
        x_t: Noisy data at t, shape (B, C, *).
        t, s: Timesteps, int64, shape (B,), 0 <= s < t < T.
    Returns:
        Nats, shape (B,), float64.
    Source: Ho et al. 2020, eq. 5.
    """
    q, p = posterior(process.schedule, x_0, x_t, t, s), process.move(model_output, x_t, t, s)
    return sum_elements(p.kl_from(q) if isinstance(p, BasisGaussian) else q.kl(p))


def decoder_nats(
    p: Gaussian | BasisGaussian,
    x_0: Tensor,
    decoder: Decoder = "discretized",
    levels: Levels | None = None,
) -> Tensor:
    """Give -log p(x_0 | x_t) of each example: L_0 of the paper.

    Arguments:
        p: p(x_0 | x_t), mean of shape (B, C, *); one in a basis has a density only.
        x_0: Clean data, shape (B, C, *).
        decoder: "discretized" is the probability of the 8-bit level, "continuous" a density, and
            "discretized_tanh" the approximation of published code, which is not a bound.
        levels: Those of "discretized"; None for the 256 of bytes in [-1, 1].
    Returns:
        Nats, shape (B,), float64.
    Raises:
        ValueError: If the decoder is unknown, or has no such levels.
    Source: Ho et al. 2020, eq. 5 and 13.
    """
    check_choice("decoder", decoder, DECODERS)
    if levels is not None:
        if decoder != "discretized":
            raise ValueError(f"levels are for decoder 'discretized', got {decoder!r}")
        return sum_elements(-levels.log_prob(p, x_0))
    return sum_elements(-_LOG_PROBS[decoder](p, x_0))


_LOG_PROBS: dict[str, Callable[[Gaussian, Tensor], Tensor]] = {
    "discretized": lambda p, x: p.discretized_log_prob(x),
    "discretized_tanh": lambda p, x: p.discretized_log_prob(x, cdf="tanh"),
    "continuous": lambda p, x: p.log_prob(x),
}
