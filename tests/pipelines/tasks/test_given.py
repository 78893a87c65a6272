"""Images and masks as callers have them: every kind is the same image, and mistakes are named."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from helpers.pipelines import pipeline
from PIL import Image

from ddpm_pipeline.networks import ModelFacts, ValueScale, set_facts
from ddpm_pipeline.pipelines.tasks.given import given_hole, given_images, given_measurement

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (8, 8), np.uint8)
COLOUR = RNG.integers(0, 256, (8, 8, 3), np.uint8)


def given(unet: object, image: object, **options: object) -> torch.Tensor:
    return given_images(unet, image, "image", **{"resize": False, **options})


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(GREY),
        [Image.fromarray(GREY)],
        Image.fromarray(np.stack([GREY] * 3, -1)),
        Image.fromarray(np.stack([GREY, np.full_like(GREY, 255)], -1)),
        GREY,
        GREY[..., None],
        GREY[None, ..., None],
        GREY / 255,
        GREY.astype(np.uint16) * 257,
        torch.from_numpy(GREY)[None],
        torch.from_numpy(GREY)[None, None] / 255,
    ],
    ids=lambda image: type(image).__name__,
)
def test_every_kind_of_a_grey_image_is_the_same(tiny_unet: object, image: object) -> None:
    expected = torch.from_numpy(GREY / 127.5 - 1)[None, None].float()
    torch.testing.assert_close(given(tiny_unet(1), image), expected, rtol=0, atol=1e-6)


def test_grey_pictures_become_colour_and_nothing_is_lost(tiny_unet: object) -> None:
    found = given(tiny_unet(3), Image.fromarray(GREY))
    assert (found == found[:, :1]).all()
    expected = torch.from_numpy(COLOUR / 127.5 - 1).permute(2, 0, 1)[None].float()
    tensor = torch.from_numpy(COLOUR).permute(2, 0, 1)
    for image in (Image.fromarray(COLOUR), COLOUR, [COLOUR], tensor):
        torch.testing.assert_close(given(tiny_unet(3), image), expected, rtol=0, atol=1e-6)


def test_models_of_exact_values_are_refused_by_every_task(tiny_unet: object) -> None:
    pipe = pipeline(tiny_unet(1))
    set_facts(
        pipe.unet,
        ModelFacts(values=ValueScale("uint16", (2047.5,), (2047.5,), 0, 4095, 1).to_dict()),
    )
    image = np.full((8, 8, 1), 4000, np.uint16)
    for task in (
        lambda: pipe.image_to_image(image, 0.0),
        lambda: pipe.invert(image),
        lambda: pipe.interpolate(image, image),
        lambda: pipe.inpaint(image, np.eye(8)),
        lambda: pipe.restore(image, "blur"),
    ):
        with pytest.raises(
            ValueError, match="are for models of bytes; this one is of exact uint16"
        ):
            task()


def test_what_would_be_lost_is_refused(tiny_unet: object) -> None:
    with pytest.raises(ValueError, match="the 1 channel of the model's images, got a picture of "):
        given(tiny_unet(1), Image.fromarray(COLOUR))
    clear = np.concatenate([COLOUR, GREY[..., None]], -1)
    with pytest.raises(ValueError, match="mode 'RGBA'; convert it first"):
        given(tiny_unet(3), Image.fromarray(clear))


def as_png(picture: Image.Image, **options: object) -> Image.Image:
    content = io.BytesIO()
    picture.save(content, "PNG", **options)
    return Image.open(content)


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_a_colour_that_stands_for_nothing_is_opacity(mode: str, tiny_unet: object) -> None:
    """Pillow's own conversion is the oracle."""
    half = Image.fromarray(np.where(np.arange(8) < 4, 0, 255)[None].repeat(8, 0).astype(np.uint8))
    picture = as_png(half.convert(mode), transparency=(0, 0, 0) if mode == "RGB" else 0)
    for channels in (1, 3):
        with pytest.raises(ValueError, match=r"mode '(LA|RGBA)'; convert it first"):
            given(tiny_unet(channels), picture)
    expected = torch.from_numpy(np.asarray(picture.convert("RGBA")) / 127.5 - 1)
    found = given(tiny_unet(4), picture)
    torch.testing.assert_close(found[0].permute(1, 2, 0), expected.float(), rtol=0, atol=1e-6)
    assert set(found[0, 3].unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (GREY / 127.5 - 1, r"image must have values in \[0, 1\], got -"),
        (np.full((8, 8), np.nan), "image must be finite"),
        (GREY.astype(np.int64), "image must be bytes, uint16 or floats"),
        (torch.zeros(3, 8, 8), r"image must have 1 channel, as .* got \(1, 3, 8, 8\)"),
        ([], "image must hold at least one image"),
        ([GREY, GREY[:4]], "image must hold images of one size"),
    ],
)
def test_values_that_are_no_image_are_refused(
    tiny_unet: object, image: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        given(tiny_unet(1), image)
    with pytest.raises(TypeError, match="image must be a Pillow image, an array, a tensor"):
        given(tiny_unet(1), "photo.png")


def test_another_size_is_refused_or_scaled_and_cut(tiny_unet: object) -> None:
    wide = np.repeat(np.repeat(GREY, 2, 0), 2, 1)
    wide = np.concatenate([np.zeros((16, 4), np.uint8), wide, np.zeros((16, 4), np.uint8)], 1)
    with pytest.raises(ValueError, match=r"8 x 8 .* got 16 x 24; resize=True scales it"):
        given(tiny_unet(1), wide)
    smooth = np.tile(np.arange(24, dtype=np.uint8) * 10, (16, 1))
    found = given(tiny_unet(1), smooth, resize=True)
    assert found.shape == (1, 1, 8, 8)
    middle = np.asarray(
        Image.fromarray(smooth).resize((12, 8), Image.Resampling.BICUBIC)  # antialiased
    )[:, 2:10]
    assert np.abs((found[0, 0].numpy() + 1) * 127.5 - middle).max() < 1


HOLE = np.zeros((8, 8), bool)
HOLE[2:4, 3:5] = True


@pytest.mark.parametrize(
    "mask",
    [
        HOLE,
        HOLE.astype(np.uint8),
        HOLE.astype(np.uint8) * 255,
        HOLE.astype(np.int64),
        HOLE.astype(np.float32),
        torch.from_numpy(HOLE),
        torch.from_numpy(HOLE)[None, None],
        Image.fromarray(HOLE),
        Image.fromarray(HOLE.astype(np.uint8) * 255),
        Image.fromarray(HOLE.astype(np.uint8) * 255).convert("RGB"),
    ],
    ids=lambda mask: f"{type(mask).__name__} {getattr(mask, 'dtype', getattr(mask, 'mode', ''))}",
)
def test_every_kind_of_mask_has_the_same_hole(mask: object) -> None:
    assert torch.equal(given_hole(mask, (8, 8), 1)[0, 0] > 0, torch.from_numpy(HOLE))


def test_masks_for_several_images() -> None:
    masks = np.stack([HOLE, HOLE.T])
    assert given_hole(masks, (8, 8), 2).shape == (2, 1, 8, 8)
    assert given_hole(torch.from_numpy(masks)[:, None], (8, 8), 1).shape == (2, 1, 8, 8)
    with pytest.raises(ValueError, match="got 2 of 8 x 8 for 3"):
        given_hole(masks, (8, 8), 3)


def test_masks_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mask must have a hole: .* and it has none"):
        given_hole(np.zeros((8, 8)), (8, 8), 1)
    with pytest.raises(ValueError, match="and one of its images has none"):
        given_hole(np.stack([HOLE, np.zeros_like(HOLE)]), (8, 8), 2)
    with pytest.raises(ValueError, match=r"size, 8 x 8, .* got 1 of 4 x 8"):
        given_hole(HOLE[:4], (8, 8), 1)


def test_measurements_may_leave_the_range_by_their_noise_alone() -> None:
    y = torch.full((2, 5), -3.0)
    assert given_measurement(y, 1, 0.0).shape == (2, 5)  # of an operator that may be any
    with pytest.raises(ValueError, match="y must be finite"):
        given_measurement(y / 0, 1, 0.0)
    image = GREY / 255
    image[0, 0] = -0.2
    assert given_measurement(image, 1, 0.1).min() == pytest.approx(-0.2)
    with pytest.raises(ValueError, match=r"y must lie in \[0, 1\] but for its noise of noise_std"):
        given_measurement(image, 1, 0.01)
