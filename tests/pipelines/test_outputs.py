"""Pictures of images with more channels than pictures have."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import diffusers
import numpy as np
import pytest
import torch
from helpers.pipelines import pipeline
from PIL import Image

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.networks.model_facts import ModelFacts, set_facts
from ddpm_pipeline.pipelines.config import SampleConfig
from ddpm_pipeline.pipelines.grids import draw_grid
from ddpm_pipeline.pipelines.sampling import load_image_sampler, sample_images

if TYPE_CHECKING:
    from pathlib import Path

MakeUNet = Callable[..., diffusers.UNet2DModel]


def drawn(pipe: DDPMPipeline, kind: str) -> list[Image.Image] | np.ndarray:
    return pipe(
        batch_size=2,
        generator=[torch.Generator().manual_seed(i) for i in range(2)],
        num_inference_steps=3,
        output_type=kind,
    ).images


@pytest.mark.parametrize(
    ("named", "shown"), [(None, (0, 1, 2)), ((4, 3, 1), (4, 3, 1)), ((5,), (5,))]
)
def test_a_picture_shows_the_bands_that_the_model_names(
    tiny_unet: MakeUNet, named: tuple[int, ...] | None, shown: tuple[int, ...]
) -> None:
    unet = tiny_unet(7)
    set_facts(unet, ModelFacts(picture_bands=named))
    pipe = pipeline(unet)
    array = np.round(drawn(pipe, "np") * 255).astype(np.uint8)[..., list(shown)]
    for picture, pixels in zip(drawn(pipe, "pil"), array, strict=True):
        assert picture.mode == ("L" if len(shown) == 1 else "RGB")
        assert np.array_equal(np.asarray(picture).reshape(pixels.shape), pixels)


def test_files_of_pictures_need_bands_that_are_named(tiny_unet: MakeUNet, tmp_path: Path) -> None:
    pipeline(tiny_unet(5)).save_pretrained(tmp_path / "model")
    options = {"model": str(tmp_path / "model"), "num_images": 2, "num_inference_steps": 2}
    with pytest.raises(ValueError, match="format must be npz for images of 5 channels"):
        sample_images(SampleConfig(output=str(tmp_path / "a"), **options))
    with pytest.raises(ValueError, match="one or three channels from 0 to 4, got 7"):
        sample_images(SampleConfig(output=str(tmp_path / "a"), picture_bands=(7,), **options))
    whole = sample_images(SampleConfig(output=str(tmp_path / "x.npz"), **options))
    array = np.load(whole)["arr_0"]
    assert array.shape == (2, 8, 8, 5)
    folder = sample_images(
        SampleConfig(output=str(tmp_path / "b"), picture_bands=(3, 0, 4), **options)
    )
    assert np.array_equal(np.asarray(Image.open(folder / "000001.png")), array[1][..., [3, 0, 4]])


def test_a_grid_shows_the_first_three_bands_unless_told(
    tiny_unet: MakeUNet, tmp_path: Path
) -> None:
    pipeline(tiny_unet(5)).save_pretrained(tmp_path / "model")
    config = SampleConfig(
        model=str(tmp_path / "model"), num_inference_steps=2, output=str(tmp_path / "g")
    )
    sampler = load_image_sampler(config)
    draw_grid(sampler, 1, tmp_path / "grid.png")
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    assert np.array_equal(grid[1:-1, 1:-1], sampler([0])[0][..., :3])
