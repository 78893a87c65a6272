"""Bytes, values of models and outputs against exact arithmetic and Pillow."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from helpers.image_samples import noise
from PIL import Image
from scipy.stats import binomtest

from ddpm_pipeline.common.randomness import seeded_generator
from ddpm_pipeline.data.pixels import (
    OUTPUTS,
    as_picture,
    concatenated,
    random_flip,
    to_model_range,
    uint8_from_unit_range,
    unit_range,
)


def test_model_range_is_exact_to_float32() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    exact = [float(Fraction(2 * k, 255) - 1) for k in range(256)]
    values = to_model_range(levels)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.double(), torch.tensor(exact).double(), atol=6e-8, rtol=0)
    assert (values[0], values[255]) == (-1, 1)


def test_model_range_is_for_bytes() -> None:
    with pytest.raises(TypeError, match=r"images must be uint8, got torch\.float32"):
        to_model_range(torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_flips_mirror_whole_images_half_of_the_time(dtype: torch.dtype) -> None:
    images = torch.from_numpy(noise(2000, 3, 4, 4)).to(dtype)
    flipped = random_flip(images, seeded_generator(0))
    mirrored = torch.from_numpy(np.flip(images.numpy(), 3).copy())
    same, turned = ((flipped == other).flatten(1).all(1) for other in (images, mirrored))
    assert torch.equal(same, ~turned)
    assert binomtest(int(turned.sum()), 2000).pvalue > 1e-3


def test_flips_follow_from_the_generator() -> None:
    images = torch.from_numpy(noise(50, 1, 4, 4))
    one, again = (random_flip(images, seeded_generator(5)) for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one, random_flip(images, seeded_generator(6)))


def test_bytes_come_back_from_the_model_range() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    back = uint8_from_unit_range(unit_range(to_model_range(levels)))
    np.testing.assert_array_equal(back[0, :, :, 0], levels[0, 0].numpy())


def test_unit_range_cuts_what_is_outside() -> None:
    samples = torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 1.5])
    assert unit_range(samples).tolist() == [0.0, 0.0, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_samples_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="the images are not finite"):
        unit_range(torch.tensor([0.0, bad]))


def test_levels_are_the_nearest() -> None:
    values = torch.linspace(0, 1, 1001, dtype=torch.float64)
    found = uint8_from_unit_range(values.reshape(1, 1, 1, -1))
    assert (found.dtype, found.shape) == (np.uint8, (1, 1, 1001, 1))
    exact = [float(255 * Fraction(v)) for v in values.tolist()]
    assert np.abs(found.ravel() - np.array(exact)).max() <= 0.5


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_pictures_hold_their_pixels(channels: int, mode: str) -> None:
    pixels = noise(5, 7, channels)
    picture = as_picture(pixels)
    assert (picture.mode, picture.size) == (mode, (7, 5))
    np.testing.assert_array_equal(np.asarray(picture).reshape(5, 7, channels), pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_outputs_are_the_same_images_in_three_forms(channels: int) -> None:
    pixels = noise(4, 5, 7, channels)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).double() / 255
    pictures, array, tensor = (OUTPUTS[form](images) for form in ("pil", "np", "pt"))
    assert all(isinstance(picture, Image.Image) for picture in pictures)
    for picture, expected in zip(pictures, pixels, strict=True):
        np.testing.assert_array_equal(np.asarray(picture).reshape(expected.shape), expected)
    np.testing.assert_array_equal(np.rint(array * 255), pixels)
    assert tensor is images


@pytest.mark.parametrize("form", OUTPUTS)
def test_joined_batches_are_the_batch(form: str) -> None:
    images = torch.from_numpy(noise(5, 3, 4, 4)).double() / 255
    convert = OUTPUTS[form]
    joined = concatenated([convert(images[:2]), convert(images[2:])])
    assert len(joined) == 5
    for one, expected in zip(joined, convert(images), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(expected))
