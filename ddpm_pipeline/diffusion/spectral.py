r"""Reverse moves whose covariance is diagonal in an orthonormal basis, such as the DCT.

Where the squared errors of x_0 differ between the components k of a basis, one scalar variance is
a compromise. With

.. math::
    S_k(t) = \mathbb E\,|U(x_0 - \hat x_0)|_k^2, \qquad q = a_{s|t}^2 / \tilde\beta_{s|t}
    = \mathrm{SNR}_s - \mathrm{SNR}_t

the best covariance that is diagonal in the basis, and the bound's term with it, are

.. math::
    \sigma_k^2 = \tilde\beta_{s|t} + a_{s|t}^2\, S_k(t), \qquad
    L(t \to s) = \tfrac1{2D} \sum_k \ln(1 + q\, S_k(t))

(docs/formulas.md, spectral variance). Its mean over k is the analytic variance, whose term is
never less. For Gaussian data that are uncorrelated in the basis every move is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ddpm_pipeline.common import moved
from ddpm_pipeline.diffusion.dct import FrequencyBasis
from ddpm_pipeline.diffusion.gaussian import Gaussian
from ddpm_pipeline.diffusion.schedule import NoiseSchedule

__all__ = [
    "NUM_KNOTS",
    "BasisGaussian",
    "ErrorSpectrum",
    "knots_around",
    "linear_errors",
    "snr_at_knots",
    "spectral_move_costs",
]


_ELEMENTS_AT_ONCE = 2**22

# Knots of log SNR between which a spectrum is interpolated; beyond them it is that of the last.
_LOG_SNR_RANGE, _KNOT_SPACING = (-12.0, 14.0), 1.0
NUM_KNOTS = int((_LOG_SNR_RANGE[1] - _LOG_SNR_RANGE[0]) / _KNOT_SPACING) + 1
"""Places in log SNR at which the shape of a spectrum is kept."""


@dataclass(frozen=True)
class BasisGaussian:
    r"""A Gaussian whose covariance is diagonal in a basis: :math:`N(\mu, U^T \Sigma U)`.

    Arguments:
        mean: Mean in pixels, shape (B, C, *).
        log_var: Logarithm of the variances of its coefficients, broadcasting against ``mean``.
        basis: U.
    """

    mean: Tensor
    log_var: Tensor
    basis: FrequencyBasis

    def in_basis(self) -> Gaussian:
        """Give the distribution of the coefficients, which are independent."""
        return Gaussian(self.basis.to_frequencies(self.mean), self.log_var)

    def reparameterize(self, eps: Tensor) -> Tensor:
        """Give a draw from standard normal noise, the shape of ``mean``, of the coefficients."""
        return self.mean + self.basis.to_pixels((0.5 * self.log_var).exp() * eps)

    def log_prob(self, x: Tensor) -> Tensor:
        """Give the log density by coefficient; only the sum over an example belongs to x."""
        return self.in_basis().log_prob(self.basis.to_frequencies(x))

    def kl_from(self, q: Gaussian) -> Tensor:
        """Give KL(q || self) by coefficient, for a q with one variance for each example."""
        return Gaussian(self.basis.to_frequencies(q.mean), q.log_var).kl(self.in_basis())


@dataclass(frozen=True, eq=False)
class ErrorSpectrum:
    r"""S_k(t), tabulated over t in few numbers.

    .. math:: S_k(t) = r_{b(k)}(t)\, \frac{\lambda_k}{1 + \lambda_k\, \mathrm{SNR}_t}

    The fraction is the error of the best linear estimate of a component of variance
    :math:`\lambda_k`; r says what a model makes of it, for bands b of frequencies.

    Arguments:
        basis: Of the components.
        data_variance: lambda, shape (C, *).
        ratios: r, at least 0, shape (T, C, *bands).
        bands: For each axis of the images the band of every frequency, int64.
        snr: SNR_t, shape (T,).
    """

    basis: FrequencyBasis
    data_variance: Tensor
    ratios: Tensor
    bands: tuple[Tensor, ...]
    snr: Tensor

    def __len__(self) -> int:
        """T."""
        return len(self.snr)

    def at(self, t: Tensor) -> Tensor:
        """Give S_k(t) of some timesteps, int64, shape (B,); shape (B, C, *)."""
        ratios = self.ratios[t]
        for axis, band in enumerate(self.bands, start=2):
            ratios = ratios.index_select(axis, band)
        return ratios * linear_errors(self.data_variance, self.snr[t])

    def limit(self, t: Tensor) -> Tensor:
        """Give the error of the best linear estimate of each component, shape (B, C, *)."""
        return linear_errors(self.data_variance, self.snr[t])

    def with_mean(self, mean: Tensor) -> ErrorSpectrum:
        """Give a spectrum of the same shape whose mean over k is a table, shape (T,)."""
        found = torch.cat([self.at(t).flatten(1).mean(1) for t in self.parts()])
        return self.scaled(mean / found)

    def scaled(self, factor: Tensor) -> ErrorSpectrum:
        """Give the S_k(t) times a table of factors, shape (T,)."""
        factor = factor.reshape(-1, *[1] * (self.ratios.ndim - 1))
        return replace(self, ratios=self.ratios * factor)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> ErrorSpectrum:
        """Put the tables on a device, in a dtype."""
        tables = {
            name: moved(getattr(self, name).to(dtype), device)
            for name in ("data_variance", "ratios", "snr")
        }
        return replace(self, **tables, bands=tuple(moved(band, device) for band in self.bands))

    @property
    def per_part(self) -> int:
        """How many timesteps have S_k that fit into memory together."""
        return max(1, _ELEMENTS_AT_ONCE // self.data_variance.numel())

    def parts(self) -> Iterator[Tensor]:
        """Give all timesteps, so many at a time."""
        return iter(torch.arange(len(self)).split(self.per_part))


def linear_errors(variance: Tensor, snr: Tensor) -> Tensor:
    """Give the error of the best linear estimate of components of a variance, (B, *variance)."""
    return variance / (1 + variance * snr.reshape(-1, *[1] * variance.ndim))


def spectral_move_costs(
    schedule: NoiseSchedule,
    t: Tensor,
    s: Tensor,
    errors: Tensor,
    variances: Tensor | None = None,
    shares: Tensor | None = None,
) -> Tensor:
    r"""Give the bound's terms of some moves t → s whose covariance is diagonal in a basis.

    .. math::
        L(t \to s) = \tfrac1{2D} \sum_k \ln(1 + q V_k) + \frac{q\,(S_k - V_k)}{1 + q V_k}

    Arguments:
        schedule: Noise schedule with T steps.
        t, s: Timesteps, int64, shape (M,), 0 <= s < t < T.
        errors: S_k at t, float64, shape (M, D).
        variances: V_k that the variances of the moves are made of, shape (M, D); S_k by default,
            which is optimal.
        shares: Weights of the components, shape (M, D), which sum to 1; equal by default.
    Returns:
        Nats per dimension, float64, shape (M,).
    Source: Bao et al. 2022 (arXiv:2206.07309), theorem 1 for a diagonal covariance.
    """
    variances = errors if variances is None else variances
    # a²/beta_tilde, the difference of the two SNRs without its cancellation.
    q = schedule.snr(s) * schedule.beta(t, s) / schedule.one_minus_alpha_bar(t)
    scaled = q[:, None] * variances
    nats = scaled.log1p() + q[:, None] * (errors - variances) / (1 + scaled)
    return (nats.mean(1) if shares is None else (nats * shares).sum(1)) / 2


def knots_around(snr: Tensor) -> tuple[Tensor, Tensor]:
    """Find the knot of log SNR below each SNR, int64, and the share of the way to the next."""
    place = (snr.log().clamp(*_LOG_SNR_RANGE) - _LOG_SNR_RANGE[0]) / _KNOT_SPACING
    below = place.floor().clamp(max=NUM_KNOTS - 2)
    return below.long(), place - below


def snr_at_knots() -> Tensor:
    """Give the SNR of every knot, float64, shape (NUM_KNOTS,)."""
    return torch.linspace(*_LOG_SNR_RANGE, NUM_KNOTS, dtype=torch.float64).exp()
