r"""The orthonormal cosine transform, in which the errors of image models are nearly diagonal.

.. math::
    c_k = \sum_{i=0}^{n-1} M_{ki}\, x_i, \qquad
    M_{ki} = \sqrt{\tfrac{2 - \delta_{k0}}{n}}\, \cos\frac{\pi (i + \tfrac12) k}{n}, \qquad
    M M^T = I

along every axis of an image, after an orthonormal combination of its channels. Rows and inverses
are matrix products with small matrices, on any device. As the whole map is orthonormal, densities,
distances and white noise are the same on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_pipeline.common import moved
from ddpm_pipeline.diffusion.tensors import add_rows_

__all__ = ["FrequencyBasis", "dct_matrix", "frequency_bands", "pool"]

# Rows of a matrix of channels and an axis together, at most: on a CPU the multiplications count,
# elsewhere the calls.
_MOST_JOINED, _MOST_JOINED_ON_CPU = 128, 64


def dct_matrix(n: int) -> Tensor:
    """Give the orthonormal DCT-II of n values, float64, shape (n, n); row k is frequency k.

    Source: Ahmed, Natarajan & Rao 1974, "Discrete cosine transform", IEEE Trans. Computers.
    """
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi * (i + 0.5) * k / n) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


def frequency_bands(n: int, count: int) -> Tensor:
    """Put n frequencies into at most so many bands, which widen towards the high ones.

    Arguments:
        n: Frequencies 0, ..., n - 1.
        count: Of bands, at least 1.
    Returns:
        The band of every frequency, int64, shape (n,). Each frequency has one of its own if there
        are no more frequencies than bands.
    """
    count = min(n, count)
    edge = torch.arange(1, count + 1, dtype=torch.float64)
    # The first differences of i + (n - count) (i / count)² are at least 1: no band is empty.
    edges = (edge + (n - count) * (edge / count).square() + 0.5).floor().long()
    return torch.searchsorted(edges, torch.arange(n), right=True)


def pool(x: Tensor, bands: Sequence[Tensor]) -> Tensor:
    """Sum over the frequencies of each band, along the last axes of x; the same digits every time.

    Arguments:
        x: Shape (..., *sizes).
        bands: Of each of these axes, as ``frequency_bands`` gives them.
    """
    for axis, band in enumerate(bands, start=x.ndim - len(bands)):
        values = x.movedim(axis, 0)
        sums = values.new_zeros(int(band[-1]) + 1, *values.shape[1:])
        add_rows_(sums, moved(band, x.device), values)
        x = sums.movedim(0, axis)
    return x


class _Product(NamedTuple):
    """A matrix product along one axis of images, with the axes before and behind it as one each.

    One call of a matrix product over copies of the matrix that take no memory, which ``matmul``
    would make of those of every axis but the last one.

    Arguments:
        rest: Elements behind the axis.
        matrix: To multiply by, (n, n), transposed where nothing is behind the axis.
    """

    rest: int
    matrix: Tensor

    @classmethod
    def along(cls, rest: int, matrix: Tensor, x: Tensor) -> _Product:
        """Put a matrix where x is, into memory as the product reads it."""
        matrix = (matrix.T if rest == 1 else matrix).to(x.dtype).contiguous()
        return cls(rest, moved(matrix, x.device))

    def of(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Give the products, in the shape of x; in the memory of ``out`` if it is given."""
        rows, into = self._parts(x), None if out is None else self._parts(out)
        if self.rest == 1:
            products = torch.mm(rows, self.matrix, out=into)
        else:
            products = torch.bmm(self._copies(len(rows)), rows, out=into)
        return products.view(x.shape) if out is None else out

    def add_to_(self, images: Tensor, factor: float, x: Tensor) -> Tensor:
        """Multiply images, which are contiguous, by a factor and add the products, in place."""
        rows, into = self._parts(x), self._parts(images)
        if self.rest == 1:
            into.addmm_(rows, self.matrix, beta=factor)
        else:
            into.baddbmm_(self._copies(len(rows)), rows, beta=factor)
        return images

    def _parts(self, x: Tensor) -> Tensor:
        n = len(self.matrix)
        return x.reshape(-1, n) if self.rest == 1 else x.reshape(-1, n, self.rest)

    def _copies(self, count: int) -> Tensor:
        return self.matrix.expand(count, *self.matrix.shape)


class _Products(NamedTuple):
    """Those that take images to frequencies and back, in one dtype on one device."""

    forward: list[_Product]
    inverse: list[_Product]


@dataclass(frozen=True, eq=False)
class FrequencyBasis:
    """An orthonormal basis of images: combinations of channels, and the DCT of each axis.

    Arguments:
        channels: Orthonormal, float64 on the CPU, shape (C, C); row c holds the shares of the
            channels in the c-th combination.
        sizes: Lengths of the axes behind the channels, such as (H, W).
    """

    channels: Tensor
    sizes: tuple[int, ...]
    _products: dict[tuple[torch.device, torch.dtype], _Products] = field(
        init=False, repr=False, default_factory=dict
    )

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of an image, (C, *)."""
        return (len(self.channels), *self.sizes)

    def to_frequencies(self, x: Tensor) -> Tensor:
        """Give the coefficients of images.

        Arguments:
            x: Shape (B, C, *), float32 or float64.
        Returns:
            In the shape, dtype and device of x.
        Raises:
            ValueError: If the images are of another shape.
        """
        self.check_shape(x.shape[1:])
        with _in_own_dtype(x.device):
            for product in self._on(x).forward:
                x = product.of(x)
        return x

    def to_pixels(self, coefficients: Tensor) -> Tensor:
        """Give the images of coefficients: the inverse of ``to_frequencies``."""
        self.check_shape(coefficients.shape[1:])
        x = coefficients
        with _in_own_dtype(x.device):
            for product in self._on(x).inverse:
                x = product.of(x)
        return x

    def added_pixels(self, images: Tensor, factor: float, coefficients: Tensor) -> Tensor:
        """Give the images of coefficients plus a multiple of others.

        Memory that is new costs more than the products, so that it goes to and fro between that of
        the coefficients and one more.

        Arguments:
            images: In the shape, dtype and device of the coefficients.
            factor: Of these images.
            coefficients: Shape (B, C, *), float32 or float64, contiguous, without a gradient; they
                are lost.
        Raises:
            ValueError: If the coefficients are those of images of another shape.
        """
        self.check_shape(coefficients.shape[1:])
        x, spare = coefficients, torch.empty_like(coefficients)
        with _in_own_dtype(x.device):
            *others, last = self._on(x).inverse
            for product in others:
                x, spare = product.of(x, out=spare), x
            return last.add_to_(spare.copy_(images), factor, x)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse images of another shape (C, *).

        Raises:
            ValueError: If they are.
        """
        if tuple(shape) != self.shape:
            raise ValueError(
                f"the calibration's spectrum is that of images of shape {self.shape}, got "
                f"{(*shape,)}; calibrate at this size, or choose another variance_type and solver"
            )

    def _on(self, x: Tensor) -> _Products:
        key = (x.device, x.dtype)
        if key not in self._products:
            most = _MOST_JOINED_ON_CPU if x.device.type == "cpu" else _MOST_JOINED
            axes = _joined([self.channels, *map(dct_matrix, self.sizes)], most)
            self._products[key] = _Products(
                [_Product.along(rest, matrix, x) for rest, matrix in axes],
                [_Product.along(rest, matrix.T, x) for rest, matrix in reversed(axes)],
            )
        return self._products[key]


def _joined(matrices: list[Tensor], most: int) -> list[tuple[int, Tensor]]:
    """Give the matrices to multiply by, with the number of elements behind each one's axis.

    One of the channels is joined with that of the next axis if the product of both has at most so
    many rows: there a pass over the images costs more than the multiplications.
    """
    channels, first, *others = matrices
    if 1 < len(channels) <= most // len(first):
        matrices = [torch.kron(channels.contiguous(), first), *others]
    found = []
    for i, matrix in enumerate(matrices):
        if len(matrix) > 1:
            found.append((math.prod(map(len, matrices[i + 1 :])), matrix))
    return found or [(1, matrices[-1])]


def _in_own_dtype(device: torch.device) -> AbstractContextManager:
    """Keep autocast from rounding what is multiplied; the images of a step are not activations.

    TensorFloat-32 is left to the process, whose threads share the switch; torch's default is none.
    """
    kind = device.type
    is_available = kind == "cpu" or torch.amp.is_autocast_available(kind)
    if is_available and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()
