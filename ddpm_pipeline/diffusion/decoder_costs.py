r"""What the last move, to the data, costs: E[-log p(x_0 | x_t)] per dimension, in nats.

For data with a density the error of x_0 says it,

.. math::
    \tfrac12 \ln(2\pi\sigma^2) + \frac{e_t}{2\sigma^2}, \qquad
    e_t = \mathbb E\|x_0 - \hat x_0\|^2/D

For 8-bit data it was measured for a few variances, DECODER_RATIOS times :math:`1 - \bar\alpha_t`,
and lies for those between on

.. math:: a + b \ln r + c / r, \qquad r = \sigma^2 / (1 - \bar\alpha_t)

a form that a density has exactly, and that is nearly exact between neighbours otherwise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddpm_pipeline.diffusion.gaussian import Gaussian

__all__ = ["DECODER_RATIOS", "continuous_decoder_costs", "decoder_costs_at", "fit_through"]


DECODER_RATIOS = tuple(2.0**-k for k in range(6, -1, -1))
"""Variances, over 1 - alpha_bar_t, for which the decoder's cost is kept."""


def decoder_costs_at(table: Tensor, ratio: Tensor) -> Tensor:
    r"""Give the decoder's cost for any variance, from those for DECODER_RATIOS.

    A curve a + b ln(ratio) + c/ratio goes through the three nearest.

    Arguments:
        table: Nats per dimension for each of DECODER_RATIOS, shape (7, M).
        ratio: Variance over 1 - alpha_bar_t, above 0, shape (M,).
    Returns:
        Nats per dimension, shape (M,).
    """
    low, high = (math.log(DECODER_RATIOS[end]) for end in (0, -1))
    last = len(DECODER_RATIOS) - 1
    nodes = torch.linspace(low, high, last + 1, dtype=torch.float64).exp()
    nearest = (ratio.log() - low) / (high - low) * last
    first = (nearest.round().long() - 1).clamp(0, last - 2)
    window = first + torch.arange(3)[:, None]
    coefficients = fit_through(nodes[window.T], table.gather(0, window).T)
    return (_form(ratio) * coefficients).sum(1)


def fit_through(ratios: Tensor, costs: Tensor) -> Tensor:
    """Give (a, b, c), (M, 3), of the curve that has these costs at these ratios, both (M, 3)."""
    return torch.linalg.solve(_form(ratios), costs)


def continuous_decoder_costs(x_0_error: Tensor, variance: Tensor | None = None) -> Tensor:
    r"""Give E[-log N(x_0; x_0_hat, variance)] per dimension, for data with a density.

    Arguments:
        x_0_error: e_t, shape (T,).
        variance: Of the decoder; the best one, e_t, by default, for 1/2 ln(2 pi e e_t).
    """
    log_var = (x_0_error if variance is None else variance).log()
    return -Gaussian(torch.zeros_like(x_0_error), log_var).log_prob(x_0_error.sqrt())


def _form(ratio: Tensor) -> Tensor:
    return torch.stack([torch.ones_like(ratio), ratio.log(), 1 / ratio], dim=-1)
