"""The files of shards: found behind a name, chosen by their split, and seen to be there and whole.

    shard_files("train-{0000..0127}.tar")        128 paths
    shard_files("data/", split="val")            the shards in data/ whose names say val
    check_shards(paths)

Shards are local .tar (webdataset) or .parquet files, also in folders below the one that is named.
Where their names say a split, "train" is read unless another is asked for, as with images.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path

from ddpm_pipeline.data.findings import printable
from ddpm_pipeline.data.sources.kinds import (
    METADATA_NAMES,
    SHARD_SUFFIXES,
    data_kind,
    is_image_name,
    refuse_mixture,
    suffix_of,
    walk,
)
from ddpm_pipeline.data.sources.splits import check_one_split, named_split

__all__ = ["check_shards", "is_shards", "shard_files"]

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_NAMED = 5
_NUMBERED = re.compile(r"(\d+)-of-(\d+)")


def is_shards(source: object) -> bool:
    """Tell whether a name is that of local shards: .tar files, a folder of them, or a pattern.

    A folder is one of shards if no images are in it, beside which a .tar file is passed over.
    """
    if not isinstance(source, str | os.PathLike):
        return False
    path = Path(source).expanduser()
    if path.is_dir():
        return data_kind(path) == "shards"
    if path.exists():
        return path.suffix.lower() == ".tar"
    return path.suffix.lower() in SHARD_SUFFIXES and any(c in str(path) for c in "{*?[")


def shard_files(source: str | os.PathLike, split: str | None = None) -> list[str]:
    """List the files that a folder, a pattern or a name with braces stands for, in order.

    Arguments:
        source: Any of these; of other names, as those of the Hub, there are none.
        split: For a folder: which shards, by their names.
    Raises:
        FileNotFoundError: If nothing matches a pattern.
        ValueError: If no shard is of the split, some are of a split and others of none, or other
            images or files would be left out.
    """
    path = Path(source).expanduser()
    if not path.exists() and (numbered := _numbered(path)):
        return numbered
    if path.is_dir():
        return [str(path / name) for name in _inside(path, split)]
    if not path.exists() and any(c in path.name for c in "*?["):
        if not (matches := sorted(path.parent.glob(path.name))):
            raise FileNotFoundError(f"{str(path)!r} matches no shards")
        if others := [p.name for p in matches if not _is_shard(p.name)]:
            raise ValueError(f"{str(path)!r} matches files that are no shards, as {others[0]!r}")
        return [str(p) for p in matches]
    return [str(path)] if path.suffix.lower() in SHARD_SUFFIXES else []


def _inside(root: Path, split: str | None) -> list[str]:
    """List the shards below a folder, by their names there, sorted."""
    names = [prefix + entry.name for prefix, _, files in walk(root) for entry in files]
    shards = sorted(name for name in names if _is_shard(name))
    refuse_mixture(root, _kinds(shards))
    if shards and (images := [name for name in names if is_image_name(name)]):
        raise ValueError(
            f"{printable(str(root))!r} holds images beside shards, as {printable(min(images))} "
            f"and {printable(shards[0])}: name the shards by a pattern, or the folder of one kind"
        )
    return _of_split(root, shards, split)


def _kinds(shards: Sequence[str]) -> dict[str, str]:
    """Give the first shard of each kind."""
    kinds = {".tar": "shards", ".parquet": "dataset"}
    return {kinds[suffix_of(name)]: name for name in reversed(shards)}


def _is_shard(name: str) -> bool:
    """Tell it of a file's name; metadata of images are none."""
    return suffix_of(name) in SHARD_SUFFIXES and Path(name).name not in METADATA_NAMES


def _of_split(root: Path, shards: list[str], split: str | None) -> list[str]:
    """Leave the shards of one split: of those that name it, else of those that contain it."""
    if split is None:
        chosen = check_one_split(root, shards)
        return [s for s in shards if chosen in {None, named_split(s)}]
    exact = [s for s in shards if named_split(s) == split]
    found = exact or [s for s in shards if split in s]
    if shards and not found:
        raise ValueError(f"split={split!r} is in the name of no shard in {printable(str(root))!r}")
    return found


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
    absent = {p.name for p in paths if not p.is_file()}
    count = len(absent)
    for found in _series(paths):
        number, first = _missing(*found, absent)
        count += number
        absent.update(first)
    if count:
        named = ", ".join(sorted(absent)[:_NAMED]) + (", ..." if count > _NAMED else "")
        raise FileNotFoundError(f"{count} of the shards missing: {named}")
    for path in paths:
        if not _has_end(path):
            raise ValueError(f"shard {path.name!r} is cut short")


def _series(paths: Sequence[Path]) -> dict[tuple[Path, str, str, int, int], None]:
    """Find the numberings of shards: folder, name before and after the number, digits, count."""
    series = {}
    for path in paths:
        if found := _NUMBERED.search(path.name):
            number, count = found.groups()
            head, tail = path.name[: found.start()], path.name[found.end(1) :]
            series[path.parent, head, tail, len(number), int(count)] = None
    return series


def _missing(
    folder: Path, head: str, tail: str, digits: int, count: int, known: Collection[str]
) -> tuple[int, list[str]]:
    """Count the shards of a numbering that are not there, and name the first of them.

    The number that a name claims costs nothing: what is there is listed, not what is not.

    Arguments:
        known: Names that were found missing already, which do not count.
    """
    there = {name for name in os.listdir(folder) if name.startswith(head)} | set(known)  # noqa: PTH208
    names = (head + str(i).zfill(digits) + tail for i in range(count))
    found = [
        name for name in there if name.endswith(tail) and _is_one(name, head, tail, digits, count)
    ]
    first = list(islice((name for name in names if name not in there), _NAMED))
    return max(0, count - len(found)), first


def _is_one(name: str, head: str, tail: str, digits: int, count: int) -> bool:
    """Tell whether a name is head, a number below a count, written so, and tail."""
    number = name[len(head) : len(name) - len(tail)]
    is_number = number.isascii() and number.isdigit()
    return is_number and int(number) < count and str(int(number)).zfill(digits) == number


def _has_end(path: Path) -> bool:
    """Tell whether a file is whole: tar ends in 1024 zero bytes, parquet in its magic word."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1024))
        tail = file.read()
    if path.suffix.lower() == ".parquet":
        return tail.endswith(b"PAR1")
    return size % 512 == 0 and len(tail) == 1024 and not any(tail)
