"""IDX files, the format of MNIST, packed with gzip or not.

    two zero bytes, the type, the rank, each extent as a big-endian uint32, the values

The header alone is read when a file is found; it is held against the size of the file.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ddpm_pipeline.data.sources.later import DEFLATE_RATIO, LaterArray, reading
from ddpm_pipeline.data.sources.regular_files import open_regular

__all__ = ["later_idx", "read_idx"]

_UINT8 = 0x08
_GZIP = b"\x1f\x8b"


def later_idx(path: Path) -> LaterArray:
    """Give the array of an IDX file, which is read when it is asked for.

    Raises:
        ValueError: If its header is damaged, says another type than unsigned bytes, or says more
            than the file can hold.
    """
    return LaterArray(_read_shape(path), np.dtype(np.uint8), lambda: read_idx(path), str(path))


def read_idx(path: Path) -> np.ndarray:
    """Read the array of an IDX file.

    Raises:
        ValueError: If it is damaged, or longer or shorter than its header says.
    """
    shape = _read_shape(path)
    count = math.prod(shape)
    with reading(path, "IDX file: it is cut short or damaged"), _open(path) as file:
        file.read(4 + 4 * len(shape))
        # One byte more than there should be: gzip checks its sum where it finds the end.
        values = np.frombuffer(file.read(count + 1), np.uint8)
    if values.size != count:
        found = values.size if values.size < count else f"more than {count}"
        word = "cut short" if values.size < count else "too long"
        raise ValueError(f"{str(path)!r} is {word}: {found} bytes for shape {shape}")
    return values.reshape(shape)


def _open(path: Path) -> BinaryIO:
    file = open_regular(path)
    packed = file.read(2) == _GZIP
    file.seek(0)
    if not packed:
        return file
    unpacked = gzip.GzipFile(fileobj=file)
    unpacked.myfileobj = file  # which it then closes with itself
    return unpacked


def _read_shape(path: Path) -> tuple[int, ...]:
    with reading(path, "IDX file"), _open(path) as file:
        zero, kind, rank = struct.unpack(">HBB", file.read(4))
        shape = struct.unpack(f">{rank}I", file.read(4 * rank))
        is_packed = isinstance(file, gzip.GzipFile)
    if zero != 0 or kind != _UINT8:
        raise ValueError(f"{str(path)!r} is not an IDX file of unsigned bytes")
    size = os.stat(path).st_size * (DEFLATE_RATIO if is_packed else 1)  # noqa: PTH116
    if (count := math.prod(shape)) > size:
        raise ValueError(
            f"{str(path)!r} is cut short: its header says shape {shape}, {count:,} bytes, and it "
            f"cannot hold more than {size:,}"
        )
    return shape
