r"""Linear algebra with a covariance that is only known by its products with images.

.. math:: M u = r \quad (\text{conjugate gradients}), \qquad
    V^{1/2} z \approx |z|\, Q_k\, T_k^{1/2}\, e_1 \quad (\text{Lanczos})

Every image of a batch is a problem of its own, which stops by itself when it is solved: what comes
out does not depend on the others.

Source: Hestenes & Stiefel 1952, J. Res. NBS 49; Chow & Saad 2014, SIAM J. Sci. Comput. 36, for
the root.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ddpm_pipeline.common import precise_dtype

__all__ = ["conjugate_gradients", "root_product"]


Product = Callable[[Tensor], Tensor]
_TINY = 1e-30
_NOTHING = 1e-6  # of a vector, relative to the products


def conjugate_gradients(
    product: Callable[[Tensor], tuple[Tensor, Tensor]],
    r: Tensor,
    carried: Tensor,
    *,
    iterations: int,
    tolerance: float,
) -> Tensor:
    """Solve M u = r, and give B u for a second map B that comes with the products.

    An image stops where M is found not to be positive, as with the Jacobian of a network that is
    no exact denoiser.

    Arguments:
        product: From u to (M u, B u).
        r: Right-hand side, (B, *).
        carried: Zeros of the shape and dtype of B u.
        iterations: Products at most.
        tolerance: Of the residual, relative to r.
    """
    residual, direction = r, r
    squared = _dots(residual, residual)
    enough = tolerance**2 * squared
    active = squared > _TINY
    for _ in range(iterations):
        if not active.any():
            break
        m_direction, b_direction = product(direction)
        curvature = _dots(direction, m_direction)
        active = active & (curvature > _TINY)
        length = torch.where(active, squared / curvature.clamp(min=_TINY), 0)
        carried = carried + _rows(length, carried) * b_direction
        residual = residual - _rows(length, residual) * m_direction
        after = _dots(residual, residual)
        ratio = torch.where(active, after / squared.clamp(min=_TINY), 0)
        direction = residual + _rows(ratio, direction) * direction
        squared = torch.where(active, after, squared)
        active = active & (squared > enough)
    return carried


def root_product(product: Product, z: Tensor, *, iterations: int, tolerance: float) -> Tensor:
    """Give V^{1/2} z for a symmetric, positive V; negative eigenvalues count as 0.

    Arguments:
        product: From v to V v.
        z: Shape (B, *).
        iterations: Products at most.
        tolerance: Of the change by the last product, relative to the result.
    """
    norm = _norms(z)
    basis = [z / _rows(norm.clamp(min=_TINY), z)]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    result, active = torch.zeros_like(z), norm > 0
    next_look = 1
    for count in range(1, iterations + 1):
        w = product(basis[-1])
        diagonal.append(_dots(basis[-1], w))
        w = _orthogonal(_orthogonal(w, basis), basis)
        size = _norms(w)
        is_whole = size <= _NOTHING * torch.stack(diagonal).abs().amax(0)
        is_look = count in (next_look, iterations)
        looked = active & (is_whole | is_look)
        if looked.any():
            weights = norm[looked, None] * _root_of_tridiagonal(
                [d[looked] for d in diagonal], [b[looked] for b in beside]
            )
            found = sum(_rows(c, z) * q[looked] for c, q in zip(weights.T, basis, strict=True))
            change = _norms(found - result[looked])
            is_close = change <= tolerance * _norms(found)
            result[looked] = found
            active[looked] = ~is_close & ~is_whole[looked]
        if not active.any():
            break
        next_look = count + 1 + count // 3 if is_look else next_look
        beside.append(size)
        basis.append(w / _rows(size.clamp(min=_TINY), w))
    return result


def _orthogonal(w: Tensor, basis: list[Tensor]) -> Tensor:
    """Take out of w what lies along the vectors so far; once more takes out what rounding left."""
    for q in basis:
        w = w - _rows(_dots(q, w), w) * q
    return w


def _root_of_tridiagonal(diagonal: list[Tensor], beside: list[Tensor]) -> Tensor:
    """Give the first column of the root of tridiagonal matrices, (B, k)."""
    matrix = torch.diag_embed(torch.stack(diagonal, 1))
    if beside:
        off = torch.stack(beside, 1)
        matrix = matrix + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    values, vectors = torch.linalg.eigh(matrix)
    scaled = values.clamp(min=0).sqrt() * vectors[:, 0]
    return (vectors @ scaled[..., None])[..., 0]


def _dots(a: Tensor, b: Tensor) -> Tensor:
    """Give the inner product of each image with its partner, in float64."""
    dtype = precise_dtype(a.device)
    return (a.to(dtype) * b.to(dtype)).flatten(1).sum(1)


def _norms(a: Tensor) -> Tensor:
    return _dots(a, a).sqrt()


def _rows(values: Tensor, x: Tensor) -> Tensor:
    """Shape a value for each image so that it broadcasts against x."""
    values = values if values.dtype == torch.bool else values.to(x.dtype)
    return values.reshape(-1, *[1] * (x.ndim - 1))
