"""TODO diffusion.decoder_costs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddpm_pipeline.diffusion.gaussian import Gaussian

__all__ = ["DECODER_RATIOS", "continuous_decoder_costs", "decoder_costs_at"]


# Variances, over 1 - alpha_bar_t, for which the decoder's cost is kept.
DECODER_RATIOS = tuple(2.0**-k for k in range(6, -1, -1))


def decoder_costs_at(table: Tensor, ratio: Tensor) -> Tensor:
    r"""The decoder's cost for any variance, from those for DECODER_RATIOS.

    Through the three nearest goes a + b ln(ratio) + c/ratio, the form that a Gaussian density
    has exactly.

    Arguments:
        table: Nats per dimension for 3 or more ratios, evenly spaced in their logarithm from the
            first of DECODER_RATIOS to the last, shape (N, M).
        ratio: Variance over 1 - alpha_bar_t, above 0, shape (M,).
    Returns:
        Nats per dimension, shape (M,).
    """
    low, high = (math.log(DECODER_RATIOS[end]) for end in (0, -1))
    nodes = torch.linspace(low, high, len(table), dtype=torch.float64).exp()
    nearest = (ratio.log() - low) / (high - low) * (len(table) - 1)
    first = (nearest.round().long() - 1).clamp(0, len(table) - 3)
    window = first + torch.arange(3)[:, None]
    coefficients = fit_through(nodes[window.T], table.gather(0, window).T)
    return (_form(ratio) * coefficients).sum(1)


def fit_through(ratios: Tensor, costs: Tensor) -> Tensor:
    """Coefficients (M, 3) of the form that has these costs at these ratios, both (M, 3)."""
    return torch.linalg.solve(_form(ratios), costs)


def _form(ratio: Tensor) -> Tensor:
    return torch.stack([torch.ones_like(ratio), ratio.log(), 1 / ratio], dim=-1)


def continuous_decoder_costs(x_0_error: Tensor, variance: Tensor | None = None) -> Tensor:
    r"""E[-log N(x_0; x_0_hat, variance)] per dimension, for data with a density.

    Arguments:
        x_0_error: e_t, shape (T,).
        variance: Of the decoder; the best one, e_t, by default, for 1/2 ln(2 pi e e_t).
    """
    log_var = (x_0_error if variance is None else variance).log()
    return -Gaussian(torch.zeros_like(x_0_error), log_var).log_prob(x_0_error.sqrt())
