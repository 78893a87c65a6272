"""What becomes of the images that a call has drawn: pictures, arrays or tensors.

    finish = output_of(unet, "pil")
    images = finish(x_0)                        x_0 (N, C, H, W) of the model's last step
    values = values_of(scale)(x_0)              of the type and in the unit of the training images

Pictures have 1 to 4 channels. Of images with more they show the bands that the model names, or the
first three as red, green and blue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ddpm_pipeline.data import (
    MOST_CHANNELS,
    OUTPUTS,
    named_bands,
    shown_bands,
    uint8_from_unit_range,
    unit_range,
)
from ddpm_pipeline.networks import facts_of, image_channels

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ddpm_pipeline.networks import ValueScale

__all__ = ["OUTPUT_TYPES", "bands_of", "check_format_of_bands", "output_of"]


OUTPUT_TYPES = (*OUTPUTS, "array")
"""What a call may be asked for; "array" is (N, H, W, C) of the training images' type and unit."""


def output_of(network: object, output_type: str) -> Callable[[Tensor], Any]:
    """Give the function that turns a model's images into what a caller asked for.

    Arguments:
        network: The model's UNet, which may name the bands of a picture.
        output_type: One of OUTPUT_TYPES.
    """
    if output_type == "array":
        return values_of(facts_of(network).scale)
    convert = OUTPUTS[output_type]
    if output_type != "pil":
        return lambda x_0: convert(unit_range(x_0))
    named = facts_of(network).picture_bands

    def pictures(x_0: Tensor) -> Any:  # noqa: ANN401 (as OUTPUTS)
        bands = shown_bands(x_0.shape[1], named)
        return convert(unit_range(x_0 if bands is None else x_0[:, list(bands)]))

    return pictures


def values_of(scale: ValueScale | None) -> Callable[[Tensor], np.ndarray]:
    """Give the function that turns a model's images into values as the training images had.

    Arguments:
        scale: That of the model's values; None for bytes.
    """
    if scale is None:
        return lambda x_0: uint8_from_unit_range(unit_range(x_0))

    def values(x_0: Tensor) -> np.ndarray:
        unit_range(x_0[:0] if x_0.isfinite().all() else x_0)  # says what is wrong
        return scale.to_values(x_0)

    return values


def bands_of(network: object, asked: Sequence[int] | None) -> tuple[int, ...] | None:
    """Give the channels that pictures show, where a caller or the model names them.

    Raises:
        ValueError: If the model's images have no such channels.
    """
    named = facts_of(network).picture_bands if asked is None else asked
    return named_bands(image_channels(network), named)


def check_format_of_bands(name: str, channels: int, bands: Sequence[int] | None) -> None:
    """Refuse files of pictures for images that are none, unless the bands are named.

    Arguments:
        name: Of the format.
        channels: Of the images.
        bands: What ``bands_of`` gave.
    Raises:
        ValueError: If some channels would be lost without a word.
    """
    if channels > MOST_CHANNELS and name != "npz" and bands is None:
        raise ValueError(
            f"format must be npz for images of {channels} channels, got {name!r}: pictures have 1 "
            f"to {MOST_CHANNELS}; picture_bands names those that they show"
        )
