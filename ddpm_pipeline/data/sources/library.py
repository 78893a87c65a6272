"""The `datasets` library: importing it, as it is optional, and asking what it does not tell.

All use of its private parts is here, so that a release that changes them breaks one file, whose
tests say which part it was.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ddpm_pipeline.common import key_of
from ddpm_pipeline.data.places import default_cache_dir

if TYPE_CHECKING:
    import datasets

__all__ = ["content_key", "has_shuffle_buffer", "import_datasets", "plain_path", "share_of_rows"]


def import_datasets() -> ModuleType:
    """Import the `datasets` package.

    Raises:
        ImportError: If it is not installed, naming the extra that brings it.
    """
    try:
        return import_module("datasets")
    except ImportError as error:
        raise ImportError(
            "data sets need the `datasets` package: pip install ddpm_pipeline[train]"
        ) from error


def plain_path(path: Path) -> str:
    """Give a path under which `datasets` finds a file or folder, whatever its name.

    It takes names with brackets or stars for patterns, and those that are not UTF-8 it cannot
    write down; such a path is given by a link in the cache, the same one every time.
    """
    absolute = path.absolute()
    if path.is_dir():
        return _linked(absolute, "") if _is_awkward(str(absolute)) else str(path)
    if _is_awkward(path.name):
        return _linked(absolute, path.suffix)
    if _is_awkward(str(absolute)):
        return f"{_linked(absolute.parent, '')}/{path.name}"
    return str(path)


def _is_awkward(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return any(character in name for character in "[]*?")


def _linked(path: Path, suffix: str) -> str:
    """Make a link to a path, or find it."""
    link = default_cache_dir() / "links" / f"{key_of(str(path))}{suffix}"
    if not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # another process was faster
            link.symlink_to(path)
    return str(link)


def share_of_rows(
    stream: datasets.IterableDataset, rank: int, world_size: int
) -> datasets.IterableDataset:
    """Give a process its shards of a stream, or every n-th row of all where they do not divide."""
    return import_module("datasets.distributed").split_dataset_by_node(stream, rank, world_size)


def content_key(data: datasets.Dataset) -> str:
    """Give the hash of the files and the operations that a data set is made of.

    It follows the choice and the order of the rows, and costs nothing.
    """
    return data._fingerprint  # noqa: SLF001 (its only name)


def has_shuffle_buffer(stream: datasets.IterableDataset) -> bool:
    """Tell whether `shuffle` was called on a stream: its buffer is lost when a run is resumed."""
    layer = stream._ex_iterable  # noqa: SLF001 (a stream is layers of iterables around its files)
    while layer is not None:
        if type(layer).__name__ == "BufferShuffledExamplesIterable":
            return True
        layer = getattr(layer, "ex_iterable", None)
    return False
