"""Arrays in memory, .npy, .npz and IDX files, whole and damaged."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import numpy as np
import pytest
from helpers.image_samples import noise, write_idx

from ddpm_pipeline.data.sources.arrays import (
    array_source,
    file_source,
    idx_folder_source,
)
from ddpm_pipeline.data.sources.kinds import data_kind

if TYPE_CHECKING:
    from pathlib import Path

    from ddpm_pipeline.data.sources.source import Source


def images(source: Source) -> np.ndarray:
    return np.stack([source.read(i) for i in range(source.length)])


@pytest.mark.parametrize("shape", [(3, 8, 9), (3, 8, 9, 1), (3, 8, 9, 3), (3, 8, 9, 4)])
def test_channels_last(shape: tuple[int, ...]) -> None:
    values = noise(*shape)
    np.testing.assert_array_equal(images(array_source(values, "x", None)), values)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_first(channels: int) -> None:
    values = noise(5, channels, 8, 9)
    expected = np.moveaxis(values, 1, 3)
    np.testing.assert_array_equal(images(array_source(values, "x", None)), expected)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 8), r"must have shape \(N, H, W\), .* got \(8, 8\)"),
        ((2, 8, 8, 8), r"\(2, 8, 8, 8\) may be .*; give channels"),
        ((2, 8, 0), "must have shape"),
        ((0, 8, 8), "x holds no images"),
        ((2, 3, 8, 3), r"may be \(N, C, H, W\) or \(N, H, W, C\)"),
        ((2, 8, 8, 3, 1), "must have shape"),
    ],
)
def test_shapes_that_are_not_images(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        array_source(np.zeros(shape, np.uint8), "x", None)


@pytest.mark.parametrize("dtype", [complex, "U3", object])
def test_dtypes_that_are_not_images(dtype: object) -> None:
    with pytest.raises(ValueError, match="images must be numbers, got dtype"):
        array_source(np.zeros((2, 8, 8), dtype), "x", None)


def test_npy_is_mapped_not_read(tmp_path: Path) -> None:
    values = noise(4, 8, 8)
    np.save(tmp_path / "x.npy", values)
    source = file_source(tmp_path / "x.npy")
    held = source.read(0)
    while isinstance(held.base, np.ndarray):
        held = held.base
    assert isinstance(held, np.memmap)
    np.testing.assert_array_equal(images(source), values)


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (("images", "labels"), None),
        (("arr_0", "labels"), None),
        (("x_train", "y_train"), None),
        (("x_test", "y_test"), "test"),
        (("images_val", "labels_val"), "val"),
    ],
)
def test_npz_names(tmp_path: Path, names: tuple[str, str], split: str | None) -> None:
    values, labels = noise(4, 8, 8), np.array([2, 0, 1, 1])
    np.savez_compressed(tmp_path / "x.npz", **dict(zip(names, (values, labels), strict=True)))
    source = file_source(tmp_path / "x.npz", split, labels=True)
    np.testing.assert_array_equal(images(source), values)
    np.testing.assert_array_equal(source.labels, labels)


def test_npz_pixels_are_read_when_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=noise(4, 8, 8))
    source = file_source(tmp_path / "x.npz")
    (tmp_path / "x.npz").unlink()
    with pytest.raises(FileNotFoundError):
        source.read(0)


def test_npz_without_images_or_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", pictures=noise(4, 8, 8))
    with pytest.raises(ValueError, match=r"holds \['pictures'\]; images must be one of"):
        file_source(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", images=noise(4, 8, 8))
    with pytest.raises(ValueError, match="labels missing"):
        file_source(tmp_path / "y.npz", labels=True)
    np.savez(tmp_path / "z.npz", images=noise(4, 8, 8), labels=np.arange(3))
    with pytest.raises(ValueError, match=r"labels missing: .* of shape \(3,\)"):
        file_source(tmp_path / "z.npz", labels=True)
    for labels, hint in ((np.zeros((4, 1)), r"\[:, 0\]"), (np.eye(4), r"\.argmax\(1\)")):
        np.savez(tmp_path / "n.npz", images=noise(4, 8, 8), labels=labels)
        message = rf"must have shape \(N,\), one per image, got \(4, .\); .*give labels{hint}$"
        with pytest.raises(ValueError, match=message):
            file_source(tmp_path / "n.npz", labels=True)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize("content", [b"", b"junk", b"\x93NUMPY\x01\x00", b"PK\x03\x04cut"])
def test_damaged_numpy_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}' is not a readable NumPy file"):
        file_source(tmp_path / name)


def test_pickles_are_refused(tmp_path: Path) -> None:
    objects = np.array([[["a"]], [[1]]], dtype=object)
    np.save(tmp_path / "x.npy", objects)
    with pytest.raises(ValueError, match="not a readable NumPy file"):
        file_source(tmp_path / "x.npy")
    np.savez(tmp_path / "x.npz", images=objects)
    with pytest.raises(ValueError, match="Python objects"):
        file_source(tmp_path / "x.npz")


def test_other_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"x.csv' is none of .npy, .npz, .parquet, an IDX file"):
        file_source(tmp_path / "x.csv")


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_idx_folder(tmp_path: Path, packed: str) -> None:
    parts = {"train": noise(6, 5, 4), "t10k": noise(3, 5, 4, seed=1)}
    for part, values in parts.items():
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{packed}", values)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{packed}", values[:, 0, 0] % 10)
    assert data_kind(tmp_path) == "idx"
    for split, part in {None: "train", "train": "train", "test": "t10k", "t10k": "t10k"}.items():
        source = idx_folder_source(tmp_path, split, labels=True)
        np.testing.assert_array_equal(images(source), parts[part])
        np.testing.assert_array_equal(source.labels, parts[part][:, 0, 0] % 10)
    single = file_source(tmp_path / f"t10k-images-idx3-ubyte{packed}", labels=True)
    np.testing.assert_array_equal(images(single), parts["t10k"])
    with pytest.raises(ValueError, match="split='val' must name one images file"):
        idx_folder_source(tmp_path, "val")


def test_idx_without_its_labels(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    write_idx(path, noise(6, 5, 4))
    with pytest.raises(ValueError, match="labels missing: 'train-labels-idx1-ubyte'"):
        file_source(path, labels=True)
    write_idx(tmp_path / "train-labels-idx1-ubyte", noise(5))
    with pytest.raises(ValueError, match="6 images and labels of shape"):
        file_source(path, labels=True)


def test_damaged_idx_files(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    write_idx(path, noise(6, 5, 4))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="is cut short: 119 bytes"):
        file_source(path).read(0)
    path.write_bytes(whole[:7])
    with pytest.raises(ValueError, match="is not a readable IDX file"):
        file_source(path)
    path.write_bytes(gzip.compress(whole)[:-20])
    with pytest.raises(ValueError, match="cut short"):
        file_source(path).read(0)
    path.write_bytes(b"\0\0\x0d\x03" + whole[4:])
    with pytest.raises(ValueError, match="is not an IDX file of unsigned bytes"):
        file_source(path)
    write_idx(path, noise(6, 5))
    with pytest.raises(ValueError, match="not images"):
        file_source(path)
