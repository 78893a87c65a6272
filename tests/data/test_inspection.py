"""A first reading: what a header tells, without decoding, and what is kept of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from helpers.image_samples import encoded, flat, noise
from PIL import Image, UnidentifiedImageError

from ddpm_pipeline.data.decoding import Preparation, RefusedImageError
from ddpm_pipeline.data.inspection import (
    Inspection,
    common_counts,
    describe_refused,
    inspect_image,
    reason_of,
)


def grey(mode: str, **options: object) -> bytes:
    return encoded(Image.new(mode, (8, 8)), **options)


CHANNELS = [
    (grey("L"), {}, 1),
    (grey("1"), {}, 1),
    (grey("RGB"), {}, 3),
    (grey("RGBA"), {}, 3),
    (grey("P"), {}, 1),
    (encoded(Image.fromarray(noise(8, 8, 3)).quantize(4)), {}, None),  # if its colours are used
    (grey("LA"), {}, 1),
    (grey("LA"), {"background": "white"}, 1),
    (grey("LA"), {"background": "red"}, None),
    (grey("L"), {"background": "red"}, 1),
    (grey("L"), {"background": "red", "fit": "pad", "resolution": 16}, None),
    (grey("L"), {"background": "red", "fit": "pad"}, 1),
    (grey("L"), {"background": "#777777", "fit": "pad", "resolution": 16}, 1),
    (grey("L", transparency=0), {"background": "red"}, None),
    (grey("CMYK", form="TIFF"), {}, 3),
    (noise(8, 8), {}, 1),
    (noise(8, 8, 4), {}, 4),
]


@pytest.mark.parametrize(("raw", "options", "channels"), CHANNELS)
def test_channels_that_an_image_asks_for(raw: object, options: dict, channels: int) -> None:
    found = inspect_image(raw, Preparation(**{"resolution": 8} | options))
    assert found.channels == channels


def test_a_header_tells_mode_and_size() -> None:
    found = inspect_image(encoded(noise(5, 7, 3)), Preparation(8))
    assert (found.mode, found.size) == ("RGB", "7×5")
    found = inspect_image(noise(5, 7).astype(np.float32), Preparation(8, value_range=(0, 255)))
    assert (found.mode, found.size) == ("float32", "7×5")


def test_the_digest_is_that_of_the_content_and_of_how_it_is_read() -> None:
    settings = Preparation(8)
    assert inspect_image(flat(1), settings).digest == hashlib.sha256(flat(1)).digest()
    wide = encoded(Image.fromarray(np.full((8, 8), 300, np.uint16)))
    plain = inspect_image(wide, settings).digest
    assert plain == hashlib.sha256(wide).digest()
    ranged = inspect_image(wide, Preparation(8, value_range=(0, 1000))).digest
    assert ranged.startswith(plain)
    assert len(ranged) > len(plain)
    transparent = encoded(Image.fromarray(np.full((8, 8), 300, np.uint16)), transparency=300)
    digest = inspect_image(transparent, settings).digest
    assert digest != hashlib.sha256(transparent).digest()  # earlier versions read it as opaque
    arrays = [np.zeros((2, 3)), np.zeros((3, 2)), np.zeros((2, 3), np.float32), np.ones((2, 3))]
    assert len({inspect_image(a, settings).digest for a in arrays}) == 4
    assert (
        inspect_image(np.asfortranarray(noise(4, 4)), settings).digest
        == inspect_image(noise(4, 4), settings).digest
    )


def test_values_without_a_range_are_refused_by_the_header() -> None:
    floating = encoded(Image.new("F", (8, 8)), "TIFF")
    with pytest.raises(RefusedImageError, match="value_range="):
        inspect_image(floating, Preparation(8))
    assert inspect_image(floating, Preparation(8, value_range=(0, 1))).channels == 1


def test_what_is_kept_goes_through_json() -> None:
    found = Inspection({3: "not an image", 1: "cut"}, {"8×8": 2}, {"L": 2})
    assert Inspection.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    ("counts", "kept"),
    [
        ("aab", {"a": 2, "b": 1}),
        ("aaabbcdef", {"a": 3, "b": 2, "c": 1, "d": 1, "e": 1, "f": 1}),
        ("aaabbcdefg", {"a": 3, "b": 2, "c": 1, "d": 1, "e": 1, "others": 2}),
        ("", {}),
    ],
)
def test_rare_ones_are_counted_together(counts: str, kept: dict[str, int]) -> None:
    assert common_counts(Counter(counts), "others") == kept


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UnidentifiedImageError("cannot identify <_io.BytesIO object>"), "not an image"),
        (
            FileNotFoundError(2, "No such file or directory", "/home/x"),
            "No such file or directory",
        ),
        (OSError("image file is truncated"), "image file is truncated"),
        (SyntaxError("broken\n PNG"), "broken PNG"),
        (IndexError(), "IndexError"),
    ],
)
def test_reasons_name_no_path(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


def test_refused_images_are_counted_and_the_first_named() -> None:
    assert describe_refused({4: "too large"}, ["e.png"], 9) == "e.png: too large"
    text = describe_refused({4: "x", 2: "y", 7: "z"}, ["c.png", "e.png"], 9)
    assert text == "3 of 9 images are refused: c.png: y; e.png: x; ..."
