"""Holding images out of those that a model is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ddpm_pipeline.common import stream_generator

if TYPE_CHECKING:
    from ddpm_pipeline.data.images import ImageData

__all__ = ["split_validation"]


def split_validation(
    data: ImageData, held_out: float, seed: int = 0
) -> tuple[ImageData, ImageData]:
    """Split images into (training, validation), disjoint, drawn at random from `seed` alone.

    Arguments:
        held_out: A fraction in (0, 1) if a float, a number of images if an int.

    Raises:
        ValueError: If either part would hold no images.
    """
    fraction = isinstance(held_out, float)
    if fraction and not 0 < held_out < 1:
        raise ValueError(f"held_out must be a count or a fraction in (0, 1), got {held_out}")
    count = round(held_out * len(data)) if fraction else held_out
    if not 0 < count < len(data):
        raise ValueError(
            f"held_out={held_out} of {len(data)} images leaves {len(data) - count} for training "
            f"and {count} for validation; both need at least one"
        )
    order = torch.randperm(len(data), generator=stream_generator("validation_split", seed))
    # Sorted: neighbours stay neighbours on disk.
    return data.subset(order[count:].sort().values), data.subset(order[:count].sort().values)
