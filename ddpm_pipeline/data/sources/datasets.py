"""Images from the `datasets` library: data sets on the Hub, in parquet files, or saved to disk.

    data   = load_dataset("ylecun/mnist", split="test")
    source = dataset_source(data, labels=True)

Images are taken as the encoded bytes that the data set stores, not as what `datasets` decodes.
How columns are read is in columns.py.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_pipeline.common import check_data, key_of, stat_key
from ddpm_pipeline.data.levels import RefusedImageError
from ddpm_pipeline.data.sources.columns import (
    find_image_column,
    find_label_column,
    image_kind,
    select_encoded,
)
from ddpm_pipeline.data.sources.kinds import suffix_of, walk
from ddpm_pipeline.data.sources.library import (
    absent_data_set,
    content_key,
    import_datasets,
    plain_path,
)
from ddpm_pipeline.data.sources.regular_files import check_regular
from ddpm_pipeline.data.sources.row_files import RowFiles
from ddpm_pipeline.data.sources.source import Source, encode_labels, one_line, refuse
from ddpm_pipeline.data.sources.splits import check_one_split

if TYPE_CHECKING:
    import datasets

__all__ = [
    "choose_split",
    "dataset_source",
    "load_dataset",
]


def load_dataset(source: str | os.PathLike, split: str | None = None) -> "datasets.Dataset":
    """Open a local or Hub data set.

    Raises:
        FileNotFoundError: If it is found neither here nor on the Hub.
        ValueError: If it cannot be opened, or has no such split.
    """
    path = Path(source).expanduser()
    check_data("source", os.fspath(source))
    library = import_datasets()
    if path.is_dir():
        check_regular(folder / entry.name for _, folder, found in walk(path) for entry in found)
        if split is None:
            _check_files(path)
    try:
        if path.is_file():
            data = library.load_dataset("parquet", data_files=plain_path(path))
        elif any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
            data = library.load_from_disk(plain_path(path))
        elif path.is_dir():
            data = library.load_dataset(plain_path(path))
        else:
            data = library.load_dataset(os.fspath(source))
    except Exception as error:  # many types, one for each way to be absent or damaged
        if path.exists():
            reason = one_line(error)[:300]
            raise ValueError(f"{str(path)!r} is not a readable data set: {reason}") from error
        raise absent_data_set(os.fspath(source), error) from error
    return choose_split(data, split)


def _check_files(root: Path) -> None:
    """Refuse parquet files of which `datasets` would leave out those that say no split.

    A README.md, which may say what belongs to which split, has the last word.
    """
    if not (root / "README.md").is_file():
        files = [prefix + entry.name for prefix, _, found in walk(root) for entry in found]
        check_one_split(root, [name for name in files if suffix_of(name) == ".parquet"])


def choose_split(data: Any, split: str | None) -> "datasets.Dataset":  # noqa: ANN401
    """Give one part of a data set: the named one, else "train", else the only one.

    Raises:
        ValueError: If there is no such part.
    """
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
    files: RowFiles | None = None,
    channels: int | None = None,
) -> Source:
    """Make a source of a `datasets.Dataset`.

    Arguments:
        files: Which files its rows may name; any unless given, as of the caller's own data set.
        channels: How many arrays have, where their shape may be read in two ways.
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
    data = choose_split(data, split)
    if len(data) == 0:
        raise ValueError("the data set holds no images")
    column = find_image_column(data.features, image_column)
    files = files or RowFiles(anywhere=True)
    kind = image_kind(data.features, column, files, channels)
    images = select_encoded(data.with_format(None), [column], kind)
    if labels:
        name = find_label_column(data.features, label_column)
        values = data.with_format(None)[name][:]
        classes = encode_labels(values, getattr(data.features[name], "names", None))
    else:
        refuse("images without labels=True", label_column=label_column)
        classes = (None, None)
    return Source(
        len(data),
        lambda i: kind.read(images[i][column]),
        lambda i: f"row {i}",
        key_of(
            content_key(data), column, _outside(images, column, files) if kind.encoded else None
        ),
        *classes,
        dtype=kind.dtype,
        split=str(data.split) if data.split is not None else None,
        labels_from=f"column {name!r}" if labels else None,
        column=partial(_column, data),
        pictures=lambda name: dataset_source(data, image_column=name, files=files),
        picture_columns=list(data.features),
    )


def _column(data: "datasets.Dataset", name: str, option: str) -> list[Any]:
    """Give the values of a column."""
    if name not in data.features:
        raise ValueError(f"{option}={name!r} must be one of {list(data.features)}")
    return data.with_format(None)[name][:]


def _outside(images: "datasets.Dataset", column: str, files: RowFiles) -> str | None:
    """Give the state of the files that rows name, None if the rows hold their bytes."""
    if images[0][column] is None or images[0][column]["bytes"] is not None:
        return None
    names = [row["path"] for row in images[:][column] if row and row["path"]]
    paths = []
    for name in names:
        with suppress(RefusedImageError):  # which reading it says
            paths.append(files.find(name))
    return stat_key([p for p in paths if p.is_file()])
