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
from ddpm_pipeline.data.places import default_cache_dir, private_folder
from ddpm_pipeline.data.sources.source import one_line

if TYPE_CHECKING:
    import datasets

__all__ = [
    "absent_data_set",
    "content_key",
    "has_shuffle_buffer",
    "import_datasets",
    "plain_path",
    "share_of_rows",
]


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


def absent_data_set(name: str, error: Exception) -> FileNotFoundError:
    """Say why there are no data of a name that is no path here.

    Arguments:
        name: What was asked for.
        error: What `datasets` failed with.
    """
    reason = one_line(error)[:300]
    if isinstance(error, ConnectionError):
        said = "is no path here, and the Hub could not be asked for a data set of that name"
    elif isinstance(error, FileNotFoundError):
        said = "is neither a path here nor a data set on the Hub"
    else:
        said = "is no path here, and a data set of that name on the Hub cannot be opened"
    return FileNotFoundError(f"{name!r} {said}: {reason}")


def plain_path(path: Path) -> str:
    """Give a path under which `datasets` finds a file or folder, whatever its name.

    It takes names with brackets or stars for patterns, and those that are not UTF-8 it cannot
    write down; such a path is given by a link in the cache, the same one every time.
    """
    absolute = path.absolute()
    if path.is_dir():
        return _mirrored(absolute) if _is_awkward(str(absolute)) else str(path)
    if _is_awkward(path.name):
        return str(_link(_links() / f"{key_of(str(absolute))}{path.suffix}", absolute))
    if _is_awkward(str(absolute)):
        folder = _link(_links() / f"{key_of(str(absolute.parent))}.folder", absolute.parent)
        return str(folder / path.name)
    return str(path)


def _is_awkward(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return any(character in name for character in "[]*?")


def _links() -> Path:
    return private_folder(private_folder(default_cache_dir()) / "links")


def _link(link: Path, path: Path) -> Path:
    """Make a link to a path unless it is there."""
    with suppress(FileExistsError):
        link.symlink_to(path)
    return link


def _mirrored(folder: Path) -> str:
    """Make folders of links to all files in one: `datasets` looks behind a link to a folder."""
    mirror = _links() / key_of(str(folder))
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    known = {path.relative_to(mirror) for path in mirror.rglob("*") if path.is_symlink()}
    for stale in known - files:
        (mirror / stale).unlink(missing_ok=True)
    for name in files - known:
        (mirror / name).parent.mkdir(parents=True, exist_ok=True)
        _link(mirror / name, folder / name)
    return str(mirror)


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
