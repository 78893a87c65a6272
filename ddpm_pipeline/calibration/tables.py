r"""From sums over forwards to smooth tables over t, with their errors.

The denoising error of any data is a smooth function of log SNR, so that neighbouring timesteps
share their forwards: each table is a spline in log SNR (``smoothing``) through the
means of single timesteps. Errors are smoothed as fractions of the error of the best multiple of
x_t, which vary little from one end of the chain to the other.

The best variance of the decoder would be e_t if x_0 had a density. Of 8-bit data it is the one
with the least cost by the histograms, often above e_t: a level at the end of the range, such as a
black background, has all the probability beyond it as well, so that however wide the decoder, it
costs no more than about a bit there, and the other levels decide.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_pipeline.calibration.moments import MomentSums, decoder_costs_of_residuals
from ddpm_pipeline.calibration.smoothing import SmoothFit, smooth_fit
from ddpm_pipeline.diffusion import (
    DECODER_RATIOS,
    NoiseSchedule,
    bits_per_dim,
    fit_through,
    linear_error,
    move_costs,
    wiener_error,
)
from ddpm_pipeline.schedulers import VarianceEstimate

__all__ = ["MeasuredTables", "estimate_x_0_variance", "measured_tables"]

# Below this SNR the noise of 1 - m, amplified by 1/SNR, is worse than the model's own error.
_MOMENT_SNR = 1e-2


# Variances, over e_t, among which the decoder's best is looked for. The best may be well above or
# below e_t, a mean over all levels, since only those inside the range decide it.
_DECODER_FACTORS = 2 ** torch.arange(-3, 4.5, 0.5, dtype=torch.float64)

_LOG_SNR_RANGE = (-12.0, 14.0)
_LEAST_SHARE = 1e-6
_LEAST_RELATIVE_COST = 1e-2


class MeasuredTables(NamedTuple):
    """Tables of shape (T,), float64 on the CPU, and the error of the full chain's bits/dim.

    They are those of ``Calibration``, before rounding.
    """

    m: Tensor
    m_standard_error: Tensor
    x_0_error: Tensor
    x_0_error_standard_error: Tensor
    decoder: Tensor
    decoder_variance: Tensor
    decoder_cost: Tensor | None
    wiener_error: Tensor
    second_moment: float
    standard_error: float


def measured_tables(schedule: NoiseSchedule, sums: MomentSums) -> MeasuredTables:
    """Compute all that the sums say.

    Arguments:
        schedule: Noise schedule with T steps.
        sums: At least one forward.
    """
    count, eps, eps_squared, error, error_squared = (
        value.cpu().double()
        for value in (sums.count, sums.eps, sums.eps_squared, sums.error, sums.error_squared)
    )
    second_moment = float(sums.data) / float(count.sum())
    log_snr = schedule.snr(torch.arange(len(schedule))).log().clamp(*_LOG_SNR_RANGE)
    scale = linear_error(schedule, second_moment)
    share, share_variances = _smooth_mean(
        log_snr, count, error / scale, error_squared / scale.square()
    )
    m, m_variances = _smooth_mean(log_snr, count, eps, eps_squared)
    x_0_error = share.values.clamp(min=_LEAST_SHARE) * scale
    slopes = _bound_slopes(schedule, x_0_error) * scale
    nats_error = share.standard_error_of_sum(slopes, share_variances)
    pricer = _DecoderPricer(schedule, sums.residuals.cpu(), log_snr, count)
    decoder_variance, decoder_cost = pricer.best(x_0_error)
    return MeasuredTables(
        m=m.values,
        m_standard_error=m.standard_errors(m_variances),
        x_0_error=x_0_error,
        x_0_error_standard_error=share.standard_errors(share_variances) * scale,
        decoder=pricer.table(),
        decoder_variance=decoder_variance,
        decoder_cost=decoder_cost,
        wiener_error=wiener_error(schedule, sums.spectrum()),
        second_moment=second_moment,
        standard_error=float(bits_per_dim(nats_error, 1)),
    )


def estimate_x_0_variance(
    schedule: NoiseSchedule,
    estimate: VarianceEstimate,
    m: Tensor,
    x_0_error: Tensor,
    second_moment: float,
) -> Tensor:
    """Give v_t by the chosen estimate, at most the error of the best multiple of x_t."""
    limit = linear_error(schedule, second_moment)
    if estimate == "moment":
        snr = schedule.snr(torch.arange(len(schedule)))
        x_0_error = torch.where(snr < _MOMENT_SNR, x_0_error, (1 - m) / snr)
    return torch.minimum(x_0_error, limit).clamp(min=1e-6 * limit)


def _smooth_mean(
    x: Tensor, count: Tensor, total: Tensor, squares: Tensor
) -> tuple[SmoothFit, Tensor]:
    """Give the smooth mean of images over timesteps, and the variance of each mean."""
    mean = total / count.clamp(min=1)
    spread = (squares / count.clamp(min=1) - mean.square()).clamp(min=0)
    spread = spread * count / (count - 1).clamp(min=1)
    variance = (
        smooth_fit(x, spread, (count - 1).clamp(min=0)).values if count.max() > 1 else spread
    )
    # The spline may dip below 0 where the variance nearly vanishes.
    variance = variance.clamp(min=1e-3 * float(variance.max()) + 1e-300)
    return smooth_fit(x, mean, count / variance), variance / count.clamp(min=1)


def _bound_slopes(schedule: NoiseSchedule, x_0_error: Tensor) -> Tensor:
    """Give d(nats per dimension of the full chain) / d(x_0's error at t), variances held."""
    t = torch.arange(1, len(schedule))
    error = x_0_error[1:]
    with_error, without = (
        move_costs(schedule, t, t - 1, e, x_0_variance=error) for e in (error, 0 * error)
    )
    decoder = 1 / (2 * x_0_error[:1])  # of a Gaussian; that of 8-bit data is below
    return torch.cat([decoder, (with_error - without) / error])


class _DecoderPricer(NamedTuple):
    """The decoder's smooth cost over t, by histograms of residuals; (T, 0) for a density."""

    schedule: NoiseSchedule
    residuals: Tensor
    log_snr: Tensor
    count: Tensor

    def costs(self, variance: Tensor) -> Tensor:
        """Give the nats per dimension for a variance at each timestep, shape (T,)."""
        nats = decoder_costs_of_residuals(self.residuals, variance)
        # Images differ about in proportion to what they cost.
        first = smooth_fit(self.log_snr, nats, self.count).values
        floor = _LEAST_RELATIVE_COST * first.max().clamp(min=1e-6)
        weights = self.count / first.clamp(min=floor).square()
        return smooth_fit(self.log_snr, nats, weights).values

    def table(self) -> Tensor:
        """Give the cost for each of DECODER_RATIOS, shape (7, T); (0, T) for a density."""
        if not self.residuals.numel():
            return self.count.new_zeros(0, len(self.schedule))
        return torch.stack([self.costs(ratio * self._noise) for ratio in DECODER_RATIOS])

    def best(self, x_0_error: Tensor) -> tuple[Tensor, Tensor | None]:
        """Give the variance of the least cost, at most 1 - alpha_bar, and that cost, (T,)."""
        if not self.residuals.numel():
            return x_0_error, None
        factors = _DECODER_FACTORS
        costs = torch.stack([self.costs(factor * x_0_error) for factor in factors])
        lowest = costs.argmin(0).clamp(1, len(factors) - 2)
        around = lowest + torch.arange(-1, 2)[:, None]
        # a + b ln(factor) + c/factor through three costs is lowest at c/b.
        _, b, c = fit_through(factors[around.T], costs.gather(0, around).T).unbind(1)
        best = torch.where(b > 0, c / b, torch.inf)
        best = best.clamp(factors[lowest - 1], factors[lowest + 1])
        variance = torch.minimum(best * x_0_error, self._noise)
        return variance, self.costs(variance).clamp(min=0)

    @property
    def _noise(self) -> Tensor:
        return self.schedule.one_minus_alpha_bar(torch.arange(len(self.schedule)))
