r"""Data whose exact denoiser, likelihood and denoising error are known in closed form.

.. math::
    x_0 \sim \sum_k w_k\, \mathcal N(m_k, s_k^2), \qquad
    \mathbb E[x_0 \mid x_t] = \sum_k r_k(x_t) \Big(m_k + \tfrac{\sqrt{\bar\alpha_t}\, s_k^2}{v_k}
    (x_t - \sqrt{\bar\alpha_t}\, m_k)\Big), \qquad v_k = \bar\alpha_t s_k^2 + 1 - \bar\alpha_t

independently for every element of x_0, so that all of it holds for any shape (N, C, *). Nothing
here uses the package: tables come from the betas in extended precision, expectations from
quadrature.

    data = gaussian(0.0, 0.5)
    model = data.denoiser(linear_betas(), "v_prediction")     # model(x_t, t), t int64 (B,)
    x_0 = data.sample((1000, 1), generator)
    data.entropy                                              # the true NLL, nats per element
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.integrate import quad
from scipy.special import logsumexp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

__all__ = [
    "ExactDenoiser",
    "Mixture",
    "alpha_bars",
    "gaussian",
    "linear_betas",
    "mixture",
    "point_mass",
]


def linear_betas(T: int = 1000, start: float = 1e-4, end: float = 0.02) -> np.ndarray:
    """The betas of DDPM's linear schedule."""
    return np.linspace(start, end, T)


def alpha_bars(betas: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """(alpha_bar, 1 - alpha_bar) in extended precision; the second by a sum, not a difference."""
    betas = np.asarray(betas, dtype=np.longdouble)
    alpha_bar = np.cumprod(1 - betas)
    # 1 - prod(1 - b_i) telescopes into sum_i b_i prod_{j<i} (1 - b_j).
    before = np.concatenate([np.ones(1, dtype=np.longdouble), alpha_bar[:-1]])
    return alpha_bar, np.cumsum(betas * before)


@dataclass(frozen=True)
class Mixture:
    """Elements drawn independently from sum_k weights_k N(means_k, stds_k²); stds may be 0."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]

    def sample(self, shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        """Data of the given shape, float64."""
        count = math.prod(shape)
        weights = torch.tensor(self.weights, dtype=torch.float64)
        k = torch.multinomial(weights, count, replacement=True, generator=generator)
        eps = torch.randn(count, dtype=torch.float64, generator=generator)
        means, stds = (torch.tensor(a, dtype=torch.float64)[k] for a in (self.means, self.stds))
        return (means + stds * eps).reshape(*shape)

    def log_density(self, x: np.ndarray | float) -> np.ndarray:
        """log p(x) per element, in nats."""
        x = np.asarray(x, dtype=float)[..., None]
        means, stds = np.array(self.means), np.array(self.stds)
        log_normal = -0.5 * ((x - means) / stds) ** 2 - np.log(stds) - 0.5 * math.log(2 * math.pi)
        return logsumexp(log_normal, axis=-1, b=np.array(self.weights))

    @cached_property
    def entropy(self) -> float:
        """E[-log p(x_0)]: the true negative log-likelihood, nats per element."""
        return -self._expect(lambda x: float(np.exp(d := self.log_density(x)) * d), self.stds)

    def posterior_moments(
        self, x_t: Tensor, alpha_bar: Tensor, one_minus: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(E[x_0 | x_t], Var(x_0 | x_t)) elementwise, float64."""
        x_t, signal = x_t.double(), alpha_bar.sqrt()
        means, variances, logits = [], [], []
        for weight, m, s in zip(self.weights, self.means, self.stds, strict=True):
            v = alpha_bar * s**2 + one_minus
            means.append(m + signal * s**2 / v * (x_t - signal * m))
            variances.append((s**2 * one_minus / v).expand_as(x_t))
            logits.append(math.log(weight) - 0.5 * ((x_t - signal * m) ** 2 / v + v.log()))
        r = torch.softmax(torch.stack(logits), dim=0)
        means, variances = torch.stack(means), torch.stack(variances)
        mean = (r * means).sum(0)
        return mean, (r * (variances + (means - mean) ** 2)).sum(0)

    def denoising_error(self, alpha_bar: float, one_minus: float) -> float:
        """E Var(x_0 | x_t): the least mean squared error of any estimate of x_0 from x_t."""
        a, b = (torch.tensor(float(v), dtype=torch.float64) for v in (alpha_bar, one_minus))
        scales = [math.sqrt(a * s**2 + b) for s in self.stds]
        noisy = Mixture(self.weights, tuple(math.sqrt(a) * m for m in self.means), tuple(scales))

        def integrand(x: float) -> float:
            variance = self.posterior_moments(torch.tensor([x]), a, b)[1]
            return float(np.exp(noisy.log_density(x))) * variance.item()

        return noisy._expect(integrand, scales)

    def denoiser(self, betas: Sequence[float], prediction_type: str = "epsilon") -> ExactDenoiser:
        """The perfect network of a prediction type under these betas."""
        return ExactDenoiser(self, tuple(map(float, betas)), prediction_type)

    def _expect(self, integrand: Callable[[float], float], scales: Sequence[float]) -> float:
        """The integral over the line, between points 12 standard deviations around the means."""
        edges = sorted(
            {
                m + k * s
                for m, s in zip(self.means, scales, strict=True)
                for k in (-12, -4, 0, 4, 12)
            }
        )
        pieces = pairwise(edges)
        return math.fsum(quad(integrand, a, b, epsabs=1e-13, epsrel=1e-10)[0] for a, b in pieces)


@dataclass(frozen=True)
class ExactDenoiser:
    """model(x_t, t) of a mixture: epsilon, sample or v_prediction, in the dtype of x_t."""

    data: Mixture
    betas: tuple[float, ...]
    prediction_type: str = "epsilon"

    @cached_property
    def tables(self) -> tuple[Tensor, Tensor]:
        """(alpha_bar, 1 - alpha_bar), float64."""
        return tuple(torch.from_numpy(a.astype(np.float64)) for a in alpha_bars(self.betas))

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        shape = (-1, *[1] * (x_t.ndim - 1))
        alpha_bar, one_minus = (table[t].reshape(shape) for table in self.tables)
        x_0 = self.data.posterior_moments(x_t, alpha_bar, one_minus)[0]
        eps = (x_t.double() - alpha_bar.sqrt() * x_0) / one_minus.sqrt()
        outputs = {
            "sample": x_0,
            "epsilon": eps,
            "v_prediction": alpha_bar.sqrt() * eps - one_minus.sqrt() * x_0,
        }
        return outputs[self.prediction_type].to(x_t.dtype)


def gaussian(mean: float = 0.0, std: float = 1.0) -> Mixture:
    """Data N(mean, std²)."""
    return Mixture((1.0,), (mean,), (std,))


def mixture(means: Sequence[float] = (-0.6, 0.6), std: float = 0.1) -> Mixture:
    """Components of equal weight and standard deviation."""
    return Mixture((1 / len(means),) * len(means), tuple(means), (std,) * len(means))


def point_mass(value: float) -> Mixture:
    """Data that are always the same value; no density, but an exact denoiser."""
    return Mixture((1.0,), (value,), (0.0,))
