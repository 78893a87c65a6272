"""The data of a bound: checked, counted, and cut into blocks of examples."""

from collections.abc import Iterable, Iterator
from itertools import chain
from operator import length_hint
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_pipeline.data import Batches, between_levels, checked_batch, split_batch
from ddpm_pipeline.diffusion import Levels
from ddpm_pipeline.networks import Told

__all__ = ["Block", "BoundData"]

# How far values may be outside [-1, 1] by rounding.
_RANGE_TOLERANCE = 1e-6


class Block(NamedTuple):
    """Consecutive examples: the index of the first, x_0 (B, C, *), class labels (B,) or None."""

    first: int
    x_0: Tensor
    class_labels: Told

    def off_grid(self, levels: Levels | None = None) -> Tensor:
        """Give 1 for each example with values between the levels, of bytes unless given."""
        between = between_levels(self.x_0.float()) if levels is None else levels.between(self.x_0)
        return between.flatten(1).any(1).float()


class BoundData:
    """A tensor of data, or batches of it, as blocks.

    Arguments:
        x_0: Data, floating point, shape (N, C, *); or an iterable of such, or of pairs
            (x_0, class labels).
        class_labels: int64, shape (N,), or None; only beside a tensor.
        in_range: Whether the data must lie in [-1, 1].
    Raises:
        ValueError: If there are no data, or they are not allowed; here for the first batch, in
            ``blocks`` for the others.
        TypeError: If x_0 is neither, or not floating point.
    """

    def __init__(self, x_0: Tensor | Batches, class_labels: Told, *, in_range: bool) -> None:
        self._in_range = in_range
        batches = _as_batches(x_0, class_labels)
        first = next(batches, None)
        if first is None:
            raise ValueError("x_0 must hold at least one image, got none")
        self.example = self._checked(*first, shape=None, index=0)[0][0]
        self._batches = chain([first], batches)
        # Exact for a tensor, a guess for batches that know how many they are, else 0.
        self.length = (length_hint(x_0) if not isinstance(x_0, Tensor) else 1) * len(first[0])

    def blocks(self, size: int, skip: int = 0) -> Iterator[Block]:
        """Give the examples from number ``skip`` on, at most ``size`` at a time; only once."""
        index = 0
        for batch in self._batches:
            x_0, labels = self._checked(*batch, shape=self.example.shape, index=index)
            for start in range(max(skip - index, 0), len(x_0), size):
                part = slice(start, start + size)
                yield Block(index + start, x_0[part], None if labels is None else labels[part])
            index += len(x_0)

    def _checked(
        self, x_0: object, labels: Told, *, shape: torch.Size | None, index: int
    ) -> tuple[Tensor, Told]:
        """Check the batch that starts with image ``index``; give it in float32 or float64."""
        x_0, labels = checked_batch("x_0", x_0, labels, shape=shape)
        self._check_values(x_0, index)
        return x_0, labels

    def _check_values(self, x_0: Tensor, index: int) -> None:
        limit = 1 + _RANGE_TOLERANCE if self._in_range else torch.finfo(x_0.dtype).max
        largest = x_0.abs().flatten(1).amax(1)
        bad = ~(largest <= limit)
        if not bad.any():
            return
        i = int(bad.nonzero()[0])
        allowed = "lie in [-1, 1] for a discretized decoder" if self._in_range else "be finite"
        raise ValueError(
            f"x_0 must {allowed}, got a value of magnitude {largest[i].item():g} in image "
            f"{index + i}"
        )


def _as_batches(
    x_0: Tensor | Batches, class_labels: Told
) -> Iterator[tuple[Tensor, Tensor | None]]:
    if isinstance(x_0, Tensor):
        return iter([(x_0, class_labels)])
    if class_labels is not None:
        raise ValueError(
            "class_labels must be None if x_0 is not a tensor; give batches (x_0, class labels)"
        )
    if not isinstance(x_0, Iterable):
        raise TypeError(f"x_0 must be a tensor or batches of them, got {type(x_0).__name__}")
    return map(split_batch, x_0)
