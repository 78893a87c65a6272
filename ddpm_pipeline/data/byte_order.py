"""The order of the bytes of packed TIFF files, which libtiff changes and Pillow changes once more.

    is_swapped(image)            whether Pillow would take values for others, from the header alone
    unswap(image)                before image.load()

libtiff gives values in this machine's order. Pillow knows that of 16 bits without a sign; of
signed and floating-point ones from a big-endian file it turns the bytes round again.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["is_swapped", "unswap"]

# What a rawmode of the other order is called in this machine's.
_NATIVE = (
    {
        "I;16BS": "I;16S",
        "I;32B": "I;32",
        "I;32BS": "I;32S",
        "F;32BF": "F;32F",
        "F;64BF": "F;64F",
    }
    if np.little_endian
    else {}
)


def is_swapped(image: Image.Image) -> bool:
    """Tell whether Pillow would turn the bytes of an image's values round once too often.

    Arguments:
        image: Opened, not decoded.
    """
    tiles = getattr(image, "tile", ())
    return any(tile[0] == "libtiff" and tile[3][0] in _NATIVE for tile in tiles)


def unswap(image: Image.Image) -> None:
    """Let an opened image be decoded in the order that libtiff gives it in."""
    if is_swapped(image):
        image.tile = [
            tile._replace(args=(_NATIVE[tile[3][0]], *tile[3][1:])) for tile in image.tile
        ]
