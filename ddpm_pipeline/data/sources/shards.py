"""Streams of shards, of folders of images and of data sets, opened with the files behind them.

    stream, shards = open_shards("train-{0000..0127}.tar")

Shards are checked before the first image is read, and again when reading fails, since a message of
`datasets` does not say which file it was.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_pipeline.common import at_home
from ddpm_pipeline.data.sources.datasets import choose_split
from ddpm_pipeline.data.sources.kinds import METADATA_NAMES, SHARD_SUFFIXES, walk
from ddpm_pipeline.data.sources.library import (
    absent_data_set,
    has_shuffle_buffer,
    import_datasets,
    plain_path,
)
from ddpm_pipeline.data.sources.regular_files import check_regular
from ddpm_pipeline.data.sources.row_files import LoadedDataset, files_of_source
from ddpm_pipeline.data.sources.shard_files import check_shards, shard_files
from ddpm_pipeline.data.sources.source import one_line, refuse
from ddpm_pipeline.data.sources.splits import choose_split_folder

if TYPE_CHECKING:
    import datasets

__all__ = ["is_folder", "load_shards", "open_shards"]


def open_shards(
    source: Any,  # noqa: ANN401 (a path, a name or an IterableDataset; datasets is optional)
    split: str | None = None,
) -> tuple["datasets.IterableDataset", list[str]]:
    """Open a stream, and name the local files behind it, if it is made of those.

    Arguments:
        source: As for `open_stream`.
        split: Which part; for a folder, the shards whose names say so, or a folder in it.

    Raises:
        FileNotFoundError: If a shard is missing, or nothing is found under a name.
        ValueError: If a shard is cut short, the stream has no known columns or is shuffled, or has
            no such split.
        TypeError: If `source` is of another type.
    """
    library = import_datasets()
    if isinstance(source, str | os.PathLike):
        source = at_home("source", source)
        shards = shard_files(source, split)
        check_shards(shards)
        if not shards and is_folder(source):
            _check_metadata(Path(source).expanduser())
            source, split = choose_split_folder(Path(source).expanduser(), split)[0], None
        data = _stream(os.fspath(source), shards)
    elif isinstance(source, LoadedDataset):
        shards, data = [], source.data
    elif isinstance(source, library.IterableDataset | library.IterableDatasetDict):
        shards, data = [], source
    else:
        raise TypeError(
            "source must be a path, a data set's name or a datasets.IterableDataset, "
            f"got {type(source).__name__}"
        )
    data = choose_split(data, None if shards else split)
    if data.features is None:
        raise ValueError("the stream does not say what its columns are; cast it to Features")
    if has_shuffle_buffer(data):
        raise ValueError(
            "the stream has a shuffle buffer of its own, which cannot be resumed exactly; "
            "pass it unshuffled and set shuffle_buffer"
        )
    return data, shards


def _check_metadata(root: Path) -> None:
    """Refuse metadata that `datasets` would wait for."""
    metadata = (folder / name for _, folder, _ in walk(root) for name in METADATA_NAMES)
    check_regular(metadata)


def is_folder(source: object) -> bool:
    """Tell whether a source is a folder here."""
    return isinstance(source, str | os.PathLike) and Path(source).expanduser().is_dir()


def load_shards(source: str | os.PathLike, split: str | None = None) -> LoadedDataset:
    """Open local shards as a whole, for what needs all their images and not their stream.

    Arguments:
        source: As for ``is_shards``.
        split: As for ``open_shards``.

    Raises:
        FileNotFoundError, ValueError: As ``open_shards``.
    """
    if not Path(source).expanduser().is_dir():
        refuse("shards that are named", split=split)
    library = import_datasets()
    shards = shard_files(source, split)
    check_shards(shards)
    builder = SHARD_SUFFIXES[Path(shards[0]).suffix.lower()]
    try:
        data = library.load_dataset(builder, data_files=shards, split="train")
    except Exception as error:  # many types, one for each way to be damaged
        reason = one_line(error)[:300]
        raise ValueError(f"{os.fspath(source)!r} cannot be read: {reason}") from error
    return LoadedDataset(data, files_of_source(source, shards))


def _stream(source: str, shards: Sequence[str]) -> Any:  # noqa: ANN401 (a stream, or a dict of them)
    library = import_datasets()
    path = Path(source).expanduser()
    try:
        if not shards and path.is_dir():
            every = {"train": "**"}  # else `datasets` leaves out what looks like other splits
            return library.load_dataset(
                "imagefolder", data_dir=plain_path(path), data_files=every, streaming=True
            )
        if not shards:
            return library.load_dataset(source, streaming=True)
        builders = {SHARD_SUFFIXES[Path(shard).suffix.lower()] for shard in shards}
        if len(builders) > 1:
            raise ValueError(f"it holds shards of {len(builders)} formats")
        files = {"train": [plain_path(Path(shard)) for shard in shards]}
        return library.load_dataset(builders.pop(), data_files=files, streaming=True)
    except Exception as error:  # many types, one for each way to be absent or damaged
        if shards or path.exists():
            reason = one_line(error)[:300]
            raise ValueError(f"{source!r} cannot be streamed: {reason}") from error
        raise absent_data_set(source, error) from error
