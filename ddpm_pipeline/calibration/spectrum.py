r"""Sums over forward passes from which the spectrum of x_0's error is made.

Every forward adds the cosine coefficients of its error, as products of channels summed over bands
of frequencies, to the two knots of log SNR around its timestep. What is kept in the end is the
ratio of these sums to what a linear filter that knows the data's spectrum would leave,

.. math::
    e^{\rho_b} = \frac{\sum_f w_f \sum_{k \in b} |U(x_0 - \hat x_0)|_k^2}
    {\sum_f w_f \sum_{k \in b} \lambda_k / (1 + \lambda_k\, \mathrm{SNR}_t)}

its logarithm smoothed over log SNR (``smoothing``), for the combinations of channels that are
uncorrelated in the whole error. The weights w of forwards f hold the share of the knot, and
SNR + 4, which makes the errors of all timesteps about equally large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from torch import Tensor

from ddpm_pipeline.calibration.moments import MomentSums
from ddpm_pipeline.calibration.smoothing import smooth_fit
from ddpm_pipeline.common import precise_dtype
from ddpm_pipeline.diffusion import (
    NUM_KNOTS,
    FrequencyBasis,
    NoiseSchedule,
    add_rows_,
    frequency_bands,
    knots_around,
    linear_errors,
    pool,
)
from ddpm_pipeline.schedulers import MeasuredSpectrum

__all__ = ["SpectrumSums", "has_spectrum", "measured_spectrum"]


# Bands of the errors and of the data: in all channels together, and at most in one of them.
_ERROR_BANDS = (576, 196)
_DATA_BANDS = (4096, 1024)
_MOST_CHANNELS = 16
_INVERSE_VARIANCE = 4.0  # of images in [-1, 1]
_LEAST_VARIANCE = 1e-6  # of the mean
_LEAST_RATIO = 1e-6
_PARTS = 64  # of the timesteps, one in memory at a time


def has_spectrum(shape: Sequence[int]) -> bool:
    """Tell whether images of a shape (C, *) have axes, and not too many channels."""
    return len(shape) > 1 and shape[0] <= _MOST_CHANNELS


@dataclass(eq=False)
class SpectrumSums:
    """The sums over all forwards so far; sums of several processes can be added.

    Arguments:
        weights, weights_squared: Of the forwards at each knot, float64, (J,).
        errors: Weighted products of channels, summed over bands, (J, C, C, bands).
        error_squares: Weighted squares of their sums over channels, (J, bands).
        data: Products of channels of the images' coefficients, (C, C, data_bands).
    """

    weights: Tensor
    weights_squared: Tensor
    errors: Tensor
    error_squares: Tensor
    data: Tensor

    @classmethod
    def zeros(cls, shape: Sequence[int], device: torch.device) -> SpectrumSums:
        """Give sums to which nothing was added yet, for images of a shape (C, *)."""
        C, J = shape[0], NUM_KNOTS
        bands, data_bands = (
            _all_bands(_counts(shape, most)) for most in (_ERROR_BANDS, _DATA_BANDS)
        )
        shapes = ((J,), (J,), (J, C, C, bands), (J, bands), (C, C, data_bands))
        dtype = precise_dtype(device)
        return cls(*(torch.zeros(size, dtype=dtype, device=device) for size in shapes))

    def tensors(self) -> dict[str, Tensor]:
        """Give all sums by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def add(self, schedule: NoiseSchedule, x_0: Tensor, residual: Tensor, t: Tensor) -> None:
        """Add one forward for each image.

        Arguments:
            schedule: Noise schedule with T steps.
            x_0: Images, shape (B, C, *).
            residual: x_0 - x_0_hat, in the shape of x_0.
            t: Their timesteps, int64, shape (B,).
        """
        images, errors = (_channelwise((*x.shape[1:],)).to_frequencies(x) for x in (x_0, residual))
        self.data += _products(images, _DATA_BANDS).sum(0).to(self.data)
        snr = schedule.snr(t)
        products = _products(errors, _ERROR_BANDS).to(self.errors)
        products *= (snr + _INVERSE_VARIANCE).to(products)[:, None, None, None]
        totals = products.diagonal(dim1=1, dim2=2).sum(-1)
        below, share = knots_around(snr)
        share = share.to(products)
        for knots, weights in ((below, 1 - share), (below + 1, share)):
            values = {
                "weights": weights,
                "weights_squared": weights.square(),
                "errors": weights[:, None, None, None] * products,
                "error_squares": weights[:, None] * totals.square(),
            }
            for name, value in values.items():
                add_rows_(getattr(self, name), knots, value)


def measured_spectrum(
    schedule: NoiseSchedule, moments: MomentSums, sums: SpectrumSums
) -> MeasuredSpectrum:
    """Compute the shape of the error's spectrum.

    Arguments:
        schedule: Noise schedule with T steps.
        moments: Sums over the same forwards, for how often each timestep was seen, and the mean
            of the images.
        sums: At least one forward.
    Returns:
        The spectrum, rounded to the digits that are kept.
    """
    count, image = moments.count.cpu().double(), moments.image.cpu().double()
    sums = SpectrumSums(*(value.cpu().double() for value in sums.tensors().values()))
    mean = _channelwise((*image.shape,)).to_frequencies(image[None] / count.sum())
    covariance = sums.data / count.sum() - _products(mean, _DATA_BANDS)[0]
    channels = _decorrelating(sums.errors)
    shape, counts = image.shape, _counts(image.shape, _DATA_BANDS)
    variance = _rotated(covariance, channels) / _sizes(shape, counts)
    variance = variance.clamp(min=_LEAST_VARIANCE * float(variance.mean().clamp(min=1e-6)))
    expected = _expected_errors(schedule, count, variance.reshape(-1, *counts), shape[1:])
    ratio = _rotated(sums.errors, channels) / expected
    log_ratio, standard_error = _smooth(sums, ratio)
    return MeasuredSpectrum(
        channels=channels,
        sizes=(*shape[1:],),
        data_variance=variance.reshape(-1, *counts),
        log_ratio=log_ratio.reshape(*log_ratio.shape[:2], *_counts(shape, _ERROR_BANDS)),
        standard_error=standard_error,
    ).rounded()


def _counts(shape: Sequence[int], limits: tuple[int, int]) -> list[int]:
    """Give how many bands each axis of images (C, *) has."""
    most = max(1, min(limits[0] // shape[0], limits[1]))
    axes = len(shape) - 1
    return [min(n, int(most ** (1 / axes) + 1e-9)) for n in shape[1:]]


def _all_bands(counts: Sequence[int]) -> int:
    return int(torch.tensor(counts).prod())


def _bands(shape: Sequence[int], counts: Sequence[int]) -> list[Tensor]:
    return [frequency_bands(n, count) for n, count in zip(shape[1:], counts, strict=True)]


def _sizes(shape: Sequence[int], counts: Sequence[int]) -> Tensor:
    """Give how many frequencies each band holds, shape (bands,)."""
    return pool(torch.ones(*shape[1:], dtype=torch.float64), _bands(shape, counts)).flatten()


@lru_cache(maxsize=4)
def _channelwise(shape: tuple[int, ...]) -> FrequencyBasis:
    """Give the basis of single channels, once for all batches: it keeps its matrices."""
    return FrequencyBasis(torch.eye(shape[0], dtype=torch.float64), (*shape[1:],))


def _products(coefficients: Tensor, limits: tuple[int, int]) -> Tensor:
    """Give the products of channels, summed over bands, (B, C, C, bands)."""
    shape = coefficients.shape[1:]
    bands = _bands(shape, _counts(shape, limits))
    rows = [pool(coefficients * channel[:, None], bands) for channel in coefficients.unbind(1)]
    return torch.stack(rows, 1).flatten(3)


def _rotated(products: Tensor, channels: Tensor) -> Tensor:
    """Give the mean squares (..., C, bands) of combinations of channels."""
    return torch.einsum("ka,...abn,kb->...kn", channels, products, channels)


def _decorrelating(errors: Tensor) -> Tensor:
    """Find the combinations of channels that are uncorrelated in the whole error, (C, C)."""
    covariance = errors.sum(-1)
    power = covariance.diagonal(dim1=1, dim2=2).sum(-1).clamp(min=1e-300)
    vectors = torch.linalg.eigh((covariance / power[:, None, None]).sum(0)).eigenvectors.T.flip(0)
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return vectors * largest.sign()


def _expected_errors(
    schedule: NoiseSchedule, count: Tensor, variance: Tensor, sizes: Sequence[int]
) -> Tensor:
    """Give what linear filters would have added to the sums of errors, (J, C, bands)."""
    shape = (len(variance), *sizes)
    for axis, band in enumerate(_bands(shape, variance.shape[1:]), start=1):
        variance = variance.index_select(axis, band)
    bands = _bands(shape, _counts(shape, _ERROR_BANDS))
    total = 0.0
    for t in count.nonzero().flatten().tensor_split(_PARTS):
        snr = schedule.snr(t)
        errors = pool(linear_errors(variance, snr), bands).flatten(2)
        errors *= (count[t] * (snr + _INVERSE_VARIANCE))[:, None, None]
        below, share = knots_around(snr)
        knots = torch.zeros(NUM_KNOTS, len(t), dtype=torch.float64)
        knots[below, torch.arange(len(t))] = 1 - share
        knots[below + 1, torch.arange(len(t))] = share
        total = total + torch.einsum("jt,tcn->jcn", knots, errors)
    return total


def _smooth(sums: SpectrumSums, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """Give smooth logarithms of ratios (J, C, bands), and their standard errors (J,)."""
    seen = sums.weights > 0
    weights = torch.where(seen, sums.weights.square() / sums.weights_squared.clamp(min=1e-300), 0)
    noisy = ratio.nan_to_num().clamp(min=_LEAST_RATIO).log()
    knots = torch.arange(len(seen), dtype=torch.float64)
    variances = _relative_variances(sums, weights)
    fit = smooth_fit(knots, noisy.flatten(1), weights, knot_spacing=1.0)
    curves = fit.values.reshape(noisy.shape)
    curves = curves.clamp(noisy[seen].amin(0), noisy[seen].amax(0))
    return curves, fit.standard_errors(variances.mean(1))


def _relative_variances(sums: SpectrumSums, weights: Tensor) -> Tensor:
    """Give the squared relative standard errors of the sums at each knot, (J, bands)."""
    weight = sums.weights.clamp(min=1e-300)[:, None]
    mean = sums.errors.diagonal(dim1=1, dim2=2).sum(-1) / weight
    spread = sums.error_squares / weight / mean.square().clamp(min=1e-300) - 1
    return spread.clamp(min=0) / weights.clamp(min=1)[:, None]
