"""Images and masks as callers have them, in the form that tasks work on.

    images = given_images(unet, picture, "image", resize=False)     (N, C, H, W) in [-1, 1]
    hole = given_hole(mask, (H, W), N)                              (N, 1, H, W), 1 where it is

Pictures of Pillow, arrays (H, W), (H, W, C) or (N, H, W, C) and tensors (C, H, W) or (N, C, H, W)
are taken: bytes, 16-bit arrays, or floats in [0, 1], as a call of the pipeline gives them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import UNet2DModel
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from ddpm_pipeline.networks import facts_of, image_channels

__all__ = [
    "GivenImages",
    "check_bytes",
    "check_reach",
    "fitted",
    "given_hole",
    "given_images",
    "given_measurement",
    "image_size",
    "unit_images",
]


GivenImages = Any
_HIGHEST = {torch.uint8: 255.0, torch.uint16: 65535.0}
_NOISE_WIDTHS = 6.0  # Beyond which a measurement is not in [0, 1] with noise on it.


def image_size(unet: UNet2DModel) -> tuple[int, int] | None:
    """Give the height and width of the network's images; None if it does not say."""
    size = unet.config.sample_size
    return (size, size) if isinstance(size, int) else size and tuple(size)


def check_bytes(unet: UNet2DModel) -> None:
    """Refuse a model of exact values, which are no bytes and have no white.

    Raises:
        ValueError: If the network is one's.
    """
    scale = facts_of(unet).scale
    if scale is not None:
        raise ValueError(
            "tasks on given images are for models of bytes; this one is of exact "
            f"{scale.dtype} (--depth exact)"
        )


def given_images(unet: UNet2DModel, image: GivenImages, name: str, *, resize: bool) -> Tensor:
    """Bring images into the range of models, and to the network's size if that is asked for.

    Arguments:
        unet: Whose images they are to be.
        image: One image or several.
        name: Of the argument, in errors.
        resize: Whether images of another size are scaled and cut in the middle, or refused.
    Returns:
        Float32 on the CPU, (N, C, H, W).
    Raises:
        TypeError: If it is no image.
        ValueError: If the size, the channels or the values are not allowed, or the model is not
            one of bytes.
    """
    check_bytes(unet)
    images = unit_images(image, name, image_channels(unet))
    return fitted(images, image_size(unet), name, resize=resize) * 2 - 1


def unit_images(image: GivenImages, name: str, channels: int) -> Tensor:
    """Bring images of any size into [0, 1], float32 (N, C, H, W) on the CPU.

    Raises:
        TypeError: If it is no image.
        ValueError: If the channels or the values are not allowed.
    """
    images = _unit_range(image, name, channels)
    if images.min() < 0 or images.max() > 1:
        low, high = images.min().item(), images.max().item()
        raise ValueError(f"{name} must have values in [0, 1], got {low:.3g} to {high:.3g}")
    return images


def given_hole(mask: GivenImages, size: tuple[int, int], count: int) -> Tensor:
    """Find the pixels to fill.

    Arguments:
        mask: One image, or one for each of ``count``: at least half, True or white is the hole.
        size: Height and width of the images.
        count: How many images there are.
    Returns:
        Float32, 1 in the hole and 0 elsewhere, (N, 1, H, W): N is 1, count, or any for one image.
    Raises:
        ValueError: If the mask is of another shape, or has no hole.
    """
    if isinstance(mask, Image.Image):
        mask = mask.convert("L")
    if isinstance(mask, np.ndarray):
        mask = torch.from_numpy(np.array(mask))
        mask = mask.movedim(-1, -3) if mask.ndim == 4 else mask
    if isinstance(mask, Tensor):
        mask = _zeros_and_ones(mask)
    hole = (_unit_range(mask, "mask", 1) >= 0.5).float()
    if tuple(hole.shape[2:]) != size or (len(hole) not in (1, count) and count > 1):
        raise ValueError(
            f"mask must be of the image's size, {size[0]} x {size[1]}, one or one for each image, "
            f"got {len(hole)} of {hole.shape[2]} x {hole.shape[3]} for {count}"
        )
    if not hole.flatten(1).any(1).all():
        raise ValueError(
            "mask must have a hole: pixels of at least half, or True, are filled, and "
            f"{'one of its images' if len(hole) > 1 else 'it'} has none"
        )
    return hole


def _zeros_and_ones(mask: Tensor) -> Tensor:
    """Give a mask (N, 1, H, W) in which whole numbers 0 and 1, False and True are floats."""
    if mask.dtype == torch.bool or (not mask.is_floating_point() and mask.max() <= 1):
        mask = mask.float()
    return mask[None] if mask.ndim == 2 else mask[:, None] if mask.ndim == 3 else mask


def given_measurement(
    y: GivenImages,
    channels: int,
    noise_std: float,
    size: tuple[int, int] | None = None,
    mask: GivenImages | None = None,
) -> Tensor:
    """Take what was measured of images, in units of [0, 1], float32.

    Pictures and arrays are images of any size; tensors may have any shape (N, *). Beside a mask of
    images of a size, what stands in the holes is not looked at, and is 0 in what is given back.

    Raises:
        TypeError: If it is no image and no tensor.
        ValueError: If it is not finite, or lies farther outside [0, 1] than its noise can.
    """
    is_free = isinstance(y, Tensor) and y.is_floating_point() and y.ndim != 3
    y = y.float().cpu() if is_free else _joined(y, "y", channels)
    if mask is not None and y.ndim == 4 and tuple(y.shape[2:]) == size:
        y = torch.where(given_hole(mask, size, len(y)) > 0, 0.0, y)
    if not y.isfinite().all():
        raise ValueError("y must be finite, got NaN or infinity")
    if not is_free:
        check_reach(y, noise_std)
    return y


def check_reach(y: Tensor, noise_std: float) -> None:
    """Refuse measurements of pixels that lie farther outside [0, 1] than their noise can.

    Raises:
        ValueError: If they do.
    """
    reach = _NOISE_WIDTHS * noise_std + 1e-3
    low, high = y.min().item(), y.max().item()
    if low < -reach or high > 1 + reach:
        raise ValueError(
            f"y must lie in [0, 1] but for its noise of noise_std={noise_std}, got {low:.3g} to "
            f"{high:.3g}"
        )


def fitted(images: Tensor, size: tuple[int, int] | None, name: str, *, resize: bool) -> Tensor:
    """Scale images (N, C, H, W) in [0, 1] until they cover a size, and keep the middle.

    Raises:
        ValueError: If they are of another size, and resize is not asked for.
    """
    found = tuple(images.shape[2:])
    if size is None or found == size:
        return images
    if not resize:
        raise ValueError(
            f"{name} must be {size[0]} x {size[1]} (height x width), the size of the model's "
            f"images, got {found[0]} x {found[1]}; resize=True scales it and keeps the middle"
        )
    scale = max(wanted / side for wanted, side in zip(size, found, strict=True))
    sides = [max(round(side * scale), wanted) for side, wanted in zip(found, size, strict=True)]
    images = functional.interpolate(images, sides, mode="bicubic", antialias=True).clamp(0, 1)
    top, left = ((side - wanted) // 2 for side, wanted in zip(sides, size, strict=True))
    return images[..., top : top + size[0], left : left + size[1]]


def _unit_range(image: GivenImages, name: str, channels: int) -> Tensor:
    """Make finite float32 (N, C, H, W), bytes and 16-bit values divided by the highest."""
    joined = _joined(image, name, channels)
    if not joined.isfinite().all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return joined


def _joined(image: GivenImages, name: str, channels: int) -> Tensor:
    """Make float32 (N, C, H, W) of one image or of several."""
    parts = image if isinstance(image, list | tuple) else [image]
    if not parts:
        raise ValueError(f"{name} must hold at least one image, got an empty list")
    images = [_tensor(part, name, channels) for part in parts]
    if len({tuple(one.shape[1:]) for one in images}) > 1:
        raise ValueError(f"{name} must hold images of one size")
    return torch.cat(images)


def _tensor(image: GivenImages, name: str, channels: int) -> Tensor:
    if isinstance(image, Image.Image):
        image = _pixels(image, name, channels)
    if isinstance(image, np.ndarray):
        image = _channels_first(image, name, channels)
    if not isinstance(image, Tensor):
        raise TypeError(
            f"{name} must be a Pillow image, an array, a tensor or a list of these, got "
            f"{type(image).__name__}"
        )
    image = image[None] if image.ndim == 3 else image
    if image.ndim != 4 or image.shape[1] != channels or 0 in image.shape:
        raise ValueError(
            f"{name} must have {channels} channel{'s' * (channels > 1)}, as (C, H, W) or "
            f"(N, C, H, W) in a tensor and (H, W, C) or (N, H, W, C) in an array, got "
            f"{(*image.shape,)} as (N, C, H, W)"
        )
    if image.dtype not in _HIGHEST and not image.is_floating_point():
        raise ValueError(f"{name} must be bytes, uint16 or floats in [0, 1], got {image.dtype}")
    return image.detach().cpu().float() / _HIGHEST.get(image.dtype, 1.0)


def _channels_first(array: np.ndarray, name: str, channels: int) -> Tensor:
    """Make (N, C, H, W) of an array (H, W), (H, W, C) or (N, H, W, C)."""
    if array.ndim == 2:
        array = array[..., None]
    elif array.ndim == 3 and array.shape[-1] != channels and channels == 1:
        array = array[..., None]  # (N, H, W)
    if array.ndim not in (3, 4):
        raise ValueError(
            f"{name} must be (H, W), (H, W, C) or (N, H, W, C), got {(*array.shape,)}"
        )
    return torch.from_numpy(np.array(array)).movedim(-1, -3)  # a copy: pictures are read-only


def _pixels(picture: Image.Image, name: str, channels: int) -> np.ndarray:
    """Give a picture's pixels (H, W, C), turned as its EXIF data say; nothing may be lost.

    Raises:
        ValueError: If it has colours or transparency that the model's images have not.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("1", "L", "RGB", "P") and "transparency" in picture.info:
        picture = picture.convert("LA" if picture.mode in ("1", "L") else "RGBA")
    elif picture.mode in ("1", "P"):
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    pixels = np.asarray(picture)
    if picture.mode not in ("L", "LA", "RGB", "RGBA", "I;16"):
        raise ValueError(f"{name} must be grey or RGB, got a picture of mode {picture.mode!r}")
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    highest = np.iinfo(pixels.dtype).max
    if pixels.shape[-1] in (2, 4) and channels in (1, 3) and (pixels[..., -1] == highest).all():
        pixels = pixels[..., :-1]
    if pixels.shape[-1] == 3 and channels == 1 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1]
    if pixels.shape[-1] == 2 and channels == 4:
        pixels = pixels[..., [0, 0, 0, 1]]
    if pixels.shape[-1] == 1 and channels in (3, 4):
        pixels = pixels.repeat(3, axis=-1)
    if pixels.shape[-1] == 3 and channels == 4:
        pixels = np.concatenate([pixels, np.full_like(pixels[..., :1], highest)], axis=-1)
    if pixels.shape[-1] != channels:
        raise ValueError(
            f"{name} must have the {channels} channel{'s' * (channels > 1)} of the model's "
            f"images, got a picture of mode {picture.mode!r}; convert it first"
        )
    return pixels
