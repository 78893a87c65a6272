"""Finding the source behind whatever a caller named, and the classes of its images.

source  = find_source("photos/", split=None, labels=True, image_column=None, label_column=None)
classes = count_classes(source, num_classes=None)
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from ddpm_pipeline.common import at_home, check_data
from ddpm_pipeline.data.findings import Named, describe_named, printable
from ddpm_pipeline.data.sources.arrays import array_source, file_source, idx_folder_source
from ddpm_pipeline.data.sources.datasets import dataset_source, load_dataset
from ddpm_pipeline.data.sources.folders import folder_source
from ddpm_pipeline.data.sources.kinds import data_kind
from ddpm_pipeline.data.sources.row_files import LoadedDataset, files_of_source
from ddpm_pipeline.data.sources.source import Source, check_label_shape, encode_labels, refuse
from ddpm_pipeline.data.sources.stacks import NO_STACKS

__all__ = ["count_classes", "find_source", "report_unread", "with_labels"]

logger = logging.getLogger(__name__)


def find_source(  # noqa: PLR0911 (one for each kind)
    source: object,
    split: str | None,
    labels: bool,
    image_column: str | None,
    label_column: str | None,
    channels: int | None = None,
    stack_pattern: str | None = None,
) -> Source:
    """Find the source behind whatever the caller named.

    The channels tell how an array is to be read whose shape may be read in two ways. The pattern
    is of files of a folder that are one image together, or "none".
    """
    columns = {"image_column": image_column, "label_column": label_column}
    stacks = {"stack_pattern": None if stack_pattern == NO_STACKS else stack_pattern}
    if isinstance(source, Tensor):
        source = source.numpy(force=True)
    if isinstance(source, np.ndarray):
        refuse("an array", split=split, labels=labels or None, **columns, **stacks)
        return array_source(source, "the array", None, channels=channels)
    if isinstance(source, LoadedDataset):
        refuse("a data set", **stacks)
        own = {"files": source.files, "channels": channels, **columns}
        return dataset_source(source.data, labels=labels, split=split, **own)
    if type(source).__module__.split(".")[0] == "datasets":
        refuse("a data set", **stacks)
        own = {"channels": channels, **columns}
        return dataset_source(source, labels=labels, split=split, **own)
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            "source must be a path, a data set's name, an array or a datasets.Dataset, "
            f"got {type(source).__name__}"
        )
    path = Path(at_home("source", source))
    kind = data_kind(path)
    if kind not in {"images", "nothing"}:
        check_data("source", os.fspath(source))
        refuse(f"{printable(str(path))!r}, which is no folder of images", **stacks)
    if kind == "dataset":
        data = load_dataset(source, split)
        own = {"files": files_of_source(source), "channels": channels, **columns}
        return dataset_source(data, labels=labels, **own)
    refuse(repr(printable(str(path))), image_column=image_column)
    if kind in {"images", "shards", "nothing"}:
        return folder_source(path, split, labels, label_column, **stacks)
    refuse(repr(printable(str(path))), label_column=label_column)
    if kind == "file":
        return file_source(path, split, labels, channels)
    return idx_folder_source(path, split, labels)


def with_labels(found: Source, labels: Sequence[int] | Sequence[str]) -> Source:
    """Give a source the caller's labels."""
    if isinstance(labels, Tensor | np.ndarray | np.generic):
        check_label_shape(labels.shape)
        labels = labels.tolist()
    values = list(labels)
    if len(values) != found.length:
        raise ValueError(f"labels missing: {len(values)} labels for {found.length} images")
    encoded, names = encode_labels(values, None)
    return replace(found, labels=encoded, class_names=names)


def count_classes(found: Source, num_classes: int | None) -> int | None:
    """Count the classes, and check the number against what the caller expects."""
    if found.labels is None:
        if num_classes is not None:
            raise ValueError(f"num_classes={num_classes} needs labels=True")
        return None
    named = None if found.class_names is None else len(found.class_names)
    seen = int(found.labels.max()) + 1
    if named is not None and seen > named:
        raise ValueError(f"there is a label {seen - 1} but only {named} class names")
    if num_classes is not None and (num_classes < seen or num_classes != (named or num_classes)):
        raise ValueError(f"num_classes={num_classes}, but the labels have {named or seen} classes")
    return num_classes or named or seen


def report_unread(unread: Mapping[str, Named], strict: bool) -> None:
    """Warn of files that may be images and are not read, or refuse them."""
    if not unread:
        return
    count = sum(named.count for named in unread.values())
    report = (
        f"{count} files are not read, as their suffixes are none that Pillow knows: "
        f"{describe_named(unread)}"
    )
    if strict:
        raise ValueError(f"{report}; strict refuses that")
    logger.warning("%s", report)
