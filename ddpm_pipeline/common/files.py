"""Writing files so that a crash, a kill or a full disk leaves the old content or the new.

    with write_aside(path) as file:      the file appears under its name when it is whole
        file.write(content)

Everything that this package writes and somebody may read later goes through here.
"""

from __future__ import annotations

import glob
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

__all__ = [
    "TEMPORARY_PATTERN",
    "discard_unfinished",
    "sync_path",
    "write_aside",
    "write_bytes",
    "write_json",
    "write_text",
]

TEMPORARY_PATTERN = ".*.writing"
"""Names of files that are being written, or were when their process died."""


@contextmanager
def write_aside(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a file that appears under its name only when the block has ended without an error.

    Arguments:
        path: Where it appears; what is there is replaced.
        sync: Whether to wait until it is on the disk, so that it outlives a power cut too.
    Raises:
        OSError: If it cannot be written; what was there stays.
    """
    # Unique, for other hosts may count their processes alike on a disk that they share.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.writing")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
        if sync:
            sync_path(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def discard_unfinished(folder: Path, name: str = "*") -> None:
    """Delete what writers that were killed left in a folder.

    Arguments:
        folder: Where nobody else is writing now.
        name: Of the file that they were writing; any unless given.
    """
    for unfinished in folder.glob(f".{glob.escape(name) if name != '*' else name}.*.writing"):
        unfinished.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a small file; see ``write_aside``."""
    with write_aside(path, sync=sync) as file:
        file.write(content)


def write_text(path: Path, content: str, *, sync: bool = True) -> None:
    """Write a small file of text in UTF-8; see ``write_aside``."""
    write_bytes(path, content.encode(), sync=sync)


def write_json(path: Path, values: Any, *, indent: int = 2, ascii_only: bool = True) -> None:  # noqa: ANN401
    """Write JSON values as a file of text; see ``write_aside``."""
    write_text(path, json.dumps(values, indent=indent, ensure_ascii=ascii_only) + "\n")


def sync_path(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
