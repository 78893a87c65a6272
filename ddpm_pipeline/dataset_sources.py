"""Images from the `datasets` library: data sets on the Hub, in parquet files, or saved to disk.

Images are taken as the encoded bytes that the data set stores, not as what `datasets` decodes.
Shards are local files that are streamed; they are checked for being there and being whole before
the first image is read, and again when reading fails.
"""

import os
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ddpm_pipeline.image_sources import Source, encode_labels, key_of, refuse, stat_key

if TYPE_CHECKING:
    import datasets

__all__ = [
    "check_shards",
    "dataset_source",
    "encoded_bytes",
    "find_image_column",
    "find_label_column",
    "import_datasets",
    "is_dataset_path",
    "load_dataset",
    "open_shards",
]

_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp")
_LABEL_NAMES = ("label", "labels", "class", "cls")
_BUILDERS = {".tar": "webdataset", ".parquet": "parquet"}
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_NUMBERED = re.compile(r"(\d+)-of-(\d+)")
_FILE_SUFFIXES = {".npy", ".npz", ".gz", ".zip", ".tar", ".parquet", ".png", ".jpg"}
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def import_datasets() -> ModuleType:
    """The `datasets` package.

    Raises:
        ImportError: If it is not installed, naming the extra that brings it.
    """
    try:
        return import_module("datasets")
    except ImportError as error:
        raise ImportError(
            "data sets need the `datasets` package: pip install ddpm_pipeline[train]"
        ) from error


def is_dataset_path(path: Path) -> bool:
    """Whether `datasets` opens a path: parquet, a saved data set, or what is not a path here."""
    if path.is_dir():
        saved = any((path / n).is_file() for n in ("state.json", "dataset_dict.json"))
        return saved or any(path.glob("*.parquet")) or any(path.glob("*/*.parquet"))
    return path.suffix.lower() == ".parquet" or not path.exists()


def load_dataset(source: str | os.PathLike, split: str | None = None) -> "datasets.Dataset":
    """Open a local or Hub data set.

    Raises:
        FileNotFoundError: If it is found neither here nor on the Hub.
        ValueError: If it cannot be opened, or has no such split.
    """
    path = Path(source).expanduser()
    file_name = path.suffix.lower() in _FILE_SUFFIXES
    if not path.exists() and (file_name or not _HUB_NAME.fullmatch(os.fspath(source))):
        raise FileNotFoundError(f"{os.fspath(source)!r} does not exist")
    library = import_datasets()
    try:
        if path.is_file():
            data = library.load_dataset("parquet", data_files=str(path))
        elif any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
            data = library.load_from_disk(str(path))
        else:
            data = library.load_dataset(str(path) if path.exists() else os.fspath(source))
    except Exception as error:  # many types, one for each way to be absent or damaged
        reason = (" ".join(str(error).split()) or type(error).__name__)[:300]
        if path.exists():
            raise ValueError(f"{str(path)!r} is not a readable data set: {reason}") from error
        raise FileNotFoundError(
            f"{os.fspath(source)!r} is neither a path here nor a data set on the Hub: {reason}"
        ) from error
    return _choose_split(data, split)


def _choose_split(data: Any, split: str | None) -> "datasets.Dataset":  # noqa: ANN401
    if not isinstance(data, Mapping):
        refuse("a data set without splits", split=split)
        return data
    name = split or ("train" if "train" in data else next(iter(data)) if len(data) == 1 else None)
    if name not in data:
        raise ValueError(f"split={split!r} must be one of {sorted(data)}")
    return data[name]


def dataset_source(
    data: Any,  # noqa: ANN401 (a Dataset or DatasetDict; datasets is optional)
    *,
    labels: bool = False,
    split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Source:
    """The images of a `datasets.Dataset`.

    Arguments:
        split: Which part of a DatasetDict; "train" unless given.
        labels: Whether to read class labels.
        image_column: The only column of images unless given.
        label_column: The only ClassLabel column, or one named label, labels, class or cls.

    Raises:
        TypeError: If the data set is a stream.
        ValueError: If it is empty, a column cannot be found, or labels are missing.
    """
    library = import_datasets()
    if isinstance(data, library.IterableDataset | library.IterableDatasetDict):
        raise TypeError("source is a stream (IterableDataset); open it with open_stream")
    data = _choose_split(data, split)
    if len(data) == 0:
        raise ValueError("the data set holds no images")
    column = find_image_column(data.features, image_column)
    images = data.select_columns([column]).cast_column(column, library.Image(decode=False))
    if labels:
        name = find_label_column(data.features, label_column)
        classes = encode_labels(data[name][:], getattr(data.features[name], "names", None))
    else:
        refuse("images without labels=True", label_column=label_column)
        classes = (None, None)
    return Source(
        len(data),
        lambda i: encoded_bytes(images[i][column]),
        lambda i: f"row {i}",
        key_of(data._fingerprint, column, _outside(images, column)),  # noqa: SLF001 (its only name)
        *classes,
    )


def _outside(images: "datasets.Dataset", column: str) -> str | None:
    """The state of the files that rows point to where the data set does not hold their bytes."""
    if images[0][column] is None or images[0][column]["bytes"] is not None:
        return None
    paths = [Path(row["path"]) for row in images[:][column] if row and row["path"]]
    return stat_key([p for p in paths if p.is_file()])


def encoded_bytes(value: dict[str, Any] | None) -> bytes:
    """The bytes of an image file, from a row that holds or names it.

    Raises:
        ValueError: If the row is empty.
    """
    if value is None or (value.get("bytes") is None and not value.get("path")):
        raise ValueError("no image in this row")
    return value["bytes"] if value.get("bytes") is not None else Path(value["path"]).read_bytes()


def find_image_column(features: Mapping[str, Any], name: str | None = None) -> str:
    """The column of images: the given one, the only one of type Image, or one named like images.

    Raises:
        ValueError: If there is none, or more than one.
    """
    if name is not None:
        return _known(features, "image_column", name)
    typed = [n for n, kind in features.items() if type(kind).__name__ == "Image"]
    found = typed or [n for n in features if n.lower() in _IMAGE_NAMES]
    if len(found) != 1:
        raise ValueError(f"image_column must be given, one of {found or list(features)}")
    return found[0]


def find_label_column(features: Mapping[str, Any], name: str | None = None) -> str:
    """The column of class labels: the given one, the only ClassLabel, or one named like it.

    Raises:
        ValueError: If there is none, or more than one.
    """
    if name is not None:
        return _known(features, "label_column", name)
    typed = [n for n, kind in features.items() if type(kind).__name__ == "ClassLabel"]
    found = typed or [n for n in features if n.lower() in _LABEL_NAMES]
    if len(found) != 1:
        raise ValueError(f"label_column must be given, one of {found or list(features)}")
    return found[0]


def _known(features: Mapping[str, Any], argument: str, name: str) -> str:
    if name not in features:
        raise ValueError(f"{argument}={name!r} must be one of {list(features)}")
    return name


# Streams.


def open_shards(
    source: Any,  # noqa: ANN401 (a path, a name or an IterableDataset; datasets is optional)
    split: str | None = None,
) -> tuple["datasets.IterableDataset", list[str]]:
    """A stream, and the local files behind it, if it is made of those.

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
    data = _choose_split(data, None if shards else split)
    if data.features is None:
        raise ValueError("the stream does not say what its columns are; cast it to Features")
    _refuse_shuffled(data)
    return data, shards


def _find_shards(source: str, split: str | None) -> list[str]:
    """The files that a folder, a pattern or a name with braces stands for, in order."""
    path = Path(source).expanduser()
    if found := _BRACES.search(str(path)):
        first, last = found.groups()
        numbers = [str(i).zfill(len(first)) for i in range(int(first), int(last) + 1)]
        return [str(path)[: found.start()] + n + str(path)[found.end() :] for n in numbers]
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.suffix in _BUILDERS and p.is_file())
        inside = [p for p in inside if split is None or split in str(p.relative_to(path))]
        if split is not None and not inside:
            raise ValueError(f"split={split!r} is in the name of no shard in {str(path)!r}")
        return [str(p) for p in inside]
    if any(c in path.name for c in "*?["):
        if not (matches := sorted(path.parent.glob(path.name))):
            raise FileNotFoundError(f"{str(path)!r} matches no shards")
        return [str(p) for p in matches]
    return [str(path)] if path.suffix in _BUILDERS else []


def check_shards(shards: Sequence[str]) -> None:
    """See that every local shard is there and has its end.

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
    """A tar ends in 1024 zero bytes, a parquet file in its magic word."""
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
            return library.load_dataset("imagefolder", data_dir=str(path), streaming=True)
        if not shards:
            return library.load_dataset(source, streaming=True)
        builders = {_BUILDERS[Path(shard).suffix] for shard in shards}
        if len(builders) > 1:
            raise ValueError(f"it holds shards of {len(builders)} formats")
        files = {"train": list(shards)}
        return library.load_dataset(builders.pop(), data_files=files, streaming=True)
    except Exception as error:  # many types, one for each way to be absent or damaged
        reason = (" ".join(str(error).split()) or type(error).__name__)[:300]
        if shards or path.exists():
            raise ValueError(f"{source!r} cannot be streamed: {reason}") from error
        raise FileNotFoundError(
            f"{source!r} is neither a path here nor a data set on the Hub: {reason}"
        ) from error


def _refuse_shuffled(data: "datasets.IterableDataset") -> None:
    """A shuffle buffer of `datasets` is lost when a run is resumed."""
    layer = data._ex_iterable  # noqa: SLF001 (there is no public way to ask)
    while layer is not None:
        if type(layer).__name__ == "BufferShuffledExamplesIterable":
            raise ValueError(
                "the stream has a shuffle buffer of its own, which cannot be resumed exactly; "
                "pass it unshuffled and set shuffle_buffer"
            )
        layer = getattr(layer, "ex_iterable", None)
