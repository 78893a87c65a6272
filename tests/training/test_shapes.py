"""A run on images that are no square pictures, and the model that comes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from helpers.training_runs import SHORT_RUN, TINY_UNET
from PIL import Image

from ddpm_pipeline.data.model_images import open_model_images
from ddpm_pipeline.pipelines.pipeline import DDPMPipeline
from ddpm_pipeline.training.config import TrainingConfig
from ddpm_pipeline.training.run import train

if TYPE_CHECKING:
    from pathlib import Path

OPEN_IN_STOCK = """
import sys
sys.modules["ddpm_pipeline"] = None  # cannot be imported
import diffusers, numpy, torch
pipe = diffusers.DiffusionPipeline.from_pretrained(sys.argv[1])
generator = torch.Generator().manual_seed(0)
images = pipe(2, generator=generator, num_inference_steps=3, output_type="np").images
numpy.save(sys.argv[2], images)
"""


def tiny_config(folder: Path, name: str = "unet.json", **changes: object) -> Path:
    path = folder / name
    path.write_text(json.dumps(TINY_UNET | changes))
    return path


def run_config(folder: Path, **options: object) -> TrainingConfig:
    given = {
        "train_data_dir": str(folder / "x.npy"),
        "resolution": (8, 12),
        "model_config_name_or_path": str(
            tiny_config(folder, sample_size=[8, 12], in_channels=7, out_channels=7)
        ),
        "output_dir": str(folder / "model"),
        "cache_dir": str(folder / "cache"),
        "max_train_steps": 2,
        **SHORT_RUN,
    }
    return TrainingConfig(**given | options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (12, 7, 8, 12), np.uint8)
    np.save(tmp_path / "x.npy", values)
    return tmp_path


def test_seven_bands_are_trained_sampled_and_opened_in_stock(folder: Path) -> None:
    train(run_config(folder, picture_bands=(6, 5, 4)))
    pipe = DDPMPipeline.from_pretrained(folder / "model")
    assert pipe(num_inference_steps=2, output_type="np").images.shape == (1, 8, 12, 7)
    assert pipe(num_inference_steps=2).images[0].size == (12, 8)
    with Image.open(folder / "model" / "samples.png") as picture:
        assert picture.mode == "RGB"
    data = open_model_images(folder / "x.npy", pipe.unet, cache_dir=folder / "cache")
    assert data.shape == (12, 7, 8, 12)
    command = [sys.executable, "-c", OPEN_IN_STOCK, folder / "model", folder / "stock.npy"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert np.load(folder / "stock.npy").shape == (2, 8, 12, 7)


def test_mistakes_are_named_before_the_work(folder: Path) -> None:
    with pytest.raises(ValueError, match="model_config_name_or_path has sample_size="):
        train(run_config(folder, resolution=(8, 10)))
    odd = tiny_config(folder, "odd.json", sample_size=[7, 12], in_channels=7, out_channels=7)
    options = {"resolution": (7, 12), "model_config_name_or_path": str(odd)}
    with pytest.raises(ValueError, match="what fits: 6 or 8 in place of 7"):
        train(run_config(folder, **options))
    with pytest.raises(ValueError, match="one or three channels from 0 to 6, got 1 2"):
        train(run_config(folder, picture_bands=(1, 2)))
    assert not (folder / "model" / "unet").exists()


def test_a_file_for_each_band_is_read_again_by_what_measures(folder: Path) -> None:
    """The pattern is the model's; the values are those of the array."""
    values = np.load(folder / "x.npy")
    (folder / "scenes").mkdir()
    for i, image in enumerate(values):
        for band, pixels in enumerate(image):
            Image.fromarray(pixels).save(folder / f"scenes/s{i:02}_b{band}.png")
    pattern = r"(?P<name>s\d+)_b(?P<band>\d)"
    options = {"train_data_dir": str(folder / "scenes"), "stack_pattern": pattern}
    train(run_config(folder, **options, max_train_steps=1))
    unet = DDPMPipeline.from_pretrained(folder / "model").unet
    for source in ("scenes", "x.npy"):  # for an array, the pattern that is remembered says nothing
        data = open_model_images(folder / source, unet, cache_dir=folder / "cache")
        assert np.array_equal(data.values.numpy(), values)
    with pytest.raises(ValueError, match="stack_pattern has no meaning for streaming"):
        run_config(folder, **options, streaming=True)
    with pytest.raises(ValueError, match="stack_pattern must be a regular expression with the"):
        run_config(folder, stack_pattern="band(.)")
