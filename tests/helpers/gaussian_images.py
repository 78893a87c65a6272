r"""Images that are Gaussian, with their exact denoiser as a module, and their exact posterior.

.. math::
    x_0 \sim \mathcal N(m, S), \qquad
    \mathbb E[x_0 \mid x_t] = m + \sqrt{\bar\alpha_t}\, S\, (\bar\alpha_t S + (1 - \bar\alpha_t)
    I)^{-1} (x_t - \sqrt{\bar\alpha_t}\, m)

    data = GaussianImages.smooth((1, 4, 4))
    pipe = DDPMPipeline(data.denoiser(linear_betas()), DDPMScheduler(clip_sample=False))
    mean, covariance = data.posterior(A, y, noise_std)

Nothing here uses the package. Values are far enough inside [-1, 1] that no sample is clipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from helpers.oracles import alpha_bars
from torch import Tensor, nn

__all__ = ["GaussianDenoiser", "GaussianImages", "largest_z"]


@dataclass(frozen=True, eq=False)
class GaussianImages:
    """Images of a shape (C, H, W) with a mean, float64 (D,), and a covariance, (D, D)."""

    shape: tuple[int, int, int]
    mean: Tensor
    covariance: Tensor

    @classmethod
    def smooth(
        cls, shape: tuple[int, int, int], std: float = 0.14, reach: float = 1.5, seed: int = 0
    ) -> GaussianImages:
        """Pixels that are alike where they are near, and unequal in mean and variance."""
        rng = np.random.default_rng(seed)
        places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
        distance = np.linalg.norm((places[:, None] - places[None]) * [3, 1, 1], axis=-1)
        scale = std * rng.uniform(0.5, 1.0, len(places))
        covariance = np.exp(-0.5 * (distance / reach) ** 2) + 0.02 * np.eye(len(places))
        covariance = covariance * np.outer(scale, scale)
        mean = rng.uniform(-0.25, 0.25, len(places))
        return cls(shape, torch.from_numpy(mean), torch.from_numpy(covariance))

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Images (count, C, H, W), float64."""
        rng = np.random.default_rng(seed)
        draws = rng.multivariate_normal(self.mean.numpy(), self.covariance.numpy(), count)
        return torch.from_numpy(draws).reshape(count, *self.shape)

    def posterior(self, A: Tensor, y: Tensor, noise_std: float) -> tuple[Tensor, Tensor]:
        """(mean, covariance) of x_0 given A x_0 + noise = y; A float64 (M, D), y (M,)."""
        S = self.covariance
        gain = S @ A.T @ torch.linalg.pinv(A @ S @ A.T + noise_std**2 * torch.eye(len(A)))
        return self.mean + gain @ (y - A @ self.mean), S - gain @ A @ S

    def denoiser(
        self, betas: Sequence[float], prediction_type: str = "epsilon", **config: object
    ) -> GaussianDenoiser:
        return GaussianDenoiser(self, betas, prediction_type, **config)


class GaussianDenoiser(nn.Module):
    """The perfect network of Gaussian images; t may lie between two timesteps.

    In between log SNR is a straight line of t, as it is of the continuous schedule.
    """

    def __init__(
        self, data: GaussianImages, betas: Sequence[float], prediction_type: str, **config: object
    ) -> None:
        super().__init__()
        channels, *size = data.shape
        self.config = SimpleNamespace(
            **{
                "sample_size": tuple(size),
                "in_channels": channels,
                "out_channels": channels,
                "num_class_embeds": None,
                **config,
            }
        )
        self.data, self.prediction_type = data, prediction_type
        alpha_bar, one_minus = (a.astype(np.float64) for a in alpha_bars(betas))
        with np.errstate(divide="ignore"):
            self.log_snr = np.maximum(np.log(alpha_bar) - np.log(one_minus), -600)
        self.variances, self.basis = torch.linalg.eigh(data.covariance)
        self.calls = 0

    def forward(self, x_t: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Its output at t, of shape () or (B,)."""
        self.calls += 1
        log_snr = np.interp(
            np.asarray(t, dtype=float).reshape(-1), np.arange(len(self.log_snr)), self.log_snr
        )
        alpha_bar = torch.from_numpy(1 / (1 + np.exp(-log_snr)))[:, None]
        one_minus = torch.from_numpy(1 / (1 + np.exp(log_snr)))[:, None]
        centred = x_t.flatten(1).double() - alpha_bar.sqrt() * self.data.mean
        gains = alpha_bar.sqrt() * self.variances / (alpha_bar * self.variances + one_minus)
        x_0 = self.data.mean + (centred @ self.basis * gains) @ self.basis.T
        eps = (x_t.flatten(1).double() - alpha_bar.sqrt() * x_0) / one_minus.sqrt()
        outputs = {
            "sample": x_0,
            "epsilon": eps,
            "v_prediction": alpha_bar.sqrt() * eps - one_minus.sqrt() * x_0,
        }
        return outputs[self.prediction_type].reshape(x_t.shape).to(x_t.dtype)


def largest_z(samples: Tensor, mean: Tensor, covariance: Tensor) -> tuple[float, float]:
    """The largest deviations of the sample mean and covariance, in standard errors."""
    x = samples.flatten(1).double()
    n = len(x)
    variance = covariance.diagonal()
    off_mean = (x.mean(0) - mean) / (variance / n).clamp(min=1e-18).sqrt()
    found = torch.cov(x.T)
    error = ((torch.outer(variance, variance) + covariance**2) / n).clamp(min=1e-18).sqrt()
    return off_mean.abs().max().item(), ((found - covariance) / error).abs().max().item()
