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

import torch
from torch import Tensor

from ddpm_pipeline.common import moved
from ddpm_pipeline.diffusion.tensors import add_rows_

__all__ = ["FrequencyBasis", "dct_matrix", "frequency_bands", "pool"]


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
    _matrices: dict[tuple[torch.device, torch.dtype], list[Tensor]] = field(
        init=False, repr=False, default_factory=dict
    )

    @property
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
        return self._map(x, inverse=False)

    def to_pixels(self, coefficients: Tensor) -> Tensor:
        """Give the images of coefficients: the inverse of ``to_frequencies``."""
        return self._map(coefficients, inverse=True)

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

    def _map(self, x: Tensor, *, inverse: bool) -> Tensor:
        self.check_shape(x.shape[1:])
        with _in_own_dtype(x.device):
            for axis, matrix in enumerate(self._on(x), start=1):
                if len(matrix) > 1:
                    x = _along(x, matrix.T if inverse else matrix, axis)
        return x

    def _on(self, x: Tensor) -> list[Tensor]:
        key = (x.device, x.dtype)
        if key not in self._matrices:
            matrices = [self.channels, *map(dct_matrix, self.sizes)]
            self._matrices[key] = [moved(matrix.to(x.dtype), x.device) for matrix in matrices]
        return self._matrices[key]


def _along(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Multiply by a matrix along one axis."""
    if axis == x.ndim - 1:
        return x @ matrix.T
    if axis == x.ndim - 2:
        return matrix @ x
    return (matrix @ x.flatten(axis + 1)).reshape(x.shape)


def _in_own_dtype(device: torch.device) -> AbstractContextManager:
    """Keep autocast from rounding what is multiplied; the images of a step are not activations.

    TensorFloat-32 is left to the process, whose threads share the switch; torch's default is none.
    """
    kind = device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()
