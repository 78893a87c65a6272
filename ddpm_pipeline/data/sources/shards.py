"""Streams of shards: finding the files behind a name, and seeing that all are there and whole.

    stream, shards = open_shards("train-{0000..0127}.tar")
    check_shards(shards)

Shards are local .tar (webdataset) or .parquet files. They are checked before the first image is
read, and again when reading fails, since a message of `datasets` does not say which file it was.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_pipeline.data.sources.datasets import choose_split
from ddpm_pipeline.data.sources.library import has_shuffle_buffer, import_datasets, plain_path
from ddpm_pipeline.data.sources.source import one_line, refuse

if TYPE_CHECKING:
    import datasets

__all__ = ["check_shards", "is_folder", "is_shards", "load_shards", "open_shards"]

_BUILDERS = {".tar": "webdataset", ".parquet": "parquet"}
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_NUMBERED = re.compile(r"(\d+)-of-(\d+)")


def open_shards(
    source: Any,  # noqa: ANN401 (a path, a name or an IterableDataset; datasets is optional)
    split: str | None = None,
) -> tuple["datasets.IterableDataset", list[str]]:
    """Open a stream, and name the local files behind it, if it is made of those.

    Arguments:
        source: As for `open_stream`.
        split: Which part; for a folder, the shards with that in their name.

    Raises:
        FileNotFoundError: If a shard is missing, or nothing is found under a name.
        ValueError: If a shard is cut short, the stream has no known columns or is shuffled, or has
            no such split.
        TypeError: If `source` is of another type.
    """
    library = import_datasets()
    if isinstance(source, str | os.PathLike):
        shards = _find_shards(os.fspath(source), split)
        check_shards(shards)
        data = _stream(os.fspath(source), shards)
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


def is_folder(source: object) -> bool:
    """Tell whether a source is a folder here."""
    return isinstance(source, str | os.PathLike) and Path(source).expanduser().is_dir()


def is_shards(source: object) -> bool:
    """Tell whether a name is that of local shards: .tar files, a folder of them, or a pattern.

    A folder is one of shards if no images and no folders are beside them, where a .tar file is
    passed over.
    """
    if not isinstance(source, str | os.PathLike):
        return False
    path = Path(source).expanduser()
    if path.is_dir():
        visible = [child for child in path.iterdir() if not child.name.startswith(".")]
        suffixes = {child.suffix if child.is_file() else "/" for child in visible}
        return ".tar" in suffixes and suffixes <= {".tar", ".json"}
    if path.exists():
        return path.suffix == ".tar"
    return path.suffix in _BUILDERS and any(c in str(path) for c in "{*?[")


def load_shards(source: str | os.PathLike, split: str | None = None) -> "datasets.Dataset":
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
    shards = _find_shards(os.fspath(source), split)
    check_shards(shards)
    builder = _BUILDERS[Path(shards[0]).suffix]
    try:
        return library.load_dataset(builder, data_files=shards, split="train")
    except Exception as error:  # many types, one for each way to be damaged
        reason = one_line(error)[:300]
        raise ValueError(f"{os.fspath(source)!r} cannot be read: {reason}") from error


def _find_shards(source: str, split: str | None) -> list[str]:
    """List the files that a folder, a pattern or a name with braces stands for, in order."""
    path = Path(source).expanduser()
    if not path.exists() and (numbered := _numbered(path)):
        return numbered
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.suffix in _BUILDERS and p.is_file())
        inside = [p for p in inside if split is None or split in str(p.relative_to(path))]
        if split is not None and not inside:
            raise ValueError(f"split={split!r} is in the name of no shard in {str(path)!r}")
        return [str(p) for p in inside]
    if not path.exists() and any(c in path.name for c in "*?["):
        if not (matches := sorted(path.parent.glob(path.name))):
            raise FileNotFoundError(f"{str(path)!r} matches no shards")
        return [str(p) for p in matches]
    return [str(path)] if path.suffix in _BUILDERS else []


def _numbered(path: Path) -> list[str]:
    """Write out braces as in "{00..12}", in a file's name or else in those of its folders."""
    head, name = (
        ("", str(path)) if not _BRACES.search(path.name) else (f"{path.parent}/", path.name)
    )
    if (found := _BRACES.search(name)) is None:
        return []
    first, last = found.groups()
    numbers = [str(i).zfill(len(first)) for i in range(int(first), int(last) + 1)]
    return [head + name[: found.start()] + n + name[found.end() :] for n in numbers]


def check_shards(shards: Sequence[str]) -> None:
    """Check that every local shard is there and has its end.

    Raises:
        FileNotFoundError: If some are missing, also by their own numbering ("0003-of-0010").
        ValueError: If one is cut short.
    """
    paths = [Path(shard) for shard in shards]
    missing = {p.name for p in paths if not p.is_file()}
    for path in paths:
        if found := _NUMBERED.search(path.name):
            number, count = found.groups()
            head, tail = path.name[: found.start()], path.name[found.end(1) :]
            others = [head + str(i).zfill(len(number)) + tail for i in range(int(count))]
            missing |= {name for name in others if not path.with_name(name).is_file()}
    if missing:
        named = ", ".join(sorted(missing)[:5]) + (", ..." if len(missing) > 5 else "")
        raise FileNotFoundError(f"{len(missing)} of the shards missing: {named}")
    for path in paths:
        if not _has_end(path):
            raise ValueError(f"shard {path.name!r} is cut short")


def _has_end(path: Path) -> bool:
    """Tell whether a file is whole: tar ends in 1024 zero bytes, parquet in its magic word."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1024))
        tail = file.read()
    if path.suffix == ".parquet":
        return tail.endswith(b"PAR1")
    return size % 512 == 0 and len(tail) == 1024 and not any(tail)


def _stream(source: str, shards: Sequence[str]) -> Any:  # noqa: ANN401 (a stream, or a dict of them)
    library = import_datasets()
    path = Path(source).expanduser()
    try:
        if not shards and path.is_dir():
            return library.load_dataset("imagefolder", data_dir=plain_path(path), streaming=True)
        if not shards:
            return library.load_dataset(source, streaming=True)
        builders = {_BUILDERS[Path(shard).suffix] for shard in shards}
        if len(builders) > 1:
            raise ValueError(f"it holds shards of {len(builders)} formats")
        files = {"train": [plain_path(Path(shard)) for shard in shards]}
        return library.load_dataset(builders.pop(), data_files=files, streaming=True)
    except Exception as error:  # many types, one for each way to be absent or damaged
        reason = one_line(error)[:300]
        if shards or path.exists():
            raise ValueError(f"{source!r} cannot be streamed: {reason}") from error
        raise FileNotFoundError(
            f"{source!r} is neither a path here nor a data set on the Hub: {reason}"
        ) from error
