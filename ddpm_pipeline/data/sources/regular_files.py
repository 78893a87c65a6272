"""Opening what is read as data: regular files only, and no more of them than there is.

    with open_regular(path) as file: ...
    raw = read_regular(path)

A pipe keeps its reader waiting for ever and a device gives bytes without end; either may lie in a
folder under the name of an image, or be what a link there leads to.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from ddpm_pipeline.data.findings import printable

__all__ = ["MAX_FILE_BYTES", "check_regular", "is_pipe_or_device", "open_regular", "read_regular"]

MAX_FILE_BYTES = 2**30
"""Of a file that is read whole, as an image or metadata are."""
_WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Open a file, behind links, for reading bytes.

    Raises:
        OSError: If it cannot be opened, or is no regular file.
    """
    _check_mode(os.stat(path).st_mode, path)  # noqa: PTH116 (opening a device may do something)
    file = open(os.open(path, os.O_RDONLY | _WITHOUT_WAITING), "rb")  # noqa: PTH123, SIM115
    try:
        _check_mode(os.fstat(file.fileno()).st_mode, path)
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: str | os.PathLike) -> bytes:
    """Read a whole file of at most ``MAX_FILE_BYTES``.

    Raises:
        OSError: If it cannot be read, is no regular file or is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE_BYTES:
            reason = f"{size:,} bytes, where at most {MAX_FILE_BYTES:,} are read"
            raise OSError(errno.EFBIG, reason, os.fspath(path))
        return file.read(size)


def _check_mode(mode: int, path: str | os.PathLike) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))


def is_pipe_or_device(path: str | os.PathLike) -> bool:
    """Tell whether something is there, behind links, that is neither a file nor a folder."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def check_regular(paths: Iterable[Path]) -> None:
    """Refuse pipes and devices among files that another library is to open.

    Raises:
        ValueError: Names the first.
    """
    for path in paths:
        if is_pipe_or_device(path):
            raise ValueError(f"{printable(str(path))!r} is a pipe or a device, not a file")
