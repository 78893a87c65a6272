r"""Any power-function average as a mixture of some that were kept: the weights of the mixture.

.. math::
    \min_x \Big\| p - \sum_j x_j\, p_j \Big\|^2 \quad\text{with}\quad \sum_j x_j = 1, \qquad
    \langle p_a, p_b \rangle
    = \frac{(\gamma_a + 1)(\gamma_b + 1)}{\gamma_a + \gamma_b + 1}\,
      \Big(\frac{m}{t_a}\Big)^{\gamma_a+1} \Big(\frac{m}{t_b}\Big)^{\gamma_b+1} \frac1m,
    \qquad m = \min(t_a, t_b)

for the profiles p of ``power_averages``. The paper leaves the sum free. Weights that share a value
then come out a little larger or smaller than it; held at one, they come out as they are, and
averages of real weights are up to ten times as close.

Source: Karras et al. 2024 (arXiv:2312.02696), section 3.2 and appendix C.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_pipeline.training.lengths import gamma_of

__all__ = ["Mixture", "Profile", "mixture_of"]


class Profile(NamedTuple):
    """How much each update counts in an average.

    Arguments:
        sigma_rel: Its length.
        step: t, the update after which it was taken.
    """

    sigma_rel: float
    step: int


class Mixture(NamedTuple):
    """Weights of averages, and how well they do.

    Arguments:
        weights: x, one for each average, float64; they sum to one.
        error: The norm of what is left of the wanted profile, as a share of its own.
    """

    weights: Tensor
    error: float


def mixture_of(stored: Sequence[Profile], wanted: Profile) -> Mixture:
    """Find the mixture of stored averages that comes nearest to a wanted one."""
    overlaps, towards = _inner_products(stored, stored), _inner_products(stored, [wanted])[:, 0]
    scale = overlaps.diagonal().rsqrt()  # all profiles of norm 1, for the solver's sake
    scaled, count = overlaps * scale[:, None] * scale, len(stored)
    system = torch.zeros(count + 1, count + 1, dtype=torch.float64)
    system[:count, :count] = scaled
    system[:count, count] = system[count, :count] = scale
    right = torch.cat([towards * scale, torch.ones(1, dtype=torch.float64)])
    solution = torch.linalg.lstsq(system, right[:, None], driver="gelsd").solution
    weights = solution[:count, 0] * scale
    norm = _inner_products([wanted], [wanted]).item()
    left = norm - 2 * weights @ towards + weights @ overlaps @ weights
    return Mixture(weights, (left.clamp_min(0) / norm).sqrt().item())


def _inner_products(rows: Sequence[Profile], columns: Sequence[Profile]) -> Tensor:
    """Give the integrals of the products of profiles, float64."""
    g_a, t_a = (values[:, None] for values in _exponents_and_steps(rows))
    g_b, t_b = _exponents_and_steps(columns)
    m = torch.minimum(t_a, t_b)
    both = (g_a + 1) * (g_b + 1) / (g_a + g_b + 1)
    return both * (m / t_a) ** (g_a + 1) * (m / t_b) ** (g_b + 1) / m


def _exponents_and_steps(profiles: Sequence[Profile]) -> tuple[Tensor, Tensor]:
    gammas = [gamma_of(profile.sigma_rel) for profile in profiles]
    steps = [profile.step for profile in profiles]
    return torch.tensor(gammas, dtype=torch.float64), torch.tensor(steps, dtype=torch.float64)
