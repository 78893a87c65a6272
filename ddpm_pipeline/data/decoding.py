"""Decoding: one image file or array of any kind → bytes (C, H, W) of the wanted size and mode.

    orientation → 8 bits → L, RGB or RGBA → shorter side to the resolution → centre crop

Every step that changed something is reported by name, so that a data set can say what was done to
it and the bound's report can say that its images are not the originals.
"""

import io
import os
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageOps

from ddpm_pipeline.common import check_at_least, check_choice
from ddpm_pipeline.data.sources.source import RawImage

__all__ = ["Crop", "Fit", "Preparation", "RefusedImageError", "decode", "decoding_threads"]

Crop = Literal["center", "random"]
Fit = Literal["resize", "pad"]

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class RefusedImageError(ValueError):
    """An image that is readable but does not fit what was asked for; never skipped."""


@dataclass(frozen=True)
class Preparation:
    """The settings by which an image becomes (C, resolution, resolution) bytes.

    Arguments:
        resolution: Height and width.
        channels: 1, 3 or 4; None is 1 if every image is grey, else 3 (arrays keep their own).
        fit: "resize" brings the shorter side to `resolution` (bicubic, antialiased, a no-op where
            it is that already); "pad" puts black around smaller images and refuses larger ones.
        crop: "center" keeps the middle of the longer side; "random" keeps all of it for a crop
            drawn anew each time.
        value_range: The (lowest, highest) value that arrays may hold, mapped onto 0 … 255; None
            takes uint8 arrays only.
    """

    resolution: int
    channels: int | None = None
    fit: Fit = "resize"
    crop: Crop = "center"
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_at_least(self, resolution=1)
        if self.channels not in {None, 1, 3, 4}:
            raise ValueError(f"channels must be 1, 3, 4 or None, got {self.channels}")
        check_choice("fit", self.fit, get_args(Fit))
        check_choice("crop", self.crop, get_args(Crop))
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"value_range must be (low, high), got {self.value_range}")


def decode(raw: RawImage, settings: Preparation) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode one raw image into bytes (C, H, W), and say what was done to it.

    Only the first frame of an animation is read; the EXIF orientation is applied; transparency is
    laid over white unless C = 4; 16-bit grey is divided by 257 and rounded; colour profiles are
    not applied.

    Raises:
        RefusedImageError: If the image does not fit the settings.
        Exception: Of many types, from Pillow's decoders, if the file is broken.
    """
    if isinstance(raw, np.ndarray):
        values, changes = _to_bytes(raw, settings.value_range)
        side = (settings.resolution, settings.resolution)
        if values.ndim == 2:
            values = values[:, :, None]
        if values.shape[:2] == side and values.shape[2] == settings.channels:
            return values.transpose(2, 0, 1), changes
        image = Image.fromarray(values.squeeze(2) if values.shape[2] == 1 else values)
    else:
        changes, image = (), Image.open(io.BytesIO(raw))
    image, converted = _convert(image, settings.channels)
    image, fitted = _FITS[settings.fit](image, settings.resolution)
    if settings.crop == "center":
        image, cropped = _center_crop(image, settings.resolution)
        fitted += cropped
    values = np.asarray(image)
    values = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    return values, changes + converted + fitted


def _to_bytes(
    raw: np.ndarray, value_range: tuple[float, float] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Map low … high onto 0 … 255, rounded; off the grid by over 1e-3 levels is a change."""
    if value_range is None:
        return raw, ()
    low, high = value_range
    if not np.isfinite(raw).all():
        raise RefusedImageError("it holds NaN or infinite values")
    if raw.min() < low or raw.max() > high:
        raise RefusedImageError(f"its values {raw.min()} … {raw.max()} are outside value_range")
    levels = (raw.astype(np.float64) - low) * (255 / (high - low))
    values = np.rint(levels)
    changes = ("requantized",) if np.abs(levels - values).max() > 1e-3 else ()
    return values.astype(np.uint8), changes


def _convert(image: Image.Image, channels: int | None) -> tuple[Image.Image, tuple[str, ...]]:
    """Turn an image upright, and into L, RGB or RGBA."""
    source, mode, deep = image.mode, _MODES[channels or 3], _is_16_bit(image)
    image = ImageOps.exif_transpose(image)
    if source[0] in "IF":
        image = _grey_from_wide(image)
    if image.has_transparency_data:
        source = source if "A" in source.upper() else f"{source} with transparency"
        image = image.convert("RGBA")
        if mode != "RGBA":
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
    changes = () if source == mode else (f"{source} to {mode}",)
    return image.convert(mode), changes + (("requantized",) if deep else ())


def _is_16_bit(image: Image.Image) -> bool:
    """Tell whether the file holds more than 8 bits per value; Pillow hides it for RGB."""
    tiles = getattr(image, "tile", ())
    return image.mode[0] in "IF" or any(";16" in str(tile[3]) for tile in tiles)


def _grey_from_wide(image: Image.Image) -> Image.Image:
    """Map 16-bit grey, also as Pillow's 32-bit "I", onto 0 … 255."""
    if image.mode == "F":
        raise ValueError("mode F (floating point) has no known range; convert it to 8 or 16 bits")
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"values {values.min()} … {values.max()} are not 16-bit grey")
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))


def _resize(image: Image.Image, resolution: int) -> tuple[Image.Image, tuple[str, ...]]:
    width, height = image.size
    if min(width, height) == resolution:
        return image, ()
    scale = resolution / min(width, height)
    size = (max(resolution, round(width * scale)), max(resolution, round(height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC), ("resized",)


def _pad(image: Image.Image, resolution: int) -> tuple[Image.Image, tuple[str, ...]]:
    width, height = image.size
    if max(width, height) > resolution:
        raise RefusedImageError(
            f"{width}x{height} is larger than resolution={resolution}, so fit must be 'resize'"
        )
    if width == height == resolution:
        return image, ()
    canvas = Image.new(image.mode, (resolution, resolution))
    canvas.paste(image, ((resolution - width) // 2, (resolution - height) // 2))
    return canvas, ("padded",)


_FITS = {"resize": _resize, "pad": _pad}


def _center_crop(image: Image.Image, resolution: int) -> tuple[Image.Image, tuple[str, ...]]:
    width, height = image.size
    if width == height == resolution:
        return image, ()
    left, top = (width - resolution) // 2, (height - resolution) // 2
    return image.crop((left, top, left + resolution, top + resolution)), ("cropped",)


def decoding_threads(num_threads: int | None) -> int:
    """Give how many threads decode: unless told, one for each processor, at most 32."""
    return num_threads or min(32, os.cpu_count() or 1)
