"""TODO data.model_images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_pipeline.data.images import ImageData
from ddpm_pipeline.data.pixels import to_model_range

__all__ = []

_READ_AT_ONCE = 1024


@dataclass(frozen=True)
class ModelBatches:
    """All images in [-1, 1] with their labels, some at a time."""

    data: ImageData

    def __len__(self) -> int:
        return math.ceil(len(self.data) / _READ_AT_ONCE)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        for numbers in torch.arange(len(self.data)).split(_READ_AT_ONCE):
            images, labels = self.data.batch(numbers)
            yield to_model_range(images), labels


_MEANINGS = {
    "resized": "scaling smooths noise away, which makes them more likely",
    "cropped": "a part of each is not measured",
    "padded": "a black border costs almost nothing, which lowers the mean over dimensions",
    "requantized": "values between the 256 levels were rounded to them",
}


def described_changes(data: ImageData) -> tuple[str, ...]:
    """What was done to the images before they were measured, and what the number then means."""
    if not data.changes:
        return ()
    counts = ", ".join(f"{count} {name}" for name, count in data.changes.items())
    meanings = "".join(f"; {_MEANINGS[name]}" for name in data.changes if name in _MEANINGS)
    message = (
        f"images were changed before they were measured ({counts}), so the number is the bound of "
        f"the images as the model sees them and not of the files{meanings}. It compares only with "
        "numbers on images changed in the same way"
    )
    return (message,)
