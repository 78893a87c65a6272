"""Headers are held against limits before anything is decoded, and threads share one allowance."""

from __future__ import annotations

import io
import os
import resource
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.broken_files import POSTSCRIPT, at_most, blank_png
from helpers.image_samples import encoded, flat, noise, write_folder
from helpers.raw_images import png, tiff
from PIL import Image

from ddpm_pipeline.data import decoding
from ddpm_pipeline.data.bounds import Allowance, check_scaled, decoding_bytes
from ddpm_pipeline.data.decoding import Preparation, decode
from ddpm_pipeline.data.depth import open_image
from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.sources.kinds import image_formats, is_image_name

GREY = Preparation(64, channels=1)


def peak() -> int:
    """The most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def test_a_thin_image_costs_no_memory() -> None:
    raw, before = blank_png(1, 4_000_000), peak()
    assert len(raw) < 10_000
    with at_most(5), pytest.raises(ValueError, match="1x4000000 has a side of more than 131,072"):
        decode(raw, GREY)
    assert peak() - before < 2**28


def test_the_option_that_allows_more_is_named_and_does() -> None:
    raw = blank_png(2, 2002)
    with pytest.raises(ValueError, match=r"2x2002 is more than 1,000 times .*max_pixels allows"):
        open_image(raw)
    assert open_image(raw, max_pixels=5000).size == (2, 2002)
    with pytest.raises(ValueError, match="2x2002 are more pixels than max_pixels=4000"):
        open_image(raw, max_pixels=4000)


def test_scaling_makes_nothing_larger_than_is_allowed() -> None:
    raw = blank_png(4, 2000)
    assert decode(raw, Preparation(8, channels=1))[0].shape == (1, 8, 8)
    with pytest.raises(ValueError, match=r"4x2000 would be scaled to 1024x512000, .*max_pixels"):
        decode(raw, Preparation(1024, channels=1))
    with pytest.raises(ValueError, match="scaled to 8x4000, more than 9,000 pixels"):
        decode(raw, Preparation(8, channels=1, max_pixels=9000))


@pytest.mark.parametrize("form", ["TIFF", "BMP", "PPM", "TGA"])
def test_unpacked_images_that_their_file_cannot_hold_are_refused(form: str) -> None:
    raw = encoded(noise(300, 200), form)
    with pytest.raises(ValueError, match=r"cut short: .* cannot hold 200x300 pixels"):
        open_image(raw[:1400] if form != "TIFF" else _shorter_tiff())


def _shorter_tiff() -> bytes:
    """A TIFF whose header says 200x300 and whose strip is one row."""
    raw = tiff(np.zeros((1, 200, 1), np.uint8), 8)
    height = raw.index(b"\x01\x01\x03\x00\x01\x00\x00\x00\x01\x00")  # tag 257, one value, 1
    return raw[: height + 8] + (300).to_bytes(2, "little") + raw[height + 10 :]


def test_postscript_under_another_name_starts_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = write_folder(tmp_path / "bin", {"gs": b"#!/bin/sh\ntouch $0.ran\n"}) / "gs"
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    folder = write_folder(tmp_path / "data", {"a.png": flat(1), "x.png": POSTSCRIPT})
    data = open_images(folder, resolution=8, cache_dir=tmp_path / "c", progress=False)
    assert len(data) == 1
    assert data.found.skipped["not an image"].names == ("x.png",)
    assert not program.with_name("gs.ran").exists()


def test_formats_are_those_of_a_list() -> None:
    formats = set(image_formats())
    assert {"PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM"} <= formats
    assert not formats & {"EPS", "WMF", "IPTC", "HDF5", "GRIB", "BUFR", "MPEG"}
    assert is_image_name("a.png")
    assert not any(is_image_name(f"a{suffix}") for suffix in (".eps", ".wmf", ".ps", ".h5"))


def test_a_packed_fits_file_is_refused() -> None:
    head = "SIMPLE  =                    T".ljust(80) + "BITPIX  =                    8".ljust(80)
    head += "NAXIS   =                    0".ljust(80) + "END".ljust(80)
    cards = [
        "XTENSION= 'BINTABLE'",
        "BITPIX  =                    8",
        "NAXIS   =                    2",
        "NAXIS1  =                    8",
        "NAXIS2  =                    8",
        "ZIMAGE  =                    T",
        "ZCMPTYPE= 'GZIP_1  '",
        "ZBITPIX =                    8",
        "ZNAXIS  =                    2",
        "ZNAXIS1 =                    8",
        "ZNAXIS2 =                    8",
        "END",
    ]
    raw = head.ljust(2880).encode() + "".join(c.ljust(80) for c in cards).ljust(2880).encode()
    with Image.open(io.BytesIO(raw + bytes(64))) as image:
        assert image.tile[0][0] == "fits_gzip"
    with pytest.raises(ValueError, match="a FITS file that is packed"):
        open_image(raw + bytes(64))


def test_threads_take_no_more_than_the_allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = encoded(noise(256, 256, 3))
    each = decoding_bytes(open_image(raw), 3, is_deep=False)
    assert each == 256 * 256 * 8
    allowance = Allowance(3 * each)
    monkeypatch.setattr(decoding, "DECODING", allowance)
    threads = [
        threading.Thread(target=decode, args=(raw, Preparation(8, channels=3))) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert each <= allowance.most <= 3 * each


def test_what_is_larger_than_the_allowance_is_held_alone() -> None:
    allowance, order = Allowance(10), []

    def hold(count: int) -> None:
        with allowance.hold(count):
            order.append(count)

    with allowance.hold(4):
        large = threading.Thread(target=hold, args=(100,))
        large.start()
        hold(6)
        assert order == [6]
    large.join(60)
    assert order == [6, 100]
    assert allowance.most == 100


def test_deep_images_are_counted_with_their_arithmetic() -> None:
    image = open_image(png(np.zeros((10, 20, 3), int), 16, "rgb"))
    assert decoding_bytes(image, 3, is_deep=True) == 10 * 20 * 3 * 32


def test_an_image_that_is_large_already_may_be_scaled_down() -> None:
    check_scaled((100, 100), (90, 110), 50)
    with pytest.raises(ValueError, match="100x100 would be scaled to 91x110, more than 50 pixels"):
        check_scaled((100, 100), (91, 110), 50)


def test_who_asks_for_more_than_is_left_waits() -> None:
    allowance = Allowance(10)
    allowance.take(6)
    other = threading.Thread(target=allowance.take, args=(5,), daemon=True)
    other.start()
    other.join(0.1)
    assert other.is_alive()
    allowance.give_back(6)
    other.join(20)
    assert not other.is_alive()
    assert allowance.most == 6
