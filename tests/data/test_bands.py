"""Arrays of any number of channels, and images that are not square, of any source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from helpers.image_samples import encoded, noise, write_folder
from PIL import Image

from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.loader import ImageLoader
from ddpm_pipeline.data.streams import open_stream

if TYPE_CHECKING:
    from pathlib import Path

VALUES = noise(6, 48, 80, 7)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", ["array", "npy", "npz", "first"])
def test_seven_bands_of_48_by_80_come_out_as_they_went_in(kind: str, tmp_path: Path) -> None:
    source: object = VALUES.transpose(0, 3, 1, 2) if kind == "first" else VALUES
    if kind == "npy":
        np.save(tmp_path / "x.npy", VALUES)
        source = tmp_path / "x.npy"
    if kind == "npz":
        np.savez(tmp_path / "x.npz", images=VALUES)
        source = tmp_path / "x.npz"
    for _ in range(2):  # built, and opened again
        data = open_images(source, resolution=(48, 80), progress=False)
        assert data.shape == (6, 7, 48, 80)
        assert not data.changes
        batch = data.batch(range(6)).images
        assert torch.equal(batch, torch.from_numpy(VALUES).permute(0, 3, 1, 2))


def test_every_band_is_scaled_as_a_picture_of_it_alone() -> None:
    data = open_images(VALUES, resolution=(24, 32), progress=False)
    assert data.changes == {"resized": 6, "cropped": 6}
    for band in range(7):
        picture = Image.fromarray(VALUES[0, ..., band]).resize((40, 24), Image.Resampling.BICUBIC)
        expected = np.asarray(picture)[:, 4:36]
        assert np.array_equal(data.batch([0]).images[0, band].numpy(), expected)


def test_bands_are_padded_with_zeros_or_a_grey() -> None:
    for background, level in ((None, 0), ("#808080", 128)):
        data = open_images(
            VALUES, resolution=(50, 84), fit="pad", background=background, progress=False
        )
        image = data.batch([1]).images[0]
        assert (image[:, 0] == level).all()
        assert torch.equal(image[:, 1:49, 2:82], torch.from_numpy(VALUES[1]).permute(2, 0, 1))
    with pytest.raises(ValueError, match="is no value of 7 channels"):
        open_images(VALUES, resolution=84, fit="pad", background="red", progress=False)


def test_random_windows_of_bands_have_the_sides_and_are_in_the_image() -> None:
    data = open_images(VALUES, resolution=(48, 32), crop="random", progress=False)
    images = next(ImageLoader(data, batch_size=6)).images
    assert images.shape == (6, 7, 48, 32)
    wide = torch.from_numpy(VALUES).permute(0, 3, 1, 2).unfold(3, 32, 1).movedim(3, 1)
    for image in images:
        assert (wide == image).flatten(2).all(2).any()


def test_files_and_streams_are_cut_to_height_and_width(tmp_path: Path) -> None:
    pixels = noise(3, 20, 36, 3)
    write_folder(tmp_path / "x", {f"{i}.png": encoded(pixels[i]) for i in range(3)})
    data = open_images(tmp_path / "x", resolution=(20, 30), progress=False)
    expected = torch.from_numpy(pixels[:, :, 3:33]).permute(0, 3, 1, 2)
    assert torch.equal(data.batch([0, 1, 2]).images, expected)
    options = {"resolution": (20, 30), "batch_size": 3, "shuffle_buffer": 0}
    stream = open_stream(tmp_path / "x", **options)
    assert torch.equal(next(stream).images.sort(0).values, expected.sort(0).values)
    stream.close()


def test_channels_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it has 7 channels, not channels=5"):
        open_images(VALUES, resolution=(48, 80), channels=5, progress=False)
    write_folder(tmp_path / "x", {"a.png": encoded(noise(1, 8, 8, 3)[0])})
    with pytest.raises(ValueError, match="a picture of 3 channels, not channels=7"):
        open_images(tmp_path / "x", resolution=8, channels=7, progress=False)


def test_the_callers_channels_tell_which_axis_they_are() -> None:
    cube = noise(2, 12, 12, 12)
    with pytest.raises(ValueError, match="give channels"):
        open_images(cube, resolution=12, progress=False)
    data = open_images(noise(2, 6, 12, 9), resolution=(12, 9), channels=6, progress=False)
    assert data.shape == (2, 6, 12, 9)
