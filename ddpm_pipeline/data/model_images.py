"""The images that a saved model is measured on: of its size and channels, batch by batch.

    data = open_model_images("photos/", pipeline.unet.config, split="test")
    for x_0, labels in ModelBatches(data): ...              x_0 in [-1, 1], (B, C, H, W)
    described_changes(data)                                 what must be said beside the number

Numbers of a model are those of the images as it sees them, so whatever was done to the files is
said or refused here, once for all commands that measure.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from ddpm_pipeline.data.decoding import Fit
from ddpm_pipeline.data.images import ImageData, open_images
from ddpm_pipeline.data.pixels import to_model_range

__all__ = ["ModelBatches", "check_unchanged_size", "described_changes", "open_model_images"]

_MEANINGS = {
    "resized": "scaling smooths noise away, which makes them more likely",
    "cropped": "a part of each is not measured",
    "padded": "a black border costs almost nothing, which lowers the mean over dimensions",
    "requantized": "values between the 256 levels were rounded to them",
}


class UNetConfig(Protocol):
    """The part of a UNet's config that says which images it is for."""

    sample_size: int | tuple[int, int]
    in_channels: int
    num_class_embeds: int | None


def open_model_images(
    source: str | os.PathLike,
    unet_config: UNetConfig,
    *,
    split: str | None = None,
    fit: Fit | Literal["exact"] = "resize",
    other_channels: Literal["convert", "refuse"] = "convert",
    labels: bool | None = None,
) -> ImageData:
    """Open images in the size that a model was made for.

    Arguments:
        source, split: As for `open_images`.
        unet_config: The config of the model's UNet.
        fit: What becomes of images of another size: as for `open_images`, or "exact", which
            refuses them.
        other_channels: What becomes of images of other channels than the model's.
        labels: Whether to read class labels; unless given, if the model takes any.
    Raises:
        ValueError: If the model's images are not square, or those of the source are refused.
        FileNotFoundError: If there is no such source.
    """
    side, channels = unet_config.sample_size, unet_config.in_channels
    if not isinstance(side, int):
        raise ValueError(f"the model must make square images, got sample_size={side}")
    data = open_images(
        source,
        resolution=side,
        channels=channels if other_channels == "convert" else None,
        fit="resize" if fit == "exact" else fit,
        split=split,
        labels=unet_config.num_class_embeds is not None if labels is None else labels,
    )
    if data.channels != channels:
        raise ValueError(
            f"data={source!r} has images of {data.channels} channel(s), the model makes images of "
            f"{channels}"
        )
    if fit == "exact":
        check_unchanged_size(data, f"data={source!r}", "; fit='resize' scales and crops them")
    return data


def check_unchanged_size(data: ImageData, name: str, remedy: str = "") -> None:
    """Refuse images that were scaled, cropped or padded when they were opened.

    Raises:
        ValueError: If any were; begins with `name` and ends with `remedy`.
    """
    if data.was_resized or data.was_cropped or data.was_padded:
        side = data.resolution
        raise ValueError(
            f"{name} has images of another size than the model's {side}×{side}{remedy}"
        )


def described_changes(data: ImageData) -> tuple[str, ...]:
    """Say what was done to images before they were measured, and what the number then means."""
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


@dataclass(frozen=True)
class ModelBatches:
    """All images in [-1, 1] with their labels, one batch after the other, as often as wanted.

    Arguments:
        data: The images.
        batch_size: How many are read at a time; the last batch may be smaller.
    """

    data: ImageData
    batch_size: int = 1024

    def __len__(self) -> int:
        return math.ceil(len(self.data) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        for numbers in torch.arange(len(self.data)).split(self.batch_size):
            images, labels = self.data.batch(numbers)
            yield to_model_range(images), labels
