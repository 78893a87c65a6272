r"""``ValueDecoder``: the variance of the move to 8-bit data, by what is predicted.

How far a prediction is off depends on what it is: on a black background hardly at all, at an edge
much. The move to the data may have any variance that x_t tells, and so any that follows from
:math:`\hat x_0(x_t)` and its surroundings. Every value is of a class

.. math::
    c = \text{class}\Big(\frac{1 - |\hat x_0|}{\kappa_t},\; \text{sign}\,\hat x_0,\;
    \frac{\text{spread of } \hat x_0 \text{ around it}}{\kappa_t}\Big), \qquad
    \kappa_t = \min\big(1, \mathrm{SNR}_t^{-1/2}\big)

with one variance for each class, which is the best for it (docs/formulas.md, variances by value).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from ddpm_pipeline.common import moved
from ddpm_pipeline.diffusion.schedule import NoiseSchedule
from ddpm_pipeline.diffusion.spectral import NUM_KNOTS, knots_around
from ddpm_pipeline.diffusion.tensors import broadcast

__all__ = [
    "NUM_VALUE_CLASSES",
    "ValueDecoder",
    "prediction_scale",
    "prediction_scale_of",
    "value_classes",
]

# In units of kappa: distance to the end of the range, below 0 beyond it, and spread.
_DISTANCES = (-0.05, -0.01, 0.01, 0.05, 0.2, 0.8)
_SPREADS = (0.02, 0.06, 0.2, 0.6, 2.0)
_SIDE = 5  # of the surroundings
NUM_VALUE_CLASSES = 2 * (len(_DISTANCES) + 1) * (len(_SPREADS) + 1)
"""Classes of a predicted value."""

_POOLS = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def prediction_scale(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """Give kappa of timesteps, float64, in the shape of t."""
    return prediction_scale_of(schedule.snr(t))


def prediction_scale_of(snr: Tensor) -> Tensor:
    """Give kappa at some SNR."""
    return snr.rsqrt().clamp(max=1)


def value_classes(x_0_hat: Tensor, scale: Tensor) -> Tensor:
    """Find the class of every predicted value.

    Arguments:
        x_0_hat: Predictions, shape (B, C, *), with one to three axes behind C.
        scale: kappa of each example, shape (B,).
    Returns:
        int64, the shape of ``x_0_hat``.
    """
    scale = broadcast(scale, x_0_hat)
    distance, spread = (
        torch.bucketize(x, torch.tensor(edges, dtype=x.dtype, device=x.device))
        for x, edges in (
            ((1 - x_0_hat.abs()) / scale, _DISTANCES),
            (_spread(x_0_hat.clamp(-1, 1)) / scale, _SPREADS),
        )
    )
    side = (x_0_hat > 0).long()
    return (side * (len(_DISTANCES) + 1) + distance) * (len(_SPREADS) + 1) + spread


def _spread(x: Tensor) -> Tensor:
    """Give the standard deviation of the values around each."""
    mean, square = (_surroundings(value) for value in (x, x.square()))
    return (square - mean.square()).clamp(min=0).sqrt()


def _surroundings(x: Tensor) -> Tensor:
    # No side is longer than the axis, and each is odd.
    sides = [min(_SIDE, n - 1 + n % 2) for n in x.shape[2:]]
    borders = [side // 2 for side in sides]
    return _POOLS[len(sides)](x, sides, 1, borders, count_include_pad=False)


@dataclass(frozen=True, eq=False)
class ValueDecoder:
    """The variances of the move to the data by class, at the knots of log SNR.

    Arguments:
        variance: Over kappa², above 0, shape (J, NUM_VALUE_CLASSES) for J knots.
        gain: What they save against one variance for all values, nats per dimension, at least 0,
            shape (J,).
    Raises:
        ValueError: If a table is of another shape, not finite, or of values that cannot be.
    """

    variance: Tensor
    gain: Tensor

    def __post_init__(self) -> None:
        shapes = {"variance": (NUM_KNOTS, NUM_VALUE_CLASSES), "gain": (NUM_KNOTS,)}
        for name, shape in shapes.items():
            table = getattr(self, name)
            if table.shape != shape or not table.isfinite().all():
                raise ValueError(
                    f"{name} by value must be finite and of shape {shape}, got {(*table.shape,)}"
                )
        if not (self.variance > 0).all() or not (self.gain >= 0).all():
            raise ValueError("variance by value must be above 0, and gain at least 0")

    def log_var(self, schedule: NoiseSchedule, x_0_hat: Tensor, t: Tensor) -> Tensor:
        """Give the logarithm of the variance of every value.

        Arguments:
            schedule: Noise schedule with T steps.
            x_0_hat: Predictions, shape (B, C, *).
            t: Their timesteps, int64, shape (B,) or ().
        Returns:
            In the shape and dtype of ``x_0_hat``.
        """
        t = moved(torch.as_tensor(t), x_0_hat.device).reshape(-1).expand(len(x_0_hat))
        scale = prediction_scale(schedule, t)
        logs = self._between(self.variance.log(), schedule.snr(t)) + 2 * scale.log()[:, None]
        classes = value_classes(x_0_hat, scale)
        return logs.to(x_0_hat.dtype).gather(1, classes.flatten(1)).reshape(x_0_hat.shape)

    def gain_at(self, snr: Tensor) -> Tensor:
        """Give what the variances by class save at some SNR, nats per dimension, shape (M,)."""
        return self._between(self.gain, snr)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> ValueDecoder:
        """Put the tables on a device, in a dtype."""
        tables = (moved(table.to(dtype), device) for table in (self.variance, self.gain))
        return replace(self, **dict(zip(("variance", "gain"), tables, strict=True)))

    @staticmethod
    def _between(table: Tensor, snr: Tensor) -> Tensor:
        """Give a table at the knots, (J, *), between them."""
        below, share = knots_around(snr)
        share = share.to(table).reshape(-1, *[1] * (table.ndim - 1))
        return (1 - share) * table[below] + share * table[below + 1]
