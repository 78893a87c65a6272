"""Arrays in .npy and .npz files: their headers, and their bytes when they are asked for.

array = map_npy(path)                                    mapped into memory
with NumpyArchive(path) as archive: archive.later("images")      read when it is asked for
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from ddpm_pipeline.data.sources.later import DEFLATE_RATIO, LaterArray, bytes_of, reading
from ddpm_pipeline.data.sources.regular_files import open_regular

__all__ = ["NumpyArchive", "map_npy"]

_KIND = "NumPy file"
_PACKINGS = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: DEFLATE_RATIO}


def map_npy(path: Path) -> np.ndarray:
    """Map the array of a .npy file into memory.

    Raises:
        ValueError: If the file is damaged, or too short for what its header says.
    """
    with reading(path, _KIND), open_regular(path) as file:
        shape, dtype = _read_header(file)
        start, end = file.tell(), file.seek(0, 2)
        _check_size(shape, dtype, end - start)
        # The plain array of it: elements of a memmap take several times as long to be taken out.
        return np.asarray(np.lib.format.open_memmap(path, mode="r"))


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    """Read the header of an array, and leave the file at its first byte."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
        version, np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, not an array of numbers")
    if any(extent < 0 for extent in shape):
        raise ValueError(f"its header says shape {shape}")
    return shape, dtype


def _check_size(shape: tuple[int, ...], dtype: np.dtype, size: int) -> None:
    """Refuse a shape that the bytes after a header cannot hold."""
    if (needed := bytes_of(shape, dtype)) > size:
        raise ValueError(
            f"its header says shape {shape} of {dtype}, {needed:,} bytes, and it has {size:,}"
        )


class NumpyArchive:
    """A .npz file, open for its headers.

    Attributes:
        names: Of its arrays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with reading(path, _KIND):
            open_regular(path).close()
            if not zipfile.is_zipfile(path):
                raise ValueError("no whole archive")
            self._archive = zipfile.ZipFile(path)
        ends = (name.removesuffix(".npy") for name in self._archive.namelist())
        self.names = list(dict.fromkeys(ends))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._archive.close()

    def later(self, name: str) -> LaterArray:
        """Give an array that is read when it is asked for; only its header is read at once.

        Raises:
            ValueError: If it is damaged, or too short for what its header says.
        """
        path = self._path
        with reading(path, _KIND):
            self._check_packing(info := self._archive.getinfo(f"{name}.npy"))
            with self._archive.open(info) as member:
                shape, dtype = _read_header(member)
                _check_size(shape, dtype, info.file_size - member.tell())
        return LaterArray(shape, dtype, lambda: _load(path, name), f"{name!r} of {str(path)!r}")

    def _check_packing(self, info: zipfile.ZipInfo) -> None:
        """Refuse a size that cannot come out of the bytes that there are."""
        if info.compress_type not in _PACKINGS:
            raise ValueError(f"{info.filename} is packed by a method that NumPy does not use")
        packed = min(info.compress_size, self._path.stat().st_size)
        if info.file_size > packed * _PACKINGS[info.compress_type]:
            raise ValueError(f"{info.filename} cannot unpack to {info.file_size:,} bytes")


def _load(path: Path, name: str) -> np.ndarray:
    """Read an array whole, with its checksum."""
    with reading(path, f"{_KIND} (array {name!r})"), np.load(path, allow_pickle=False) as archive:
        return archive[name]
