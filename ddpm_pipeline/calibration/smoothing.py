r"""A smooth curve through noisy values, with as much freedom as they call for.

.. math::
    f = B c, \qquad
    c = \arg\min_c \sum_t w_t (y_t - f_t)^2 + \kappa \sum_j (c_{j+1} - 2 c_j + c_{j-1})^2

B holds cubic B-splines on even knots (Eilers & Marx 1996, "Flexible smoothing with B-splines and
penalties"), and kappa minimises the generalised cross-validation error, in which each degree of
freedom counts 1.4 times against overfitting (Kim & Gu 2004). The curve is linear in y, so errors
of y go through it exactly.
"""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["SmoothFit", "smooth_fit"]


_PENALTIES = torch.logspace(-6, 4, 31, dtype=torch.float64)
_DEGREES_OF_FREEDOM_COST = 1.4


class SmoothFit(NamedTuple):
    """A curve f = basis @ gain @ y at the places of y, shapes (T, J) and (J, T); or many."""

    values: Tensor
    basis: Tensor
    gain: Tensor

    def covariance(self, variances: Tensor) -> Tensor:
        """Give the covariance (J, J) of the coefficients, given the variances (T,) of y."""
        return (self.gain * variances) @ self.gain.T

    def standard_errors(self, variances: Tensor) -> Tensor:
        """Give the standard errors (T,) of the curve, given the variances (T,) of y."""
        return ((self.basis @ self.covariance(variances)) * self.basis).sum(1).sqrt()

    def standard_error_of_sum(self, weights: Tensor, variances: Tensor) -> Tensor:
        """Give the standard error of sum_t weights_t f_t."""
        slope = self.basis.T @ weights
        return (slope @ self.covariance(variances) @ slope).sqrt()


def smooth_fit(x: Tensor, y: Tensor, weights: Tensor, *, knot_spacing: float = 0.5) -> SmoothFit:
    """Fit the smooth curve through y at x.

    Arguments:
        x: Where, float64, shape (T,).
        y: Values, shape (T,), or (T, N) for N curves of one stiffness; what stands where the
            weight is 0 does not matter.
        weights: Inverse variances up to a factor, at least 0 and somewhere above, shape (T,).
        knot_spacing: Distance of the knots, above 0: finer detail is never followed.
    Returns:
        The curve at x, or the curves.
    Source: Eilers & Marx 1996, eq. 5 and 14.
    """
    weights = weights / weights.max()
    y = torch.where((weights > 0).reshape(-1, *[1] * (y.ndim - 1)), y, 0.0)
    basis = _cubic_splines(x, knot_spacing)
    count, columns = (weights > 0).sum(), y.reshape(len(y), -1)
    gram = basis.T @ (weights[:, None] * basis)
    roughness = torch.eye(len(gram), dtype=x.dtype).diff(n=2, dim=0)
    penalty, identity = roughness.T @ roughness, torch.eye(len(gram), dtype=x.dtype)
    moments = torch.cat([gram, basis.T @ (weights[:, None] * columns)], dim=1)
    best, best_score = None, torch.inf
    for strength in _PENALTIES:
        # A trace of ridge keeps the system regular where fewer than two places have weight.
        system = gram + strength * penalty + 1e-10 * strength.clamp(min=1) * identity
        solved = torch.linalg.solve(system, moments)
        residuals = columns - basis @ solved[:, len(gram) :]
        left = (count - _DEGREES_OF_FREEDOM_COST * solved.trace()).clamp(min=1e-9)
        score = (weights @ residuals.square()).sum() / left.square()
        if score < best_score:
            best, best_score = system, score
    gain = torch.linalg.solve(best, basis.T * weights)
    return SmoothFit(basis @ (gain @ y), basis, gain)


def _cubic_splines(x: Tensor, knot_spacing: float) -> Tensor:
    """Give all cubic B-splines with even knots that reach into the range of x, (T, J)."""
    intervals = max(int(((x.max() - x.min()) / knot_spacing).ceil()), 1)
    position = (x - x.min()) / knot_spacing
    centres = torch.arange(-1, intervals + 2, dtype=x.dtype)
    u = (position[:, None] - centres).abs()
    near = 2 / 3 - u.square() + u**3 / 2
    far = (2 - u).clamp(min=0) ** 3 / 6
    return torch.where(u < 1, near, far)
