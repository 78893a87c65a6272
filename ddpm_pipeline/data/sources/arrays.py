"""Images from arrays: in memory, in .npy and .npz files, and in IDX files, the format of MNIST.

    (N, H, W), (N, H, W, C) or (N, C, H, W); axes.py tells which

Files are read or mapped into memory when the first image is asked for; finding them reads headers
and labels only.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ddpm_pipeline.common import stat_key
from ddpm_pipeline.data.sources.axes import channels_last
from ddpm_pipeline.data.sources.idx_files import later_idx
from ddpm_pipeline.data.sources.kinds import IDX_PATTERN
from ddpm_pipeline.data.sources.later import LaterArray
from ddpm_pipeline.data.sources.numpy_files import NumpyArchive, map_npy
from ddpm_pipeline.data.sources.source import Source, check_label_shape, encode_labels, refuse

__all__ = ["array_source", "check_suffix", "choose_idx", "file_source", "idx_folder_source"]


def file_source(
    path: Path, split: str | None = None, labels: bool = False, channels: int | None = None
) -> Source:
    """Find the images in one .npy, .npz or IDX file.

    Arguments:
        channels: How many the images have, where the shape may be read in two ways.
        split: For .npz: read `images_{split}` or `x_{split}` in place of `images`, `x`, `x_train`
            or `arr_0`.
        labels: Whether to read class labels: `labels` or `y` with the same ending, or the labels
            file beside an IDX file.

    Raises:
        ValueError: If the file cannot be read, holds no such array, or one that is not images.
    """
    check_suffix(path)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        refuse("a .npy file, which holds images only", split=split, labels=labels or None)
        return array_source(map_npy(path), path.name, stat_key([path]), channels=channels)
    if suffix == ".npz":
        return _npz_source(path, split, labels, channels)
    refuse("an IDX file", split=split)
    return _idx_source(path, labels)


def check_suffix(path: Path) -> None:
    """Refuse a file that its name tells to be no array.

    Raises:
        ValueError: If it is none of those that ``file_source`` reads.
    """
    if path.suffix.lower() not in {".npy", ".npz"} and "idx" not in path.name:
        raise ValueError(
            f"{str(path)!r} is none of .npy, .npz, .parquet, an IDX file or a folder of images"
        )


def _npz_source(path: Path, split: str | None, labels: bool, channels: int | None) -> Source:
    with NumpyArchive(path) as archive:
        names = archive.names
        suffix = f"_{split}" if split else ""
        wanted = [f"images{suffix}", f"x{suffix}", *([] if split else ["x_train", "arr_0"])]
        if (images := next((n for n in wanted if n in names), None)) is None:
            raise ValueError(f"{str(path)!r} holds {names}; images must be one of {wanted}")
        later, values = archive.later(images), None
        if labels:
            tail = images.partition("_")[2] if images != "arr_0" else ""
            wanted = [stem + (f"_{tail}" if tail else "") for stem in ("labels", "y")]
            if (found := next((n for n in wanted if n in names), None)) is None:
                raise ValueError(f"labels missing: {str(path)!r} holds {names}, none of {wanted}")
            values = archive.later(found)
    found = array_source(later, path.name, stat_key([path], images), values, channels)
    return replace(
        found,
        column=partial(_array, path),
        pictures=partial(_pictures, path),
        picture_columns=names,
    )


def _array(path: Path, name: str, option: str) -> np.ndarray:
    """Read another array of a .npz file."""
    with NumpyArchive(path) as archive:
        if name not in archive.names:
            raise ValueError(f"{option}={name!r} must be one of {archive.names}")
        return archive.later(name)[:]


def _pictures(path: Path, name: str) -> Source:
    """Find other images of a .npz file."""
    array = _array(path, name, "condition_on")
    return array_source(array, f"{path.name}, {name}", stat_key([path], name))


def array_source(
    array: np.ndarray | LaterArray,
    name: str,
    key: str | None,
    labels: np.ndarray | LaterArray | None = None,
    channels: int | None = None,
) -> Source:
    """Make a source of one array (N, H, W), (N, H, W, C) or (N, C, H, W).

    Arguments:
        channels: How many the images have, where the shape may be read in two ways.
    Raises:
        ValueError: If the shape is another one or fits two of these, or labels do not number N.
    """
    if array.dtype.kind not in "buif":
        raise ValueError(f"{name}: images must be numbers, got dtype {array.dtype}")
    last = _channels_last(array.shape, name, channels)

    def read(i: int) -> np.ndarray:
        return array[i] if last else array[i].transpose(1, 2, 0)

    classes = (None, None)
    if labels is not None:
        check_label_shape(labels.shape)
        if labels.shape != array.shape[:1]:
            raise ValueError(
                f"labels missing: {name} has {array.shape[0]} images and labels of shape "
                f"{tuple(labels.shape)}"
            )
        classes = encode_labels(labels[:].tolist(), None)
    return Source(
        array.shape[0], read, lambda i: f"{name}[{i}]", key, *classes, dtype=str(array.dtype)
    )


def _channels_last(shape: tuple[int, ...], name: str, channels: int | None) -> bool:
    """Tell whether the channels of N images are their last axis, or are none."""
    allowed = "(N, H, W), (N, H, W, C) or (N, C, H, W)"
    if len(shape) not in {3, 4} or 0 in shape[1:]:
        raise ValueError(f"{name}: images must have shape {allowed}, got {tuple(shape)}")
    if shape[0] == 0:
        raise ValueError(f"{name} holds no images: shape {tuple(shape)}")
    if len(shape) == 3:
        return True
    last = channels_last(shape[1:], channels)
    if last is None:
        raise ValueError(
            f"{name}: shape {tuple(shape)} may be (N, C, H, W) or (N, H, W, C); give channels"
        )
    return last


def idx_folder_source(folder: Path, split: str | None = None, labels: bool = False) -> Source:
    """Find the images of one split in a folder of IDX files, packed with gzip or not.

    Arguments:
        split: "train" unless given; "test" also finds "t10k".
        labels: Whether to read class labels from the file beside them.

    Raises:
        ValueError: If the split does not name exactly one images file, or a file is damaged.
    """
    return _idx_source(choose_idx(folder, split), labels)


def _idx_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob(IDX_PATTERN) if p.is_file())


def choose_idx(folder: Path, split: str | None) -> Path:
    """Find the images file of a split; an unpacked file comes before its .gz.

    Raises:
        ValueError: If there is none, or more than one.
    """
    parts = ("t10k", "test") if split in {"test", "t10k"} else (split or "train",)
    found = [p for p in _idx_files(folder) if any(part in p.name for part in parts)]
    if len({p.name.removesuffix(".gz") for p in found}) != 1:
        names = [p.name for p in _idx_files(folder)]
        raise ValueError(
            f"split={split or 'train'!r} must name one images file of {str(folder)!r}: {names}"
        )
    return found[0]


def _idx_source(path: Path, labels: bool) -> Source:
    later, values = later_idx(path), None
    shape = later.shape
    if len(shape) not in {3, 4}:
        raise ValueError(f"{str(path)!r} holds an array of shape {shape}, not images")
    if labels:
        name = path.name.replace("images", "labels").replace(f"idx{len(shape)}", "idx1")
        pair = [path.with_name(name), path.with_name(name.removesuffix(".gz") + ".gz")]
        pair = [p for p in (*pair, path.with_name(name.removesuffix(".gz"))) if p.is_file()]
        if not pair or pair[0] == path:
            raise ValueError(f"labels missing: {name!r} is not beside {str(path)!r}")
        values = later_idx(pair[0])
    return array_source(later, path.name, stat_key([path]), values)
