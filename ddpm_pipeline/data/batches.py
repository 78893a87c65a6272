"""Batches of clean data x_0 that a model is measured on: what they look like, and their checks.

    for item in batches:                                x_0, or (x_0, labels or condition)
        x_0, labels = checked_batch("x_0", *split_batch(item))
        between_levels(x_0).any()                       whether these are no 8-bit images

Data are in [-1, 1]; those of 8-bit images lie on the 256 levels 2 k/255 - 1.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ddpm_pipeline.networks import Condition, Told

__all__ = ["Batches", "between_levels", "checked_batch", "split_batch"]

Batches = Iterable[Tensor | tuple[Tensor, Told]]

# How far a value may be from its level by rounding, in levels.
_LEVEL_TOLERANCE = 1e-2


def split_batch(item: object) -> tuple[object, Told]:
    """Split one item of batches into data and class labels, None where there are no labels."""
    # Data loaders give lists, of one element where there are no labels.
    return (*item, None)[:2] if isinstance(item, tuple | list) else (item, None)


def checked_batch(
    name: str, x_0: object, labels: Told, *, shape: torch.Size | None = None
) -> tuple[Tensor, Told]:
    """Give a batch back in float32 or float64.

    Arguments:
        name: What the caller calls the data.
        x_0: Data, floating point, shape (N, C, *).
        labels: Class labels, shape (N,), or a condition of N images, or None.
        shape: That of one image, if it must be this one.
    Raises:
        TypeError: If the data are no tensor, or not floating point.
        ValueError: If they are of another shape, or the labels do not fit them.
    """
    if not isinstance(x_0, Tensor):
        raise TypeError(
            f"{name} must be batches of tensors, or of pairs of a tensor and its class labels, "
            f"got {type(x_0).__name__}"
        )
    if not x_0.is_floating_point():
        raise TypeError(
            f"{name} must be floating point in [-1, 1], got {x_0.dtype}; for bytes use "
            "ddpm_pipeline.data.to_model_range"
        )
    if x_0.ndim < 2 or x_0[:1].numel() == 0:
        raise ValueError(
            f"{name} must have shape (N, C, *) with at least one image, got {(*x_0.shape,)}"
        )
    if shape is not None and x_0.shape[1:] != shape:
        raise ValueError(
            f"all batches of {name} must hold images of shape {(*shape,)}, got {(*x_0.shape[1:],)}"
        )
    found = (len(labels),) if isinstance(labels, Condition) else getattr(labels, "shape", None)
    if found is not None and found != (len(x_0),):
        raise ValueError(
            f"class_labels must have shape ({len(x_0)},), one for each image, got {(*found,)}"
        )
    return x_0 if x_0.dtype == torch.float64 else x_0.float(), labels


def between_levels(x_0: Tensor) -> Tensor:
    """Tell which values lie between the 256 levels of 8-bit images, bool in the shape of x_0."""
    levels = (x_0 + 1) * 127.5
    return (levels - levels.round()).abs() > _LEVEL_TOLERANCE
