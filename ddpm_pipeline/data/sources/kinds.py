"""What kind of data a path names: images, shards of them, a data set, IDX files, or another file.

    data_kind(Path("photos"))       "images"

The first folder with a file that tells it decides, so that of a large folder of images one listing
of names is read. Where two kinds lie beside each other and one would be left out without a word,
the folder is refused. Nothing here imports torch, for a command refuses such a folder at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Literal

from ddpm_pipeline.data.findings import printable

__all__ = [
    "IDX_PATTERN",
    "METADATA_NAMES",
    "SHARD_SUFFIXES",
    "DataKind",
    "MeaninglessOptionError",
    "data_kind",
    "image_formats",
    "is_image_name",
    "refuse_mixture",
    "suffix_of",
    "walk",
]

DataKind = Literal["images", "shards", "dataset", "idx", "nothing", "file"]
METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SHARD_SUFFIXES = {".tar": "webdataset", ".parquet": "parquet"}
"""Suffixes of shards, and what `datasets` calls the way to read them."""

_SAVED = ("state.json", "dataset_dict.json")
IDX_PATTERN = "*images*idx*ubyte*"


class MeaninglessOptionError(ValueError):
    """An option that a kind of source cannot obey.

    Attributes:
        option: Its name.
    """

    def __init__(self, option: str, value: object, kind: str) -> None:
        super().__init__(f"{option}={value!r} has no meaning for {kind}")
        self.option = option


def data_kind(path: Path) -> DataKind:
    """Tell what a path names.

    Returns:
        "dataset" for what the `datasets` library opens: parquet files, what `save_to_disk` wrote,
        and a name that is no path here, which may be one of the Hub; "shards" for a folder of .tar
        files without images, since beside images they are passed over; "file" for other files.
    Raises:
        ValueError: If it holds parquet files beside images or .tar shards; names one of each.
    """
    if path.is_dir():
        return _folder_kind(path)
    is_dataset = path.suffix.lower() == ".parquet" or not path.exists()
    return "dataset" if is_dataset else "file"


def _folder_kind(root: Path) -> DataKind:
    """Tell what a folder holds, by the first folder in it with a file that tells it."""
    if any((root / name).is_file() for name in _SAVED):
        return "dataset"
    found: dict[str, str] = {}
    for prefix, _, files in walk(root):
        names = sorted(entry.name for entry in files)
        if not prefix and any(fnmatch(name, IDX_PATTERN) for name in names):
            return "idx"
        for name in names:
            if (kind := _kind_of_file(name)) is not None:
                found.setdefault(kind, prefix + name)
        refuse_mixture(root, found)
        if "images" in found:
            return "images"
    kinds = {"shards", "dataset"} & set(found)
    return kinds.pop() if kinds else "nothing"


def _kind_of_file(name: str) -> DataKind | None:
    """Tell what a file makes of its folder; None if nothing, as metadata do."""
    if is_image_name(name):
        return "images"
    if name in METADATA_NAMES:
        return None
    return {".tar": "shards", ".parquet": "dataset"}.get(suffix_of(name))


def refuse_mixture(root: Path, found: dict[str, str]) -> None:
    """Refuse parquet files beside images or .tar shards, of which one would not be read.

    Arguments:
        root: The folder.
        found: By kind, the first file of it.
    """
    if "dataset" in found and len(found) > 1:
        named = " and ".join(printable(name) for name in found.values())
        raise ValueError(
            f"{printable(str(root))!r} holds data of two kinds ({named}), of which only one would "
            "be read: name the files or the folder of one kind"
        )


def walk(root: Path) -> Iterator[tuple[str, Path, list[os.DirEntry]]]:
    """Give each folder below one, by its relative name and its path, with its files.

    Hidden names are passed over; a folder with two names is read once, under the first.
    """
    seen, pending = set(), [("", root)]
    while pending:
        prefix, folder = pending.pop()
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as listing:
            visible = [entry for entry in listing if not entry.name.startswith(".")]
        names, files = [], []
        for entry in visible:
            if entry.is_dir():
                names.append(entry.name)
            else:
                files.append(entry)
        yield prefix, folder, files
        pending += [(f"{prefix}{name}/", folder / name) for name in sorted(names, reverse=True)]


# Left out of what Pillow opens: EPS starts a program, WMF the system's own reader, IPTC opens
# whatever is inside, and the others have no decoder.
_FORMATS = (
    "AVIF BLP BMP CUR DCX DDS DIB FITS FLI FTEX GBR GIF HEIF ICNS ICO IM IMT JPEG JPEG2000 JXL "
    "MCIDAS MSP PCD PCX PIXAR PNG PPM PSD QOI SGI SPIDER SUN TGA TIFF WEBP XBM XPM XVTHUMB"
)
_ALLOWED = frozenset(_FORMATS.split())
_COMMON = {"PNG", "JPEG"}


def image_formats() -> tuple[str, ...]:
    """List the formats that image files may have, in the order in which they are tried.

    A file is of the format that its content says, whatever its name is, so that the list is what
    keeps ``x.png`` from starting Ghostscript.
    """
    from PIL import Image

    Image.init()
    return _allowed(len(Image.ID))


@cache
def _allowed(count: int) -> tuple[str, ...]:
    """Leave out of Pillow's so many formats what images are not read in; asked for every file.

    Those that most files are of come first: Pillow tries one after the other, and no other format
    begins as these do.
    """
    from PIL import Image

    allowed = [name for name in Image.ID[:count] if name in _ALLOWED]
    return tuple(sorted(allowed, key=lambda name: name not in _COMMON))


@cache
def _image_suffixes() -> frozenset[str]:
    from PIL import Image

    formats = set(image_formats())
    return frozenset(s for s, form in Image.registered_extensions().items() if form in formats)


def is_image_name(name: str) -> bool:
    """Tell whether a name's suffix is that of a format that is read."""
    return suffix_of(name) in _image_suffixes()


def suffix_of(name: str) -> str:
    """Give `Path.suffix` in lower case without making a path: folders hold 100,000 files."""
    _, dot, ending = name.rpartition(".")
    return dot + ending.lower()
