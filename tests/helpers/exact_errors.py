"""Denoising errors of mixtures at every timestep of a chain, by one quadrature on a fine grid."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from helpers.oracles import Mixture, alpha_bars, linear_betas

__all__ = ["denoising_errors"]


@lru_cache(maxsize=8)
def denoising_errors(
    data: Mixture, T: int = 1000, start: float = 1e-4, end: float = 0.02
) -> torch.Tensor:
    """E Var(x_0 | x_t) under the linear schedule, float64, shape (T,)."""
    z = np.linspace(-9, 9, 1201)
    density = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    errors = []
    for alpha_bar, one_minus in zip(*alpha_bars(linear_betas(T, start, end)), strict=True):
        a, b = (torch.tensor(float(x), dtype=torch.float64) for x in (alpha_bar, one_minus))
        error = 0.0
        for weight, m, s in zip(data.weights, data.means, data.stds, strict=True):
            x_t = a.sqrt() * m + (a * s**2 + b).sqrt() * torch.from_numpy(z)
            variance = data.posterior_moments(x_t, a, b)[1].numpy()
            error += weight * float((density * variance).sum())
        errors.append(error)
    return torch.tensor(errors, dtype=torch.float64)
