"""Pixels in their three forms: bytes of files, [-1, 1] of models, and what callers are given.

    x_0     = to_model_range(random_flip(batch.images.to(device), generator))
    samples = unit_range(x_0)                                [-1, 1] to [0, 1]
    OUTPUTS["pil"](samples)                                  Pillow images, arrays or tensors

Bytes k and values of models are linked by x_0 = 2 k / 255 - 1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from ddpm_pipeline.common import moved
from ddpm_pipeline.networks import ValueScale

__all__ = [
    "MOST_CHANNELS",
    "OUTPUTS",
    "as_picture",
    "concatenated",
    "flip_coins",
    "mirrored",
    "model_values",
    "named_bands",
    "pictured_values",
    "random_flip",
    "shown_bands",
    "to_model_range",
    "uint8_from_unit_range",
    "unit_range",
]


MOST_CHANNELS = 4
"""How many channels a picture may have."""


def to_model_range(images: Tensor) -> Tensor:
    """Map bytes 0 … 255 to float32 in [-1, 1], 2 k / 255 - 1, on the device they are on.

    Raises:
        TypeError: If the images are not bytes.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype}")
    return images.to(torch.float32).mul_(2).div_(255).sub_(1)


def random_flip(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Mirror each image left to right with probability one half.

    Arguments:
        images: (B, C, H, W), of any dtype.
        generator: On the device of the images, or on the CPU.
    """
    device = images.device if generator is None else generator.device
    return mirrored(images, moved(flip_coins(len(images), generator, device), images.device))


def flip_coins(
    count: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw which of many images to mirror, 0 or 1 with equal probability, int64 (count,)."""
    return torch.randint(0, 2, (count,), generator=generator, device=device)


def mirrored(images: Tensor, coins: Tensor) -> Tensor:
    """Mirror the images (B, C, H, W) left to right whose coin, (B,), is not 0."""
    if images.dtype == torch.uint16:  # which torch does not flip
        return mirrored(images.view(torch.int16), coins).view(torch.uint16)
    return torch.where(coins.bool().view(-1, 1, 1, 1), images.flip(-1), images)


def model_values(images: Tensor, scale: ValueScale | None) -> Tensor:
    """Map images (B, C, H, W) of any depth to float32 as a model sees them.

    Arguments:
        images: Of the type of the scale.
        scale: That of the model's values; None for bytes.
    Raises:
        TypeError: If the images are of another type.
    """
    if scale is None:
        return to_model_range(images)
    if images.dtype != getattr(torch, scale.dtype):
        raise TypeError(f"images must be {scale.dtype}, got {images.dtype}")
    return scale.to_model(images)


def unit_range(samples: Tensor) -> Tensor:
    """Map samples of a model from [-1, 1] to [0, 1], where what is outside becomes 0 or 1.

    Raises:
        ValueError: If a value is not finite.
    """
    if not samples.isfinite().all():
        raise ValueError(
            "the images are not finite: the model's weights or its scheduler are at fault (DDIM "
            "with eta=1 and zero terminal SNR divides by zero; DDPMScheduler does not)"
        )
    return (samples / 2 + 0.5).clamp(0, 1)


def uint8_from_unit_range(images: Tensor) -> np.ndarray:
    """Round images in [0, 1], (N, C, H, W), to the 256 levels: uint8, (N, H, W, C), on the CPU."""
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def shown_bands(channels: int, named: Sequence[int] | None = None) -> tuple[int, ...] | None:
    """Choose what a picture shows of images with so many channels.

    Arguments:
        channels: C.
        named: One channel for grey, or three for red, green and blue, counted from 0; None shows
            all of up to four channels, and of more the first three.
    Returns:
        Channels; None for all.
    Raises:
        ValueError: If there is no such channel, or neither one nor three are named.
    """
    if named is None:
        return None if channels <= MOST_CHANNELS else (0, 1, 2)
    if len(named) not in {1, 3} or not all(0 <= band < channels for band in named):
        raise ValueError(
            f"picture_bands must be one or three channels from 0 to {channels - 1}, got "
            f"{' '.join(map(str, named))}"
        )
    return tuple(named)


def named_bands(channels: int, named: Sequence[int] | None) -> tuple[int, ...] | None:
    """Check the channels that pictures are to show; None where none are named."""
    return None if named is None else shown_bands(channels, named)


def as_picture(pixels: np.ndarray, bands: Sequence[int] | None = None) -> PIL.Image.Image:
    """Make a Pillow image of uint8 (H, W, C), C = 1 (L), 2 (LA), 3 (RGB), 4 (RGBA) or more.

    Arguments:
        pixels: The image.
        bands: As for ``shown_bands``.
    """
    shown = shown_bands(pixels.shape[-1], bands)
    if shown is not None:
        pixels = np.ascontiguousarray(pixels[..., list(shown)])
    return PIL.Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _pictures(images: Tensor) -> list[PIL.Image.Image]:
    return [as_picture(pixels) for pixels in uint8_from_unit_range(images)]


def pictured_values(images: Tensor, scale: ValueScale | None) -> Tensor:
    """Bring images (B, C, H, W) of any depth to bytes: -1 becomes black, and 1 white."""
    if scale is None:
        return images
    return (unit_range(scale.to_model(images)) * 255).round().to(torch.uint8)


OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "pil": _pictures,
    "np": lambda images: images.permute(0, 2, 3, 1).cpu().numpy(),
    "pt": lambda images: images,
}
"""Functions that turn images in [0, 1], (N, C, H, W), into what a caller asked for, by name."""


def concatenated(parts: list[Any]) -> list[PIL.Image.Image] | np.ndarray | Tensor:
    """Join batches in one of the forms of OUTPUTS, at least one."""
    if isinstance(parts[0], list):
        return [image for part in parts for image in part]
    return torch.cat(parts) if isinstance(parts[0], Tensor) else np.concatenate(parts)
