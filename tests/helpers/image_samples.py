"""Small image files and data sets for the tests of the input side."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Random bytes."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(values: np.ndarray | Image.Image, form: str = "PNG", **options: object) -> bytes:
    """An image file in memory."""
    buffer = io.BytesIO()
    image = Image.fromarray(values) if isinstance(values, np.ndarray) else values
    image.save(buffer, form, **options)
    return buffer.getvalue()


def flat(level: int, side: int = 8) -> bytes:
    """A grey PNG of one level."""
    return encoded(np.full((side, side), level, np.uint8))


def png_16_bit_rgb(values: np.ndarray) -> bytes:
    """A 48-bit PNG from uint16 (H, W, 3), put together by hand: Pillow does not write any."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def write_idx(path: Path, values: np.ndarray) -> None:
    """An IDX file, packed if its name says so."""
    content = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    content += values.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    """Files by their names below a folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    """A tar of these files."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
