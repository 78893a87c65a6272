r"""What is known of an image: linear maps from images to measurements, with their adjoints.

.. math:: y = A x_0 + \sigma_y n, \qquad \langle A x, u \rangle = \langle x, A^T u \rangle

    blur(1.5), downsampling(4), missing(hole)           as "blur:1.5", "downsample:4", "missing"
    LinearOperator(forward, adjoint)                    any other; without its adjoint by autograd

Blurs and down-sampling are a matrix for each axis, so that their adjoints are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

__all__ = [
    "OPERATORS",
    "LinearOperator",
    "blur",
    "check_operator",
    "downsampling",
    "missing",
    "named_operator",
]


OPERATORS = ("blur", "downsample", "missing")
"""Names of operators; the first two take a number, as in "blur:1.5"."""
_DEFAULTS = {"blur": 1.0, "downsample": 2.0}
_RELATIVE = 1e-3  # of results that are equal but for rounding
# Of products of random vectors: rounding has 1e-7, a wrong adjoint one over their size's root.
_RELATIVE_PRODUCT = 1e-5


@dataclass(frozen=True, eq=False)
class LinearOperator:
    """A linear map of images, each by itself.

    Arguments:
        forward: From images (B, C, H, W) to measurements (B, *), linear in them.
        adjoint: From measurements to images; None has autograd find it.
        name: Of the operator, in errors.
    """

    forward: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor] | None = None
    name: str = "operator"

    def __call__(self, x: Tensor) -> Tensor:
        """Measure images."""
        return self.forward(x)

    def transposed(self, u: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Give A^T u, of a shape (B, C, H, W)."""
        if self.adjoint is not None:
            return self.adjoint(u)
        with torch.enable_grad():
            x = u.new_zeros(shape, requires_grad=True)
            return torch.autograd.grad(self.forward(x), x, u)[0]


def named_operator(text: str, size: tuple[int, int], hole: Tensor | None) -> LinearOperator:
    """Make the operator of a name, with a number behind a colon if it has one.

    Arguments:
        text: As "blur", "blur:1.5", "downsample:4" or "missing".
        size: Height and width of images.
        hole: Of "missing": 1 where pixels are, float (1 or N, 1, H, W).
    Raises:
        ValueError: If there is no such operator, or its number is not allowed.
    """
    name, _, number = text.partition(":")
    if name not in OPERATORS or (name == "missing" and number):
        raise ValueError(
            "operator must be 'blur:SIGMA', 'downsample:FACTOR', 'missing', a LinearOperator or "
            f"(forward, adjoint), got {text!r}"
        )
    if name == "missing":
        if hole is None:
            raise ValueError("mask must be given for operator 'missing', got None")
        return missing(hole)
    try:
        value = float(number) if number else _DEFAULTS[name]
    except ValueError:
        raise ValueError(f"operator must have a number behind its name, got {text!r}") from None
    return blur(value, size) if name == "blur" else downsampling(value, size)


def blur(sigma: float, size: tuple[int, int]) -> LinearOperator:
    """A Gaussian blur of a standard deviation in pixels; images go on as in a mirror.

    Raises:
        ValueError: If sigma is not above 0.
    """
    if not 0 < sigma < float("inf"):
        raise ValueError(f"operator 'blur' must have a sigma above 0, got {sigma:g}")
    return _by_axes([_blur_matrix(n, sigma) for n in size], "blur")


def downsampling(factor: float, size: tuple[int, int]) -> LinearOperator:
    """The means of blocks of factor x factor pixels.

    Raises:
        ValueError: If the factor is no whole number that divides both sides.
    """
    if factor != int(factor) or factor < 2 or any(n % int(factor) for n in size):
        raise ValueError(
            "operator 'downsample' must have a factor of at least 2 that divides the height and "
            f"width {size[0]} x {size[1]}, got {factor:g}"
        )
    matrices = [torch.eye(n // int(factor)).repeat_interleave(int(factor), 1) for n in size]
    return _by_axes([matrix / factor for matrix in matrices], "downsample")


def missing(hole: Tensor) -> LinearOperator:
    """The pixels around a hole; those in it are 0.

    Arguments:
        hole: 1 where pixels are missing, float, (1 or B, 1, H, W).
    """

    def kept(x: Tensor) -> Tensor:
        return x * (1 - hole.to(x))

    return LinearOperator(kept, kept, "missing")


def _blur_matrix(n: int, sigma: float) -> Tensor:
    """Give the blur of an axis: rows that sum to 1, float32 (n, n)."""
    reach = int(4 * sigma + 0.5)
    steps = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.softmax(-0.5 * (steps / sigma) ** 2, dim=0)
    matrix = torch.zeros(n, n, dtype=torch.float64)
    for step, weight in zip(range(-reach, reach + 1), weights, strict=True):
        place = (torch.arange(n) + step) % (2 * n)
        place = torch.where(place < n, place, 2 * n - 1 - place)
        matrix[torch.arange(n), place] += weight
    return matrix.float()


def _by_axes(matrices: list[Tensor], name: str) -> LinearOperator:
    """Make an operator of one matrix for the rows and one for the columns."""

    def product(x: Tensor, *, transpose: bool) -> Tensor:
        rows, columns = (m.to(x).T if transpose else m.to(x) for m in matrices)
        return rows @ x @ columns.T

    return LinearOperator(
        partial(product, transpose=False), partial(product, transpose=True), name
    )


def check_operator(
    operator: LinearOperator, x: Tensor, y: Tensor, *, is_of_batch: bool = False
) -> None:
    """Refuse an operator that is not linear, mixes images, or whose adjoint is another's.

    Arguments:
        operator: A.
        x: Of the shape of images, (B, C, H, W); its values are not used.
        y: The measurements, (B, *).
        is_of_batch: Whether it is made for this batch, and each image has a map of its own.
    Raises:
        ValueError: Says which of these it is, and by how much.
    """
    source = torch.Generator().manual_seed(0)
    one, other = (torch.randn(x.shape, generator=source).to(x) for _ in "ab")
    measured = _measured(operator, one)
    if measured.shape != (len(x), *y.shape[1:]):
        raise ValueError(
            f"y must have the shape that the operator {operator.name!r} gives of each image, "
            f"{(*measured.shape[1:],)}, got {(*y.shape[1:],)}"
        )
    _check_close("be linear", operator(one - 2 * other), measured - 2 * operator(other))
    if len(x) > 1 and not is_of_batch:
        first = _measured(operator, one[:1])
        _check_close("measure each image by itself", first, measured[:1])
    u = torch.randn(measured.shape, generator=source).to(measured)
    back = operator.transposed(u, one.shape)
    if back.shape != one.shape:
        raise ValueError(
            f"the operator's adjoint must give images of shape {(*one.shape[1:],)}, got "
            f"{(*back.shape[1:],)}"
        )
    left, right = ((a.double() * b).sum().item() for a, b in ((measured, u), (one, back)))
    scale = (measured.norm() * u.norm() + one.norm() * back.norm()).item()
    if not abs(left - right) <= _RELATIVE_PRODUCT * scale:
        raise ValueError(
            "the operator's adjoint does not fit: <A x, u> and <x, A^T u> must be equal, got "
            f"{left:.6g} and {right:.6g} for random x and u"
        )


def _measured(operator: LinearOperator, x: Tensor) -> Tensor:
    """Measure images.

    Raises:
        ValueError: If the operator cannot take so many.
    """
    try:
        return operator(x)
    except RuntimeError as error:
        raise ValueError(
            "operator must take any number of images (B, C, H, W); holes of several images are "
            f"given by operator='missing' and mask; got {operator.name!r}, which fails on "
            f"{(*x.shape,)}: {str(error).partition(chr(10))[0]}"
        ) from error


def _check_close(what: str, found: Tensor, expected: Tensor) -> None:
    distance, scale = (found - expected).norm().item(), expected.norm().item()
    if not distance <= _RELATIVE * scale:
        error = distance / max(scale, 1e-30)
        raise ValueError(f"the operator must {what}, got a relative error of {error:.2g}")
