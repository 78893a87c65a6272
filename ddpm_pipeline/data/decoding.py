"""Decoding: one image file or array of any kind → bytes (C, H, W) of the wanted size and mode.

    orientation → 8 bits → L, RGB or RGBA → shorter side to the resolution → centre crop

Every step that changed something is reported by name, so that a data set can say what was done to
it and the bound's report can say that its images are not the originals.
"""

import os
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image, ImageColor, ImageFile, ImageOps

from ddpm_pipeline.common import (
    Resolution,
    as_resolution,
    check_at_least,
    check_choice,
    is_integer,
    sides_of,
)
from ddpm_pipeline.data.bands import PICTURE_CHANNELS, fitted_bands
from ddpm_pipeline.data.bounds import DECODING, check_scaled, decoding_bytes
from ddpm_pipeline.data.depth import Layout, check_depth, exact_image, layout_of, open_image
from ddpm_pipeline.data.exact import decode_exact, decode_exact_image, exact_type
from ddpm_pipeline.data.file_stacks import StackedFiles, bands_of
from ddpm_pipeline.data.fitting import check_not_larger, middle, scaled_size
from ddpm_pipeline.data.levels import ON_A_LEVEL, RefusedImageError, to_levels
from ddpm_pipeline.data.sources.source import RawImage
from ddpm_pipeline.data.tiff_bands import BandStack, TiffBands

__all__ = [
    "Crop",
    "Depth",
    "Fit",
    "Preparation",
    "RefusedImageError",
    "decode",
    "decoding_threads",
]

Crop = Literal["center", "random"]
Fit = Literal["resize", "pad"]
Depth = Literal["bytes", "exact"]

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Preparation:
    """The settings by which an image becomes (C, H, W) bytes.

    Arguments:
        resolution: The side of squares, or (height, width).
        channels: Of the result; None is 1 if every image is grey, else 3 (arrays keep their own).
            Between 1, 3 and 4 they are converted; other numbers are of arrays and TIFF bands.
        fit: "resize" scales to the smallest size that covers `resolution` (bicubic, antialiased,
            a no-op where it is that already); "pad" puts `background` around smaller images and
            refuses larger ones.
        crop: "center" keeps the middle of the longer side; "random" keeps all of it for a crop
            drawn anew each time.
        value_range: The (lowest, highest) value of arrays that are not uint8 and of files deeper
            than 8 bits, mapped onto 0 … 255; None takes what a file says, and uint8 arrays only.
        background: The colour under transparency and in padding, by name or as (red, green,
            blue); None is white under transparency and black in padding.
        max_pixels: How many pixels a file may have; None keeps Pillow's limit.
        depth: "bytes" rounds deeper values to 256 levels, "exact" keeps them as they are; a range
            is then that of the model, and not of what is kept.
        tiff_bands: Of TIFF files with several pages, or with more bands than a picture has: "all"
            bands of all pages become channels, or the "picture" of the first page is taken; None
            refuses what could be either.
    """

    resolution: Resolution
    channels: int | None = None
    fit: Fit = "resize"
    crop: Crop = "center"
    value_range: tuple[float, float] | None = None
    background: tuple[int, int, int] | None = None
    max_pixels: int | None = None
    depth: Depth = "bytes"
    tiff_bands: TiffBands | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "resolution", as_resolution(self.resolution))
        check_at_least(self, max_pixels=1)
        if self.channels is not None and not (is_integer(self.channels) and self.channels >= 1):
            raise ValueError(
                f"channels must be an integer of at least 1, or None, got {self.channels!r}"
            )
        check_choice("fit", self.fit, get_args(Fit))
        check_choice("crop", self.crop, get_args(Crop))
        check_choice("depth", self.depth, get_args(Depth))
        if self.tiff_bands is not None:
            check_choice("tiff_bands", self.tiff_bands, get_args(TiffBands))
        if self.value_range is not None:
            object.__setattr__(self, "value_range", _checked_range(self.value_range))
        if self.background is not None:
            object.__setattr__(self, "background", _color(self.background))

    @property
    def sides(self) -> tuple[int, int]:
        """Give (height, width)."""
        return sides_of(self.resolution)

    @property
    def is_exact(self) -> bool:
        """Tell whether values are kept as deep as they are."""
        return self.depth == "exact"

    @property
    def white_background(self) -> bool:
        """Tell whether what is laid under images or around them has no colour of its own."""
        return self.background is None or len(set(self.background)) == 1

    def identity(self) -> dict[str, Any]:
        """Give what the bytes of an image follow from, beside its file, as JSON values."""
        values = {
            "resolution": self.resolution,
            "channels": self.channels,
            "fit": self.fit,
            "crop": self.crop,
            "value_range": self.value_range,
        }
        if self.is_exact:
            values |= {"depth": self.depth, "value_range": None}
        if self.background is not None:
            values["background"] = self.background
        if ImageFile.LOAD_TRUNCATED_IMAGES:
            values["truncated"] = True
        return values


def _checked_range(value_range: Any) -> tuple[float, float]:  # noqa: ANN401
    try:
        low, high = value_range
        if low < high and np.isfinite([low, high]).all():
            return low, high
    except (TypeError, ValueError):
        pass
    raise ValueError(f"value_range must be (low, high), got {value_range}")


def _color(background: Any) -> tuple[int, int, int]:  # noqa: ANN401 (a name or numbers)
    """Give a colour's red, green and blue."""
    allowed = "the name of a colour, as 'white' or '#ffffff', or (red, green, blue) in 0 … 255"
    try:
        named = isinstance(background, str)
        found = ImageColor.getrgb(background) if named else tuple(background)
        if len(found) == 3 and all(isinstance(v, int) and 0 <= v <= 255 for v in found):
            return found
    except (TypeError, ValueError):
        pass
    raise ValueError(f"background must be {allowed}, got {background!r}")


def decode(raw: RawImage, settings: Preparation) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode one raw image into bytes (C, H, W), and say what was done to it.

    Only the first frame of an animation is read; the EXIF orientation is applied; transparency is
    laid over the background unless C = 4; values deeper than 8 bits are rounded to 256 levels,
    once; colour profiles are not applied.

    Raises:
        RefusedImageError: If the image does not fit the settings.
        Exception: Of many types, from Pillow's decoders, if the file is broken.
    """
    if isinstance(raw, np.ndarray):
        return _decoded_array(raw, settings)
    if (stack := bands_of(raw, settings)) is not None:
        return _decoded_bands(stack, settings)
    image = open_image(raw, settings.max_pixels)
    if settings.channels not in {None, *PICTURE_CHANNELS}:
        raise RefusedImageError(
            f"it is a picture of {len(image.getbands())} channels, not channels="
            f"{settings.channels}"
        )
    layout = layout_of(image)
    deep = layout.exact
    if settings.is_exact and deep:
        return decode_exact_image(raw, image, layout, settings)
    with DECODING.hold(decoding_bytes(image, settings.channels or 3, is_deep=deep)):
        image, converted = _decoded(raw, image, layout, settings)
        return _fitted(image, converted, settings)


def _decoded_array(raw: np.ndarray, settings: Preparation) -> tuple[np.ndarray, tuple[str, ...]]:
    """Bring an array (H, W) or (H, W, C) to values (C, H, W)."""
    if settings.is_exact and raw.dtype not in {np.dtype(bool), np.dtype(np.uint8)}:
        return decode_exact(raw, settings)
    values, changes = _to_bytes(raw, None if settings.is_exact else settings.value_range)
    return _fitted_array(values if values.ndim == 3 else values[:, :, None], changes, settings)


def _fitted_array(
    values: np.ndarray, changes: tuple[str, ...], settings: Preparation
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Bring bytes (H, W, C) to the resolution and the channels, as bytes (C, H, W)."""
    if values.shape[:2] == settings.sides and values.shape[2] == settings.channels:
        return values.transpose(2, 0, 1), changes
    if not {values.shape[2], settings.channels} <= PICTURE_CHANNELS:
        fitted, fitting = fitted_bands(values, settings)
        return fitted, changes + fitting
    image = Image.fromarray(values.squeeze(2) if values.shape[2] == 1 else values)
    image, converted = _convert(image, image.mode, settings)
    return _fitted(image, changes + converted, settings)


def _decoded_bands(
    stack: BandStack | StackedFiles, settings: Preparation
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode bands, each by itself, as values (C, H, W)."""
    layout, changes = stack.layout, ()
    with DECODING.hold(stack.decoding_bytes):
        values = stack.read()
        if settings.is_exact:
            return decode_exact(values.astype(exact_type(layout)), settings)
        if layout.exact:
            check_depth(layout, settings.value_range)
            values, changes = _to_bytes(values, settings.value_range or layout.white)
            changes = changes if settings.value_range else ("requantized",)
        if stack.is_picture:
            return _fitted_array(values, changes, settings)
        fitted, fitting = fitted_bands(values, settings)
        return fitted, changes + fitting


def _fitted(
    image: Image.Image, changes: tuple[str, ...], settings: Preparation
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Bring an image of the right mode to the resolution, as bytes (C, H, W)."""
    image, fitted = _FITS[settings.fit](image, settings)
    if settings.crop == "center":
        image, cropped = _center_crop(image, settings.sides)
        fitted += cropped
    values = np.asarray(image)
    values = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    return values, changes + fitted


def _to_bytes(
    raw: np.ndarray, value_range: tuple[float, float] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Map low … high onto 0 … 255, rounded; off the grid by over 1e-3 levels is a change."""
    if raw.dtype == bool and value_range is None:
        return raw.astype(np.uint8) * 255, ()
    if value_range is None:
        return raw, ()
    levels = to_levels(raw, value_range)
    values = np.rint(levels)
    changes = ("requantized",) if np.abs(levels - values).max() > ON_A_LEVEL else ()
    return values.astype(np.uint8), changes


def _decoded(
    raw: bytes, image: Image.Image, layout: Layout, settings: Preparation
) -> tuple[Image.Image, tuple[str, ...]]:
    """Decode a file upright, and into L, RGB or RGBA."""
    source = image.mode if layout.name != "LA;16" else "LA"
    if not layout.exact:
        deep = _has_other_levels(image)
        ImageOps.exif_transpose(image, in_place=True)  # without a copy of what is upright
        image, changes = _convert(image, source, settings)
        return image, changes + (("requantized",) if deep else ())
    paper = None if settings.channels == 4 else settings.background or _WHITE
    transparent = "transparency" in image.info
    image, between = exact_image(raw, image, layout, settings.value_range, paper)
    mode = _MODES[settings.channels or 3]
    if transparent:
        source = f"{source} with transparency"
    changes = () if source == mode else (f"{source} to {mode}",)
    deeper = settings.value_range is None  # the file's own range has more than 256 levels
    changes += ("requantized",) if between or deeper else ()
    return image if image.mode == mode else image.convert(mode), changes


def _has_other_levels(image: Image.Image) -> bool:
    """Tell whether a file has levels between the 256 that Pillow has rounded away already."""
    for tile in getattr(image, "tile", ()):
        if tile[0] in {"ppm", "ppm_plain"} and isinstance(tile[3], tuple):
            return 255 % tile[3][-1] != 0
        if ";16" in str(tile[3]):
            return True
    return False


def _convert(
    image: Image.Image, source: str, settings: Preparation
) -> tuple[Image.Image, tuple[str, ...]]:
    """Turn an image of 8 bits into L, RGB or RGBA."""
    mode = _MODES[settings.channels or 3]
    if image.has_transparency_data:
        source = source if "A" in source.upper() else f"{source} with transparency"
        if image.mode == "La":
            image = image.convert("LA")
        image = image.convert("RGBA")
        if mode != "RGBA":
            paper = Image.new("RGBA", image.size, (*(settings.background or _WHITE), 255))
            image = Image.alpha_composite(paper, image)
    changes = () if source == mode else (f"{source} to {mode}",)
    return image if image.mode == mode else image.convert(mode), changes


def _resize(image: Image.Image, settings: Preparation) -> tuple[Image.Image, tuple[str, ...]]:
    size = scaled_size(image.size, settings.sides)
    if size == image.size:
        return image, ()
    check_scaled(image.size, size, settings.max_pixels)
    return image.resize(size, Image.Resampling.BICUBIC), ("resized",)


def _pad(image: Image.Image, settings: Preparation) -> tuple[Image.Image, tuple[str, ...]]:
    check_not_larger(image.size, settings.sides, settings.resolution)
    size = settings.sides[::-1]
    if image.size == size:
        return image, ()
    canvas = Image.new(image.mode, size, _border(image.mode, settings))
    canvas.paste(image, middle(size, image.size))
    return canvas, ("padded",)


def _border(mode: str, settings: Preparation) -> Any:  # noqa: ANN401 (a number or some)
    """Give the background as a value of a mode; black, and transparent in RGBA, unless given."""
    if settings.background is None:
        return 0 if mode == "L" else (0,) * len(mode)
    color = Image.new("RGB", (1, 1), settings.background).convert(mode)
    return color.getpixel((0, 0))


_FITS = {"resize": _resize, "pad": _pad}


def _center_crop(
    image: Image.Image, sides: tuple[int, int]
) -> tuple[Image.Image, tuple[str, ...]]:
    height, width = sides
    if image.size == (width, height):
        return image, ()
    left, top = middle(image.size, (width, height))
    return image.crop((left, top, left + width, top + height)), ("cropped",)


def decoding_threads(num_threads: int | None) -> int:
    """Give how many threads decode: unless told, one for each processor, at most 32."""
    return num_threads or min(32, os.cpu_count() or 1)
