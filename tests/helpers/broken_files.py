"""Files that say more than they hold, and a limit of time for reading them."""

from __future__ import annotations

import signal
import struct
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["POSTSCRIPT", "at_most", "blank_png", "idx_header", "npy_header"]

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Fail what takes longer, also what waits for a pipe."""

    def fail(*_: object) -> None:
        raise AssertionError(f"it took more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def blank_png(width: int, height: int) -> bytes:
    """A grey PNG of zeros, which are packed a thousandfold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (
        (b"IHDR", header),
        (b"IDAT", zlib.compress(bytes((width + 1) * height), 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def idx_header(*shape: int) -> bytes:
    """The header of an IDX file of unsigned bytes."""
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)


def npy_header(shape: Sequence[int], dtype: str = "|u1") -> bytes:
    """The header of a .npy file, of any shape, which need not be one."""
    text = f"{{'descr':'{dtype}','fortran_order':False,'shape':{tuple(shape)}}}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n"
