"""Shards of images: three formats of the same images, with their classes, and no half files."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from helpers.pipelines import images_of, options
from PIL import Image

from ddpm_pipeline import DDPMPipeline, DDPMScheduler
from ddpm_pipeline.pipelines.config import SampleConfig, SamplingOptions
from ddpm_pipeline.pipelines.sampling import load_image_sampler, sample_images

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import UNet2DModel


def test_all_formats_hold_the_same_images(model: str, tmp_path: Path) -> None:
    config = options(model, num_images=11, shard_size=4)
    expected = load_image_sampler(SamplingOptions(**options(model)))(range(11))
    folder = sample_images(SampleConfig(**config, output=str(tmp_path / "png")))
    assert [path.name for path in sorted(folder.glob("*.png"))][-1] == "000010.png"
    assert np.array_equal(images_of(folder), expected[..., 0])
    with np.load(sample_images(SampleConfig(**config, output=str(tmp_path / "a.npz")))) as file:
        assert np.array_equal(file["arr_0"], expected)
    assert not (tmp_path / "a.npz.parts").exists()
    tars = sample_images(SampleConfig(**config, output=str(tmp_path / "tar"), format="webdataset"))
    names, found = [], []
    for path in sorted(tars.glob("*.tar")):
        with tarfile.open(path) as tar:
            for entry in tar:
                names.append(entry.name)
                found.append(np.array(Image.open(io.BytesIO(tar.extractfile(entry).read()))))
    assert names == [f"{i:06d}.png" for i in range(11)]
    assert np.array_equal(np.stack(found), expected[..., 0])


def test_classes_are_written_beside_the_images(
    tiny_unet: Callable[..., UNet2DModel], tmp_path: Path
) -> None:
    DDPMPipeline(tiny_unet(num_class_embeds=3), DDPMScheduler(100)).save_pretrained(tmp_path / "m")
    config = options(str(tmp_path / "m"), class_labels=(2, 0), num_images=3, scheduler="ddpm")
    with np.load(sample_images(SampleConfig(**config, output=str(tmp_path / "a.npz")))) as file:
        assert file["labels"].tolist() == [2, 0, 2]
    folder = sample_images(
        SampleConfig(**config, output=str(tmp_path / "tar"), format="webdataset")
    )
    with tarfile.open(folder / "000000-000002.tar") as tar:
        classes = [tar.extractfile(f"{i:06d}.cls").read() for i in range(3)]
    assert classes == [b"2", b"0", b"2"]


@pytest.mark.parametrize("name", ["folder", "a.npz"])
def test_output_of_something_else_is_refused(model: str, tmp_path: Path, name: str) -> None:
    if name == "folder":
        (tmp_path / name).mkdir()
        (tmp_path / name / "holiday.png").touch()
    else:
        (tmp_path / name).write_text("not a zip file")
    with pytest.raises(ValueError, match="was not made by sample_images"):
        sample_images(SampleConfig(**options(model, output=str(tmp_path / name))))


def test_an_empty_file_of_a_crash_is_drawn_again_and_said(
    model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = SampleConfig(**options(model, num_images=4, output=str(tmp_path / "png")))
    folder = sample_images(config)
    expected = images_of(folder)
    (folder / "000002.png").write_bytes(b"")
    sample_images(config)
    assert "000002.png is empty, as a crash leaves it" in caplog.text
    assert np.array_equal(images_of(folder), expected)
