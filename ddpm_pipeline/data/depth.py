"""Image files as they are stored: how deep, of which polarity, and what is transparent.

    image  = open_image(raw, max_pixels=None)
    layout = layout_of(image)                    from the header alone
    values = exact_image(raw, image, layout, value_range, background)       8 bits, rounded once

Pillow names a mode, which does not say what white is: mode I holds 12, 16 or 32 bits, signed or
not, and RGB may have lost the lower half of 16. What a file says itself decides here, and where
it does not say it either, ``value_range`` has to.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

import numpy as np
from PIL import Image, UnidentifiedImageError

from ddpm_pipeline.data.bounds import check_bounds
from ddpm_pipeline.data.byte_order import unswap
from ddpm_pipeline.data.levels import ON_A_LEVEL, RefusedImageError, to_levels
from ddpm_pipeline.data.sources.kinds import image_formats
from ddpm_pipeline.data.sources.source import one_line

__all__ = [
    "TIFF_MAGIC",
    "Layout",
    "check_depth",
    "deep_values",
    "exact_image",
    "layout_of",
    "open_image",
    "orientation",
    "upright",
]

_GREY = {"1", "L", "LA", "La", "F"}
_TIFF_BITS, _TIFF_POLARITY, _TIFF_FORMAT = 258, 262, 339
_UNSIGNED, _SIGNED = 1, 2
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Rawmodes by which the bytes that Pillow leaves out of 16 bits are read; ";16N" is this machine's.
_LOWER_BYTES = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA", "RGBX")
    for order, other in {"L": "B", "B": "L", "N": "B" if np.little_endian else "L"}.items()
}
_PREMULTIPLIED = "RGBa;16"
_GREY_WITH_ALPHA = "LA;16B"

_limit = Lock()


@dataclass(frozen=True)
class Layout:
    """How an image file holds its values.

    Arguments:
        name: Its mode for people, as in "RGB" or "I;16".
        grey: Whether it has no colours; None if that depends on which colours of its palette are
            used.
        exact: Whether its values go through ``exact_image``: they are deeper than 8 bits, or not
            what Pillow takes them for.
        white: The (lowest, highest) value by the file's own word; None if it says nothing.
        unknown: What it is that says nothing, for messages.
        inverted: Whether the lowest value is white.
        as_before: Whether earlier versions of this package made the same bytes of it.
    """

    name: str
    grey: bool | None
    exact: bool
    white: tuple[float, float] | None = None
    unknown: str = ""
    inverted: bool = False
    as_before: bool = True


def open_image(raw: bytes, max_pixels: int | None = None) -> Image.Image:
    """Open an image file.

    Arguments:
        max_pixels: How many pixels it may have; None keeps Pillow's limit.
    Raises:
        ValueError: If it has more, or sides or a size that no image has, or is a TIFF of a kind
            that Pillow does not know.
        Exception: Of many types, if it is not an image or damaged.
    """
    formats = image_formats()
    try:
        image = Image.open(io.BytesIO(raw), formats=formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        if max_pixels is None:
            reason = f"too large for Pillow's limit: {one_line(error)}"
            raise ValueError(f"{reason} max_pixels allows more") from error
        with _pillow_limit(max_pixels):
            image = Image.open(io.BytesIO(raw), formats=formats)
    except UnidentifiedImageError as error:
        if raw[:4] in TIFF_MAGIC:
            raise ValueError("a TIFF file of a kind that Pillow cannot read") from error
        raise
    check_bounds(image, raw, max_pixels)
    return image


@contextmanager
def _pillow_limit(max_pixels: int) -> Iterator[None]:
    """Raise the limit that Pillow knows for all threads, for as long as one image takes."""
    with _limit:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            yield
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ValueError(f"more pixels than max_pixels={max_pixels} ({error})") from error
        finally:
            Image.MAX_IMAGE_PIXELS = before


def layout_of(image: Image.Image) -> Layout:
    """Tell from its header how an image holds its values."""
    mode, rawmode = image.mode, _rawmode(image)
    if mode in {"P", "PA"}:
        return Layout(mode, _grey_palette(image), exact=False)
    if image.format == "TIFF" and (found := _tiff_layout(image)):
        return found
    if rawmode == _GREY_WITH_ALPHA:
        return Layout("LA;16", True, exact=True, white=(0, 65535), as_before=False)
    if rawmode in _LOWER_BYTES:
        name = f"{rawmode.partition(';')[0].replace('X', '')};16"
        return Layout(name, False, exact=True, white=(0, 65535), as_before=False)
    if mode[0] in "IF":
        return _wide_layout(image)
    return Layout(mode, mode in _GREY, exact=False, as_before=not _repair_transparency(image))


def _wide_layout(image: Image.Image) -> Layout:
    """Tell it of grey in more than 8 bits, in a format other than TIFF."""
    mode = image.mode
    if mode == "F":
        return Layout(mode, True, True, None, "floating point, mode F", as_before=False)
    # Pillow has stretched a PGM of fewer levels to 16 bits already.
    known = image.format in {"PNG", "PPM", "JPEG2000"}
    plain = known and "transparency" not in image.info
    white = (0, 65535) if known else None
    return Layout(mode, True, True, white, f"{image.format} in mode {mode}", as_before=plain)


def _tiff_layout(image: Image.Image) -> Layout | None:
    """Tell it of a TIFF whose values Pillow does not take for what they are; None of others."""
    tags, rawmode = image.tag_v2, _rawmode(image)
    bits, kind = tags.get(_TIFF_BITS, (1,))[0], tags.get(_TIFF_FORMAT, (_UNSIGNED,))[0]
    inverted = tags.get(_TIFF_POLARITY) == 0
    if rawmode.startswith(_PREMULTIPLIED):
        return Layout("RGBA;16", False, exact=True, white=(0, 65535), as_before=False)
    if image.mode == "L" and kind == _SIGNED:
        return Layout("L signed", True, True, None, "signed 8-bit integers", as_before=False)
    if image.mode[0] not in "IF":
        return None
    if image.mode == "F":
        unknown = f"floating point of {bits} bits, mode F"
        return Layout("F", True, True, None, unknown, inverted, as_before=False)
    if kind == _UNSIGNED and bits <= 16:
        plain = bits == 16 and not inverted
        white, name = (0, 2**bits - 1), image.mode if bits == 16 else f"I;{bits}"
        return Layout(name, True, True, white, inverted=inverted, as_before=plain)
    sign = "signed" if kind == _SIGNED else "unsigned"
    unknown = f"{sign} {bits}-bit integers"
    return Layout(f"I;{bits} {sign}", True, True, None, unknown, inverted, as_before=False)


def _rawmode(image: Image.Image) -> str:
    """Give the layout of the values in the file, by Pillow's name; empty if it has none."""
    tiles = getattr(image, "tile", ())
    arguments = tiles[0][3] if tiles else ""
    if isinstance(arguments, tuple):
        arguments = arguments[0] if arguments else ""
    return arguments if isinstance(arguments, str) else ""


def _grey_palette(image: Image.Image) -> bool | None:
    """Tell whether a palette holds greys only; None if it also holds colours, used or not."""
    palette = image.palette
    form, _, planar = (palette.rawmode or palette.mode).partition(";")
    colors = np.frombuffer(bytes(palette.palette), np.uint8)
    if planar == "L" and colors.size % len(form) == 0:
        colors = colors.reshape(len(form), -1).T
    elif not planar and colors.size % len(form) == 0:
        colors = colors.reshape(-1, len(form))
    else:
        return None
    grey = (colors[:, :3] == colors[:, :1]).all()
    return True if grey else None


def _repair_transparency(image: Image.Image) -> bool:
    """Bring the one transparent value of a PNG to the scale of its pixels, as Pillow does not.

    Returns:
        Whether it had to be changed.
    """
    value = image.info.get("transparency")
    if image.format != "PNG" or value is None or isinstance(value, bytes):
        return False
    if image.mode == "RGB":
        repaired = tuple(v & 255 for v in value)
    else:
        bits = {"1": 1, "L;2": 2, "L;4": 4}.get(_rawmode(image), 8)
        top = 2**bits - 1
        repaired = (min(value, top) if bits == 1 else value & top) * (255 // top)
    image.info["transparency"] = repaired
    return repaired != value


def check_depth(layout: Layout, value_range: tuple[float, float] | None) -> None:
    """Refuse values of which neither the file nor the caller says what is black and white.

    Raises:
        RefusedImageError: Names the option that says it.
    """
    if layout.exact and layout.white is None and value_range is None:
        raise RefusedImageError(
            f"its values ({layout.unknown}) have no known range; value_range=(low, high) says "
            "what is black and white, as in (0, 255)"
        )


def exact_image(
    raw: bytes,
    image: Image.Image,
    layout: Layout,
    value_range: tuple[float, float] | None,
    background: tuple[int, int, int] | None,
) -> tuple[Image.Image, bool]:
    """Give an image of deep values in L, RGB or RGBA, rounded once, upright.

    Arguments:
        raw: The file.
        image: What ``open_image`` gave of it.
        value_range: What becomes 0 and 255; None is what the file says.
        background: The colour under what is transparent; None keeps transparency, as RGBA.
    Returns:
        The image, and whether it had values between the levels.
    Raises:
        RefusedImageError: If the range of the values is not known, or they are outside it.
    """
    check_depth(layout, value_range)
    values, alpha, premultiplied = deep_values(raw, image, layout)
    levels = to_levels(values, value_range or layout.white)
    if layout.inverted:
        levels = 255 - levels
    between = bool(np.abs(levels - np.rint(levels)).max() > ON_A_LEVEL)
    if alpha is not None and background is not None:
        paper = np.array(background, np.float64)
        if premultiplied:
            levels = levels + paper * (1 - alpha)
        else:
            levels = levels * alpha + paper * (1 - alpha)
    elif alpha is not None:
        if premultiplied:
            levels = np.divide(levels, alpha, out=np.zeros_like(levels), where=alpha > 0)
        levels = np.broadcast_to(levels, (*levels.shape[:2], 3))
        levels = np.concatenate([levels, 255 * alpha], axis=2)
    pixels = np.rint(levels.clip(0, 255)).astype(np.uint8)
    pixels = upright(pixels, image)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), between


def deep_values(
    raw: bytes, image: Image.Image, layout: Layout
) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Give all bits of all values.

    Returns:
        The values (H, W, C), the opacity (H, W, 1) in [0, 1] or None, and whether the values are
        multiplied by it already.
    """
    rawmode, transparent = _rawmode(image), image.info.get("transparency")
    if rawmode == _GREY_WITH_ALPHA:
        halves = _decoded(raw, image, "RGBA").astype(np.uint16)
        values = (halves[..., ::2] << 8) | halves[..., 1::2]
        return values[..., :1], values[..., 1:] / 65535, False
    premultiplied = rawmode.startswith(_PREMULTIPLIED)
    if premultiplied:
        rawmode = rawmode.replace("RGBa", "RGBA")
    if rawmode in _LOWER_BYTES:
        upper, lower = (
            _decoded(raw, image, form).astype(np.uint16)
            for form in (rawmode, _LOWER_BYTES[rawmode])
        )
        values = (upper << 8) | lower
        if values.shape[2] == 4:
            return values[..., :3], values[..., 3:] / 65535, premultiplied
        return values, _opacity(values, transparent), False
    unswap(image)
    image.load()
    values = np.asarray(image)[..., None]
    if layout.name == "L signed":
        values = values.view(np.int8)
    elif layout.name == "I;32 unsigned":
        values = values.view(np.uint32)
    return values, _opacity(values, transparent), False


def _opacity(values: np.ndarray, transparent: object) -> np.ndarray | None:
    """Give 0 where values are the one that is transparent, else 1; None if none is."""
    if transparent is None:
        return None
    color = np.atleast_1d(np.asarray(transparent, np.int64))
    return (values != color).any(axis=2, keepdims=True).astype(np.float64)


def _decoded(raw: bytes, image: Image.Image, rawmode: str) -> np.ndarray:
    """Decode a file again with its values unpacked in another way."""
    again = open_image(raw, image.width * image.height)
    tiles = []
    for tile in again.tile:
        arguments = tile[3]
        new = (rawmode, *arguments[1:]) if isinstance(arguments, tuple) else rawmode
        tiles.append(tile._replace(args=new))
    again.tile = tiles
    again.load()
    return np.asarray(again)


# What turns an image upright, by its EXIF orientation.
_TURNS = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


def orientation(image: Image.Image) -> int:
    """Say how an image is still to be turned, by EXIF; Pillow turns a TIFF while loading it."""
    return image.getexif().get(0x0112, 1) if image.format != "TIFF" else 1


def upright(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """Turn pixels (H, W, C) as the file says."""
    return np.ascontiguousarray(_TURNS.get(orientation(image), lambda a: a)(pixels))
