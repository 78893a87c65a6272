"""Image files put together by hand, in depths and polarities that Pillow does not write."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["packed", "png", "pnm", "tiff"]

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
    directory, beyond = 8 + len(data), b""
    after = directory + 2 + 12 * len(tags) + 4
    entries = []
    for tag, numbers in sorted(tags.items()):
        body = struct.pack(f"{order}{len(numbers)}H", *numbers)
        if len(body) > 4:
            beyond, body = beyond + body, struct.pack(order + "I", after + len(beyond))
        entries.append(struct.pack(order + "HHI", tag, 3, len(numbers)) + body.ljust(4, b"\0"))
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, directory)
    count = struct.pack(order + "H", len(tags))
    return head + data + count + b"".join(entries) + bytes(4) + beyond


def pnm(values: np.ndarray, maxval: int, *, plain: bool = False) -> bytes:
    """Make a PGM or PPM of integers (H, W, C), C one of 1 and 3, in bytes or as text."""
    height, width, channels = values.shape
    magic = {(1, False): 5, (3, False): 6, (1, True): 2, (3, True): 3}[channels, plain]
    head = f"P{magic}\n{width} {height}\n{maxval}\n".encode()
    if plain:
        return head + b" ".join(str(v).encode() for v in values.ravel().tolist()) + b"\n"
    return head + values.astype(">u2" if maxval > 255 else "u1").tobytes()
