r"""A walk from one picture to another.

By their noise, which needs no drawing and comes back to both (Song et al. 2020, arXiv:2010.02502,
section 5.3):

.. math::
    z(w) = \frac{\sin((1 - w)\,\theta)}{\sin\theta}\, z_a + \frac{\sin(w\,\theta)}{\sin\theta}\,
    z_b, \qquad \cos\theta = \frac{z_a \cdot z_b}{|z_a|\,|z_b|}

or from noisy copies of both under the same noise (Ho et al. 2020, arXiv:2006.11239, section 4.4):

.. math:: x_t(w) = (1 - w)\, x_t^a + w\, x_t^b
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["between", "shares_of_way", "spherical"]


def shares_of_way(count: int, like: Tensor) -> Tensor:
    """Give w of every image on the way, from 0 to 1 in equal steps, (count, 1, 1, 1)."""
    return torch.linspace(0, 1, count, dtype=like.dtype, device=like.device)[:, None, None, None]


def spherical(z_a: Tensor, z_b: Tensor, w: Tensor) -> Tensor:
    """Give the noise on the great circle from one to another.

    Arguments:
        z_a, z_b: Noise, (1, C, H, W).
        w: Shares of the way, (n, 1, 1, 1).
    Returns:
        Shape (n, C, H, W).
    """
    cosine = torch.nn.functional.cosine_similarity(z_a.flatten(), z_b.flatten(), dim=0)
    theta = cosine.clamp(-1, 1).acos()
    if theta.sin() < 1e-4:  # nearly the same direction, or opposite ones
        return between(z_a, z_b, w)
    return (((1 - w) * theta).sin() * z_a + (w * theta).sin() * z_b) / theta.sin()


def between(x_a: Tensor, x_b: Tensor, w: Tensor) -> Tensor:
    """Give the points on the straight line from one to another; arguments as in ``spherical``."""
    return (1 - w) * x_a + w * x_b
