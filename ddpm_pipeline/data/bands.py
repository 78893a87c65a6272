"""Arrays of any number of channels, brought to a resolution band by band.

    values, changes = fitted_bands(values, settings)        (H, W, C) to (C, height, width)

Pillow holds 1, 3 or 4 channels of 8 bits. Here every band is an image of its own: scaled in
float32 where it is deeper, and rounded and cut to its type once at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ddpm_pipeline.data.bounds import check_scaled
from ddpm_pipeline.data.fitting import check_not_larger, middle, scaled_size
from ddpm_pipeline.data.levels import RefusedImageError

if TYPE_CHECKING:
    from ddpm_pipeline.data.decoding import Preparation

__all__ = ["PICTURE_CHANNELS", "fitted_bands"]

PICTURE_CHANNELS = {1, 3, 4}
"""What L, RGB and RGBA have; between these, channels are converted."""


def fitted_bands(values: np.ndarray, settings: Preparation) -> tuple[np.ndarray, tuple[str, ...]]:
    """Bring an array to the resolution, in its own type.

    Arguments:
        values: (H, W, C), of a type of numbers of at most 32 bits.
        settings: What size, and how.
    Returns:
        The array (C, height, width), larger where crops are drawn later, and what was done.
    Raises:
        RefusedImageError: If it has other channels than the settings, or is too large to pad.
    """
    if values.shape[2] != settings.channels:
        raise RefusedImageError(
            f"it has {values.shape[2]} channels, not channels={settings.channels}"
        )
    bands = np.ascontiguousarray(values.transpose(2, 0, 1))
    bands, changes = _FITS[settings.fit](bands, settings)
    height, width = settings.sides
    if settings.crop == "center" and bands.shape[1:] != (height, width):
        left, top = middle(bands.shape[:0:-1], (width, height))
        bands = bands[:, top : top + height, left : left + width]
        changes += ("cropped",)
    return bands, changes


def _resized(bands: np.ndarray, settings: Preparation) -> tuple[np.ndarray, tuple[str, ...]]:
    before = bands.shape[:0:-1]
    size = scaled_size(before, settings.sides)
    if size == before:
        return bands, ()
    check_scaled(before, size, settings.max_pixels)
    return np.stack([_resized_band(band, size) for band in bands]), ("resized",)


def _resized_band(band: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale one band (H, W) as images are scaled, and give it in its type."""
    dtype = band.dtype
    held = band if dtype == np.uint8 else band.astype(np.float32)
    scaled = np.asarray(Image.fromarray(held).resize(size, Image.Resampling.BICUBIC))
    if dtype.kind in "iu" and dtype != np.uint8:
        limits = np.iinfo(dtype)
        scaled = np.rint(scaled).clip(limits.min, limits.max)
    return scaled.astype(dtype)


def _padded(bands: np.ndarray, settings: Preparation) -> tuple[np.ndarray, tuple[str, ...]]:
    before, (height, width) = bands.shape[:0:-1], settings.sides
    check_not_larger(before, settings.sides, settings.resolution)
    if before == (width, height):
        return bands, ()
    left, top = middle((width, height), before)
    canvas = np.zeros((len(bands), height, width), bands.dtype)
    if settings.background is not None:
        canvas += _level(settings, bands.dtype)
    canvas[:, top : top + before[1], left : left + before[0]] = bands
    return canvas, ("padded",)


def _level(settings: Preparation, dtype: np.dtype) -> np.ndarray:
    """Give the background as a value of a type, from a grey in 0 … 255."""
    if not settings.white_background or dtype != np.uint8:
        raise RefusedImageError(
            f"background={settings.background} is no value of {settings.channels} channels of "
            f"{dtype}: only greys are, of bytes; leave it out for zeros"
        )
    return np.array(settings.background[0], dtype)


_FITS = {"resize": _resized, "pad": _padded}
