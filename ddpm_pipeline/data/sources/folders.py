"""Folders of image files, nested in any way, with the class names that their folders are.

    photos/cats/b.png, photos/cats/old/a.jpg, photos/dogs/c.webp       two classes: cats, dogs
    photos/train/..., photos/test/...                                  two splits

Images come in the order of their names, on every machine.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ddpm_pipeline.common import key_of
from ddpm_pipeline.data.sources.source import Source, encode_labels

__all__ = ["folder_source"]

_SPLITS = {"train", "test", "val", "valid", "validation"}


def folder_source(root: Path, split: str | None = None, labels: bool = False) -> Source:
    """Find every image below a folder, of any format Pillow reads, in the order of their names.

    Arguments:
        split: A folder in `root` to read instead, as in `root/train`; that is the one unless
            given if the folders in `root` are `train` and `test` or `validation` and no others.
        labels: Whether to read class labels: the folder directly below `root` (or `root/split`)
            that an image is in, numbered in sorted order.

    Raises:
        ValueError: If there are no images, no such split, or images in no class folder.
    """
    root = _split_folder(root, split)
    entries, others = _scan(root)
    if not entries:
        raise ValueError(f"{str(root)!r} holds no images ({others} other files)")
    names = [name for name, _, _ in entries]
    classes = _folder_classes(root, names) if labels else (None, None)

    def read(i: int) -> bytes:
        return (root / names[i]).read_bytes()

    key = key_of("folder", str(root.resolve()), entries)
    return Source(len(names), read, names.__getitem__, key, *classes)


def _split_folder(root: Path, split: str | None) -> Path:
    """Give the folder of a split: the given one, "train" beside others only, or all of `root`."""
    folders = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if split is None and "train" in folders and len(folders) > 1 and _SPLITS.issuperset(folders):
        split = "train"
    if split is None:
        return root
    if not (root / split).is_dir():
        found = folders or "none at all"
        raise ValueError(f"split={split!r}: {str(root)!r} has no such folder, but {found}")
    return root / split


def _scan(root: Path) -> tuple[list[tuple[str, int, int]], int]:
    """List the images below a folder.

    Hidden files are passed over; a folder with two names is read once, under the first.

    Returns:
        (relative name, size, time) of each, sorted, and how many files are not images by their
        suffix.
    """
    Image.init()
    suffixes = {s for s, form in Image.registered_extensions().items() if form in Image.OPEN}
    entries: list[tuple[str, int, int]] = []
    others, seen, pending = 0, set(), [("", root)]
    while pending:
        prefix, folder = pending.pop()
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as listing:
            visible = [entry for entry in listing if not entry.name.startswith(".")]
        folders = [entry for entry in visible if entry.is_dir()]
        images = [e for e in visible if _suffix(e.name) in suffixes and not e.is_dir()]
        entries += [(prefix + entry.name, *_size_and_time(entry)) for entry in images]
        others += len(visible) - len(folders) - len(images)
        names = sorted((entry.name for entry in folders), reverse=True)
        pending += [(f"{prefix}{name}/", folder / name) for name in names]
    return sorted(entries), others


def _size_and_time(entry: os.DirEntry) -> tuple[int, int]:
    """Give what changes with a file; of a link to nothing, which is reported later, (-1, 0)."""
    try:
        status = entry.stat()
    except FileNotFoundError:
        return -1, 0
    return status.st_size, status.st_mtime_ns


def _suffix(name: str) -> str:
    """Give `Path.suffix` in lower case without making a path: folders hold 100,000 files."""
    _, dot, ending = name.rpartition(".")
    return dot + ending.lower()


def _folder_classes(root: Path, names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Give each image the class of the folder directly below `root` that it is in."""
    folders = [name.partition("/")[0] if "/" in name else None for name in names]
    if None in folders:
        lost = names[folders.index(None)]
        raise ValueError(
            f"labels missing for {folders.count(None)} of {len(names)} images: class names are "
            f"the folders in {str(root)!r}, and {lost!r} is in none"
        )
    return encode_labels(folders, None)
