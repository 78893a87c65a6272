r"""The 256 levels: numbers of any type, mapped onto 0 … 255.

.. math:: k = \mathrm{round}\left(255\, \frac{x - low}{high - low}\right)

Floating-point numbers that arithmetic has pushed over an end, as 1.0000001 for 1, are taken for
that end; what is further out is refused.
"""

from __future__ import annotations

import numpy as np

__all__ = ["ON_A_LEVEL", "RefusedImageError", "to_levels"]

ON_A_LEVEL = 1e-3
"""How far from a level a value may be and still count as that level."""

_ROUNDING_ERRORS, _LEAST_SLACK = 4, 0.01


class RefusedImageError(ValueError):
    """An image that is readable but does not fit what was asked for; never skipped."""


def to_levels(values: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Map low … high onto 0 … 255, not rounded, in float64.

    Raises:
        RefusedImageError: If a value is not finite, or outside the range by more than rounding
            errors of its type.
    """
    low, high = value_range
    if not np.isfinite(values).all():
        raise RefusedImageError("it holds NaN or infinite values")
    levels = (values.astype(np.float64) - low) * (255 / (high - low))
    slack = _slack(values.dtype, low, high)
    if levels.min() < -slack or levels.max() > 255 + slack:
        count = int(((levels < -slack) | (levels > 255 + slack)).sum())
        raise RefusedImageError(
            f"its values {values.min()} … {values.max()} are outside value_range="
            f"({low:g}, {high:g}), {count} of {values.size} of them"
        )
    return levels.clip(0, 255)


def _slack(dtype: np.dtype, low: float, high: float) -> float:
    """Give by how many levels rounding errors may push a value of a type over an end."""
    if dtype.kind != "f":
        return 1e-6
    error = _ROUNDING_ERRORS * float(np.finfo(dtype).eps) * max(abs(low), abs(high))
    return min(0.5, max(_LEAST_SLACK, 255 * error / (high - low)))
