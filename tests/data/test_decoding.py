"""One image of every kind against what its pixels are known to be."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from helpers.image_samples import encoded, noise, png_16_bit_rgb
from PIL import Image

from ddpm_pipeline.data.decoding import Preparation, RefusedImageError, decode


def test_rgb_png_is_unchanged() -> None:
    values = noise(16, 16, 3)
    decoded, changes = decode(encoded(values), Preparation(16, 3))
    np.testing.assert_array_equal(decoded, values.transpose(2, 0, 1))
    assert changes == ()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grey_in_any_mode(channels: int) -> None:
    values = noise(8, 8)
    decoded, changes = decode(encoded(values), Preparation(8, channels))
    opaque = np.full((8, 8), 255)
    expected = {1: [values], 3: [values] * 3, 4: [*[values] * 3, opaque]}[channels]
    np.testing.assert_array_equal(decoded, np.stack(expected))
    assert changes == {1: (), 3: ("L to RGB",), 4: ("L to RGBA",)}[channels]


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_grey_takes_the_nearest_of_256_levels(form: str) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (8, 8)).astype(np.uint16)
    decoded, changes = decode(encoded(values, form), Preparation(8, 1))
    nearest = [[round(Fraction(int(v) * 255, 65535)) for v in row] for row in values]
    np.testing.assert_array_equal(decoded[0], nearest)
    assert "requantized" in changes


def test_16_bit_rgb_says_that_it_was_requantized() -> None:
    levels = noise(4, 4, 3)
    decoded, changes = decode(png_16_bit_rgb(levels.astype(np.uint16) * 257), Preparation(4, 3))
    np.testing.assert_array_equal(decoded, levels.transpose(2, 0, 1))
    assert changes == ("requantized",)


def test_palette() -> None:
    palette, indices = noise(256, 3, seed=1), noise(8, 8)
    image = Image.fromarray(indices, "L").convert("P")
    image.putpalette(palette.tobytes())
    image.putdata(indices.ravel().tolist())
    decoded, changes = decode(encoded(image), Preparation(8, 3))
    np.testing.assert_array_equal(decoded, palette[indices].transpose(2, 0, 1))
    assert changes == ("P to RGB",)


def test_cmyk_inks() -> None:
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0]], [[0, 255, 0, 0], [0, 0, 0, 255]]], np.uint8)
    decoded, changes = decode(encoded(Image.fromarray(inks, "CMYK"), "TIFF"), Preparation(2, 3))
    paper = [[[255, 255, 255], [0, 255, 255]], [[255, 0, 255], [0, 0, 0]]]
    np.testing.assert_array_equal(decoded.transpose(1, 2, 0), paper)
    assert changes == ("CMYK to RGB",)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white(mode: str) -> None:
    values = noise(8, 8, len(mode))
    decoded, changes = decode(encoded(Image.fromarray(values, mode)), Preparation(8, 3))
    opacity = values[..., -1:] / 255
    over_white = values[..., :-1] * opacity + 255 * (1 - opacity)
    expected = np.broadcast_to(over_white, (8, 8, 3)).transpose(2, 0, 1)
    np.testing.assert_allclose(decoded, expected, atol=1)
    assert changes == (f"{mode} to RGB",)


def test_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 200, 0, 0])
    decoded, changes = decode(encoded(image, transparency=1), Preparation(4, 3))
    assert (decoded == 255).all()
    assert changes == ("P with transparency to RGB",)


def test_rgba_is_kept_for_four_channels() -> None:
    values = noise(8, 8, 4)
    decoded, changes = decode(encoded(values), Preparation(8, 4))
    np.testing.assert_array_equal(decoded, values.transpose(2, 0, 1))
    assert changes == ()


UPRIGHT = {  # EXIF 2.32, 4.6.5.1.6: which edges of the scene the rows and columns start from
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(orientation: int) -> None:
    values, exif = noise(8, 8), Image.Exif()
    exif[0x0112] = orientation
    decoded, _ = decode(encoded(values, exif=exif), Preparation(8, 1))
    np.testing.assert_array_equal(decoded[0], UPRIGHT[orientation](values))


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("L", (4, 4), level) for level in (40, 200)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    decoded, _ = decode(content, Preparation(4, 1))
    assert (decoded == 40).all()


@pytest.mark.parametrize("form", ["BMP", "GIF", "PPM", "TGA", "TIFF", "WEBP"])
def test_lossless_formats(form: str) -> None:
    values = noise(8, 8)
    decoded, _ = decode(encoded(values, form, lossless=True), Preparation(8, 1))
    np.testing.assert_allclose(decoded[0], values, atol=1 if form == "WEBP" else 0)


def test_resizing_is_antialiased() -> None:
    checkers = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    decoded, changes = decode(encoded(checkers), Preparation(16, 1))
    np.testing.assert_allclose(decoded[0, 2:-2, 2:-2], 127.5, atol=2)
    assert changes == ("resized",)


@pytest.mark.parametrize("size", [(20, 31), (31, 20), (7, 5), (300, 11)])
def test_shorter_side_becomes_the_resolution(size: tuple[int, int]) -> None:
    settings = Preparation(16, 1, crop="random")
    decoded, changes = decode(encoded(noise(*size)), settings)
    long = max(size) * 16 / min(size)
    assert min(decoded.shape[1:]) == 16
    assert abs(max(decoded.shape[1:]) - long) <= 0.5
    assert (decoded.shape[1] < decoded.shape[2]) == (size[0] < size[1])
    assert changes == ("resized",)


def test_center_crop_keeps_the_middle() -> None:
    values = noise(8, 14)
    decoded, changes = decode(encoded(values), Preparation(8, 1))
    np.testing.assert_array_equal(decoded[0], values[:, 3:11])
    assert changes == ("cropped",)


def test_padding_with_black() -> None:
    values = noise(5, 6, 3)
    decoded, changes = decode(encoded(values), Preparation(8, 3, fit="pad"))
    expected = np.pad(values, ((1, 2), (1, 1), (0, 0)))
    np.testing.assert_array_equal(decoded, expected.transpose(2, 0, 1))
    assert changes == ("padded",)


def test_padding_refuses_larger_images() -> None:
    with pytest.raises(RefusedImageError, match="9x4 is larger than resolution=8"):
        decode(encoded(noise(4, 9)), Preparation(8, 1, fit="pad"))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 255), (0, 65535)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_on_the_grid_come_back_exactly(low: int, high: int, dtype: type) -> None:
    levels = np.arange(256).reshape(16, 16)
    values = (low + (high - low) * levels / 255).astype(dtype)
    decoded, changes = decode(values, Preparation(16, 1, value_range=(low, high)))
    np.testing.assert_array_equal(decoded[0], levels)
    assert changes == ()


def test_values_between_the_levels_are_rounded_and_reported() -> None:
    values = np.arange(16).reshape(4, 4) + 1
    decoded, changes = decode(values, Preparation(4, 1, value_range=(0, 16)))
    nearest = [[round(Fraction(255 * int(v), 16)) for v in row] for row in values]
    np.testing.assert_array_equal(decoded[0], nearest)
    assert changes == ("requantized",)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    values = np.full((4, 4), 0.5)
    values[1, 2] = bad
    with pytest.raises(RefusedImageError, match="NaN or infinite"):
        decode(values, Preparation(4, 1, value_range=(0, 1)))


def test_values_outside_the_range_are_refused() -> None:
    with pytest.raises(RefusedImageError, match=r"values 0.0 … 1.5 are outside value_range"):
        decode(np.array([[0.0, 1.5]]), Preparation(1, 1, value_range=(0, 1)))


def test_floating_point_files_are_refused() -> None:
    with pytest.raises(ValueError, match="mode F"):
        decode(encoded(noise(4, 4).astype(np.float32), "TIFF"), Preparation(4, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"resolution": 0},
            "resolution must be an integer of at least 1, got 0",
        ),
        ({"channels": 0}, "channels must be an integer of at least 1, or None, got 0"),
        ({"fit": "stretch"}, "fit must be one of resize, pad, got 'stretch'"),
        ({"crop": "left"}, "crop must be one of center, random, got 'left'"),
        ({"value_range": (1, 0)}, r"value_range must be \(low, high\)"),
    ],
)
def test_bad_settings(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preparation(**{"resolution": 8} | options)


@pytest.mark.parametrize("background", ["red", "#ff0000", (255, 0, 0)])
def test_the_background_lies_under_transparency_and_around(background: object) -> None:
    clear = np.zeros((4, 4, 4), np.uint8)
    settings = Preparation(6, 3, fit="pad", background=background)
    decoded, changes = decode(encoded(clear), settings)
    assert (decoded == np.array([255, 0, 0]).reshape(3, 1, 1)).all()
    assert changes == ("RGBA to RGB", "padded")
    kept, _ = decode(encoded(clear), replace(settings, channels=4))
    assert kept[:, 0, 0].tolist() == [255, 0, 0, 255]
    assert not kept[:, 2, 2].any()
    grey, _ = decode(encoded(clear), replace(settings, channels=1))
    assert (grey == Image.new("RGB", (1, 1), "red").convert("L").getpixel((0, 0))).all()


def test_the_background_is_part_of_what_an_image_is() -> None:
    plain = Preparation(8, 3)
    assert plain.identity() == replace(plain, max_pixels=5).identity()
    assert replace(plain, background="red").identity() == plain.identity() | {
        "background": (255, 0, 0)
    }


@pytest.mark.parametrize("background", ["none", "#12", (1, 2), (1, 2, 300), 5, (1.5, 0, 0)])
def test_backgrounds_that_are_no_colour(background: object) -> None:
    with pytest.raises(ValueError, match="background must be the name of a colour"):
        Preparation(8, background=background)
