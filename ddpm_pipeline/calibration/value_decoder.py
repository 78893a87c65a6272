r"""Which variance is the best for each class of predicted values, from histograms of residuals.

A forward adds the residuals of its image to the histogram of its class at the nearest knot of log
SNR. The histograms price any variance afterwards, as those of ``moments`` do, so that the best one
of every class and knot can be looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_pipeline.calibration.moments import (
    NUM_BINS,
    bin_nats,
    residual_bins,
)
from ddpm_pipeline.diffusion import (
    NUM_KNOTS,
    NUM_VALUE_CLASSES,
    NoiseSchedule,
    ValueDecoder,
    knots_around,
    prediction_scale,
    prediction_scale_of,
    snr_at_knots,
    value_classes,
)

__all__ = ["ValueSums", "has_value_classes", "measured_value_decoder"]

_LOG2_RATIOS = torch.arange(-12, 3, dtype=torch.float64)  # of variances over kappa²
_MOST_AXES = 3
# Residuals of all classes that every class is taken to have seen, and shares of the next knots.
_PRIOR, _NEIGHBOUR = 50.0, 0.25
_MOST_NATS = 1e4  # of one value; no variance that is chosen has so many


def has_value_classes(shape: Sequence[int], *, is_discrete: bool) -> bool:
    """Tell whether images of a shape (C, *) are decoded to levels, and have axes to pool over."""
    return is_discrete and 1 < len(shape) <= _MOST_AXES + 1


@dataclass(eq=False)
class ValueSums:
    """The histograms so far; those of several processes can be added.

    Arguments:
        residuals: int32, shape (J, classes, bins).
    """

    residuals: Tensor

    @classmethod
    def zeros(cls, device: torch.device) -> ValueSums:
        """Give histograms to which nothing was added yet."""
        shape = NUM_KNOTS, NUM_VALUE_CLASSES, NUM_BINS
        return cls(torch.zeros(shape, dtype=torch.int32, device=device))

    def tensors(self) -> dict[str, Tensor]:
        """Give all sums by name."""
        return {"residuals": self.residuals}

    def add(self, schedule: NoiseSchedule, x_0: Tensor, residual: Tensor, t: Tensor) -> None:
        """Add one forward for each image; arguments as for ``SpectrumSums.add``."""
        below, share = knots_around(schedule.snr(t))
        knot = below + share.round().long()
        classes = value_classes(x_0 - residual, prediction_scale(schedule, t)).flatten(1)
        place = (knot[:, None] * NUM_VALUE_CLASSES + classes) * NUM_BINS
        bins = (place + residual_bins(x_0, residual)).flatten()
        ones = torch.ones_like(bins, dtype=torch.int32)
        self.residuals.view(-1).index_add_(0, bins, ones)


def measured_value_decoder(sums: ValueSums) -> ValueDecoder:
    """Find the best variances by class, and what they save."""
    costs, count = _costs(sums.residuals.cpu().double())
    together, total = costs.sum(1, keepdim=True), count.sum(1).clamp(min=1)[:, None, None]
    weighed = costs + _PRIOR * together / total
    weighed[1:] += _NEIGHBOUR * costs[:-1]
    weighed[:-1] += _NEIGHBOUR * costs[1:]
    best = _lowest(weighed)
    saved = _at(together, _lowest(together)).sum(1) - _at(costs, best).sum(1)
    return ValueDecoder(variance=2**best, gain=(saved / total.flatten()).clamp(min=0))


def _costs(residuals: Tensor) -> tuple[Tensor, Tensor]:
    """Give the nats of all residuals of a class for every ratio, (J, classes, ratios).

    Also how many residuals there are, (J, classes).
    """
    variances = (2**_LOG2_RATIOS) * prediction_scale_of(snr_at_knots()).square()[:, None]
    nats = bin_nats(variances.flatten()).clamp(max=_MOST_NATS).reshape(*variances.shape, -1)
    return residuals @ nats.transpose(1, 2), residuals.sum(2)


def _lowest(costs: Tensor) -> Tensor:
    """Give the logarithm of the ratio with the least cost, by a parabola through three."""
    place = costs.argmin(-1, keepdim=True).clamp(1, len(_LOG2_RATIOS) - 2)
    before, here, after = (costs.gather(-1, place + i).squeeze(-1) for i in (-1, 0, 1))
    bend = before - 2 * here + after
    shift = torch.where(bend > 0, (before - after) / (2 * bend.clamp(min=1e-300)), 0.0)
    return _LOG2_RATIOS[place.squeeze(-1)] + shift.clamp(-1, 1)


def _at(costs: Tensor, log2_ratio: Tensor) -> Tensor:
    """Give the cost at a ratio, between those of its neighbours."""
    place = (log2_ratio - _LOG2_RATIOS[0]).clamp(0, len(_LOG2_RATIOS) - 1)
    below = place.floor().long().clamp(max=len(_LOG2_RATIOS) - 2)
    low, high = (costs.gather(-1, (below + i)[..., None]).squeeze(-1) for i in (0, 1))
    return low + (place - below) * (high - low)
