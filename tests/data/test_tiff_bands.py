"""TIFF files of several pages, and of more bands than a picture has."""

from __future__ import annotations

import io
import struct
import warnings
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from helpers.raw_images import band_tiff
from PIL import Image, features

from ddpm_pipeline.data import open_images
from ddpm_pipeline.data.decoding import Preparation, RefusedImageError, decode
from ddpm_pipeline.data.inspection import inspect_image
from ddpm_pipeline.data.tiff_bands import band_stack

if TYPE_CHECKING:
    from pathlib import Path

HEIGHT, WIDTH = 20, 37


def numbers(dtype: str, channels: int, seed: int = 0) -> np.ndarray:
    """Draw an image (H, W, C) of all values that a type has."""
    drawn = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, channels, 4), np.uint8)
    if dtype.startswith("float"):
        return drawn[..., :2].copy().view(np.int16)[..., 0].astype(dtype) / 7
    return drawn[..., : np.dtype(dtype).itemsize].copy().view(dtype)[..., 0]


def exact(raw: bytes, channels: int, **options: object) -> np.ndarray:
    """Decode a file at its own depth, (H, W, C)."""
    settings = Preparation((HEIGHT, WIDTH), channels, depth="exact", **options)
    found = inspect_image(raw, settings)
    assert (found.channels, found.size) == (channels, f"{WIDTH}×{HEIGHT}")
    values, changes = decode(raw, settings)
    assert changes == ()
    assert values.dtype == found.dtype
    return values.transpose(1, 2, 0)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_seven_bands_come_out_as_they_went_in(dtype: str, order: str) -> None:
    values = numbers(dtype, 7)
    for deflate, planar, tile in product([False, True], [False, True], [None, 16]):
        raw = band_tiff(values, order=order, deflate=deflate, planar=planar, tile=tile)
        np.testing.assert_array_equal(exact(raw, 7), values, f"{deflate=} {planar=} {tile=}")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_differences_are_summed_up(dtype: str, order: str) -> None:
    values = numbers(dtype, 5)
    for planar, tile in product([False, True], [None, 16]):
        raw = band_tiff(
            values, order=order, deflate=True, differences=True, planar=planar, tile=tile
        )
        np.testing.assert_array_equal(exact(raw, 5), values, f"{planar=} {tile=}")


@pytest.mark.parametrize("packing", ["raw", "tiff_lzw", "tiff_deflate", "packbits"])
def test_pages_that_pillow_wrote_become_channels(packing: str) -> None:
    values = numbers("uint16", 3)
    first, *others = (Image.fromarray(values[..., c]) for c in range(3))
    file = io.BytesIO()
    options = {} if packing == "raw" else {"compression": packing}
    if options and not features.check("libtiff"):
        pytest.skip("this Pillow has no libtiff")
    first.save(file, "TIFF", save_all=True, append_images=others, **options)
    np.testing.assert_array_equal(exact(file.getvalue(), 3, tiff_bands="all"), values)


def test_pages_of_several_bands_follow_one_another() -> None:
    one, two = numbers("uint8", 3, seed=1), numbers("uint8", 3, seed=2)
    raw = band_tiff(one, two, colours=2)
    both = np.concatenate([one, two], axis=2)
    np.testing.assert_array_equal(exact(raw, 6, tiff_bands="all"), both)
    picture = decode(raw, Preparation((HEIGHT, WIDTH), 3, tiff_bands="picture"))[0]
    np.testing.assert_array_equal(picture.transpose(1, 2, 0), one)


def test_what_could_be_either_is_refused_by_the_option_that_settles_it() -> None:
    grey, colours, four = numbers("uint8", 1), numbers("uint8", 3), numbers("uint8", 4)
    cases = {
        "2 pages: .* each of its 2 bands": band_tiff(grey, grey),
        "3 pages: .* each of its 9 bands": band_tiff(colours, colours, colours, colours=2),
        "4 bands: .* each of its 4 bands": band_tiff(four, colours=2, extras=[0]),
        "5 bands: ": band_tiff(numbers("uint8", 5), colours=2, extras=[2, 0]),
        "2 bands: ": band_tiff(numbers("uint8", 2), extras=[0]),
        "4 bands: tiff": band_tiff(four, colours=2),
        "2 bands: tiff": band_tiff(numbers("uint8", 2)),
        "a smaller copy or a mask before its page": band_tiff(grey[::2], grey, kinds=[1, 0]),
    }
    for message, raw in cases.items():
        for settings in (Preparation(8), Preparation(8, depth="exact")):
            with pytest.raises(RefusedImageError, match=message) as caught:
                inspect_image(raw, settings)
            assert "tiff_bands='all'" in str(caught.value)
            assert "tiff_bands='picture'" in str(caught.value)
            with pytest.raises(RefusedImageError, match=message):
                decode(raw, settings)


@pytest.mark.parametrize(("channels", "colours"), [(2, 1), (4, 2)], ids=["grey", "colour"])
def test_a_band_that_no_tag_explains_is_no_opacity(channels: int, colours: int) -> None:
    values = numbers("uint8", channels)
    raw = band_tiff(values, colours=colours)
    np.testing.assert_array_equal(exact(raw, channels, tiff_bands="all"), values)
    settings = Preparation((HEIGHT, WIDTH), channels, tiff_bands="all")
    np.testing.assert_array_equal(decode(raw, settings)[0].transpose(1, 2, 0), values)


@pytest.mark.parametrize(
    ("dtype", "extras", "planar"), product(["uint8", "uint16"], [False, True], [False, True])
)
@pytest.mark.parametrize("bands", [(2, 1), (5, 1), (4, 2), (5, 2), (8, 2)])
def test_a_picture_is_its_first_bands(
    bands: tuple[int, int], planar: bool, extras: bool, dtype: str, capfd: pytest.CaptureFixture
) -> None:
    (channels, colours), count = bands, {1: 1, 2: 3}[bands[1]]
    values = numbers(dtype, channels)
    told = {"extras": [0] * (channels - count)} if extras else {}
    raw = band_tiff(values, colours=colours, planar=planar, **told)
    np.testing.assert_array_equal(exact(raw, count, tiff_bands="picture"), values[..., :count])
    settings = Preparation((HEIGHT, WIDTH), count, tiff_bands="picture")
    levels = values if dtype == "uint8" else np.rint(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(decode(raw, settings)[0], levels[..., :count].transpose(2, 0, 1))
    # From there on it is a picture like others: Pillow's own conversion is the oracle.
    picture = Image.fromarray(levels[..., :count].squeeze())
    for wanted, mode in ((1, "L"), (3, "RGB"), (4, "RGBA")):
        other = Preparation((HEIGHT, WIDTH), wanted, tiff_bands="picture")
        expected = np.asarray(picture.convert(mode)).reshape(HEIGHT, WIDTH, wanted)
        np.testing.assert_array_equal(decode(raw, other)[0].transpose(1, 2, 0), expected)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
@pytest.mark.parametrize("wanted", [None, "all", "picture"])
def test_deep_colours_that_do_not_interleave_are_read_whole(dtype: str, wanted: str) -> None:
    values = numbers(dtype, 3)
    for order, deflate, tile in product("<>", [False, True], [None, 16]):
        raw = band_tiff(values, colours=2, planar=True, order=order, deflate=deflate, tile=tile)
        np.testing.assert_array_equal(exact(raw, 3, tiff_bands=wanted), values)
    if dtype == "uint16":
        settings = Preparation((HEIGHT, WIDTH), 3, tiff_bands=wanted)
        levels = np.rint(values / 257).astype(np.uint8)
        np.testing.assert_array_equal(decode(raw, settings)[0].transpose(1, 2, 0), levels)


@pytest.mark.parametrize(
    ("dtype", "colours", "extras", "planar"),
    [
        ("uint16", 2, [2], True),
        ("uint8", 1, [2], True),
        ("uint8", 2, [2, 0], True),
        ("uint8", 2, [0, 2], False),
        ("uint8", 2, [2, 0, 0, 0], False),
        ("uint8", 1, [2, 0], False),
        ("uint16", 2, [2, 0], False),
    ],
)
def test_opacity_that_cannot_be_read_is_not_dropped(
    dtype: str, colours: int, extras: list[int], planar: bool
) -> None:
    values = numbers(dtype, {1: 1, 2: 3}[colours] + len(extras))
    raw = band_tiff(values, colours=colours, extras=extras, planar=planar)
    for depth in ("bytes", "exact"):
        with pytest.raises(RefusedImageError, match=r"bands is opacity.*tiff_bands='all'"):
            inspect_image(raw, Preparation(8, depth=depth, tiff_bands="picture"))
    np.testing.assert_array_equal(exact(raw, values.shape[2], tiff_bands="all"), values)


@pytest.mark.parametrize("wanted", [None, "picture"])
def test_deep_cmyk_that_does_not_interleave_is_refused(wanted: str) -> None:
    raw = band_tiff(numbers("uint16", 4), colours=5, planar=True)
    with pytest.raises(RefusedImageError, match=r"not its numbers \(Photo.* 5\); save its"):
        inspect_image(raw, Preparation(8, tiff_bands=wanted))


@pytest.mark.parametrize("wanted", [None, "all", "picture"])
def test_bands_whose_white_is_zero_are_refused_by_name(wanted: str) -> None:
    for channels, extras in ((2, None), (2, [2]), (2, [0]), (5, None)):
        raw = band_tiff(numbers("uint8", channels), colours=0, extras=extras)
        with pytest.raises(RefusedImageError, match=r"retation 0, white is zero\); save its"):
            inspect_image(raw, Preparation(8, tiff_bands=wanted))


@pytest.mark.parametrize(("channels", "colours"), [(3, 1), (4, 2)])
def test_the_limit_of_a_picture_counts_its_pixels(channels: int, colours: int) -> None:
    raw = band_tiff(numbers("uint8", channels), colours=colours)
    assert band_stack(raw, "picture", WIDTH * HEIGHT).is_picture
    with pytest.raises(ValueError, match=r"^37x20 are more than 739 pixels; max_pixels allows"):
        band_stack(raw, "picture", WIDTH * HEIGHT - 1)


def test_a_picture_is_no_channels_of_bands(tmp_path: Path) -> None:
    raw = band_tiff(numbers("uint8", 4), colours=2)
    with pytest.raises(RefusedImageError, match="channels, not channels=7"):
        decode(raw, Preparation((HEIGHT, WIDTH), 7, tiff_bands="picture"))
    grey = band_tiff(numbers("uint8", 2))
    framed = Preparation((HEIGHT + 2, WIDTH), fit="pad", background="red", tiff_bands="picture")
    assert inspect_image(grey, framed).channels is None
    assert inspect_image(grey, Preparation(8, tiff_bands="picture")).channels == 1
    (tmp_path / "x.tif").write_bytes(raw)
    shapes = {
        wanted: open_images(
            tmp_path, resolution=(HEIGHT, WIDTH), tiff_bands=wanted, progress=False,
            cache_dir=tmp_path / "cache",
        ).channels
        for wanted in ("all", "picture", "all")
    }  # fmt: skip
    assert shapes == {"all": 4, "picture": 3}


def test_copies_masks_and_opacity_are_no_bands() -> None:
    grey, clear = numbers("uint8", 1), numbers("uint8", 4)
    with_copies = band_tiff(grey, grey[::2, ::2], grey, kinds=[0, 1, 4])
    assert band_stack(with_copies) is None
    assert band_stack(band_tiff(clear, colours=2, extras=[2])) is None
    assert band_stack(band_tiff(grey[::2], grey, kinds=[1, 0]), "all").size == (WIDTH, HEIGHT)
    copied = band_tiff(numbers("uint16", 7), numbers("uint16", 7)[::2], kinds=[0, 1])
    assert band_stack(copied).channels == 7


def test_bytes_are_of_the_range_that_a_file_or_its_user_says() -> None:
    deep = numbers("uint16", 5)
    levels, changes = decode(band_tiff(deep), Preparation((HEIGHT, WIDTH), 5))
    np.testing.assert_array_equal(levels.transpose(1, 2, 0), np.rint(deep / 257).astype(np.uint8))
    assert changes == ("requantized",)
    plain = numbers("uint8", 5)
    settings = Preparation((HEIGHT, WIDTH), 5, value_range=(0, 4095))
    np.testing.assert_array_equal(decode(band_tiff(plain), settings)[0].transpose(1, 2, 0), plain)
    for dtype in ("int16", "float32"):
        with pytest.raises(RefusedImageError, match=r"have no known range; value_range"):
            inspect_image(band_tiff(numbers(dtype, 5)), Preparation(8))
    with pytest.raises(RefusedImageError, match=r"outside value_range=\(0, 4095\)"):
        decode(band_tiff(deep), settings)


def test_bands_are_scaled_and_cut_like_those_of_arrays() -> None:
    values = numbers("uint16", 6)
    for options in ({}, {"fit": "pad", "resolution": (48, 80)}, {"resolution": (8, 11)}):
        settings = Preparation(**{"resolution": 16, "channels": 6, "depth": "exact"} | options)
        of_file, of_array = decode(band_tiff(values), settings), decode(values, settings)
        np.testing.assert_array_equal(of_file[0], of_array[0])
        assert of_file[1] == of_array[1] != ()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (band_tiff(numbers("uint8", 5), more={259: [7]}), "for compression 7; save its bands"),
        (band_tiff(numbers("uint8", 5), more={274: [6]}), "for orientation 6"),
        (band_tiff(numbers("uint8", 5), colours=0), "for colours that are not its numbers"),
        (band_tiff(numbers("uint8", 5), more={266: [2]}), "for bits in reverse order"),
        (band_tiff(numbers("float32", 5), deflate=True, more={317: [3]}), "for predictor 3"),
        (band_tiff(numbers("uint8", 5), more={258: [8, 8, 8, 8, 16]}), "values of several kinds"),
        (band_tiff(numbers("float16", 5)), "of a kind that cannot be read; .*numpy.save"),
        (
            band_tiff(numbers("uint8", 1), numbers("uint16", 1)),
            "pages are not alike: page 1 has 37x20 of 8 bits, page 2 37x20 of 16 bits",
        ),
    ],
)
def test_other_bands_are_refused_with_what_to_do(raw: bytes, message: str) -> None:
    with pytest.raises(RefusedImageError, match=message):
        band_stack(raw, "all")


def test_headers_are_held_against_the_file_before_anything_is_copied() -> None:
    values = numbers("uint8", 5)
    with pytest.raises(ValueError, match=r"cut short: .* cannot hold the parts of a page"):
        band_stack(band_tiff(values, more={279: [4000] * 7}))
    with pytest.raises(ValueError, match="1 of 7 parts of a page"):
        band_stack(band_tiff(values, more={273: [8], 279: [10]}))
    with pytest.raises(ValueError, match="37x20 in 5 bands are more than 3,699 values; max_pix"):
        band_stack(band_tiff(values), max_pixels=3699)
    assert band_stack(band_tiff(values), max_pixels=3700).channels == 5
    with pytest.raises(ValueError, match="0x20 of 5 bands"):
        band_stack(band_tiff(values, more={256: [0]}))


def test_a_chain_of_pages_ends() -> None:
    raw = bytearray(band_tiff(numbers("uint8", 1), numbers("uint8", 1)))
    first = struct.unpack_from("<I", raw, 4)[0]
    place = first + 2 + 12 * struct.unpack_from("<H", raw, first)[0]
    second = struct.unpack_from("<I", raw, place)[0]
    follows = second + 2 + 12 * struct.unpack_from("<H", raw, second)[0]
    struct.pack_into("<I", raw, follows, first)
    with pytest.raises(ValueError, match="go round in a circle"):
        band_stack(bytes(raw), "all")
    struct.pack_into("<I", raw, follows, len(raw))
    with pytest.raises(ValueError, match="cut short: a page of the TIFF file lies beyond"):
        band_stack(bytes(raw), "all")
    empty = struct.pack("<H", 0)
    pages = b"".join(empty + struct.pack("<I", 8 + 6 * (k + 1)) for k in range(5000))
    with pytest.raises(ValueError, match="more than 4,096 pages"):
        band_stack(b"II*\0" + struct.pack("<I", 8) + pages, "all")


def test_damaged_files_raise_and_nothing_worse() -> None:
    whole = band_tiff(numbers("uint16", 5), deflate=True)
    generator = np.random.default_rng(0)
    settings, raised = Preparation((HEIGHT, WIDTH), 5, depth="exact", tiff_bands="all"), 0
    for _ in range(150):
        raw = bytearray(whole)
        raw[generator.integers(len(raw) - 400, len(raw))] = generator.integers(256)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                inspect_image(bytes(raw), settings)
                decode(bytes(raw), settings)
            except Exception:  # noqa: BLE001 (what Pillow's decoders raise)
                raised += 1
    assert 0 < raised < 150


def test_a_folder_of_them_is_a_data_set(tmp_path: Path) -> None:
    folder, cache = tmp_path / "tiles", tmp_path / "cache"
    folder.mkdir()
    tiles = [numbers("uint16", 7, seed=i) for i in range(3)]
    for i, tile in enumerate(tiles):
        (folder / f"{i}.tif").write_bytes(band_tiff(tile))
    options = {"resolution": (HEIGHT, WIDTH), "cache_dir": cache, "progress": False}
    for _ in range(2):  # the second from the cache
        data = open_images(folder, depth="exact", **options)
        assert (data.channels, data.values.dtype.__str__()) == (7, "torch.uint16")
        kept = data.values.numpy().reshape(3, 7, HEIGHT, WIDTH)
        np.testing.assert_array_equal(kept, np.stack(tiles).transpose(0, 3, 1, 2))
    (folder / "x.tif").write_bytes(band_tiff(tiles[0], tiles[1]))
    with pytest.raises(ValueError, match=r"x\.tif: it holds 2 pages: tiff_bands='all'"):
        open_images(folder, depth="exact", **options)
    with pytest.raises(ValueError, match="equally many channels"):
        open_images(folder, depth="exact", tiff_bands="all", **options)


def test_what_was_cached_of_the_first_page_is_not_believed(tmp_path: Path) -> None:
    folder, cache = tmp_path / "scans", tmp_path / "cache"
    folder.mkdir()
    (folder / "a.tif").write_bytes(band_tiff(numbers("uint8", 1), numbers("uint8", 1)))
    options = {"resolution": (HEIGHT, WIDTH), "cache_dir": cache, "progress": False}
    assert open_images(folder, tiff_bands="picture", **options).channels == 1
    assert open_images(folder, tiff_bands="all", **options).channels == 2
    with pytest.raises(ValueError, match="2 pages"):
        open_images(folder, **options)
