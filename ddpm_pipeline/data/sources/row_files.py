"""Which files the rows of a data set may name: those of the data set, and no others.

    files = RowFiles(folder=Path("data"))
    files.find("images/0.png")               data/images/0.png, behind links still below data/
    files.find("/etc/passwd")                refused

A row comes from whoever made the data set. What it names would be read, decoded and learnt from.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpm_pipeline.common import key_of
from ddpm_pipeline.data.findings import printable
from ddpm_pipeline.data.levels import RefusedImageError
from ddpm_pipeline.data.places import default_cache_dir

__all__ = ["LoadedDataset", "RowFiles", "files_of_source"]


@dataclass(frozen=True)
class RowFiles:
    """The files that rows may name.

    Arguments:
        folder: Where names count from, and must stay below; None where rows may name none.
        listed: Folders that `datasets` lists files of by itself; their absolute names may be
            those of links.
        anywhere: Whether rows may name any file, as those of a data set that the caller made.
    """

    folder: Path | None = None
    listed: tuple[Path, ...] = ()
    anywhere: bool = False

    def find(self, name: str) -> Path:
        """Give the file that a row names.

        Raises:
            RefusedImageError: If it is not one of the data set.
        """
        if self.anywhere:
            return Path(name)
        path = Path(os.path.normpath(name))
        if path.is_absolute():
            if any(path.is_relative_to(folder) for folder in self.listed):
                return path
        elif self.folder is not None:
            found = (self.folder / path).resolve()
            if any(found.is_relative_to(own) for own in _own_places(self.folder)):
                return found
        raise RefusedImageError(
            f"it names the file {printable(name)!r}, which is not in the folder of the data set"
        )


def _own_places(folder: Path) -> tuple[Path, ...]:
    """Give where a folder's files are; a snapshot of the Hub is made of links to its blobs."""
    real = folder.resolve()
    snapshots = [part for part in (real, *real.parents) if part.parent.name == "snapshots"]
    return (real, *(part.parent.parent / "blobs" for part in snapshots))


@dataclass(frozen=True)
class LoadedDataset:
    """A data set or stream of the `datasets` library that this package has loaded for a caller.

    Arguments:
        data: The data set.
        files: Which files its rows may name.
    """

    data: Any
    files: RowFiles


def files_of_source(source: object, shards: Sequence[str] = ()) -> RowFiles:
    """Tell which files the rows of a source may name.

    Arguments:
        source: What the caller gave: a path, a name of the Hub, or a data set.
        shards: The files that a path stands for, if it stands for shards.
    """
    if isinstance(source, LoadedDataset):
        return source.files
    if not isinstance(source, str | os.PathLike):
        return RowFiles(anywhere=True)
    path = Path(source).expanduser().absolute()
    if shards and not path.is_dir():
        parents = [os.path.dirname(os.path.abspath(shard)) for shard in shards]  # noqa: PTH100, PTH120
        return RowFiles(Path(os.path.commonpath(parents)))
    if path.is_file():
        return RowFiles(path.parent)
    if path.is_dir():
        mirror = default_cache_dir() / "links" / key_of(str(path))
        return RowFiles(path, listed=() if shards else (path, mirror.absolute()))
    return RowFiles(listed=_hub_places())


def _hub_places() -> tuple[Path, ...]:
    """Give the folders that `datasets` downloads into, and names files in."""
    from datasets import config
    from huggingface_hub.constants import HF_HUB_CACHE

    places = (config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, HF_HUB_CACHE)
    return tuple(Path(place).absolute() for place in places)
