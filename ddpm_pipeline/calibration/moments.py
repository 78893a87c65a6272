r"""Sums over single forward passes, from which a calibration is made.

Forward number f takes one image to one timestep t_f, with noise that depends on (seed, f, t_f)
alone, and adds to the sums of t_f:

.. math::
    \|\hat\epsilon\|^2/D \;(\text{for } m_t), \qquad \|x_0 - \hat x_0\|^2/D \;(\text{for } e_t),
    \qquad \text{the histogram of } x_0 - \hat x_0

Half of the forwards go evenly over t. The other half go where the bound is made: by the rate
1/2 ln(1 + SNR/4) of Gaussian data, with one nat for the decoder. A golden-ratio sequence makes
every stretch of f well spread over t.

The mean power of x_0's Fourier components, over all axes, less that of its mean, is the spectrum
of the data: what Wiener's filter knows of them.

The histogram prices the decoder of 8-bit data for any variance afterwards: the probability of
x_0's bin depends on the residual alone, once the bins that reach to infinity are kept apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ddpm_pipeline.common import precise_dtype
from ddpm_pipeline.diffusion import (
    Gaussian,
    NoiseSchedule,
    PredictionType,
    add_rows_,
    broadcast,
    gaussian_rate,
    keyed_normal,
    marginal,
    predict_x_0,
    sum_elements,
)

__all__ = [
    "MomentSums",
    "bin_nats",
    "decoder_costs_of_residuals",
    "residual_bins",
    "stratified_timesteps",
    "timestep_shares",
]


_GOLDEN = (5**0.5 - 1) / 2
_DECODER_NATS = 1.0

# Bins of residuals: _FINEST sinh(k _BIN_STEP), so fine that the squares are off by 1.3e-4 of
# themselves, and reaching to +-200. Signed for the outer levels, then unsigned for the others.
_FINEST, _BIN_STEP, _REACH = 2e-3, 0.04, 305
_SIGNED_BINS = 2 * _REACH + 1
NUM_BINS = _SIGNED_BINS + _REACH + 1
_HALF_LEVEL = 1 / 255


def timestep_shares(schedule: NoiseSchedule) -> Tensor:
    """Give the share of forwards that goes to each timestep and those below it, float64, (T,)."""
    rates = gaussian_rate(schedule, torch.arange(len(schedule)))
    padded = torch.cat([rates[:1] + 2 * _DECODER_NATS, rates, rates[-1:]])
    widths = padded[:-2] - padded[2:]
    shares = 0.5 / len(schedule) + 0.5 * widths / widths.sum()
    return shares.cumsum(0)


def stratified_timesteps(shares: Tensor, forwards: Tensor, start: float) -> Tensor:
    """Give the timestep of each forward, half of them even in t and half by the rate.

    Arguments:
        shares: What ``timestep_shares`` gives, shape (T,).
        forwards: Numbers of the forwards, int64.
        start: Where the sequence starts, in [0, 1).
    Returns:
        int64, the shape of ``forwards``; among any N in a row, a timestep of share p comes N p
        times to within about 2.
    """
    place = (forwards.double() * _GOLDEN + start) % 1
    return torch.searchsorted(shares, place, right=True).clamp(max=len(shares) - 1)


@dataclass(eq=False)
class MomentSums:
    """The sums over all forwards so far; sums of several processes can be added.

    Arguments:
        count: Forwards at each timestep, float64, (T,).
        eps, eps_squared: Sums of the predicted noise's mean square and of its square, (T,).
        error, error_squared: The same of x_0's error, (T,).
        data: Sum over forwards of the image's mean square, ().
        image, power: Sums over forwards of the image and of its Fourier components' squared
            magnitude, the shape of an image.
        residuals: Histograms of x_0 - x_0_hat, int64, (T, NUM_BINS), or (T, 0) for no histogram.
    """

    count: Tensor
    eps: Tensor
    eps_squared: Tensor
    error: Tensor
    error_squared: Tensor
    data: Tensor
    image: Tensor
    power: Tensor
    residuals: Tensor

    @classmethod
    def zeros(
        cls, T: int, shape: Sequence[int], device: torch.device, *, histogram: bool
    ) -> MomentSums:
        """Give sums to which nothing was added yet, for images of a shape."""
        precise = precise_dtype(device)
        tables = [torch.zeros(T, dtype=precise, device=device) for _ in range(5)]
        bins = torch.zeros(T, NUM_BINS if histogram else 0, dtype=torch.int64, device=device)
        data, *images = (
            torch.zeros(size, dtype=precise, device=device) for size in ((), shape, shape)
        )
        return cls(*tables, data, *images, bins)

    def spectrum(self) -> Tensor:
        """Give the variances of the data's Fourier components, float64 on the CPU, shape (D,)."""
        count, image, power = (
            value.cpu().double() for value in (self.count.sum(), self.image, self.power)
        )
        mean, power = image / count, power / count
        return (power - torch.fft.fftn(mean, norm="ortho").abs().square()).clamp(min=0).flatten()

    def tensors(self) -> dict[str, Tensor]:
        """Give all sums by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def add(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        schedule: NoiseSchedule,
        prediction_type: PredictionType,
        x_0: Tensor,
        t: Tensor,
        *,
        seed: int,
        forwards: Tensor,
    ) -> Tensor:
        """Add one forward for each image.

        Arguments:
            denoise: From (x_t, t) to the network's prediction, both float32 or float64.
            schedule, prediction_type: Of the network.
            x_0: Images, shape (B, *).
            t: Their timesteps, int64, shape (B,).
            seed: Of all noise.
            forwards: Numbers of the forwards, int64, shape (B,).
        Returns:
            x_0 - x_0_hat, in the shape of x_0.
        """
        eps = keyed_normal(seed, forwards, t, x_0.shape[1:]).to(x_0.dtype)
        x_t = marginal(schedule, x_0, t).reparameterize(eps)
        output = denoise(x_t, t)
        x_0_hat = predict_x_0(schedule, output, x_t, t, prediction_type=prediction_type)
        residual = x_0 - x_0_hat
        # Also right where alpha_bar is 0, and where it is 1 but for the last digits.
        eps_hat = eps + broadcast(schedule.snr(t).sqrt(), x_0) * residual
        # ||eps||²/D is 1 on average: taking its excess away leaves the mean and lowers the
        # variance, by far the most where the network has nothing but noise to predict.
        excess = _mean_square(eps) - 1
        noise_share = schedule.one_minus_alpha_bar(t).to(excess)
        moment, error = _mean_square(eps_hat) - noise_share * excess, _mean_square(residual)
        values = {
            "count": torch.ones_like(error),
            "eps": moment,
            "eps_squared": moment.square(),
            "error": error,
            "error_squared": error.square(),
        }
        for name, value in values.items():
            add_rows_(getattr(self, name), t, value.to(self.count))
        self._add_images(x_0)
        if self.residuals.numel():
            bins = (residual_bins(x_0, residual) + t[:, None] * NUM_BINS).flatten()
            self.residuals.view(-1).index_add_(0, bins, torch.ones_like(bins))
        return residual

    def _add_images(self, x_0: Tensor) -> None:
        """Add what does not depend on the network: power, mean and spectrum of the images."""
        self.data += _mean_square(x_0).sum().to(self.data)
        self.image += x_0.sum(0).to(self.image)
        components = torch.fft.fftn(x_0, dim=tuple(range(1, x_0.ndim)), norm="ortho")
        self.power += components.abs().square().sum(0).to(self.power)


def _mean_square(x: Tensor) -> Tensor:
    return sum_elements(x.square()) / x[0].numel()


def residual_bins(x_0: Tensor, residual: Tensor) -> Tensor:
    """Find the bin of every element's residual, int64, shape (B, D)."""
    x_0, residual = x_0.flatten(1), residual.flatten(1)
    is_outer = x_0.abs() > 1 - _HALF_LEVEL
    # At -1 an x_0_hat beyond -1 has x_0 - x_0_hat > 0; mirrored for +1.
    signed = torch.where(is_outer, -x_0.sign() * residual, residual.abs())
    k = ((signed / _FINEST).asinh() / _BIN_STEP).round().long().clamp(-_REACH, _REACH)
    return torch.where(is_outer, k + _REACH, k + _SIGNED_BINS)


def bin_nats(variance: Tensor) -> Tensor:
    """Give -log P(x_0 | x_t) of 8-bit data by bin of the residual.

    Arguments:
        variance: Of the decoder, float64, shape (M,).
    Returns:
        Nats, float64, shape (M, NUM_BINS).
    """
    k = torch.arange(NUM_BINS, device=variance.device)
    is_outer = k < _SIGNED_BINS
    k = torch.where(is_outer, k - _REACH, k - _SIGNED_BINS)
    residual = _FINEST * (k * _BIN_STEP).to(variance).sinh()
    x_0 = torch.where(is_outer, -1.0, 0.0).to(variance)
    decoder = Gaussian((x_0 - residual).expand(len(variance), -1), variance.log()[:, None])
    return -decoder.discretized_log_prob(x_0)


def decoder_costs_of_residuals(residuals: Tensor, variance: Tensor) -> Tensor:
    """Give E[-log P(x_0 | x_t)] per dimension of 8-bit data, for a decoder of a variance.

    Arguments:
        residuals: Histograms, shape (T, NUM_BINS).
        variance: Of the decoder at each timestep, float64, shape (T,).
    Returns:
        Nats per dimension, float64, shape (T,); NaN where there are no residuals.
    """
    nats = bin_nats(variance)
    shares = residuals.to(nats) / residuals.sum(1, keepdim=True)
    return (shares * nats).nan_to_num(posinf=torch.inf).sum(1) + 0 * shares.sum(1)
