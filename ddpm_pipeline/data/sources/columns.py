"""Columns of data sets: finding those of images and labels, and reading images out of rows.

    column = find_image_column(data.features, None)
    kind   = image_kind(data.features, column)
    rows   = select_encoded(data, [column], kind)
    image  = kind.read(rows[0][column])              bytes of a file, or an array

Images are files, held or named by a row, or lists of numbers, of the type that the column says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ddpm_pipeline.data.levels import RefusedImageError
from ddpm_pipeline.data.sources.axes import SHAPES, channels_last
from ddpm_pipeline.data.sources.library import import_datasets
from ddpm_pipeline.data.sources.regular_files import read_regular
from ddpm_pipeline.data.sources.row_files import RowFiles
from ddpm_pipeline.data.sources.source import LABEL_NAMES, RawImage

__all__ = [
    "ImageKind",
    "encoded_bytes",
    "find_image_column",
    "find_label_column",
    "image_kind",
    "select_encoded",
]

_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp")


@dataclass(frozen=True)
class ImageKind:
    """How a column holds images.

    Arguments:
        column: Its name.
        dtype: The type of its numbers; "uint8" for files.
        encoded: Whether its images are files.
        read: Takes a value of the column to a raw image.
    """

    column: str
    dtype: str
    encoded: bool
    read: Callable[[Any], RawImage]

    def path(self, value: object) -> str | None:
        """Give the path that a value names, or None."""
        return value.get("path") if self.encoded and isinstance(value, Mapping) else None


def image_kind(
    features: Mapping[str, Any],
    column: str,
    files: RowFiles | None = None,
    channels: int | None = None,
) -> ImageKind:
    """Tell how a column holds images.

    Arguments:
        files: Which files its rows may name; none unless given.
        channels: How many arrays have, where their shape may be read in two ways.
    Raises:
        ValueError: If it holds none.
    """
    feature = features[column]
    if _is_encoded(feature):
        read = partial(encoded_bytes, files=files or RowFiles())
        return ImageKind(column, "uint8", True, read)
    dtype = _dtype_of_lists(feature)
    if dtype is None:
        raise ValueError(f"image_column={column!r} must hold images, and holds {feature}")
    return ImageKind(
        column, dtype, False, partial(_array, dtype=np.dtype(dtype), channels=channels)
    )


def _is_encoded(feature: Any) -> bool:  # noqa: ANN401 (a feature of an optional library)
    """Tell whether a feature is an image file, or bytes, a path, or both."""
    if isinstance(feature, Mapping):
        return {"bytes", "path"} >= set(feature)
    return type(feature).__name__ == "Image" or getattr(feature, "dtype", None) in {
        "binary",
        "large_binary",
        "string",
        "large_string",
    }


def _dtype_of_lists(feature: Any) -> str | None:  # noqa: ANN401
    """Give the type of the numbers in lists of lists, or arrays; None for anything else."""
    if type(feature).__name__.startswith("Array"):
        return feature.dtype
    depth = 0
    while (inner := getattr(feature, "feature", None)) is not None:
        feature, depth = inner, depth + 1
    try:
        dtype = np.dtype(getattr(feature, "dtype", None) or "O")
    except TypeError:
        return None
    return dtype.name if depth and dtype.kind in "buif" else None


def _array(value: Any, dtype: np.dtype, channels: int | None) -> np.ndarray:  # noqa: ANN401
    """Make an array (H, W) or (H, W, C) of lists.

    Raises:
        ValueError: If a row is empty, or its lists are no image.
        RefusedImageError: If its shape may be read in two ways.
    """
    if value is None:
        raise ValueError("no image in this row")
    try:
        values = np.asarray(value, dtype)
    except (ValueError, TypeError) as error:
        raise ValueError("its lists are of different lengths, or hold no numbers") from error
    if values.ndim == 2 and values.size:
        return values
    if values.ndim != 3 or not values.size:
        raise ValueError(f"images must have shape {SHAPES}, got {values.shape}")
    last = channels_last(values.shape, channels)
    if last is None:
        raise RefusedImageError(
            f"shape {values.shape} may be (C, H, W) or (H, W, C); give channels"
        )
    return values if last else values.transpose(1, 2, 0)


def select_encoded(data: Any, columns: Sequence[str], kind: ImageKind) -> Any:  # noqa: ANN401
    """Leave some columns of a data set or stream, image files still encoded."""
    selected = data.select_columns(list(columns))
    if not kind.encoded:
        return selected
    return selected.cast_column(kind.column, import_datasets().Image(decode=False))


def encoded_bytes(value: dict[str, Any] | None, files: RowFiles) -> bytes:
    """Give the bytes of an image file, from a row that holds or names it.

    Raises:
        ValueError: If the row is empty.
        RefusedImageError: If it names a file that is not the data set's.
    """
    if value is None or (value.get("bytes") is None and not value.get("path")):
        raise ValueError("no image in this row")
    if value.get("bytes") is not None:
        return value["bytes"]
    return read_regular(files.find(value["path"]))


def find_image_column(features: Mapping[str, Any], name: str | None = None) -> str:
    """Find the column of images: the named one, the only Image, or one called like images.

    Raises:
        ValueError: If there is none, or more than one.
    """
    return _find_column(features, "image_column", name, "Image", _IMAGE_NAMES)


def find_label_column(features: Mapping[str, Any], name: str | None = None) -> str:
    """Find the column of class labels: the named one, the only ClassLabel, or one called so.

    Raises:
        ValueError: If there is none, or more than one.
    """
    return _find_column(features, "label_column", name, "ClassLabel", LABEL_NAMES)


def _find_column(
    features: Mapping[str, Any], argument: str, name: str | None, kind: str, names: Sequence[str]
) -> str:
    if name is not None:
        if name not in features:
            raise ValueError(f"{argument}={name!r} must be one of {list(features)}")
        return name
    typed = [n for n, feature in features.items() if type(feature).__name__ == kind]
    found = typed or [n for n in features if n.lower() in names]
    if len(found) != 1:
        raise ValueError(f"{argument} must be given, one of {found or list(features)}")
    return found[0]
