"""Folders of image files, nested in any way, with the class names that their folders are.

    photos/cats/b.png, photos/cats/old/a.jpg, photos/dogs/c.webp       two classes: cats, dogs
    photos/train/..., photos/test/...                                  two splits
    photos/a.png, photos/metadata.csv                                  labels from metadata.py
    scenes/a_band1.tif, scenes/a_band2.tif                             one image, by stacks.py

Images come in the order of their names, on every machine. Files that may be images but are not
read, because of their suffix, are counted and named.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_pipeline.common import key_of
from ddpm_pipeline.data.findings import Named, describe_named, grouped, printable
from ddpm_pipeline.data.sources.kinds import (
    METADATA_NAMES,
    is_image_name,
    refuse_mixture,
    suffix_of,
    walk,
)
from ddpm_pipeline.data.sources.metadata import metadata_labels
from ddpm_pipeline.data.sources.regular_files import open_regular, read_regular
from ddpm_pipeline.data.sources.source import Source, encode_labels, refuse
from ddpm_pipeline.data.sources.splits import check_nested_splits, choose_split_folder
from ddpm_pipeline.data.sources.stacks import FileStack, Stack, naming_part, stacked

__all__ = ["check_folder", "folder_source"]

# Suffixes of what lies beside images and is none.
_TEXT = ".txt .csv .tsv .json .jsonl .xml .yaml .yml .md .rst .html .htm .log .ini .toml .cfg"
_OTHERS = (
    ".db .py .ipynb .sh .pkl .pickle .pt .pth .safetensors .npy .npz .parquet .lock .url .lnk"
)
_DOCUMENTS = ".sha256 .md5 .bib .tex .doc .docx .xls .xlsx .mat .h5 .hdf5"
_NEVER_IMAGES = frozenset(f"{_TEXT} {_OTHERS} {_DOCUMENTS}".split())
_NO_SUFFIX = "without a suffix, images by their content"
_MAGIC = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"BM", b"8BPS", b"qoif")
_BOXES = (b"ftyp", b"WEBP", b"jP  ")  # from the fifth or the ninth byte on


def folder_source(
    root: Path,
    split: str | None = None,
    labels: bool = False,
    label_column: str | None = None,
    stack_pattern: str | None = None,
) -> Source:
    """Find every image below a folder, of any format Pillow reads, in the order of their names.

    Arguments:
        split: A folder in `root` to read instead, as in `root/train`, or "." for all of it; see
            ``choose_split_folder`` for what is read unless given.
        labels: Whether to read class labels: from metadata files if they have a column of them,
            else the folder directly below `root` (or `root/split`) that an image is in, numbered
            in sorted order.
        label_column: The column of the metadata.
        stack_pattern: How files are called that are one image together, as for ``stacked``.

    Raises:
        ValueError: If there are no images, no such split, images without a label, splits beside
            other images, or stacks that are not whole.
    """
    if not labels:
        refuse("images without labels=True", label_column=label_column)
    root, found, taken = _find_images(root, split)
    files = [Stack(name, (name,)) for name, _, _ in found.images]
    if stack_pattern is not None:
        files = stacked([file.name for file in files], stack_pattern)
    names = [file.name for file in files]
    classes, labels_from = (None, None), None
    if labels:
        classes, labels_from = _find_labels(root, found, names, label_column)

    start = os.path.join(root, "")  # noqa: PTH118 (joining paths takes a tenth of a reading)

    def read(i: int) -> bytes | FileStack:
        if stack_pattern is None:
            return read_regular(start + names[i])
        parts = files[i].files
        return FileStack(tuple(_read_part(start, part) for part in parts), parts)

    size = {name: max(0, size) for name, size, _ in found.images}
    key = key_of("folder", str(root.resolve()), found.images)
    if stack_pattern is not None:
        key = key_of("stacks", stack_pattern, key)
    return Source(
        len(names),
        read,
        names.__getitem__,
        key,
        *classes,
        split=taken,
        unread=found.unread,
        other_files=found.others,
        labels_from=labels_from,
        size_of=lambda i: sum(size[part] for part in files[i].files),
        has_names=True,
        column=partial(_metadata_column, root, found, names),
    )


def _read_part(start: str, name: str) -> bytes:
    """Read a file of a stack."""
    with naming_part(name):
        return read_regular(start + name)


def _metadata_column(
    root: Path, found: _Listing, names: Sequence[str], column: str, option: str
) -> list[Any]:
    """Read a value of each image from the metadata files."""
    if not found.metadata:
        raise ValueError(
            f"{option}={column!r} has no meaning for {printable(str(root))!r}, which holds none "
            f"of {', '.join(METADATA_NAMES)}"
        )
    values, _ = metadata_labels(
        root, found.metadata, names, column, option=option, what=f"values of {column!r}"
    )
    return values


def check_folder(root: Path, split: str | None = None) -> Mapping[str, Named]:
    """Give the files in a folder that may be images and are not read, by suffix.

    Arguments:
        root, split: As for ``folder_source``.
    Raises:
        ValueError: As ``folder_source`` if there are no images or it is not clear which are read.
    """
    return _find_images(root, split)[1].unread


def _find_images(root: Path, split: str | None) -> tuple[Path, _Listing, str | None]:
    """List the images of a split; give also the folder that is read, and the split that it is."""
    root, taken = choose_split_folder(root, split)
    found = _scan(root)
    if not found.images:
        unread = f"; not read are {describe_named(found.unread)}" if found.unread else ""
        raise ValueError(
            f"{printable(str(root))!r} holds no images ({found.others} other files{unread})"
        )
    if found.parquet:
        refuse_mixture(root, {"images": found.images[0][0], "dataset": min(found.parquet)})
    if split is None:
        check_nested_splits(root, found.folders)
    return root, found, taken


def _is_parquet(name: str) -> bool:
    return suffix_of(name) == ".parquet" and name not in METADATA_NAMES


@dataclass
class _Listing:
    """What a folder holds.

    Arguments:
        images: (Relative name, size, time) of each, sorted.
        folders: Names of the folders that hold images directly, each ending in "/" but the root.
        metadata: Metadata files, by their relative names.
        parquet: Other parquet files, by theirs.
        unread: Files that may be images but are not read, by suffix.
        others: How many files are none by their suffix.
    """

    images: list[tuple[str, int, int]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    parquet: list[str] = field(default_factory=list)
    unread: dict[str, Named] = field(default_factory=dict)
    others: int = 0


def _scan(root: Path) -> _Listing:
    """List the files below a folder.

    Hidden files are passed over; a folder with two names is read once, under the first.
    """
    found, unread = _Listing(), []
    for prefix, folder, entries in walk(root):
        images = [e for e in entries if is_image_name(e.name)]
        found.images += [(prefix + entry.name, *_size_and_time(entry)) for entry in images]
        if images:
            found.folders.append(prefix)
        if len(images) < len(entries):
            others = sorted(e.name for e in entries if not is_image_name(e.name))
            found.others += len(others)
            found.metadata += [prefix + name for name in others if name in METADATA_NAMES]
            found.parquet += [prefix + name for name in others if _is_parquet(name)]
            kinds = ((name, _unread_kind(folder, name)) for name in others)
            unread += [(prefix + name, kind) for name, kind in kinds if kind is not None]
    found.images.sort()
    found.metadata.sort()
    found.unread = grouped(sorted(unread))
    found.others -= len(unread)
    return found


def _unread_kind(folder: Path, name: str) -> str | None:
    """Give the suffix of a file that may be an image and is not read; None of any other."""
    suffix = suffix_of(name)
    if suffix in _NEVER_IMAGES:
        return None
    if "." in name:
        return suffix
    try:
        with open_regular(folder / name) as file:
            head = file.read(16)
    except OSError:
        return None
    boxed = head[4:8] in _BOXES or head[8:12] in _BOXES
    return _NO_SUFFIX if boxed or head.startswith(_MAGIC) else None


def _size_and_time(entry: os.DirEntry) -> tuple[int, int]:
    """Give what changes with a file; of a link to nothing, which is reported later, (-1, 0)."""
    try:
        status = entry.stat()
    except FileNotFoundError:
        return -1, 0
    return status.st_size, status.st_mtime_ns


_Labels = tuple[np.ndarray, tuple[str, ...] | None]


def _find_labels(
    root: Path, found: _Listing, names: Sequence[str], column: str | None
) -> tuple[_Labels, str]:
    """Read the classes of images, and say where they came from."""
    if found.metadata:
        told = metadata_labels(root, found.metadata, names, column)
        if told is not None:
            return encode_labels(told[0], None), told[1]
    elif column is not None:
        raise ValueError(
            f"label_column={column!r} has no meaning for {printable(str(root))!r}, which holds "
            f"none of {', '.join(METADATA_NAMES)}"
        )
    return _folder_classes(root, names), "the names of folders"


def _folder_classes(root: Path, names: Sequence[str]) -> _Labels:
    """Give each image the class of the folder directly below `root` that it is in."""
    folders = [name.partition("/")[0] if "/" in name else None for name in names]
    if None in folders:
        lost = names[folders.index(None)]
        raise ValueError(
            f"labels missing for {folders.count(None)} of {len(names)} images: class names are "
            f"the folders in {printable(str(root))!r}, and {printable(lost)!r} is in none"
        )
    return encode_labels(folders, None)
