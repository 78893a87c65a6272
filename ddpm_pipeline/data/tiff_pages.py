"""The pages of a TIFF file by their headers, and grey files of what they hold.

    pages = list(pages_of(raw))                    nothing decoded
    check_parts(raw, pages[0])                     its strips or tiles are inside the file
    files = grey_files(raw, pages[0])              one of interleaved bands, or one of each band

A page of C interleaved bands is, byte for byte, a grey page that is C times as wide, and a page of
bands one after the other is C grey ones.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from PIL.TiffImagePlugin import ImageFileDirectory_v2

__all__ = [
    "BITS",
    "BIT_ORDER",
    "COLOURS",
    "EXTRA",
    "FORMAT",
    "HEIGHT",
    "OPACITY",
    "ORIENTATION",
    "PACKING",
    "PREDICTOR",
    "WIDTH",
    "Page",
    "check_parts",
    "grey_files",
    "pages_of",
]

_KIND, _OLD_KIND = 254, 255
WIDTH, HEIGHT, BITS, PACKING, COLOURS, BIT_ORDER, ORIENTATION = 256, 257, 258, 259, 262, 266, 274
SAMPLES, ROWS, PLANES, PREDICTOR, EXTRA, FORMAT = 277, 278, 284, 317, 338, 339
TILE_WIDTH, TILE_HEIGHT = 322, 323
_STRIPS, _TILES = (273, 279), (324, 325)
"""Tags of where the parts of a page begin, and how many bytes each has."""
_SHORTS = {BITS, PACKING, COLOURS, SAMPLES, PREDICTOR, FORMAT}
_READ = _SHORTS | {_KIND, _OLD_KIND, WIDTH, HEIGHT, BIT_ORDER, ORIENTATION, ROWS, PLANES, EXTRA}
_READ |= {TILE_WIDTH, TILE_HEIGHT, *_STRIPS, *_TILES}
_MOST_PAGES = 4096

# How many samples a pixel has besides opacity, by what a file says of its colours.
_PICTURES = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}
OPACITY = {1, 2}


class Page(NamedTuple):
    """One page, by its tags."""

    tags: Mapping[int, Any]

    def one(self, tag: int, default: int) -> int:
        """Give a tag's only value, or its first."""
        value = self.tags.get(tag, default)
        return int(value[0] if isinstance(value, tuple) else value)

    def all(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Give a tag's values."""
        value = self.tags.get(tag, default)
        return value if isinstance(value, tuple) else (value,)

    @property
    def is_aside(self) -> bool:
        """Tell whether it is another page again, smaller, or a mask."""
        return bool(self.one(_KIND, 0) & 0b101) or self.one(_OLD_KIND, 1) == 2

    @property
    def samples(self) -> int:
        """Count the values of a pixel."""
        return self.one(SAMPLES, 1)

    @property
    def size(self) -> tuple[int, int]:
        """Give width and height."""
        return self.one(WIDTH, 0), self.one(HEIGHT, 0)

    @property
    def is_flat(self) -> bool:
        """Tell whether each band lies by itself."""
        return self.samples == 1 or self.one(PLANES, 1) == 2

    @property
    def parts(self) -> tuple[Sequence[int], Sequence[int]]:
        """Give where its strips or tiles begin, and how many bytes each has."""
        starts, lengths = (self.all(tag) for tag in _parts_of(self))
        return starts, lengths

    @property
    def part_size(self) -> tuple[int, int]:
        """Give the width and height of a strip or tile."""
        width, height = self.size
        if TILE_WIDTH in self.tags:
            return self.one(TILE_WIDTH, 0), self.one(TILE_HEIGHT, 0)
        return width, min(height, self.one(ROWS, height))

    @property
    def colours(self) -> int:
        """Count the values of a pixel that make its grey or its colour, which come first."""
        return _PICTURES.get(self.one(COLOURS, 1), self.samples)

    @property
    def is_picture(self) -> bool:
        """Tell whether a picture shows all of its values, with opacity or without."""
        beyond, more = self.samples - self.colours, set(self.all(EXTRA))
        return beyond <= 0 or (beyond == 1 and bool(more) and more <= OPACITY)


def pages_of(raw: bytes) -> Iterator[Page]:
    """Yield the pages of a TIFF, by its headers."""
    file, offsets = io.BytesIO(raw), set()
    head = ImageFileDirectory_v2(raw[:16] if 43 in raw[2:4] else raw[:8])
    while head.next:
        if head.next in offsets:
            raise ValueError("a TIFF file whose pages go round in a circle")
        if len(offsets) == _MOST_PAGES:
            raise ValueError(f"a TIFF file of more than {_MOST_PAGES:,} pages")
        if head.next >= len(raw):
            raise ValueError("cut short: a page of the TIFF file lies beyond its end")
        offsets.add(here := head.next)
        file.seek(here)
        head.load(file)
        if head.next == here:  # it was not read to its end
            raise ValueError("cut short: the header of a page of the TIFF file")
        yield Page({tag: head[tag] for tag in _READ if tag in head})


def check_parts(raw: bytes, page: Page) -> None:
    """Refuse a page whose parts are not where its header says, before any is copied."""
    width, height = page.size
    if page.samples < 1 or min(width, height) < 1:
        raise ValueError(f"it has no pixels: {width}x{height} of {page.samples} bands")
    starts, lengths = page.parts
    across, down = page.part_size
    if across < 1 or down < 1:
        raise ValueError("a TIFF file with parts of no size")
    number = math.ceil(width / across) * math.ceil(height / down)
    number *= page.samples if page.one(PLANES, 1) == 2 else 1
    if not len(starts) == len(lengths) == number:
        raise ValueError(f"a TIFF file with {len(starts)} of {number} parts of a page")
    places = zip(starts, lengths, strict=True)
    beyond = any(start < 0 or n < 0 or start + n > len(raw) for start, n in places)
    if beyond or sum(lengths) > len(raw):
        raise ValueError(f"cut short: {len(raw):,} bytes cannot hold the parts of a page")


def grey_files(raw: bytes, page: Page) -> Iterator[bytes]:
    """Make one grey file of a page of interleaved bands, or one of each band by itself."""
    starts, lengths = page.parts
    wide, count = (1, page.samples) if page.is_flat else (page.samples, 1)
    each = len(starts) // count
    for k in range(count):
        part = slice(k * each, (k + 1) * each)
        yield _grey_file(raw, page, wide, starts[part], lengths[part])


def _grey_file(
    raw: bytes, page: Page, wide: int, starts: tuple[int, ...], lengths: tuple[int, ...]
) -> bytes:
    """Write a grey TIFF of one page, of the bytes of another.

    Arguments:
        wide: How many times as wide it is.
    """
    order = "<" if raw[:2] == b"II" else ">"
    data = b"".join(raw[start : start + n] for start, n in zip(starts, lengths, strict=True))
    places = list(accumulate(lengths[:-1], initial=8))
    across, down = page.part_size
    tags = {
        WIDTH: [page.one(WIDTH, 0) * wide],
        HEIGHT: [page.one(HEIGHT, 0)],
        BITS: [page.one(BITS, 1)],
        PACKING: [page.one(PACKING, 1)],
        COLOURS: [1],
        SAMPLES: [1],
        PREDICTOR: [page.one(PREDICTOR, 1) if page.is_flat else 1],
        FORMAT: [page.one(FORMAT, 1)],
        **dict(zip(_parts_of(page), (places, list(lengths)), strict=True)),
    }
    if TILE_WIDTH in page.tags:
        tags |= {TILE_WIDTH: [across * wide], TILE_HEIGHT: [down]}
    else:
        tags[ROWS] = [down]
    data += bytes(len(data) % 2)
    directory, beyond = 8 + len(data), b""
    after, entries = directory + 6 + 12 * len(tags), b""
    for tag, numbers in sorted(tags.items()):
        kind, letter = (3, "H") if tag in _SHORTS else (4, "I")
        body = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(body) > 4:
            beyond, body = beyond + body, struct.pack(f"{order}I", after + len(beyond))
        entries += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + body.ljust(4, b"\0")
    head = raw[:2] + struct.pack(f"{order}HI", 42, directory)
    count = struct.pack(f"{order}H", len(tags))
    return head + data + count + entries + bytes(4) + beyond


def _parts_of(page: Page) -> tuple[int, int]:
    return _TILES if TILE_WIDTH in page.tags else _STRIPS
