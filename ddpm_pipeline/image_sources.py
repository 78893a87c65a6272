"""Where images come from: a `Source`, and the one that is a folder of image files.

A source is a fixed list of N raw images, each the bytes of an image file or an array (H, W) or
(H, W, C), with an optional class label each. Finding one reads names, sizes and labels; pixels are
read only when `Source.read` is called, so a data set that is already in the cache costs nothing.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = [
    "RawImage",
    "Source",
    "encode_labels",
    "folder_source",
    "key_of",
    "refuse",
    "source_name",
    "stat_key",
]

RawImage = bytes | np.ndarray

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


@dataclass(frozen=True)
class Source:
    """N raw images and their class labels.

    Arguments:
        length: N.
        read: `read(i)` gives raw image i; safe to call from threads.
        name: `name(i)` says which image i is, for messages.
        quick_key: A hash that is cheap to compute and changes whenever the images may have; None
            where there is none (an array in memory).
        labels: Integer class labels (N,), or None.
        class_names: One name per class, or None.
        dtype: What arrays hold; "uint8" for image files.
    """

    length: int
    read: Callable[[int], RawImage]
    name: Callable[[int], str]
    quick_key: str | None
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    dtype: str = "uint8"


def key_of(*parts: Any) -> str:  # noqa: ANN401 (anything JSON can hold)
    """A 128-bit hash of JSON values, as 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def source_name(source: str | os.PathLike) -> str:
    """What a source may be called in public: a name of the Hub whole, of a path its last part."""
    name, path = os.fspath(source), Path(source).expanduser()
    if path.exists():
        return Path(os.path.abspath(path)).name or name  # noqa: PTH100 (a link keeps its name)
    return name if _HUB_NAME.fullmatch(name) else path.name or name


def refuse(kind: str, **options: object) -> None:
    """Nothing the caller asks for is ignored."""
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name}={value!r} has no meaning for {kind}")


def stat_key(paths: Sequence[Path], *more: object) -> str:
    """Names, sizes and times of files: the quick key of their content."""
    stats = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    return key_of(stats, *more)


# Folders of image files.

_SPLITS = {"train", "test", "val", "valid", "validation"}


def folder_source(root: Path, split: str | None = None, labels: bool = False) -> Source:
    """Every image below a folder, of any format Pillow reads, in the order of their names.

    Arguments:
        split: A folder in `root` to read instead, as in `root/train`; that is the one unless
            given if the folders in `root` are `train` and `test` or `validation` and no others.
        labels: Whether to read class labels: the folder directly below `root` (or `root/split`)
            that an image is in, numbered in sorted order.

    Raises:
        ValueError: If there are no images, no such split, or images in no class folder.
    """
    folders = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if split is None and "train" in folders and len(folders) > 1 and _SPLITS.issuperset(folders):
        split = "train"
    if split is not None:
        if not (root / split).is_dir():
            found = folders or "none at all"
            raise ValueError(f"split={split!r}: {str(root)!r} has no such folder, but {found}")
        root = root / split
    entries, others = _scan(root)
    if not entries:
        raise ValueError(f"{str(root)!r} holds no images ({others} other files)")
    names = [name for name, _, _ in entries]
    classes = _folder_classes(root, names) if labels else (None, None)

    def read(i: int) -> bytes:
        return (root / names[i]).read_bytes()

    key = key_of("folder", str(root.resolve()), entries)
    return Source(len(names), read, names.__getitem__, key, *classes)


def _scan(root: Path) -> tuple[list[tuple[str, int, int]], int]:
    """(relative name, size, time) of every image below `root`, sorted, and how many files are not
    images by their suffix. Hidden files are passed over; a folder with two names is read once,
    under the first.
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
    """A link to nothing is an image that cannot be read, and is reported as one later."""
    try:
        status = entry.stat()
    except FileNotFoundError:
        return -1, 0
    return status.st_size, status.st_mtime_ns


def _suffix(name: str) -> str:
    """As `Path.suffix`, in lower case, without making a path: folders hold 100,000 files."""
    _, dot, ending = name.rpartition(".")
    return dot + ending.lower()


def _folder_classes(root: Path, names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The class of an image is the folder directly below `root` that it is in."""
    folders = [name.partition("/")[0] if "/" in name else None for name in names]
    if None in folders:
        lost = names[folders.index(None)]
        raise ValueError(
            f"labels missing for {folders.count(None)} of {len(names)} images: class names are "
            f"the folders in {str(root)!r}, and {lost!r} is in none"
        )
    return encode_labels(folders, None)


def encode_labels(
    values: Sequence[Any], class_names: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Class labels as int64: strings are numbered in sorted order, integers are kept.

    Raises:
        ValueError: If a label is missing (None or negative) or neither an integer nor a string.
    """
    missing = sum(v is None or (isinstance(v, int | np.integer) and v < 0) for v in values)
    if missing:
        raise ValueError(f"labels missing for {missing} of {len(values)} images")
    if all(isinstance(v, str) for v in values):
        names = sorted(set(values))
        number = {name: i for i, name in enumerate(names)}
        return np.array([number[v] for v in values], np.int64), tuple(names)
    if not all(isinstance(v, int | np.integer) for v in values):
        odd = next(v for v in values if not isinstance(v, int | np.integer))
        raise ValueError(f"labels must be integers or strings, got {odd!r}")
    return np.array(values, np.int64), None if class_names is None else tuple(class_names)
