"""TIFF files that are more than a picture: several pages, or bands that no picture has.

    stack = band_stack(raw, "all")           from the headers alone; None if it is a picture
    stack.channels, stack.layout, stack.size
    values = stack.read()                    (H, W, C), the numbers as they are stored

Pillow reads every band: of each page a grey file is made, with a header of its own and the bytes
of the page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from ddpm_pipeline.data.bounds import DEEP_BYTES, check_values
from ddpm_pipeline.data.depth import TIFF_MAGIC, Layout, deep_values, layout_of, open_image
from ddpm_pipeline.data.levels import RefusedImageError
from ddpm_pipeline.data.tiff_pages import (
    BIT_ORDER,
    BITS,
    COLOURS,
    EXTRA,
    FORMAT,
    HEIGHT,
    OPACITY,
    ORIENTATION,
    PACKING,
    PREDICTOR,
    WIDTH,
    Page,
    check_parts,
    grey_files,
    pages_of,
)

__all__ = ["BandStack", "TiffBands", "band_stack"]

TiffBands = Literal["all", "picture"]

_GREY, _NUMBERS, _SHOWN = {0, 1}, {1, 2, 5}, {1, 2}
_WHITE_IS_ZERO = 0
_MOST_OF_PILLOW = 6  # bands, beyond which it logs an error of its own
_PACKINGS = {1, 5, 8, 32773, 32946, 34925, 50000}
"""None, LZW, deflate, PackBits, deflate, LZMA, Zstandard: any bytes, whatever they mean."""
_PREDICTED = _PACKINGS - {1, 32773}
_LOOKED_AT = (
    BITS,
    COLOURS,
    PACKING,
    BIT_ORDER,
    ORIENTATION,
    PREDICTOR,
    FORMAT,
)
_HOW = (
    "save its bands as an array (H, W, C): numpy.save('x.npy', tifffile.imread('x.tif')), with "
    "moveaxis if the bands come first"
)


@dataclass(frozen=True)
class BandStack:
    """The bands of a TIFF file: those of its first page, then those of its second, and so on.

    Arguments:
        raw: The file.
        pages: Its pages, of one size and kind.
        layout: How one band holds its values.
        is_picture: Whether they are the picture of the first page, without its other bands.
    """

    raw: bytes
    pages: tuple[Page, ...]
    layout: Layout
    is_picture: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Give width and height."""
        return self.pages[0].size

    @property
    def channels(self) -> int:
        """Count them."""
        return self.pages[0].colours if self.is_picture else self._stored

    @property
    def described(self) -> str:
        """Say what they are, for people."""
        some = self.channels < self._stored
        count = f"the first {self.channels} of {self._stored}" if some else self._stored
        return f"{count} bands of {self.layout.name}"

    @property
    def decoding_bytes(self) -> int:
        """Estimate what decoding them takes."""
        values = math.prod(self.size) * self._stored
        return values * (DEEP_BYTES if self.layout.exact else 4)

    @property
    def _stored(self) -> int:
        return sum(page.samples for page in self.pages)

    def read(self) -> np.ndarray:
        """Decode all bands.

        Returns:
            Numbers (H, W, C), of the type that Pillow gives.
        Raises:
            Exception: Of many types, if the file is damaged.
        """
        values = np.concatenate([_read_page(self.raw, page) for page in self.pages], axis=2)
        return values[..., : self.channels]


def band_stack(
    raw: bytes, wanted: TiffBands | None = None, max_pixels: int | None = None
) -> BandStack | None:
    """Find out whether an image file has to be read band by band.

    A grey TIFF of one page with three bands or more is no picture, and all of its bands are read.
    The picture of a page is its first band, or its red, green and blue; opacity is what the file
    says to be that, and nothing else.

    Arguments:
        raw: A file of any format.
        wanted: What to take of a TIFF of several pages, or of a picture with more bands: "all"
            bands of all pages, or the "picture" of the first page alone; None refuses those.
        max_pixels: How many numbers all bands may have together, or how many pixels a picture;
            None is Pillow's limit.
    Returns:
        Its bands; None if Pillow reads it as a picture.
    Raises:
        RefusedImageError: If the file can be taken in two ways and neither is wanted, or its bands
            are none that can be read.
        ValueError: If it is damaged, or too large.
    """
    if raw[:4] not in TIFF_MAGIC:
        return None
    if wanted == "picture":
        shown = next(pages_of(raw), None)
        if shown is None or _is_shown(raw, shown):
            return None
        return _picture(raw, shown, max_pixels)
    listed = list(pages_of(raw))
    pages = tuple(page for page in listed if not page.is_aside)
    if not pages or (len(pages) == 1 and pages[0] is listed[0] and pages[0].is_picture):
        return _misread(raw, pages[0], wanted, max_pixels) if pages else None
    first = pages[0]
    is_grey = first.one(COLOURS, 1) in _GREY and first.samples > 2
    is_settled = is_grey or first.one(COLOURS, 1) == _WHITE_IS_ZERO  # which is refused by name
    if wanted is None and (len(pages) > 1 or not is_settled):
        raise RefusedImageError(_ambiguous(listed, pages))
    return _stack(raw, pages, max_pixels)


def _is_shown(raw: bytes, page: Page) -> bool:
    """Tell whether Pillow reads the picture of a page as what it is, or nobody can.

    It takes a band that no tag explains for opacity, refuses most numbers of bands, and opens
    some that do not interleave without being able to decode them.
    """
    if page.is_picture:
        return not _is_misread(page)
    if page.one(COLOURS, 1) not in _SHOWN | {_WHITE_IS_ZERO} and not page.is_flat:
        return True
    if page.is_flat or EXTRA not in page.tags or page.samples > _MOST_OF_PILLOW:
        return False
    try:
        with open_image(raw, 2**62):
            return True
    except ValueError:
        return False


def _is_misread(page: Page) -> bool:
    """Tell whether Pillow cannot read the bands of a picture, or takes them for others.

    Where they do not interleave, it gives half words of what is deeper than 8 bits, and cannot
    decode grey with opacity. It never reads several whose white is zero.
    """
    is_deep, is_grey = page.one(BITS, 1) > 8, page.one(COLOURS, 1) in _GREY
    is_inverted = page.one(COLOURS, 1) == _WHITE_IS_ZERO
    return page.samples > 1 and (is_inverted or (page.is_flat and (is_deep or is_grey)))


def _misread(
    raw: bytes, page: Page, wanted: TiffBands | None, max_pixels: int | None
) -> BandStack | None:
    """Hold the bands of a picture; None if Pillow reads it as what it is."""
    if not _is_misread(page):
        return None
    is_whole = page.samples == page.colours and page.one(COLOURS, 1) in _SHOWN
    if is_whole or wanted is None:
        return _picture(raw, page, max_pixels)
    return _stack(raw, (page,), max_pixels)


def _picture(raw: bytes, page: Page, max_pixels: int | None) -> BandStack:
    """Hold the first bands of a page, which are its picture."""
    if (colours := page.one(COLOURS, 1)) not in _SHOWN:
        raise RefusedImageError(f"its picture cannot be read for {_colours(colours)}; {_HOW}")
    if page.samples > page.colours and not OPACITY.isdisjoint(page.all(EXTRA)):
        raise RefusedImageError(
            f"its ExtraSamples tag says that one of its {page.samples} bands is opacity, which "
            "cannot be read as such here; tiff_bands='all' makes a channel of each band"
        )
    return _stack(raw, (page,), max_pixels, is_picture=True)


def _stack(
    raw: bytes, pages: tuple[Page, ...], max_pixels: int | None, *, is_picture: bool = False
) -> BandStack:
    """Hold the bands of pages together, whose headers say that they can be read."""
    first = pages[0]
    for number, page in enumerate(pages, 1):
        _check_page(raw, page, first, number)
    values = 1 if is_picture else sum(page.samples for page in pages)
    check_values(*first.size, values, max_pixels)
    with _open(next(grey_files(raw, first))) as image:
        return BandStack(raw, pages, layout_of(image), is_picture)


def _ambiguous(listed: list[Page], pages: tuple[Page, ...]) -> str:
    """Say what a file holds that could be taken in two ways."""
    bands = " + ".join(dict.fromkeys(str(page.samples) for page in pages))
    held = f"{len(pages)} pages" if len(pages) > 1 else f"{bands} bands"
    if len(pages) == 1 and pages[0].is_picture:
        held = f"a smaller copy or a mask before its page, {len(listed)} pages in all"
    count = sum(page.samples for page in pages)
    return (
        f"it holds {held}: tiff_bands='all' makes a channel of each of its {count} bands, "
        "tiff_bands='picture' takes the picture of its first page and leaves out the rest"
    )


def _check_page(raw: bytes, page: Page, first: Page, number: int) -> None:
    """Refuse a page whose bands cannot be read, or are not like those of the first."""
    alike = (WIDTH, HEIGHT, BITS, FORMAT)
    of_first = [first.one(tag, 1) for tag in alike]
    if [page.one(tag, 1) for tag in alike] != of_first:
        raise RefusedImageError(
            f"its pages are not alike: page 1 has {_described(first)}, page {number} "
            f"{_described(page)}; tiff_bands='picture' takes the first alone"
        )
    if (reason := _unreadable(page)) is not None:
        raise RefusedImageError(f"its bands cannot be read for {reason}; {_HOW}")
    check_parts(raw, page)


def _unreadable(page: Page) -> str | None:
    """Say what of a page is none of those things that are read; None if all is."""
    bits, colours, packing, order, orientation, predictor, kind = (
        page.one(tag, 1) for tag in _LOOKED_AT
    )
    is_mixed = len(set(page.all(BITS))) > 1 or len(set(page.all(FORMAT))) > 1
    summed = page.is_flat or predictor == 1 or (predictor == 2 and kind != 3)
    found = (
        (is_mixed, "values of several kinds"),
        (bits < 8, f"values of {bits} bits"),
        (colours not in _NUMBERS, _colours(colours)),
        (packing not in _PACKINGS, f"compression {packing}"),
        (order != 1, "bits in reverse order"),
        (orientation != 1, f"orientation {orientation}"),
        (not summed, f"predictor {predictor}"),
    )
    return next((what for is_so, what in found if is_so), None)


def _colours(colours: int) -> str:
    named = f"{colours}, white is zero" if colours == _WHITE_IS_ZERO else f"{colours}"
    return f"colours that are not its numbers (PhotometricInterpretation {named})"


def _described(page: Page) -> str:
    return f"{page.one(WIDTH, 0)}x{page.one(HEIGHT, 0)} of {page.one(BITS, 1)} bits"


def _open(grey: bytes) -> Image.Image:
    """Open a grey file, however wide, whose number of values was checked before."""
    try:
        return open_image(grey, 2**62)
    except ValueError as error:
        if "kind that Pillow cannot read" in str(error):
            reason = f"its bands are of a kind that cannot be read; {_HOW}"
            raise RefusedImageError(reason) from error
        raise


def _read_page(raw: bytes, page: Page) -> np.ndarray:
    """Decode a page, (H, W, C)."""
    width, height = page.size
    bands = []
    for grey in grey_files(raw, page):
        with _open(grey) as image:
            values, _, _ = deep_values(grey, image, layout_of(image))
            bands.append(values.reshape(height, width, -1))
    values = bands[0] if len(bands) == 1 else np.concatenate(bands, axis=2)
    are_differences = page.one(PREDICTOR, 1) == 2 and not page.is_flat
    if are_differences and page.one(PACKING, 1) in _PREDICTED:
        return _summed(values, page)
    return values


def _summed(values: np.ndarray, page: Page) -> np.ndarray:
    """Undo the differences between neighbours in a row of a strip or tile."""
    bits = page.one(BITS, 1)
    across, kept = page.part_size[0], values.dtype
    held = values.astype(np.int64) % 2**bits
    for x in range(0, values.shape[1], across):
        held[:, x : x + across] = held[:, x : x + across].cumsum(axis=1) % 2**bits
    if page.one(FORMAT, 1) == 2:
        held -= (held >= 2 ** (bits - 1)) * 2**bits
    return held.astype(kept)
