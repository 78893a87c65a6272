r"""``Levels``: data that take evenly spaced values, each of which has a probability.

.. math::
    \log P(v_k) = \log\Big[\Phi\Big(\tfrac{v_k + w/2 - \mu}{\sigma}\Big)
    - \Phi\Big(\tfrac{v_k - w/2 - \mu}{\sigma}\Big)\Big], \qquad v_k = v_0 + k w

The outer two bins reach to infinity, so that all of them sum to one. Levels and widths may differ
from channel to channel, as those of data that were scaled by channel do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_pipeline.common import moved, precise_dtype
from ddpm_pipeline.diffusion.gaussian import Gaussian, exact_bin_log_prob

__all__ = ["Levels"]

_TOLERANCE = 1e-2  # of a level's place, in levels


@dataclass(frozen=True, eq=False)
class Levels:
    """Evenly spaced levels of data (B, C, *).

    Arguments:
        first: The lowest level of each channel, float64 (C,).
        width: Distance of neighbours, float64 (C,).
        count: How many levels there are.
    """

    first: Tensor
    width: Tensor
    count: int

    def log_prob(self, p: Gaussian, x: Tensor) -> Tensor:
        """Give the log-probability of the level nearest to each element of x, in nats.

        Arguments:
            p: Mean of the shape of x.
            x: Data, shape (B, C, *).
        """
        precise = precise_dtype(x.device)
        first, width = self._like(x, precise)
        k = ((x.to(precise) - first) / width).round()
        level = first + k * width  # as it is, and not as float32 rounds it
        mean, std = p.mean.to(precise), p.std.to(precise)
        upper, lower = (level - mean + width / 2) / std, (level - mean - width / 2) / std
        upper = upper.masked_fill(k >= self.count - 1, math.inf)
        lower = lower.masked_fill(k <= 0, -math.inf)
        return exact_bin_log_prob(upper, lower).to(p.mean.dtype)

    def between(self, x: Tensor) -> Tensor:
        """Tell which elements of x are no levels, bool in the shape of x."""
        first, width = self._like(x, precise_dtype(x.device))
        k = (x.to(first.dtype) - first) / width
        # float32 holds numbers of magnitude 1 to 6e-8, which is a part of a narrow level.
        slack = _TOLERANCE + 4 * torch.finfo(torch.float32).eps * (x.abs() + 1) / width
        return (k - k.round()).abs().gt(slack) | (k < -slack) | (k > self.count - 1 + slack)

    def _like(self, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        shape = (-1, *[1] * (x.ndim - 2))
        return tuple(moved(v.to(dtype), x.device).view(shape) for v in (self.first, self.width))
