"""Columns of images in every form: files, bytes, paths and lists of numbers of every type."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.image_samples import encoded, noise, write_tar
from helpers.raw_images import png, tiff

from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.sources.columns import image_kind
from ddpm_pipeline.data.streams import open_stream

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("quiet_datasets")

TYPES = {
    "uint8": (0, 255),
    "int8": (-128, 127),
    "uint16": (0, 65535),
    "int32": (0, 255),
    "int64": (0, 255),
    "float32": (0, 1),
    "float64": (-1, 1),
}
LEVELS = noise(4, 8, 8)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "cache"))


def stored(dtype: str) -> np.ndarray:
    """The levels as numbers of a type, on its range."""
    low, high = TYPES[dtype]
    return (low + LEVELS.astype(np.float64) * (high - low) / 255).round(12).astype(dtype)


def both(source: object, **options: Any) -> list[np.ndarray]:
    """The images of a source, opened and streamed."""
    data = open_images(source, resolution=8, progress=False, **options)
    stream = open_stream(
        source, resolution=8, batch_size=4, channels=1, shuffle_buffer=0, **options
    )
    return [data.batch(range(4)).images[:, 0].numpy(), next(stream).images[:, 0].numpy()]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", ["hw", "hwc", "chw"])
def test_lists_of_numbers(dtype: str, layout: str, tmp_path: Path) -> None:
    values, depth = stored(dtype), 2 if layout == "hw" else 3
    if layout != "hw":
        values = values[..., None] if layout == "hwc" else values[:, None]
    kind: pa.DataType = pa.from_numpy_dtype(dtype)
    for _ in range(depth):
        kind = pa.list_(kind)
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": pa.array(values.tolist(), kind)}), path)
    if dtype != "uint8":
        for call in (open_images, open_stream):
            more = {"batch_size": 4} if call is open_stream else {"progress": False}
            with pytest.raises(
                ValueError, match=rf"{dtype} images need value_range=\(low, high\)"
            ):
                call(path, resolution=8, **more)
    for found in both(path, value_range=None if dtype == "uint8" else TYPES[dtype]):
        np.testing.assert_allclose(found, LEVELS, atol=dtype == "int8")


def test_arrays_of_a_fixed_shape() -> None:
    features = datasets.Features({"image": datasets.Array2D((8, 8), "uint8")})
    data = datasets.Dataset.from_dict({"image": list(LEVELS)}, features=features)
    for form in (data, data.with_format("numpy"), data.with_format("torch")):
        found = open_images(form, resolution=8, progress=False)
        np.testing.assert_array_equal(found.batch(range(4)).images[:, 0], LEVELS)


@pytest.mark.parametrize("dtype", [*TYPES, "bool", "uint32", "float16", ">i2", ">f4"])
def test_npy(dtype: str, tmp_path: Path) -> None:
    if dtype in TYPES:
        values, value_range = stored(dtype), TYPES[dtype]
    else:
        values, value_range = (LEVELS > 100).astype(dtype), (0, 1)
    np.save(tmp_path / "x.npy", values)
    options = {} if dtype in {"uint8", "bool"} else {"value_range": value_range}
    data = open_images(tmp_path / "x.npy", resolution=8, progress=False, **options)
    expected = LEVELS if dtype in TYPES else 255 * (LEVELS > 100)
    np.testing.assert_allclose(data.batch(range(4)).images[:, 0], expected, atol=dtype == "int8")
    if not options:
        return
    with pytest.raises(ValueError, match="images need value_range"):
        open_images(tmp_path / "x.npy", resolution=8, progress=False)


DEEP = np.uint16(LEVELS) * 257
FILES = {
    "8-bit PNG": ([encoded(v) for v in LEVELS], "png"),
    "16-bit PNG": ([encoded(v) for v in DEEP], "png"),
    "16-bit PNG with opacity": (
        [png(np.stack([v, v * 0 + 65535], 2), 16, "grey+alpha") for v in DEEP],
        "png",
    ),
    "12-bit TIFF": (
        [tiff(np.rint(v[..., None] / 65535 * 4095).astype(int), 12) for v in DEEP],
        "tif",
    ),
    "white is zero": ([tiff(65535 - v[..., None], 16, polarity=0) for v in DEEP], "tif"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("container", ["Image", "binary", "struct", "path", "tar"])
def test_files_in_every_container(kind: str, container: str, tmp_path: Path) -> None:
    files, suffix = FILES[kind]
    if container == "tar":
        write_tar(tmp_path / "x.tar", {f"{i}.{suffix}": file for i, file in enumerate(files)})
        stream = open_stream(
            tmp_path / "x.tar", resolution=8, batch_size=4, channels=1, shuffle_buffer=0
        )
        np.testing.assert_array_equal(next(stream).images[:, 0], LEVELS)
        return
    path = tmp_path / "x.parquet"
    if container == "Image":
        rows = [{"bytes": file, "path": None} for file in files]
        features = datasets.Features({"image": datasets.Image()})
        datasets.Dataset.from_dict({"image": rows}, features=features).to_parquet(path)
    else:
        rows: list[Any] = files
        if container == "struct":
            rows = [{"bytes": file, "path": f"{i}"} for i, file in enumerate(files)]
        elif container == "path":
            rows = [f"{i}.{suffix}" for i in range(4)]
            for name, file in zip(rows, files, strict=True):
                (tmp_path / name).write_bytes(file)
        pq.write_table(pa.table({"image": pa.array(rows)}), path)
    for found in both(path):
        np.testing.assert_array_equal(found, LEVELS)


def test_columns_that_hold_no_images() -> None:
    for feature in (datasets.Value("int64"), datasets.ClassLabel(num_classes=2)):
        with pytest.raises(ValueError, match=r"image_column='x' must hold images, and holds"):
            image_kind({"x": feature}, "x")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[[1, 2], [3]]], "lists are of different lengths"),
        ([[[[1] * 3] * 8] * 3], r"shape \(3, 8, 3\) may be \(C, H, W\) or \(H, W, C\)"),
        ([[[[1] * 8] * 8] * 8], r"shape \(8, 8, 8\) may be .*; give channels"),
        ([None], "no image in this row"),
    ],
)
def test_lists_that_are_no_image(rows: list, message: str) -> None:
    depth = 3 if rows[0] and isinstance(rows[0][0][0], list) else 2
    kind: pa.DataType = pa.uint8()
    for _ in range(depth):
        kind = pa.list_(kind)
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": pa.array(rows, kind)}), buffer)
    data = datasets.Dataset(pq.read_table(buffer))
    with pytest.raises(ValueError, match=message):
        open_images(data, resolution=8, progress=False)
