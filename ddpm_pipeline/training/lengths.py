r"""How long an average is that weighs update i as i^gamma: the spread of its weights over the run.

.. math:: \sigma_\mathrm{rel} = \sqrt{\frac{\gamma + 1}{(\gamma + 2)^2 (\gamma + 3)}}

It is the standard deviation of the profile that ``power_averages`` defines, as a share of the
updates so far. Nothing here needs torch.

Source: Karras et al. 2024 (arXiv:2312.02696), appendix C.
"""

from __future__ import annotations

import math

__all__ = ["LONGEST", "gamma_of", "sigma_rel_of"]


LONGEST = 12**-0.5
"""The largest sigma_rel, that of the plain mean of all weights so far: gamma is 0."""


def sigma_rel_of(gamma: float) -> float:
    """Give the length of the average with weights of t^gamma, as a share of the run."""
    return math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)


def gamma_of(sigma_rel: float) -> float:
    """Give the exponent of the average of a length: the inverse of ``sigma_rel_of``.

    Arguments:
        sigma_rel: Above 0, at most ``LONGEST``.
    Raises:
        ValueError: If it is not.
    """
    if not 0 < sigma_rel <= LONGEST:
        raise ValueError(f"sigma_rel must be above 0 and at most {LONGEST:.4f}, got {sigma_rel}")
    low, high = 0.0, 1 / sigma_rel  # the length is below 1 / (gamma + 2), and falls with gamma
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if sigma_rel_of(middle) >= sigma_rel else (low, middle)
    return low
