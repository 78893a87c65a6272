"""Every depth, polarity and transparency in every container: the right level, or a refusal."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL
import pytest
from helpers.image_samples import encoded, noise
from helpers.raw_images import png, pnm, tiff
from PIL import Image

from ddpm_pipeline.data import depth
from ddpm_pipeline.data.decoding import Preparation, RefusedImageError, decode
from ddpm_pipeline.data.depth import layout_of, open_image

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE = 8


def integers(top: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Random integers (8, 8, C) among which are both ends, for every channel."""
    values = np.random.default_rng(seed).integers(0, top + 1, (SIDE, SIDE, channels))
    values[0, 0], values[0, 1] = 0, top
    return values


def nearest(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The nearest level of each value by exact fractions, (C, H, W)."""
    span = Fraction(high) - Fraction(low)
    levels = [round(255 * (Fraction(float(v)) - Fraction(low)) / span) for v in values.flat]
    return np.array(levels).reshape(values.shape).transpose(2, 0, 1)


def levels(raw: bytes, channels: int, **options: Any) -> np.ndarray:
    return decode(raw, Preparation(SIDE, channels, **options))[0]


# By name: a function of the values, the highest value, the channels.
UNSIGNED: dict[str, tuple[Callable[[np.ndarray], bytes], int, int]] = {
    **{f"PNG grey {b}": (lambda v, b=b: png(v, b), 2**b - 1, 1) for b in (1, 2, 4, 8, 16)},
    **{f"PNG RGB {b}": (lambda v, b=b: png(v, b, "rgb"), 2**b - 1, 3) for b in (8, 16)},
    **{
        f"TIFF grey {b} {c}": (lambda v, b=b, c=c: tiff(v, b, deflate=c), 2**b - 1, 1)
        for b in (1, 2, 4, 8, 16)
        for c in (False, True)
    },
    "TIFF grey 12": (lambda v: tiff(v, 12), 4095, 1),
    "TIFF grey 16 MM": (lambda v: tiff(v, 16, order=">"), 65535, 1),
    **{
        f"TIFF RGB 16 {o} {c}": (
            lambda v, o=o, c=c: tiff(v, 16, polarity=2, order=o, deflate=c),
            65535,
            3,
        )
        for o in "<>"
        for c in (False, True)
    },
    **{
        f"P{kind} {top} {plain}": (lambda v, t=top, p=plain: pnm(v, t, plain=p), top, channels)
        for kind, channels in (("GM", 1), ("PM", 3))
        for top in (1, 15, 100, 255, 256, 1023, 4095, 65535)
        for plain in (False, True)
    },
}


@pytest.mark.parametrize("kind", UNSIGNED)
def test_unsigned_depths(kind: str) -> None:
    make, top, channels = UNSIGNED[kind]
    values = integers(top, channels)
    np.testing.assert_array_equal(levels(make(values), channels), nearest(values, 0, top))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_white_is_zero(bits: int) -> None:
    values = integers(2**bits - 1)
    expected = 255 - nearest(values, 0, 2**bits - 1)
    np.testing.assert_array_equal(levels(tiff(values, bits, polarity=0), 1), expected)


def test_white_is_zero_in_floating_point() -> None:
    values = integers(255) / 255
    raw = tiff(values, 32, sample_format=3, polarity=0)
    expected = 255 - nearest(np.float32(values), 0, 1)
    np.testing.assert_array_equal(levels(raw, 1, value_range=(0, 1)), expected)


UNKNOWN = {
    "int8": (tiff(integers(255) - 128, 8, sample_format=2), integers(255) - 128, (-128, 127)),
    "int16": (tiff(integers(999) - 500, 16, sample_format=2), integers(999) - 500, (-500, 499)),
    "int16 MM": (
        tiff(integers(999) - 500, 16, sample_format=2, order=">"),
        integers(999) - 500,
        (-500, 499),
    ),
    "int32": (tiff(integers(255), 32, sample_format=2), integers(255), (0, 255)),
    "uint32": (tiff(integers(2**32 - 1), 32), integers(2**32 - 1), (0, 2**32 - 1)),
    "float32": (tiff(integers(255) / 255, 32, sample_format=3), integers(255) / 255, (0, 1)),
    "Pillow int32": (
        encoded(integers(255)[..., 0].astype(np.int32), "TIFF"),
        integers(255),
        (0, 255),
    ),
    "PFM": (
        b"Pf\n8 8\n-1.0\n" + (integers(255)[::-1] / 255).astype("<f4").tobytes(),
        integers(255) / 255,
        (0, 1),
    ),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_values_whose_white_no_file_says(kind: str) -> None:
    raw, values, value_range = UNKNOWN[kind]
    with pytest.raises(RefusedImageError, match=r"no known range; value_range=\(low, high\) says"):
        levels(raw, 1)
    found = levels(raw, 1, value_range=value_range)
    if "float" in kind or kind == "PFM":
        values = np.float32(values)
    np.testing.assert_array_equal(found, nearest(values, *value_range))


@pytest.mark.parametrize("bits", [12, 16])
def test_a_range_that_was_given_wins(bits: int) -> None:
    values = integers(1000)
    found = levels(tiff(values, bits), 1, value_range=(0, 1000))
    np.testing.assert_array_equal(found, nearest(values, 0, 1000))
    with pytest.raises(
        RefusedImageError, match=r"values 0 … 1000 are outside value_range=\(0, 99"
    ):
        levels(tiff(values, bits), 1, value_range=(0, 999))


# Transparency.


def composed(values: np.ndarray, opacity: np.ndarray, top: int, paper: int = 255) -> np.ndarray:
    """The nearest level of values over paper, by the formula, (C, H, W)."""
    over = 255 * values / top * opacity + paper * (1 - opacity)
    return np.rint(over).transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("bits", "color"), [(b, "grey") for b in (1, 2, 4, 8, 16)] + [(8, "rgb"), (16, "rgb")]
)
@pytest.mark.parametrize("background", [None, "#505050"])
def test_one_transparent_value(bits: int, color: str, background: str | None) -> None:
    channels, top = {"grey": 1, "rgb": 3}[color], 2**bits - 1
    values = integers(top, channels)
    values[3] = values[0, 0]  # black, in many places
    raw = png(values, bits, color, transparent=[0] * channels)
    opacity = values.any(2, keepdims=True)
    expected = composed(values, opacity, top, 255 if background is None else 0x50)
    found = levels(raw, channels, background=background)
    np.testing.assert_array_equal(found, expected)
    (*colors, alpha) = levels(raw, 4)
    np.testing.assert_array_equal(alpha, 255 * opacity[..., 0])
    np.testing.assert_array_equal(colors[0], nearest(values, 0, top)[0])


def test_a_transparent_value_must_be_equal_in_all_its_bits() -> None:
    values = np.full((SIDE, SIDE, 3), 0x1010)
    values[0, 0, 2] = 0x1011
    found = levels(png(values, 16, "rgb", transparent=[0x1010] * 3), 3)
    assert (found[:, 1:] == 255).all()
    assert found[:, 0, 0].tolist() == [16, 16, 16]


@pytest.mark.parametrize(("bits", "color"), [(2, "grey"), (4, "grey"), (8, "grey"), (8, "rgb")])
def test_of_a_transparent_value_only_as_many_bits_count_as_pixels_have(
    bits: int, color: str
) -> None:
    """The standard stores it in 16 bits, and has the upper ones left out."""
    channels = {"grey": 1, "rgb": 3}[color]
    values = integers(2**bits - 1, channels)
    plain, filled = (png(values, bits, color, transparent=[v] * channels) for v in (0, 2**bits))
    np.testing.assert_array_equal(levels(filled, 4), levels(plain, 4))
    assert (levels(plain, 4)[3] == 0).any()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("color", ["grey+alpha", "rgb+alpha"])
def test_opacity_of_png(bits: int, color: str) -> None:
    channels, top = {"grey+alpha": 1, "rgb+alpha": 3}[color], 2**bits - 1
    values = integers(top, channels + 1)
    opacity = values[..., -1:] / top
    raw = png(values, bits, color)
    found = levels(raw, channels)
    np.testing.assert_allclose(found, composed(values[..., :-1], opacity, top), atol=bits == 8)
    alpha = levels(raw, 4)[3]
    np.testing.assert_array_equal(alpha, nearest(values[..., -1:], 0, top)[0])
    assert layout_of(open_image(raw)).grey == (channels == 1)


@pytest.mark.parametrize("extra", [1, 2])
@pytest.mark.parametrize("order", ["<", ">"])
def test_opacity_of_16_bit_tiff(extra: int, order: str) -> None:
    values = integers(65535, 4)
    opacity = values[..., 3:] / 65535
    stored = values.copy()
    if extra == 1:
        stored[..., :3] = np.rint(values[..., :3] * opacity)
    raw = tiff(stored, 16, polarity=2, order=order, extra=extra)
    np.testing.assert_allclose(
        levels(raw, 3), composed(values[..., :3], opacity, 65535), atol=extra == 1
    )


@pytest.mark.parametrize("extra", [1, 2])
def test_opacity_of_8_bit_grey_tiff(extra: int) -> None:
    values = integers(255, 2)
    opacity = values[..., 1:] / 255
    stored = values.copy()
    if extra == 1:
        stored[..., :1] = np.rint(values[..., :1] * opacity)
    raw = tiff(stored, 8, extra=extra)
    if extra == 1 and int(PIL.__version__.split(".")[0]) < 13:
        with pytest.raises(ValueError, match="a TIFF file of a kind that Pillow cannot read"):
            levels(raw, 1)
        return
    np.testing.assert_allclose(levels(raw, 1), composed(values[..., :1], opacity, 255), atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_images_are_turned_upright(orientation: int) -> None:
    values, exif = integers(65535)[..., 0].astype(np.uint16), Image.Exif()
    exif[0x0112] = orientation
    deep = decode(encoded(values, exif=exif), Preparation(SIDE, 1))[0]
    plain = nearest(values[..., None], 0, 65535)[0].astype(np.uint8)
    np.testing.assert_array_equal(deep, decode(encoded(plain, exif=exif), Preparation(SIDE, 1))[0])


# Greys and colours.


def palette_image(colors: np.ndarray, indices: np.ndarray, form: str = "PNG") -> bytes:
    image = Image.new("P", indices.shape[::-1])
    image.putpalette(colors.astype(np.uint8).tobytes())
    image.putdata(indices.ravel().tolist())
    return encoded(image, form)


@pytest.mark.parametrize("form", ["PNG", "GIF", "TIFF", "BMP", "TGA"])
def test_palettes_of_grey_are_grey(form: str) -> None:
    greys = np.repeat(np.random.default_rng(0).permutation(256)[:, None], 3, 1)
    indices = np.random.default_rng(1).permutation(256).reshape(16, 16)
    raw = palette_image(greys, indices, form)
    assert layout_of(open_image(raw)).grey
    colors = greys.copy()
    colors[7, 0] ^= 1
    assert layout_of(open_image(palette_image(colors, indices, form))).grey is not True


# Size.


def test_images_above_pillows_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    raw = encoded(noise(SIDE, SIDE))
    with pytest.raises(
        ValueError, match=r"too large for Pillow's limit: .* max_pixels allows more"
    ):
        open_image(raw)
    with pytest.raises(ValueError, match="more pixels than max_pixels=30"):
        open_image(raw, 30)
    np.testing.assert_array_equal(levels(raw, 1, max_pixels=64)[0], noise(SIDE, SIDE))
    assert Image.MAX_IMAGE_PIXELS == 10


def test_a_limit_below_pillows() -> None:
    with pytest.raises(ValueError, match="8x8 are more pixels than max_pixels=63"):
        open_image(encoded(noise(SIDE, SIDE)), 63)


def test_tiffs_that_pillow_does_not_know_are_called_so() -> None:
    raw = tiff(integers(4095), 12, order=">")
    with pytest.raises(ValueError, match="a TIFF file of a kind that Pillow cannot read"):
        open_image(raw)


def test_names_of_lower_bytes_are_there_for_both_orders() -> None:
    assert set(depth._LOWER_BYTES.values()) <= set(depth._LOWER_BYTES)
