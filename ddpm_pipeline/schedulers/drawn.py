r"""The steps of a chain that draw noise: DDPM's own, and those of DDIM with any eta.

.. math:: x_s = b_1 \hat x_0 + b_2 x_t + \sigma_{s|t}\, z
"""

from __future__ import annotations

import torch
from torch import Tensor

from ddpm_pipeline.diffusion import (
    BasisGaussian,
    Gaussian,
    ReverseProcess,
    add_scaled_,
    reverse_log_var,
    reverse_mean,
)
from ddpm_pipeline.schedulers.calibration import Calibration
from ddpm_pipeline.schedulers.chain import Chain, StepTable, TabulatedStep, tabulate
from ddpm_pipeline.schedulers.drawing import Generators, scaled_noise
from ddpm_pipeline.schedulers.spectral_noise import SpectralNoise, spectral_noise

__all__ = ["DrawnChain"]


class DrawnChain:
    """All steps of a chain that draw noise, tabulated by eta; None is for DDPM's own.

    Arguments:
        process: Whose moves they are; the analytic one if their variances are spectral.
        chain: Where they go.
        last_noise_levels: As for ``tabulate``.
        spectral: The calibration whose spectrum spreads the variances, or None.
    """

    def __init__(
        self,
        process: ReverseProcess,
        chain: Chain,
        *,
        last_noise_levels: float,
        spectral: Calibration | None = None,
    ) -> None:
        self._process, self._chain, self._levels = process, chain, last_noise_levels
        self._spectral = spectral
        self._tables: dict[float | None, StepTable] = {}
        self._noises: dict[float | None, SpectralNoise] = {}

    def step(self, t: int | Tensor, x_t: Tensor, eta: float | None) -> TabulatedStep:
        """Look up the step from t, as ``StepTable.step`` does."""
        return (self._tables.get(eta) or self.table(eta)).step(t, x_t)

    def table(self, eta: float | None) -> StepTable:
        """Give all steps; they are computed once."""
        if eta not in self._tables:
            self._tables[eta] = tabulate(
                self._process, self._chain, last_noise_levels=self._levels, eta=eta
            )
        return self._tables[eta]

    def draw(
        self,
        step: TabulatedStep,
        t: int | Tensor,
        x_0_hat: Tensor,
        x_t: Tensor,
        generator: Generators,
        *,
        log_var_output: Tensor | None,
        eta: float | None,
    ) -> Tensor:
        """Draw x_s.

        Arguments:
            step: The step from t.
            t, x_t, generator, eta: As for ``DDPMScheduler.step``.
            x_0_hat: The predicted x_0.
            log_var_output: What the network says of the variance, if it does.
        """
        move = step.move
        if step.has_noise is False:
            return reverse_mean(move, x_0_hat, x_t)
        if self._spectral is not None:
            share = move.mean_from_x_t
            mean = (x_t * share, 1.0) if isinstance(share, Tensor) else (x_t, share)
            x_s = self._noise(eta).added_to(*mean, t, generator)
            return add_scaled_(x_s, move.mean_from_x_0, x_0_hat)
        x_s = scaled_noise(x_t, self._std(step, log_var_output, eta), generator)
        # Adding the mean to the noise in place saves the kernel that would add the noise.
        add_scaled_(x_s, move.mean_from_x_0, x_0_hat)
        return add_scaled_(x_s, move.mean_from_x_t, x_t)

    def distribution(
        self,
        step: TabulatedStep,
        t: int | Tensor,
        x_0_hat: Tensor,
        x_t: Tensor,
        *,
        log_var_output: Tensor | None,
        eta: float | None,
    ) -> Gaussian | BasisGaussian:
        """Give p(x_s | x_t); arguments as in ``draw``."""
        mean, log_var = reverse_mean(step.move, x_0_hat, x_t), step.move.log_var
        if self._spectral is not None:
            return self._noise(eta).around(mean, t)
        if eta is None:
            log_var = reverse_log_var(step.move, log_var_output, self._process.variance_type)
        return Gaussian(mean, torch.as_tensor(log_var, dtype=mean.dtype, device=mean.device))

    def _std(
        self, step: TabulatedStep, log_var_output: Tensor | None, eta: float | None
    ) -> float | Tensor:
        if log_var_output is None or eta is not None:
            return step.std
        log_var = reverse_log_var(step.move, log_var_output, self._process.variance_type)
        return step.has_noise * (0.5 * log_var).exp()

    def _noise(self, eta: float | None) -> SpectralNoise:
        if eta not in self._noises:
            self._noises[eta] = spectral_noise(
                self._spectral, self._process.schedule, self._chain, self.table(eta), eta
            )
        return self._noises[eta]
