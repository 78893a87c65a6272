"""Image files put together by hand, in depths and polarities that Pillow does not write."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["band_tiff", "packed", "png", "pnm", "tiff"]

_COLOR_TYPES = {"grey": 0, "rgb": 2, "palette": 3, "grey+alpha": 4, "rgb+alpha": 6}


def packed(values: np.ndarray, bits: int, order: str = ">") -> list[bytes]:
    """Give rows of unsigned integers (H, W, C), each of some bits, the highest first."""
    rows = values.reshape(len(values), -1)
    if bits in {8, 16, 32}:
        return [row.astype(f"{order}u{bits // 8}").tobytes() for row in rows]
    places = np.arange(bits - 1, -1, -1)
    return [np.packbits((row[:, None] >> places & 1).astype(bool)).tobytes() for row in rows]


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(
    values: np.ndarray,
    bits: int,
    color: str = "grey",
    *,
    transparent: Sequence[int] = (),
    palette: bytes = b"",
) -> bytes:
    """Make a PNG of integers (H, W, C).

    Arguments:
        bits: Of each value.
        color: Its colour type.
        transparent: The one value that is, by channels.
        palette: Three bytes for each colour.
    """
    height, width, _ = values.shape
    header = struct.pack(">IIBBBBB", width, height, bits, _COLOR_TYPES[color], 0, 0, 0)
    parts = [_chunk(b"IHDR", header)]
    if palette:
        parts.append(_chunk(b"PLTE", palette))
    if transparent:
        parts.append(_chunk(b"tRNS", b"".join(struct.pack(">H", v) for v in transparent)))
    rows = b"".join(b"\0" + row for row in packed(values, bits))
    parts += [_chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(
    values: np.ndarray,
    bits: int,
    *,
    sample_format: int = 1,
    polarity: int = 1,
    order: str = "<",
    extra: int | None = None,
    deflate: bool = False,
) -> bytes:
    """Make a TIFF of numbers (H, W, C) in one strip.

    Arguments:
        bits: Of each value.
        sample_format: 1 unsigned, 2 signed, 3 floating point.
        polarity: PhotometricInterpretation: 0 white is zero, 1 black is zero, 2 RGB.
        order: Of the bytes.
        extra: What the last channel is: 1 opacity that is multiplied in, 2 opacity.
        deflate: Whether the strip is compressed.
    """
    height, width, channels = values.shape
    if sample_format == 1:
        data = b"".join(packed(values, bits, order))
    else:
        data = values.astype(f"{order}{'if'[sample_format - 2]}{bits // 8}").tobytes()
    data = zlib.compress(data) if deflate else data
    tags = {
        256: [width],
        257: [height],
        258: [bits] * channels,
        259: [8 if deflate else 1],
        262: [polarity],
        273: [8],
        277: [channels],
        278: [height],
        279: [len(data)],
        339: [sample_format] * channels,
    }
    if extra is not None:
        tags[338] = [extra]
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(data))
    return head + data + _directory(tags, order, 8 + len(data), "H", last=True)


def _directory(
    tags: dict[int, list[int]], order: str, place: int, letter: str, *, last: bool
) -> bytes:
    """Make the header of a page, which begins at a place of the file, of numbers H or I."""
    beyond, entries = b"", []
    after = place + 2 + 12 * len(tags) + 4
    kind, each = {"H": (3, 2), "I": (4, 4)}[letter]
    size = sum(each * len(n) for n in tags.values() if each * len(n) > 4)
    for tag, numbers in sorted(tags.items()):
        body = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(body) > 4:
            beyond, body = beyond + body, struct.pack(order + "I", after + len(beyond))
        entries.append(struct.pack(order + "HHI", tag, kind, len(numbers)) + body.ljust(4, b"\0"))
    following = struct.pack(order + "I", 0 if last else after + size)
    return struct.pack(order + "H", len(tags)) + b"".join(entries) + following + beyond


def band_tiff(
    *pages: np.ndarray,
    order: str = "<",
    colours: int = 1,
    extras: Sequence[int] | None = None,
    deflate: bool = False,
    planar: bool = False,
    differences: bool = False,
    tile: int | None = None,
    kinds: Sequence[int] = (),
    more: dict[int, list[int]] | None = None,
) -> bytes:
    """Make a TIFF of pages (H, W, C) of any type of numbers, in strips of three rows, or in tiles.

    Arguments:
        order: Of the bytes.
        colours: PhotometricInterpretation.
        extras: What the samples are beside the colours.
        deflate: Whether the parts are compressed.
        planar: Whether the bands lie one after the other, rather than interleaved.
        differences: Whether each value is stored as its difference to that of the pixel before.
        tile: Side of the tiles.
        kinds: NewSubfileType of each page.
        more: Other tags.
    """
    data, directories = b"", b""
    bodies = [_parts(page, order, deflate, planar, differences, tile) for page in pages]
    place = 8 + sum(len(part) for parts in bodies for part in parts)
    for k, (page, parts) in enumerate(zip(pages, bodies, strict=True)):
        height, width, channels = page.shape
        starts = [8 + len(data) + sum(map(len, parts[:i])) for i in range(len(parts))]
        data += b"".join(parts)
        where = (324, 325) if tile else (273, 279)
        tags = {
            256: [width],
            257: [height],
            258: [8 * page.dtype.itemsize] * channels,
            259: [8 if deflate else 1],
            262: [colours],
            277: [channels],
            284: [2 if planar else 1],
            339: [{"u": 1, "i": 2, "f": 3}[page.dtype.kind]] * channels,
            where[0]: starts,
            where[1]: [len(part) for part in parts],
        }
        tags |= {322: [tile], 323: [tile]} if tile else {278: [3]}
        tags |= {317: [2]} if differences else {}
        tags |= {338: list(extras)} if extras is not None else {}
        tags |= {254: [kinds[k]]} if kinds else {}
        last = k == len(pages) - 1
        tags |= more or {}
        directories += _directory(tags, order, place + len(directories), "I", last=last)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, place)
    return head + data + directories


def _parts(
    page: np.ndarray,
    order: str,
    deflate: bool,
    planar: bool,
    differences: bool,
    tile: int | None,
) -> list[bytes]:
    """Cut a page into its strips or tiles, band after band if they do not interleave."""
    height, width, channels = page.shape
    down, across = (tile, tile) if tile else (3, width)
    bands = [page[..., c : c + 1] for c in range(channels)] if planar else [page]
    parts = []
    for band in bands:
        for y in range(0, height, down):
            for x in range(0, width, across):
                part = band[y : y + down, x : x + across]
                if tile:
                    short = ((0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0))
                    part = np.pad(part, short)
                if differences:
                    part = np.concatenate([part[:, :1], part[:, 1:] - part[:, :-1]], axis=1)
                raw = part.astype(part.dtype.newbyteorder(order)).tobytes()
                parts.append(zlib.compress(raw) if deflate else raw)
    return parts


def pnm(values: np.ndarray, maxval: int, *, plain: bool = False) -> bytes:
    """Make a PGM or PPM of integers (H, W, C), C one of 1 and 3, in bytes or as text."""
    height, width, channels = values.shape
    magic = {(1, False): 5, (3, False): 6, (1, True): 2, (3, True): 3}[channels, plain]
    head = f"P{magic}\n{width} {height}\n{maxval}\n".encode()
    if plain:
        return head + b" ".join(str(v).encode() for v in values.ravel().tolist()) + b"\n"
    return head + values.astype(">u2" if maxval > 255 else "u1").tobytes()
