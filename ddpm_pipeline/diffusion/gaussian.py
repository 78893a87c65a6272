r"""The one distribution of this package: a Gaussian with diagonal covariance.

Both the forward process q and the reverse process p are made of these, so the variational bound
reads as in the paper: ``posterior.kl(reverse)``, ``-reverse.discretized_log_prob(x_0)``.

.. math::
    x = \mu + \sigma\,\epsilon, \qquad \epsilon \sim \mathcal N(0, I)

.. math::
    \mathrm{KL}(\mathcal N(\mu_q, \sigma_q^2)\,\|\,\mathcal N(\mu_p, \sigma_p^2))
    = \log\frac{\sigma_p}{\sigma_q}
    + \frac{\sigma_q^2 + (\mu_q - \mu_p)^2}{2\sigma_p^2} - \frac12

.. math::
    \log P(x) = \log\Big[\Phi\Big(\tfrac{x + h - \mu}{\sigma}\Big)
    - \Phi\Big(\tfrac{x - h - \mu}{\sigma}\Big)\Big],
    \qquad h = \tfrac{1}{\text{num\_bins} - 1}

Every result is elementwise and in nats; sums over pixels are the caller's.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ddpm_pipeline.common import check_choice, precise_dtype

__all__ = ["Gaussian", "exact_bin_log_prob"]


@dataclass(frozen=True)
class Gaussian:
    r"""A Gaussian N(mean, exp(log_var)) with independent elements.

    Arguments:
        mean: Mean, any shape, floating point.
        log_var: Logarithm of the variance, in nats, a tensor that broadcasts against ``mean``.
            ``-inf`` is a point mass at the mean.
    """

    mean: Tensor
    log_var: Tensor

    @property
    def var(self) -> Tensor:
        """Variance, in the shape of ``log_var``."""
        return self.log_var.exp()

    @property
    def std(self) -> Tensor:
        """Standard deviation, in the shape of ``log_var``."""
        return (0.5 * self.log_var).exp()

    def reparameterize(self, eps: Tensor) -> Tensor:
        r"""Give mean + std * eps, differentiable in the mean and the variance.

        Arguments:
            eps: Standard normal noise, the shape of ``mean``.
        Returns:
            A draw, the shape of ``mean``.
        Source: Kingma & Welling 2014 (arXiv:1312.6114), section 2.4.
        """
        return self.mean + self.std * eps

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw in the shape, dtype and device of ``mean``, with noise from ``generator``."""
        mean = self.mean
        eps = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return self.reparameterize(eps)

    def log_mgf(self, u: Tensor) -> Tensor:
        r"""Give log E exp(u x) = mean u + var u²/2, the log moment generating function.

        Those of independent variables add, which is why the noises of two forward steps merge
        into one Gaussian whose variance is the sum of theirs.

        Arguments:
            u: Argument of the function, any real number; broadcasts against ``mean``.
        """
        return self.mean * u + self.var * u.square() / 2

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Give log N(x; mean, var), elementwise, in nats per element.

        Arguments:
            x: Where to evaluate; broadcasts against ``mean``.
        """
        squared_error = (x - self.mean).square()
        # At a point mass's own place 0/0 would be nan; the density there is infinite.
        scaled = torch.where(squared_error == 0, squared_error, squared_error / self.var)
        is_miss = self.log_var.isneginf() & (squared_error > 0)
        density = -0.5 * (math.log(2 * math.pi) + self.log_var + scaled)
        return density.masked_fill(is_miss, -math.inf)

    def kl(self, other: "Gaussian") -> Tensor:
        r"""Give KL(self || other), elementwise, in nats; at least 0, exactly 0 for equal ones.

        Written as :math:`\tfrac12[(e^\delta - 1 - \delta) + (\mu_q-\mu_p)^2/\sigma_p^2]` with
        :math:`\delta = \log\sigma_q^2 - \log\sigma_p^2`, which does not cancel for close
        variances. It is infinite when only one of the two is a point mass.

        Arguments:
            other: The second distribution; broadcasts against this one.
        Source: Ho et al. 2020 (arXiv:2006.11239), eq. 5.
        """
        delta = self.log_var - other.log_var
        delta = torch.where(self.log_var == other.log_var, torch.zeros_like(delta), delta)
        difference = (self.mean - other.mean).square()
        scaled = torch.where(difference == 0, difference, difference / other.var)
        return 0.5 * (_expm1_minus(delta) + scaled)

    def discretized_log_prob(
        self, x: Tensor, num_bins: int = 256, cdf: Literal["exact", "tanh"] = "exact"
    ) -> Tensor:
        r"""Give the log-probability of the bin around x, for ``num_bins`` levels in [-1, 1].

        The outer two bins reach to infinity, so the bins of any mean and variance sum to one.
        Exact in the tails: a difference of ``log_ndtr`` in float64 (float32 on devices without
        it), taken on the side of the mean where both terms are small.

        Arguments:
            x: Data on the grid -1, -1 + 2/(num_bins-1), ..., 1; broadcasts against ``mean``.
            num_bins: Number of levels, at least 2; 256 for 8-bit images.
            cdf: "exact", or "tanh" for the approximation of published code, floored at 1e-12: it
                stops at 27.6 nats per element, where it ceases to be a bound. For parity only.
        Returns:
            Elementwise nats, at most 0, in the dtype of ``mean``.
        Raises:
            ValueError: If ``num_bins`` is below 2 or ``cdf`` is unknown.
        Source: Ho et al. 2020 (arXiv:2006.11239), eq. 13.
        """
        if num_bins < 2:
            raise ValueError(f"num_bins must be at least 2, got {num_bins}")
        check_choice("cdf", cdf, _BIN_LOG_PROB)
        half_width = 1 / (num_bins - 1)
        precise = precise_dtype(x.device)
        x, mean, std = (a.to(precise) for a in (x, self.mean, self.std))
        upper, lower = (x - mean + half_width) / std, (x - mean - half_width) / std
        # x is the middle of its bin: half a bin of slack absorbs the rounding of the grid itself.
        upper = upper.masked_fill(x > 1 - half_width, math.inf)
        lower = lower.masked_fill(x < half_width - 1, -math.inf)
        return _BIN_LOG_PROB[cdf](upper, lower).to(self.mean.dtype)


def _expm1_minus(delta: Tensor) -> Tensor:
    """Give exp(delta) - 1 - delta, by its power series where the subtraction would cancel."""
    series = torch.ones_like(delta)
    for n in range(10, 2, -1):
        series = 1 + delta / n * series
    series = series * delta.square() / 2
    direct = torch.expm1(delta) - delta
    direct = direct.masked_fill(delta.isinf(), math.inf)
    return torch.where(delta.abs() < 0.1, series, direct)


def exact_bin_log_prob(upper: Tensor, lower: Tensor) -> Tensor:
    """Give log[Phi(upper) - Phi(lower)], reflected to the side where both terms are small."""
    reflect = upper + lower > 0
    high = torch.where(reflect, -lower, upper)
    low = torch.where(reflect, -upper, lower)
    log_high, log_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    log_share = torch.log(-torch.expm1(log_low - log_high))
    return torch.where(log_high.isneginf(), log_high, log_high + log_share)


def _tanh_bin_log_prob(upper: Tensor, lower: Tensor) -> Tensor:
    """Give the same with a tanh in place of Phi, floored at 1e-12 as in published code."""

    def phi(z: Tensor) -> Tensor:
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))

    return (phi(upper) - phi(lower)).clamp(min=1e-12).log()


_BIN_LOG_PROB = {"exact": exact_bin_log_prob, "tanh": _tanh_bin_log_prob}
