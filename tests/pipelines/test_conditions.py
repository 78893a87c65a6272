"""What callers condition images on: the numbers are checked, and errors name their option."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_pipeline.data.conditions import conditioning_of
from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.networks.conditioned_on import Conditioning
from ddpm_pipeline.networks.model_facts import ModelFacts, set_facts
from ddpm_pipeline.networks.value_scale import ValueScale
from ddpm_pipeline.pipelines.condition_files import opened_condition
from ddpm_pipeline.pipelines.conditions import checked_vector, given_condition
from ddpm_pipeline.pipelines.config import SampleConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import UNet2DModel

HOUR = Conditioning(columns=("s",), low=(1_764_000_000.0,), high=(1_764_003_599.0,))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (math.nan, "condition_numbers must be finite, got NaN or infinity"),
        (1e300, "condition_numbers must be within 1e38 times the range of training, s 1.764e"),
    ],
)
def test_errors_name_the_option_that_was_given(
    tiny_unet: Callable[..., UNet2DModel], given: float, said: str
) -> None:
    unet = tiny_unet(class_embed_type="identity")
    set_facts(unet, ModelFacts(conditioning=HOUR.to_dict()))
    options = SampleConfig(model="x", output="y", condition_numbers=(given,))
    with pytest.raises(ValueError, match=said):
        opened_condition(options, unet)
    with pytest.raises(ValueError, match=said.replace("condition_numbers", "condition")):
        checked_vector(HOUR, [given])


def test_only_numbers_outside_the_range_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    tenth = Conditioning(columns=("x",), low=(0.0,), high=(0.1,))
    assert checked_vector(tenth, torch.tensor([0.1])).dtype == torch.float64
    checked_vector(HOUR, [1_764_003_599])
    assert not caplog.text
    checked_vector(HOUR, [1_764_003_600], "condition_numbers")
    assert "condition_numbers lies outside what the model was trained on, s 1.764e" in caplog.text


def grey_with_opacity(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (4, 4, 2), np.uint8))


def deep(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 4096, (4, 4)).astype(np.uint16))


@pytest.mark.parametrize(
    ("draw", "reading"),
    [
        (deep, {"value_range": (0, 4095)}),
        (deep, {"value_range": (0, 4095), "depth": "exact"}),
        (grey_with_opacity, {"background": "#102030"}),
    ],
)
def test_pictures_are_read_as_in_training(
    tiny_unet: Callable[..., UNet2DModel],
    tmp_path: Path,
    draw: Callable[[np.random.Generator], Image.Image],
    reading: dict[str, Any],
) -> None:
    rng = np.random.default_rng(0)
    names = ["a.png", "b.png", "c.png"]
    for folder in ("images", "low"):
        (tmp_path / folder).mkdir()
        for name in names:
            draw(rng).save(tmp_path / folder / name)
    low = tmp_path / "low"
    data = open_images(tmp_path / "images", resolution=4, condition_on=low, **reading)
    trained = data.given.pictures.batch(range(3)).images
    unet = tiny_unet()
    conditioning = conditioning_of(data.given, "bicubic", trains_null=False)
    set_facts(unet, ModelFacts(reading=reading, conditioning=conditioning.to_dict()))
    options = SampleConfig(model="x", output="y", condition=str(low))
    condition, _ = opened_condition(options, unet)
    assert torch.equal(condition.picture, trained)
    (low / "b.png").write_bytes(b"no image")  # which image 1 goes with
    with pytest.raises(ValueError, match=r"condition='.*low': b\.png .*cannot be read"):
        opened_condition(options, unet)


def test_a_picture_is_no_tensor_of_exact_values(tiny_unet: Callable[..., UNet2DModel]) -> None:
    scale = ValueScale("uint16", (2047.5,), (2047.5,), 0, 4095, 1)
    conditioning = Conditioning(channels=1, sides=(4, 4), values=scale.to_dict())
    unet = tiny_unet()
    set_facts(unet, ModelFacts(conditioning=conditioning.to_dict()))
    values = np.full((1, 4, 4), 4000, np.uint16)
    assert given_condition(unet, values).picture.tolist() == [values.tolist()]
    said = "condition must be a tensor of uint16 in the unit of the training images, got"
    with pytest.raises(ValueError, match=f"{said} Image"):
        given_condition(unet, Image.fromarray(values[0]))
    with pytest.raises(ValueError, match=f"{said} torch.float32"):
        given_condition(unet, torch.zeros(1, 4, 4))
