r"""``ReverseProcess``: all of p(x_s | x_t) but the network.

.. math::
    p_\theta(x_s \mid x_t) = \text{ReverseProcess}(f_\theta(x_t, t),\; x_t,\; t,\; s)

The bound, the losses of training and the scheduler's steps are all made with it. What it computes
stands in ``reverse_process``; here the choices that stay the same over a chain are kept together.

    process = ReverseProcess(schedule, "epsilon", "fixed_large")
    p = process.move(network(x_t, t), x_t, t, s)
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ddpm_pipeline.diffusion.choices import PredictionType, ProcessVariance
from ddpm_pipeline.diffusion.gaussian import Gaussian
from ddpm_pipeline.diffusion.predictions import predict_x_0
from ddpm_pipeline.diffusion.reverse_process import (
    ReverseMove,
    analytic_variance,
    reverse,
    reverse_coefficients,
    split_output,
)
from ddpm_pipeline.diffusion.schedule import NoiseSchedule, Timestep
from ddpm_pipeline.diffusion.spectral import BasisGaussian, ErrorSpectrum
from ddpm_pipeline.diffusion.tensors import sum_elements
from ddpm_pipeline.diffusion.value_decoder import ValueDecoder

__all__ = ["ReverseProcess"]


@dataclass(frozen=True)
class ReverseProcess:
    """All of p(x_s | x_t) but the network.

    Arguments:
        schedule: Noise schedule with T steps.
        prediction_type: What the network predicts.
        variance_type: The variance of the move; see ``reverse``. "spectral" has one for each
            component of the spectrum's basis, which are on average the analytic one.
        x_0_variance: v_t for variance_type "analytic" and "spectral", on the device of the
            timesteps, shape (T,); the other types do not look at it.
        clip_x_0: The predicted x_0 is clamped to ± this ; None leaves it alone, as it does the
            coefficients.
        decoder_variance: Of the analytic or spectral move to the data, as x_0_variance; by
            default v_t, or the spectrum.
        spectrum: What v_t is the mean of, for variance_type "spectral"; on the same device.
        value_decoder: Variances of the spectral move to the data by value, if there is a
            decoder_variance, whose place they take; on the same device.
    Raises:
        ValueError: If variance_type is "spectral" and there is no spectrum.
    """

    schedule: NoiseSchedule
    prediction_type: PredictionType = "epsilon"
    variance_type: ProcessVariance = "fixed_small"
    x_0_variance: Tensor | None = None
    clip_x_0: float | None = None
    decoder_variance: Tensor | None = None
    spectrum: ErrorSpectrum | None = None
    value_decoder: ValueDecoder | None = None

    def __post_init__(self) -> None:
        if self.variance_type == "spectral" and self.spectrum is None:
            raise ValueError("variance_type 'spectral' needs a spectrum, got None; calibrate")

    def move(
        self,
        model_output: Tensor,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        above: Timestep | None = None,
    ) -> Gaussian | BasisGaussian:
        """Give p(x_s | x_t); arguments as in ``reverse``. It is in a basis if it is spectral."""
        options = self._options(t, s, above)
        p = reverse(self.schedule, model_output, x_t, t, s, x_0_map=self._clip, **options)
        if self.variance_type != "spectral":
            return p
        log_var = self.spectral_variance(t, s).log().to(p.mean)
        return BasisGaussian(p.mean, log_var, self.spectrum.basis)

    def decoder(
        self, model_output: Tensor, x_t: Tensor, t: Tensor, above: Timestep | None = None
    ) -> Gaussian | BasisGaussian:
        """Give p(x_0 | x_t); its variance is by pixels and not in a basis for 8-bit data."""
        process, s = self, torch.full_like(t, -1)
        if self.variance_type == "spectral" and self.decoder_variance is not None:
            process = replace(self, variance_type="analytic", spectrum=None)
        p = process.move(model_output, x_t, t, s, above)
        if process is self or self.value_decoder is None:
            return p
        return Gaussian(p.mean, self.value_decoder.log_var(self.schedule, p.mean, t))

    def spectral_variance(self, t: Tensor, s: Tensor) -> Tensor:
        """Give the variances of moves t → s by component, shape (B, C, *).

        Arguments:
            t, s: Timesteps, int64, shape (B,).
        """
        open_variance = self.spectrum.at(t)
        t, s = (i.reshape(-1, *[1] * (open_variance.ndim - 1)) for i in (t, s))
        return analytic_variance(self.schedule, t, s, open_variance)

    def coefficients(self, t: Tensor, s: Tensor, above: Timestep | None = None) -> ReverseMove:
        """Give the coefficients of moves t → s; arguments as in ``reverse_coefficients``."""
        return reverse_coefficients(self.schedule, t, s, **self._options(t, s, above))

    def _options(self, t: Tensor, s: Tensor, above: Timestep | None) -> dict[str, Any]:
        """Give what a move depends on beside the schedule, the timesteps and the output."""
        return {
            "prediction_type": self.prediction_type,
            "variance_type": "analytic"
            if self.variance_type == "spectral"
            else self.variance_type,
            "above": above,
            "x_0_variance": self.x_0_variance_of_moves(t, s),
        }

    def squared_error(
        self, model_output: Tensor, x_0: Tensor, x_t: Tensor, t: Tensor, s: Tensor
    ) -> Tensor:
        """Give ||x_0 - x_0_hat||² of each example, shape (B,)."""
        prediction, _ = split_output(model_output, x_t, self.variance_type)
        x_0_hat = predict_x_0(
            self.schedule, prediction, x_t, t, s, prediction_type=self.prediction_type
        )
        return sum_elements((x_0 - self._clip(x_0_hat)).square())

    def x_0_variance_of_moves(self, t: Tensor, s: Tensor) -> Tensor | None:
        """Give what the analytic variance of moves t → s is made of.

        Arguments:
            t, s: Timesteps, int64, of one shape, -1 <= s < t < T.
        Returns:
            v_t, and decoder_variance where a move ends at the data, in the shape of t; None for
            other variance types than analytic and spectral, and without x_0_variance.
        """
        v = self.x_0_variance
        if v is None or self.variance_type not in ("analytic", "spectral"):
            return None
        decoder = v if self.decoder_variance is None else self.decoder_variance
        return torch.where(s < 0, decoder[t], v[t])

    def _clip(self, x_0_hat: Tensor) -> Tensor:
        return x_0_hat if self.clip_x_0 is None else x_0_hat.clamp(-self.clip_x_0, self.clip_x_0)
