"""How large an image file may be, and how much memory decoding takes at most.

    check_bounds(image, raw, max_pixels)            before anything is decoded
    with DECODING.hold(decoding_bytes(image)): ...  waits while other threads decode large ones

A few bytes can claim to be an image of many gigabytes. Headers are therefore held against limits,
and threads take what they decode out of one allowance, however many there are.
"""

from __future__ import annotations

from threading import Condition

from PIL import Image, ImageFile

__all__ = [
    "DECODING",
    "DEEP_BYTES",
    "READING",
    "Allowance",
    "check_bounds",
    "check_scaled",
    "check_values",
    "decoding_bytes",
]

_LONGEST_SIDE = 2**17
_MOST_ASPECT = 1000
_BITS = {"1": 1, "F": 32, "I": 32, "I;16": 16}
DEEP_BYTES = 32
"""For a value deeper than 8 bits: float64, and three steps of arithmetic in between."""


def check_bounds(image: Image.Image, raw: bytes, max_pixels: int | None) -> None:
    """Refuse an image by its header: too large, too long, or more than its file can hold.

    Arguments:
        image: Opened, not decoded.
        raw: Its file.
        max_pixels: How many pixels it may have; None keeps Pillow's limit, and limits its sides
            and their ratio too.
    Raises:
        ValueError: Names the option that allows more, if one does.
    """
    width, height = image.size
    if min(width, height) < 1:
        raise ValueError(f"it has no pixels: {width}x{height}")
    if max_pixels is None:
        _check_sides(width, height)
    elif width * height > max_pixels:
        raise ValueError(f"{width}x{height} are more pixels than max_pixels={max_pixels}")
    tiles = getattr(image, "tile", ())
    if any(tile[0] == "fits_gzip" for tile in tiles):
        raise ValueError("a FITS file that is packed, whose size its header does not tell")
    is_unpacked = bool(tiles) and all(tile[0] == "raw" for tile in tiles)
    # No mode takes less than a bit for a pixel.
    if is_unpacked and not ImageFile.LOAD_TRUNCATED_IMAGES and width * height > 8 * len(raw):
        raise ValueError(f"cut short: {len(raw):,} bytes cannot hold {width}x{height} pixels")


def _check_sides(width: int, height: int) -> None:
    longest, shortest = max(width, height), min(width, height)
    if longest > _LONGEST_SIDE:
        raise ValueError(
            f"{width}x{height} has a side of more than {_LONGEST_SIDE:,} pixels; max_pixels "
            "allows any that is not larger as a whole"
        )
    if longest > _MOST_ASPECT * shortest:
        raise ValueError(
            f"{width}x{height} is more than {_MOST_ASPECT:,} times as long as wide; max_pixels "
            "allows any that is not larger as a whole"
        )


def check_scaled(size: tuple[int, int], scaled: tuple[int, int], max_pixels: int | None) -> None:
    """Refuse an image that scaling to the resolution would make too large.

    Arguments:
        size, scaled: Width and height, before and after.
        max_pixels: How many pixels it may have after; None is Pillow's limit.
    Raises:
        ValueError: Names the option that allows more.
    """
    most = max_pixels
    if most is None:
        most = 2 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else scaled[0] * scaled[1]
    if scaled[0] * scaled[1] > max(most, size[0] * size[1]):
        raise ValueError(
            f"{size[0]}x{size[1]} would be scaled to {scaled[0]}x{scaled[1]}, more than {most:,} "
            "pixels; max_pixels allows more"
        )


def check_values(width: int, height: int, channels: int, max_pixels: int | None) -> None:
    """Refuse bands by their header that hold too many numbers together, or are too long.

    Raises:
        ValueError: Names the option that allows more.
    """
    most = max_pixels
    if most is None:
        _check_sides(width, height)
        most = 2 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else None
    if most is not None and width * height * channels > most:
        held = f"in {channels} bands are more than {most:,} values"
        held = held if channels > 1 else f"are more than {most:,} pixels"
        raise ValueError(f"{width}x{height} {held}; max_pixels allows more")


def decoding_bytes(image: Image.Image, channels: int, *, is_deep: bool) -> int:
    """Estimate what decoding an opened image takes: its pixels, and as converted to 8 bits.

    Arguments:
        channels: Of the converted one.
        is_deep: Whether its values go through arithmetic in float64.
    """
    pixels = image.width * image.height
    bands = len(image.getbands())
    if is_deep:
        return pixels * bands * DEEP_BYTES
    # Pillow keeps 4 bytes for a pixel of more than one band, and of one its own width.
    own = 4 if bands > 1 else max(1, _BITS.get(image.mode, 8) // 8)
    return pixels * (own + (1 if channels == 1 else 4))


class Allowance:
    """A number of bytes that threads hold parts of, and wait for each other's.

    What is larger than all of it is held alone. Who holds a part must not wait for another.

    Arguments:
        size: The bytes.
    Attributes:
        most: The most that were held at a time.
    """

    def __init__(self, size: int) -> None:
        self._size, self._held, self.most, self._waiting = size, 0, 0, 0
        self._changed = Condition()

    def hold(self, count: int) -> _Held:
        """Hold some bytes during a block, having waited until there are as many."""
        return _Held(self, count)

    def take(self, count: int) -> None:
        """Wait until there are as many bytes, and hold them."""
        with self._changed:
            if self._held and self._held + count > self._size:
                self._waiting += 1
                self._changed.wait_for(lambda: not self._held or self._held + count <= self._size)
                self._waiting -= 1
            self._held += count
            self.most = max(self.most, self._held)

    def give_back(self, count: int) -> None:
        """Hold so many bytes less."""
        with self._changed:
            self._held -= count
            if self._waiting:
                self._changed.notify_all()


class _Held:
    """The block in which bytes are held; a class, as there are several for each image."""

    __slots__ = ("_allowance", "_count")

    def __init__(self, allowance: Allowance, count: int) -> None:
        self._allowance, self._count = allowance, count

    def __enter__(self) -> None:
        self._allowance.take(self._count)

    def __exit__(self, *_: object) -> None:
        self._allowance.give_back(self._count)


DECODING = Allowance(2**29)
"""The memory in which all threads of this process decode, 512 MiB, or a single image of more."""

READING = Allowance(2**28)
"""The memory for files that threads have read and not decoded yet, 256 MiB, or a single file.

Who waits for a part of ``DECODING`` may hold one of these, and never the other way round.
"""
