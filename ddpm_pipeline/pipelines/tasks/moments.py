r"""Posterior sampling by matched moments: x_0 drawn as if Gaussian given x_t, and given y.

By Tweedie's formulas a denoiser knows the first two moments of x_0 given x_t,

.. math::
    \hat x_0 = \mathbb E[x_0 \mid x_t], \qquad
    V = \operatorname{Cov}[x_0 \mid x_t] = \frac{1 - \bar\alpha_t}{\sqrt{\bar\alpha_t}}\,
    \frac{\partial \hat x_0}{\partial x_t}

and of a Gaussian with these moments a draw given :math:`y = A x_0 + \sigma_y n` is (Matheron)

.. math::
    x_0 = u + V A^T (A V A^T + \sigma_y^2 I)^{-1} (y - A u - \sigma_y n), \qquad
    u \sim \mathcal N(\hat x_0, V)

from which DDPM's (or DDIM's) step goes on to x_s by :math:`q(x_s \mid x_t, x_0)`. The mean of the
draw is x_0's of MMPS; for Gaussian data all of it is exact, with any number of steps that ends at
t = 0. One that ends farther off has less spread, as the last noise is held below what would be
seen. V is never formed: its products are vector-Jacobian products of the network, or come from a
calibration.

Source: Rozet et al. 2024 (arXiv:2405.13712), algorithm 1, for the mean; Doucet 2010, "A note on
efficient conditional simulation of Gaussian distributions", for the draw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_pipeline.diffusion import predict_x_0
from ddpm_pipeline.pipelines.tasks.krylov import conjugate_gradients, root_product
from ddpm_pipeline.pipelines.tasks.operators import LinearOperator
from ddpm_pipeline.schedulers import DDPMScheduler, Generators, standard_normal, variance_spectrum

__all__ = ["COVARIANCES", "MatchedMoments", "Measurement", "Precision"]


COVARIANCES = ("jacobian", "calibrated")
"""Where V comes from."""
Network = Callable[[Tensor, Tensor], Tensor]


class Measurement(NamedTuple):
    """What is known of a batch of images.

    Arguments:
        operator: A.
        y: In the range of models, (B, *).
        noise_std: sigma_y, in the range of models.
    """

    operator: LinearOperator
    y: Tensor
    noise_std: float


class Precision(NamedTuple):
    """How far sums with V are carried.

    Arguments:
        iterations: Products with V at most, for each of the two parts of a draw.
        tolerance: Where they end, relative.
    """

    iterations: int
    tolerance: float


class _Covariance(NamedTuple):
    """V by its products, and the product of its root."""

    product: Callable[[Tensor], Tensor]
    root: Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class MatchedMoments:
    """A network that answers with a draw of x_0 given x_t and a measurement.

    Arguments:
        network: From x_t and t to the U-Net's output, as for ``denoise``.
        scheduler: The model's; its prediction type and its calibration are used.
        measured: What is known of the images.
        generator: Source of the draws.
        covariance: "jacobian" of the network, or "calibrated" for what a calibration says of V: by
            frequency if it has a spectrum, else one variance.
        precision: Of sums with V.
        last_t: Where the chain ends; noise drawn there stays below what
            ``last_noise_levels`` of the scheduler allows.
    """

    network: Network
    scheduler: DDPMScheduler
    measured: Measurement
    generator: Generators
    covariance: str
    precision: Precision
    last_t: int

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Draw x_0, (B, C, H, W)."""
        x_0_hat, (product, root) = self._moments(x_t, t)
        operator, y, noise_std = self.measured
        share = self._share_of_noise(int(t))
        free = x_0_hat + share * root(self._normal(x_t))
        residual = y - operator(free)
        if noise_std > 0:
            residual = residual - share * noise_std * self._normal(y)

        def both(u: Tensor) -> tuple[Tensor, Tensor]:
            carried = product(operator.transposed(u, x_t.shape))
            return operator(carried) + noise_std**2 * u, carried

        iterations, tolerance = self.precision
        return free + conjugate_gradients(
            both, residual, torch.zeros_like(free), iterations=iterations, tolerance=tolerance
        )

    def _moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, _Covariance]:
        """Give E[x_0 | x_t] and Cov[x_0 | x_t]."""
        if self.covariance == "calibrated":
            return self._predicted(x_t, t), self._calibrated(t, x_t)
        with torch.enable_grad():
            point = x_t.detach().requires_grad_()
            x_0_hat = self._predicted(point, t)
        if not x_0_hat.requires_grad:
            raise ValueError(
                "method 'mmps' needs a network that can be differentiated, got one without a "
                "graph, as optimize(cuda_graph=True) makes it; undo that, or use covariance "
                "'calibrated'"
            )
        schedule = self.scheduler.schedule
        alpha_bar, noise = (
            float(f(t)) for f in (schedule.alpha_bar, schedule.one_minus_alpha_bar)
        )
        # Where nothing is left of x_0, the Jacobian says nothing of it: the draw is the mean.
        scale = noise / alpha_bar**0.5 if alpha_bar > 0 else 0.0

        def product(v: Tensor) -> Tensor:
            return scale * torch.autograd.grad(x_0_hat, point, v, retain_graph=True)[0]

        def root(z: Tensor) -> Tensor:
            return root_product(product, z, **self.precision._asdict())

        return x_0_hat.detach(), _Covariance(product, root)

    def _predicted(self, x_t: Tensor, t: Tensor) -> Tensor:
        scheduler, output = self.scheduler, self.network(x_t, t)[:, : x_t.shape[1]]
        kind = scheduler.config.prediction_type
        return predict_x_0(scheduler.schedule, output, x_t, t, prediction_type=kind)

    def _calibrated(self, t: Tensor, x_t: Tensor) -> _Covariance:
        scheduler = self.scheduler
        if not scheduler.has_spectrum:
            variance = float(scheduler.x_0_variance[int(t)])
            return _Covariance(lambda v: variance * v, lambda z: variance**0.5 * z)
        spectrum = variance_spectrum(scheduler.calibration, scheduler.schedule)
        errors = spectrum.at(t.cpu().reshape(1)).to(x_t)
        basis = spectrum.basis

        def scaled(v: Tensor, factors: Tensor) -> Tensor:
            return basis.to_pixels(factors * basis.to_frequencies(v))

        return _Covariance(lambda v: scaled(v, errors), lambda z: scaled(z, errors.sqrt()))

    def _share_of_noise(self, t: int) -> float:
        """Give 1, or at the end of a chain less if its noise would be seen."""
        if t != self.last_t:
            return 1.0
        schedule = self.scheduler.schedule
        std = float(schedule.one_minus_alpha_bar(t) / schedule.alpha_bar(t)) ** 0.5
        return min(1.0, self.scheduler.last_noise_levels * 2 / 255 / std)

    def _normal(self, like: Tensor) -> Tensor:
        return standard_normal(like.shape, self.generator, like.device, like.dtype)
