"""Values that are kept as deep as they are, from the file to the batch."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from helpers.image_samples import encoded, noise, write_folder
from PIL import Image

from ddpm_pipeline.data.images import ImageData, open_images
from ddpm_pipeline.data.pixels import mirrored
from ddpm_pipeline.data.value_range import with_scale

if TYPE_CHECKING:
    from pathlib import Path

DEPTHS = {
    "uint8": lambda z: (z * 30 + 128).clip(0, 255),
    "uint16": lambda z: (z * 9000 + 30000).clip(0, 65535),
    "int16": lambda z: (z * 9000).clip(-32768, 32767),
    "float16": lambda z: z * 100 + 3,
    "float32": lambda z: z * 1e-3 + 300,
}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "cache"))


def values_of(dtype: str, count: int = 10) -> np.ndarray:
    return DEPTHS[dtype](np.random.default_rng(0).normal(size=(count, 6, 10, 5))).astype(dtype)


def exact(source: object, **options: object) -> ImageData:
    return open_images(source, depth="exact", progress=False, **{"resolution": (6, 10)} | options)


@pytest.mark.parametrize("dtype", DEPTHS)
def test_the_cache_holds_the_values_of_the_file(dtype: str, tmp_path: Path) -> None:
    values = values_of(dtype)
    np.save(tmp_path / "x.npy", values)
    planar = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    for _ in range(2):  # built, and opened again
        data = exact(tmp_path / "x.npy", verify_cache=True)
        assert data.values.dtype == getattr(torch, dtype)
        assert np.array_equal(data.batch(range(10)).images.numpy(), planar)
    (stored,) = (tmp_path / "cache").glob("*/pixels.*")
    assert stored.suffix == {"uint8": ".u8", "int16": ".i16"}.get(
        dtype, f".{dtype[0]}{dtype[-2:]}"
    )
    assert hashlib.sha256(stored.read_bytes()).digest() == hashlib.sha256(planar).digest()
    in_memory = exact(values)
    assert np.array_equal(in_memory.batch(range(10)).images.numpy(), planar)
    assert (data.scale is None) == (dtype == "uint8")
    assert in_memory.scale == data.scale


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float16", "float32"])
def test_the_scale_is_that_of_the_values(dtype: str) -> None:
    values = values_of(dtype)
    data = exact(values)
    flat = values.reshape(-1, 5).astype(np.longdouble)
    mean, std = flat.mean(0).astype(float), flat.std(0).astype(float)
    assert np.allclose(data.scale.center, mean, rtol=1e-6, atol=0)
    assert np.allclose(data.scale.unit, 2 * std, rtol=1e-5, atol=0)
    x = data.model_values(data.batch(range(10)).images)
    assert x.mean((0, 2, 3)).abs().max() < 0.01
    assert torch.allclose(x.std((0, 2, 3)), torch.full((5,), 0.5), atol=1e-3)
    assert data.scale.largest == pytest.approx(x.abs().max().item(), rel=1e-5)
    assert np.array_equal(data.scale.to_values(x), values) or dtype.startswith("float")
    ranged = exact(values.clip(0, None), value_range=(0, 65535))
    assert ranged.scale.unit == (32767.5,) * 5
    assert ranged.fingerprint == exact(values.clip(0, None)).fingerprint  # the same values


def test_files_of_16_bits_are_kept(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (3, 8, 12)).astype(np.uint16)
    files = {f"{i}.png": encoded(p) for i, p in enumerate(pixels)}
    write_folder(tmp_path / "x", files)
    data = exact(tmp_path / "x", resolution=(8, 12))
    assert np.array_equal(data.batch(range(3)).images.numpy()[:, 0], pixels)
    buffer = io.BytesIO()
    floats = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
    Image.fromarray(floats).save(buffer, "tiff")
    write_folder(tmp_path / "y", {"a.tif": buffer.getvalue()})
    data = exact(tmp_path / "y", resolution=(8, 12))
    assert np.array_equal(data.batch([0]).images.numpy()[0, 0], floats)


def test_depths_and_channels_are_not_mixed(tmp_path: Path) -> None:
    deep = noise(1, 8, 8)[0].astype(np.uint16) * 257
    write_folder(tmp_path / "x", {"a.png": encoded(deep), "b.png": encoded(noise(1, 8, 8)[0])})
    with pytest.raises(ValueError, match=r"one type, got 1 of uint16 \(a.png\), 1 of uint8 \(b"):
        exact(tmp_path / "x", resolution=8)
    with pytest.raises(ValueError, match="depth='exact' keeps uint8, "):
        exact(np.zeros((2, 8, 8)), resolution=8)


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "NaN"), (np.inf, "an infinite value")])
def test_what_is_no_number_is_named_by_file_and_place(value: float, kind: str) -> None:
    values = values_of("float32")
    values[3, 2, 7, 4] = values[3, 5, 1, 1] = value
    message = rf"array\[3\]: it holds {kind} at row 2, column 7, channel 4; 2 of 300 values"
    with pytest.raises(ValueError, match=message):
        exact(values)


def test_values_outside_the_range_are_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = values_of("uint16").clip(100, 60000)
    values[2, 0, :3, 0], values[7, 1, 1, 1] = 60001, 99
    options = {"value_range": (100, 60000)}
    message = (
        r"4 values of 2 of 10 images are outside 100 … 60000 \(the array\[2\]: 3, the array\[7\]: "
        r"1\); all are 99 … 60001: widen value_range, or let outside_range='clip'"
    )
    with pytest.raises(ValueError, match=message):
        exact(values, **options)
    data = exact(values, outside_range="clip", **options)
    assert "4 values of 2 of 10 images are outside" in caplog.text
    assert data.model_values(data.batch(range(10)).images).abs().max() <= 1
    assert data.scale.largest == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match="outside_range must be one of refuse, clip"):
        exact(values, outside_range="wrap", **options)


def test_images_of_a_model_have_its_scale() -> None:
    train, other = exact(values_of("uint16")), exact(values_of("uint16", 4) // 2)
    assert with_scale(other, train.scale, "data").scale == train.scale
    with pytest.raises(
        ValueError, match="data has images of float32, kept exactly, and the model"
    ):
        with_scale(exact(values_of("float32")), train.scale, "data")
    with pytest.raises(ValueError, match="kept as bytes, and the model was trained on exact uint"):
        with_scale(exact(values_of("uint8")), train.scale, "data")
    with pytest.raises(ValueError, match="the model was trained on bytes"):
        with_scale(train, None, "data")
    coarse = exact(values_of("uint16") // 16 * 16)
    with pytest.raises(ValueError, match="values in 10 images that are no multiples"):
        with_scale(train, coarse.scale, "data")


def test_16_bits_are_mirrored() -> None:
    images = torch.from_numpy(values_of("uint16").transpose(0, 3, 1, 2).copy())
    found = mirrored(images, torch.tensor([1, 0] * 5))
    assert np.array_equal(found.numpy()[::2], images.numpy()[::2, ..., ::-1])
    assert np.array_equal(found.numpy()[1::2], images.numpy()[1::2])


def test_a_changed_byte_of_a_deep_cache_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "x.npy", values_of("uint16"))
    exact(tmp_path / "x.npy")
    (stored,) = (tmp_path / "cache").glob("*/pixels.u16")
    content = bytearray(stored.read_bytes())
    content[100] ^= 1
    stored.write_bytes(bytes(content))
    data = exact(tmp_path / "x.npy", verify_cache=True)
    assert "building it again" in caplog.text
    planar = values_of("uint16").transpose(0, 3, 1, 2)
    assert np.array_equal(data.batch(range(10)).images.numpy(), planar)


def test_what_is_resized_keeps_its_type() -> None:
    data = exact(values_of("int16"), resolution=(3, 5))
    assert data.changes == {"resized": 10}
    assert data.values.dtype == torch.int16
