"""Images whose bands are files: each is a grey image, and all are of one size and kind.

bands = bands_of(raw, settings)          from the headers alone; None if it is a picture
values = bands.read()                    (H, W, C), the numbers as they are stored
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL import Image

from ddpm_pipeline.data.bounds import DEEP_BYTES, check_values
from ddpm_pipeline.data.depth import (
    Layout,
    deep_values,
    layout_of,
    open_image,
    orientation,
    upright,
)
from ddpm_pipeline.data.findings import printable
from ddpm_pipeline.data.levels import RefusedImageError
from ddpm_pipeline.data.sources.stacks import FileStack, naming_part
from ddpm_pipeline.data.tiff_bands import BandStack, band_stack

if TYPE_CHECKING:
    from ddpm_pipeline.data.decoding import Preparation

__all__ = ["StackedFiles", "bands_of"]

_TURNED = {5, 6, 7, 8}


@dataclass(frozen=True)
class StackedFiles:
    """The bands of an image, a file each.

    Arguments:
        raw: The files.
        size: Width and height of all of them, upright.
        layout: How each holds its values.
    """

    raw: FileStack
    size: tuple[int, int]
    layout: Layout
    is_picture: ClassVar[bool] = False

    @property
    def channels(self) -> int:
        """Count the bands."""
        return len(self.raw.files)

    @property
    def described(self) -> str:
        """Say what they are, for people."""
        return f"{self.channels} bands of {self.layout.name}"

    @property
    def decoding_bytes(self) -> int:
        """Estimate what decoding them takes."""
        return math.prod(self.size) * self.channels * (DEEP_BYTES if self.layout.exact else 4)

    def read(self) -> np.ndarray:
        """Decode all bands.

        Returns:
            Numbers (H, W, C), of the type that Pillow gives.
        Raises:
            Exception: Of many types, if a file is damaged.
        """
        parts = zip(*self.raw, strict=True)
        return np.concatenate([_values(file, name) for file, name in parts], axis=2)


def bands_of(raw: bytes | FileStack, settings: Preparation) -> BandStack | StackedFiles | None:
    """Find out whether an image has to be read band by band.

    Arguments:
        raw: A file of any format, or several.
        settings: What to take of a TIFF, and how many values there may be.
    Returns:
        Its bands; None if it is read as a picture.
    Raises:
        RefusedImageError: As ``band_stack``, or if the files of a stack are not grey or not alike.
        Exception: Of many types, if one is no image or damaged.
    """
    if not isinstance(raw, FileStack):
        return band_stack(raw, settings.tiff_bands, settings.max_pixels)
    heads = []
    for file, name in zip(*raw, strict=True):
        with naming_part(name):
            heads.append(_head(file, name, settings))
    size, layout = heads[0]
    for name, head in zip(raw.names, heads, strict=True):
        if head != heads[0]:
            raise RefusedImageError(
                f"its bands are not alike: {printable(raw.names[0])} is {_described(*heads[0])}, "
                f"{printable(name)} {_described(*head)}"
            )
    check_values(*size, len(heads), settings.max_pixels)
    return StackedFiles(raw, size, layout)


def _head(file: bytes, name: str, settings: Preparation) -> tuple[tuple[int, int], Layout]:
    """Read the size and the layout of a band.

    Raises:
        RefusedImageError: If it is more than a band.
    """
    if band_stack(file, "all", settings.max_pixels) is not None:
        raise RefusedImageError(f"{printable(name)} holds several bands, and is to be one")
    with open_image(file, settings.max_pixels) as image:
        layout = layout_of(image)
        if (what := _more_than_a_band(image, layout)) is not None:
            raise RefusedImageError(
                f"{printable(name)} is {what}; a band is grey, of 8 bits or more"
            )
        turned = orientation(image) in _TURNED
        return (image.size[::-1] if turned else image.size), layout


def _more_than_a_band(image: Image.Image, layout: Layout) -> str | None:
    """Say what of an image no band has; None if it is one."""
    if layout.inverted:
        return "white where it is lowest"
    if "transparency" in image.info:
        return "transparent in places"
    is_grey = image.mode == "L" or (layout.exact and layout.grey and layout.name != "LA;16")
    return None if is_grey else f"of mode {layout.name}"


def _described(size: tuple[int, int], layout: Layout) -> str:
    return f"{size[0]}×{size[1]} of {layout.name}"


def _values(file: bytes, name: str) -> np.ndarray:
    """Decode a band, upright, (H, W, 1)."""
    with naming_part(name), open_image(file, 2**62) as image:  # whose size was checked before
        layout = layout_of(image)
        values, _, _ = deep_values(file, image, layout)
        return upright(values, image)
