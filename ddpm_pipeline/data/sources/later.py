"""Arrays in files that cannot be mapped into memory: read when asked for, checked beforehand.

    array = LaterArray(shape, dtype, load)
    array[3]                                     reads all of it the first time

What a header says is held against the size of its file before anything is allocated for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import numpy as np

from ddpm_pipeline.common import check_memory
from ddpm_pipeline.data.sources.source import DamagedSourceError, one_line

__all__ = ["DEFLATE_RATIO", "LaterArray", "bytes_of", "reading"]

DEFLATE_RATIO = 1032
"""How many times smaller deflate can make a file at most; by its format, 258 bytes in 2 bits."""


def bytes_of(shape: Sequence[int], dtype: np.dtype) -> int:
    """Count the bytes of an array, in Python's integers, which do not overflow."""
    return math.prod(shape) * dtype.itemsize


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into a ValueError that names the file.

    What the system says of a file, as that it is not there, is passed on as it is.

    Arguments:
        path: The file.
        kind: What it should be.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # many types, one for each way to be damaged
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{str(path)!r} is not a readable {kind}: {one_line(error)}") from error


class LaterArray:
    """An array that is read when its elements are first asked for.

    Arguments:
        shape, dtype: As its header says.
        load: Reads it.
        name: What messages call it.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype, load: Callable[[], np.ndarray], name: str
    ) -> None:
        self.shape, self.dtype, self.ndim = shape, np.dtype(dtype), len(shape)
        self._load, self._name = load, name
        self._array: np.ndarray | None = None
        self._failure: str | None = None
        self._lock = Lock()

    def __getitem__(self, index: int) -> np.ndarray:
        """Give one element.

        Raises:
            DamagedSourceError: If the file is damaged; it is not read again.
            OSError: If it cannot be read at this moment.
        """
        with self._lock:
            if self._array is None and self._failure is None:
                self._read()
        if self._failure is not None:
            raise DamagedSourceError(self._failure)
        return self._array[index]

    def _read(self) -> None:
        try:
            check_memory(
                bytes_of(self.shape, self.dtype),
                f"{self._name}, an array of shape {self.shape},",
                "save it unpacked as .npy, which is read image by image",
            )
            self._array = self._load()
        except ValueError as error:
            self._failure = one_line(error)
