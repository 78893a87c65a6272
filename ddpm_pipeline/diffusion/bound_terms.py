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
from dataclasses import dataclass

from torch import Tensor

from ddpm_pipeline.common import precise_dtype
from ddpm_pipeline.diffusion.choices import DECODERS, Decoder
from ddpm_pipeline.diffusion.forward_process import marginal, posterior
from ddpm_pipeline.diffusion.gaussian import Gaussian
from ddpm_pipeline.diffusion.predictions import PredictionType, predict_x_0
from ddpm_pipeline.diffusion.reverse_process import (
    VarianceType,
    reverse,
    split_output,
    x_0_variance_of_moves,
)
from ddpm_pipeline.diffusion.schedule import NoiseSchedule, Timestep

__all__ = [
    "DECODERS",
    "Decoder",
    "ReverseProcess",
    "bits_per_dim",
    "decoder_nats",
    "prior_nats",
    "sum_elements",
    "transition_nats",
]


def bits_per_dim(nats: float | Tensor, dims: int) -> float | Tensor:
    """Nats per example as bits per dimension: nats / (dims ln 2)."""
    return nats / (dims * math.log(2))


def sum_elements(x: Tensor) -> Tensor:
    """The sum over all but the first axis, in float64 (float32 on devices without it)."""
    return x.flatten(1).sum(1, dtype=precise_dtype(x.device))


@dataclass(frozen=True)
class ReverseProcess:
    """All of p(x_s | x_t) but the network.

    Arguments:
        schedule: Noise schedule with T steps.
        prediction_type: What the network predicts.
        variance_type: The variance of the move; see ``process.reverse``.
        x_0_variance: v_t for variance_type "analytic", on the device of the data, shape (T,).
        clip_x_0: The predicted x_0 is clamped to ± this; None leaves it alone.
        decoder_variance: Of the analytic move to the data, as x_0_variance; v_t by default.
    """

    schedule: NoiseSchedule
    prediction_type: PredictionType = "epsilon"
    variance_type: VarianceType = "fixed_small"
    x_0_variance: Tensor | None = None
    clip_x_0: float | None = None
    decoder_variance: Tensor | None = None

    def move(
        self, model_output: Tensor, x_t: Tensor, t: Tensor, s: Tensor, above: Timestep | None
    ) -> Gaussian:
        """p(x_s | x_t); arguments as in ``process.reverse``."""
        v = self.x_0_variance
        if v is not None and self.variance_type == "analytic":
            decoder = v if self.decoder_variance is None else self.decoder_variance
            v = x_0_variance_of_moves(v, decoder, t, s)
        return reverse(
            self.schedule,
            model_output,
            x_t,
            t,
            s,
            prediction_type=self.prediction_type,
            variance_type=self.variance_type,
            above=above,
            x_0_variance=v,
            x_0_map=self._clip,
        )

    def squared_error(
        self, model_output: Tensor, x_0: Tensor, x_t: Tensor, t: Tensor, s: Tensor
    ) -> Tensor:
        """||x_0 - x_0_hat||² of each example, shape (B,)."""
        prediction, _ = split_output(model_output, x_t, self.variance_type)
        x_0_hat = predict_x_0(
            self.schedule, prediction, x_t, t, s, prediction_type=self.prediction_type
        )
        return sum_elements((x_0 - self._clip(x_0_hat)).square())

    def _clip(self, x_0_hat: Tensor) -> Tensor:
        return x_0_hat if self.clip_x_0 is None else x_0_hat.clamp(-self.clip_x_0, self.clip_x_0)


def prior_nats(schedule: NoiseSchedule, x_0: Tensor, t: Timestep) -> Tensor:
    """KL(q(x_t | x_0) || N(0, I)) of each example, shape (B,): L_T of Ho et al. 2020, eq. 5."""
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
    """KL(q(x_s | x_t, x_0) || p(x_s | x_t)) of each example: L_{t-1} of Ho et al. 2020, eq. 5.

    Arguments:
        process: The reverse process.
        model_output: Output of the network at x_t, shape (B, C, *) or (B, 2C, *).
        x_0: Clean data, shape (B, C, *).
        x_t: Noisy data at t, shape (B, C, *).
        t, s: Timesteps, int64, shape (B,), 0 <= s < t < T.
    Returns:
        Nats, shape (B,), float64.
    """
    q = posterior(process.schedule, x_0, x_t, t, s)
    return sum_elements(q.kl(process.move(model_output, x_t, t, s, above=None)))


def decoder_nats(p: Gaussian, x_0: Tensor, decoder: Decoder = "discretized") -> Tensor:
    """-log p(x_0 | x_t) of each example: L_0 of Ho et al. 2020, eq. 5 and 13.

    Arguments:
        p: p(x_0 | x_t), mean of shape (B, C, *).
        x_0: Clean data, shape (B, C, *).
        decoder: "discretized" is the probability of the 8-bit level, "continuous" a density, and
            "discretized_tanh" the approximation of published code, which is not a bound.
    Returns:
        Nats, shape (B,), float64.
    Raises:
        ValueError: If the decoder is unknown.
    """
    if decoder not in DECODERS:
        raise ValueError(f"decoder must be one of {', '.join(DECODERS)}, got {decoder!r}")
    return sum_elements(-_LOG_PROBS[decoder](p, x_0))


_LOG_PROBS: dict[str, Callable[[Gaussian, Tensor], Tensor]] = {
    "discretized": lambda p, x: p.discretized_log_prob(x),
    "discretized_tanh": lambda p, x: p.discretized_log_prob(x, cdf="tanh"),
    "continuous": lambda p, x: p.log_prob(x),
}
