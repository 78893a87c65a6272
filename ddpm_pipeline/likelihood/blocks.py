"""Data on their way into the bound: checked, counted, and cut into blocks of examples."""

from collections.abc import Iterable, Iterator
from itertools import chain
from operator import length_hint
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Batches", "Block", "BoundData"]


Batches = Iterable[Tensor | tuple[Tensor, Tensor | None]]

# How far values may be outside [-1, 1], or from a level in units of levels, by rounding.
_RANGE_TOLERANCE = 1e-6
_LEVEL_TOLERANCE = 1e-2


class Block(NamedTuple):
    """Consecutive examples: the index of the first, x_0 (B, C, *), class labels (B,) or None."""

    first: int
    x_0: Tensor
    class_labels: Tensor | None

    def off_grid(self) -> Tensor:
        """1 for each example with values between the 256 levels of [-1, 1], else 0."""
        levels = (self.x_0.float() + 1) * 127.5
        distance = (levels - levels.round()).abs()
        return (distance > _LEVEL_TOLERANCE).flatten(1).any(1).float()


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

    def __init__(
        self, x_0: Tensor | Batches, class_labels: Tensor | None, *, in_range: bool
    ) -> None:
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
        """The examples from number ``skip`` on, at most ``size`` at a time; only once."""
        index = 0
        for batch in self._batches:
            x_0, labels = self._checked(*batch, shape=self.example.shape, index=index)
            for start in range(max(skip - index, 0), len(x_0), size):
                part = slice(start, start + size)
                yield Block(index + start, x_0[part], None if labels is None else labels[part])
            index += len(x_0)

    def _checked(
        self, x_0: object, labels: Tensor | None, *, shape: torch.Size | None, index: int
    ) -> tuple[Tensor, Tensor | None]:
        """A batch as it should be, in float32 or float64."""
        if not isinstance(x_0, Tensor):
            raise TypeError(f"x_0 must be a tensor or batches of them, got {type(x_0).__name__}")
        if not x_0.is_floating_point():
            raise TypeError(
                f"x_0 must be floating point in [-1, 1], got {x_0.dtype}; for bytes use "
                "ddpm_pipeline.data.to_model_range"
            )
        if x_0.ndim < 2 or x_0[:1].numel() == 0:
            raise ValueError(
                f"x_0 must have shape (N, C, *) with at least one image, got {(*x_0.shape,)}"
            )
        if shape is not None and x_0.shape[1:] != shape:
            raise ValueError(
                f"all batches must hold images of shape {(*shape,)}, got {(*x_0.shape[1:],)}"
            )
        if labels is not None and labels.shape != (len(x_0),):
            raise ValueError(
                f"class_labels must have shape ({len(x_0)},), one for each image, got "
                f"{(*labels.shape,)}"
            )
        self._check_values(x_0, index)
        return x_0 if x_0.dtype == torch.float64 else x_0.float(), labels

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
    x_0: Tensor | Batches, class_labels: Tensor | None
) -> Iterator[tuple[Tensor, Tensor | None]]:
    if isinstance(x_0, Tensor):
        return iter([(x_0, class_labels)])
    if class_labels is not None:
        raise ValueError(
            "class_labels must be None if x_0 is not a tensor; give batches (x_0, class labels)"
        )
    if not isinstance(x_0, Iterable):
        raise TypeError(f"x_0 must be a tensor or batches of them, got {type(x_0).__name__}")
    # Data loaders give lists, of one element where there are no labels.
    return ((*item, None)[:2] if isinstance(item, tuple | list) else (item, None) for item in x_0)
