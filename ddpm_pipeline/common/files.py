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
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

__all__ = [
    "TEMPORARY_PATTERN",
    "discard_unfinished",
    "sync_path",
    "write_aside",
    "write_bytes",
    "write_figure",
    "write_json",
    "write_picture",
    "write_text",
    "written_aside",
]

TEMPORARY_PATTERN = ".*.writing"
"""Names of files that are being written, or were when their process died."""
_LONG_NAME = 200  # bytes; file systems hold 255


@contextmanager
def write_aside(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a file that appears under its name only when the block has ended without an error.

    Arguments:
        path: Where it appears; what is there is replaced.
        sync: Whether to wait until it is on the disk, so that it outlives a power cut too.
    Raises:
        OSError: If it cannot be written; what was there stays.
    """
    temporary = _aside(path)
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
        if unfinished.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
        else:
            unfinished.unlink(missing_ok=True)


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """Give an empty folder whose files appear in ``folder``, when the block has ended well.

    Files that are there and are not written again stay as they are.

    Arguments:
        folder: Where the files appear, in the same subfolders; it is made if it is missing.
    Raises:
        OSError: If it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside = _aside(folder / "folder")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        # The deepest first: a file that says what is in a folder comes after what is in it.
        files = [path for path in aside.rglob("*") if path.is_file()]
        for file in sorted(files, key=lambda path: -len(path.parts)):
            target = folder / file.relative_to(aside)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _aside(path: Path) -> Path:
    """Name what is written in the place of a path until it is whole."""
    name = path.name
    if len(os.fsencode(name)) > _LONG_NAME:
        name = sha256(os.fsencode(name)).hexdigest()
    # Unique, for other hosts may count their processes alike on a disk that they share.
    return path.with_name(f".{name}.{os.getpid()}-{secrets.token_hex(4)}.writing")


def write_bytes(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a small file; see ``write_aside``."""
    with write_aside(path, sync=sync) as file:
        file.write(content)


def write_text(path: Path, content: str, *, sync: bool = True) -> None:
    """Write a small file of text in UTF-8; see ``write_aside``.

    Names of files in other encodings become the bytes that they are.
    """
    write_bytes(path, content.encode(errors="surrogateescape"), sync=sync)


def write_json(path: Path, values: Any, *, indent: int = 2, ascii_only: bool = True) -> None:  # noqa: ANN401
    """Write JSON values as a file of text; see ``write_aside``."""
    write_text(path, json.dumps(values, indent=indent, ensure_ascii=ascii_only) + "\n")


def write_figure(path: Path, figure: Figure, **options: Any) -> None:  # noqa: ANN401
    """Write a figure of matplotlib, in the format that the name ends in; see ``write_aside``."""
    with write_aside(path) as file:
        figure.savefig(file, format=path.suffix.removeprefix(".") or "png", **options)


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a picture of Pillow as PNG; see ``write_aside``."""
    with write_aside(path) as file:
        picture.save(file, "png")


def sync_path(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
