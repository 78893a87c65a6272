"""The images that a run trains on: their order, channels and labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.training_runs import blobs, image_data, tiny_config
from PIL import Image

from ddpm_pipeline import DDPMPipeline
from ddpm_pipeline.data.loader import ImageLoader
from ddpm_pipeline.training.run import train

pytestmark = pytest.mark.usefixtures("random_last_layers")


def test_stock_resumes_with_other_data(tmp_path: Path) -> None:
    """The order of the data goes on where it was: each image once in an epoch, resumed or not."""
    loader = ImageLoader(image_data(), batch_size=4, seed=0)
    first = [next(loader).images for _ in range(4)]
    resumed = ImageLoader(image_data(), batch_size=4, seed=0)
    resumed.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    epoch = torch.cat(first + [next(resumed).images for _ in range(6)])
    expected = torch.from_numpy(blobs())
    assert sorted(map(bytes, epoch.numpy())) == sorted(map(bytes, expected.numpy()))


def test_stock_forces_three_channels_and_decodes_again(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, image in enumerate(blobs(12)):
        Image.fromarray(image).save(folder / f"{i}.png")
    config = tiny_config(tmp_path, max_train_steps=1).replace(train_data_dir=str(folder))
    train(config)
    unet = DDPMPipeline.from_pretrained(tmp_path / "run").unet
    assert unet.config.in_channels == 1
    read = Image.open

    def only_grids(source: object) -> Image.Image:
        assert isinstance(source, Path), "an image was decoded again"
        return read(source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "open", only_grids)
        train(config.replace(output_dir=str(tmp_path / "again")))
        with pytest.raises((AssertionError, ValueError), match=r"decoded again|can be read"):
            train(config.replace(output_dir=str(tmp_path / "b"), cache_dir=str(tmp_path / "b")))


def test_stock_has_no_labels(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for i, image in enumerate(blobs(12)):
        (folder / "abc"[i % 3]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "abc"[i % 3] / f"{i}.png")
    config = tiny_config(
        tmp_path, class_conditional=True, embeddings=4, max_train_steps=2
    ).replace(train_data_dir=str(folder))
    train(config)
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "run")
    assert pipeline.unet.config.num_class_embeds == 4
    images = pipeline(
        2, num_inference_steps=2, class_labels=[0, 2], guidance_scale=2.0, output_type="np"
    ).images
    assert images.shape == (2, 8, 8, 1)
    with pytest.raises(ValueError, match="num_classes=5, but the labels have 3 classes"):
        train(config.replace(num_classes=5))
    Image.fromarray(blobs(1)[0]).save(folder / "stray.png")
    with pytest.raises(ValueError, match="labels missing for 1 of 13 images"):
        train(config)
