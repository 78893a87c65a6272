"""Preparing a source: in order, in bounded memory, with a fingerprint of the content alone."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from helpers.image_samples import encoded, flat, noise, write_folder
from helpers.raw_images import png
from PIL import Image

from ddpm_pipeline.data import preparing
from ddpm_pipeline.data.bounds import Allowance
from ddpm_pipeline.data.decoding import Preparation
from ddpm_pipeline.data.prepared import Pixels
from ddpm_pipeline.data.preparing import Preparer
from ddpm_pipeline.data.sources.arrays import array_source
from ddpm_pipeline.data.sources.folders import folder_source
from ddpm_pipeline.data.sources.source import Source

if TYPE_CHECKING:
    from pathlib import Path


def preparer(
    source: Source,
    *,
    resolution: int = 8,
    strict: bool = False,
    threads: int = 2,
    **options: object,
) -> Preparer:
    settings = Preparation(resolution, **options)
    return Preparer(source, settings, strict, threads, progress=False)


def prepared(folder: Path, **options: object) -> Pixels:
    return preparer(folder_source(folder), **options).in_memory()


def test_order_over_many_chunks_and_threads() -> None:
    values = noise(1500, 2, 2)
    for threads in (1, 3):
        source = array_source(values, "x", None)
        pixels = preparer(source, resolution=2, threads=threads).in_memory()
        np.testing.assert_array_equal(pixels.values[:, 0], values)


def test_channels_are_found_out(tmp_path: Path) -> None:
    grey = {"a.png": flat(1), "b.png": encoded(noise(8, 8).astype(np.uint16))}
    assert prepared(write_folder(tmp_path / "grey", grey)).channels == 1
    mixed = grey | {"c.png": encoded(noise(8, 8, 3))}
    pixels = prepared(write_folder(tmp_path / "mixed", mixed))
    assert pixels.channels == 3
    assert pixels.changes == {"L to RGB": 1, "I;16 to RGB": 1, "requantized": 1}


def test_equal_arrays_have_equal_fingerprints() -> None:
    values = noise(5, 8, 8, 3)
    forms = [values, values.transpose(0, 3, 1, 2), np.asfortranarray(values)]
    forms += [values[..., ::-1], values[::-1], values[:, :, :, :1]]
    prints = [preparer(array_source(form, "x", None)).in_memory().fingerprint for form in forms]
    assert prints[0] == prints[1] == prints[2]
    assert len(set(prints)) == 4


def test_nan_is_named() -> None:
    values = np.zeros((70, 8, 8), np.float32)
    values[68, 2, 3] = np.nan
    source = array_source(values, "x.npy", None)
    with pytest.raises(ValueError, match=r"x.npy\[68\]: it holds NaN or infinite values"):
        preparer(source, value_range=(0, 1)).in_memory()


def test_images_that_do_not_fit_are_named_not_skipped(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"a.png": flat(0)})
    (folder / "big.png").write_bytes(flat(1, side=9))
    with pytest.raises(ValueError, match=r"big\.png: 9x9 is larger than resolution=8"):
        prepared(folder, fit="pad")


def test_a_folder_of_broken_images(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", {f"{i}.png": b"junk" for i in range(9)})
    message = r"9 of 9 images cannot be read: 0.png \(not an image\).*, \.\.\.$"
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path / "data")


def test_the_fingerprint_is_made_of_the_files_and_the_settings_by_hand(tmp_path: Path) -> None:
    """It is in caches, reports and training records, and must stay what it is."""
    files = {"a/x.png": flat(3), "b.png": flat(9)}
    hashes = b"".join(hashlib.sha256(content).digest() for content in files.values())
    settings = {
        "resolution": 8,
        "channels": 1,
        "fit": "resize",
        "crop": "center",
        "value_range": None,
    }
    parts = [hashlib.sha256(hashes).hexdigest(), settings, 1]
    expected = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
    assert prepared(write_folder(tmp_path, files)).fingerprint == expected


def test_the_first_reading_decodes_nothing_and_plans_the_second(tmp_path: Path) -> None:
    files = {"0.png": encoded(noise(64, 64))[:900], "1.png": flat(1), "2.png": b"junk"}
    work = preparer(folder_source(write_folder(tmp_path, files)))
    plan = work.inspect()
    assert plan.readable == (0, 1)  # the first one is cut short below its header
    written: list[bytes] = []
    header = work.write(plan, lambda values: written.append(bytes(values)))
    assert b"".join(written) == bytes([1]) * 64
    assert header == json.loads(json.dumps(header))
    assert header["fingerprint"] == plan.fingerprint
    # By its place among the readable ones; the third image is this source's alone.
    assert [place for place, _ in header["undecodable"]] == [0]
    assert plan.inspection.unreadable == {2: "not an image"}
    assert "png" not in json.dumps(header)


def test_images_are_written_in_order_one_at_a_time() -> None:
    values = noise(300, 4, 4)
    work = preparer(array_source(values, "x", None), resolution=4, threads=3)
    written: list[bytes] = []
    work.write(work.inspect(), lambda image: written.append(bytes(image)))
    assert written == [image.tobytes() for image in values]


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    """Images that were read but not written yet are at most those of a few chunks per thread."""
    most, read, written, lock = 0, 0, 0, threading.Lock()

    def read_one(_: int) -> np.ndarray:
        nonlocal read, most
        with lock:
            read += 1
            most = max(most, read - written)
        return np.zeros((2, 2), np.uint8)

    def write(_: object) -> None:
        nonlocal written
        written += 1

    work = preparer(Source(20_000, read_one, str, None), resolution=2, threads=2)
    plan = work.inspect()
    most = read = written = 0
    work.write(plan, write)
    assert written == 20_000
    assert most <= 64 * (4 * 2 + 2)


@pytest.mark.parametrize("threads", [1, 8, 32])
def test_what_waits_to_be_written_is_counted_in_bytes(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the number of threads, and while writing is slow."""
    limit, side = 2**20, 64
    monkeypatch.setattr(preparing, "_IN_FLIGHT", limit)
    monkeypatch.setattr(preparing, "_CHUNK_BYTES", 2**15)
    decode_one, lock, waiting, most = preparing.decode, threading.Lock(), 0, 0

    def counted(raw: np.ndarray, settings: Preparation) -> object:
        nonlocal waiting, most
        with lock:
            waiting += side * side * 3
            most = max(most, waiting)
        return decode_one(raw, settings)

    def write(image: memoryview) -> None:
        nonlocal waiting
        time.sleep(0.0005)
        with lock:
            waiting -= image.nbytes

    monkeypatch.setattr(preparing, "decode", counted)
    picture = np.zeros((side, side, 3), np.uint8)
    work = preparer(Source(600, lambda _: picture, str, None), resolution=side, threads=threads)
    plan = work.inspect()
    assert plan.largest == side * side * 3
    waiting = most = 0  # finding the channels has decoded one image
    work.write(plan, write)
    assert waiting == 0
    assert most <= limit


def test_the_largest_image_of_a_random_crop_is_the_longest(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.png": encoded(noise(20, 30)), "b.png": encoded(noise(90, 30))})
    plan = preparer(folder_source(tmp_path), crop="random").inspect()
    assert plan.largest == 8 * 24
    assert preparer(folder_source(tmp_path)).inspect().largest == 64


def test_files_that_are_read_and_not_decoded_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{i:02}.png": encoded(noise(64, 64, seed=i)) for i in range(40)}
    size = max(map(len, files.values()))
    allowance = Allowance(3 * size)
    monkeypatch.setattr(preparing, "READING", allowance)
    monkeypatch.setattr(preparing, "_CHUNK", 1)
    preparer(folder_source(write_folder(tmp_path, files)), threads=16).inspect()
    assert size <= allowance.most <= 3 * size


def test_strict_stops_at_the_first_unreadable_image(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"0.png": flat(1), "1.png": b"junk"})
    with pytest.raises(ValueError, match=r"1\.png \(not an image\) cannot be read; strict"):
        prepared(folder, strict=True)
    assert prepared(folder).dropped == (1,)


def test_running_out_of_memory_is_no_unreadable_image() -> None:
    def read(_: int) -> bytes:
        raise MemoryError

    with pytest.raises(MemoryError):
        preparer(Source(3, read, str, None)).in_memory()


# Greys and colours.

GREYS = {f"{i}.png": encoded(noise(8, 8, seed=i)) for i in range(3)}


def cut(image: bytes) -> bytes:
    return image[: len(image) // 2]


def with_palette(
    colors: list[tuple[int, int, int]], form: str = "PNG", **options: object
) -> bytes:
    """An image of the first three colours of a palette."""
    image = Image.new("P", (8, 8))
    image.putpalette([v for color in colors for v in color])
    image.putdata([i % 3 for i in range(64)])
    return encoded(image, form, **options)


GREY_COLORS, RED = [(1, 1, 1), (9, 9, 9), (200, 200, 200)], (255, 0, 0)
COLOR = encoded(noise(64, 64, 3), "JPEG")
ASKED: dict[str, tuple[dict[str, bytes], int]] = {
    "colour": ({"a.jpg": COLOR}, 3),
    "cut colour": ({"a.jpg": cut(COLOR), "b.png": cut(encoded(noise(64, 64, 3)))}, 1),
    "cut colour and a whole one": ({"a.jpg": cut(COLOR), "b.jpg": COLOR}, 3),
    "grey GIF": ({"a.gif": encoded(noise(8, 8), "GIF")}, 1),
    "grey palette": ({"a.png": with_palette(GREY_COLORS)}, 1),
    "colours that no pixel has": ({"a.png": with_palette([*GREY_COLORS, RED])}, 1),
    "colours of a palette": ({"a.png": with_palette([*GREY_COLORS[:2], RED])}, 3),
    "cut colours of a palette": (
        {"a.png": cut(encoded(Image.fromarray(noise(64, 64, 3)).quantize(200)))},
        1,
    ),
    "a transparent colour": ({"a.png": with_palette([RED, *GREY_COLORS], transparency=0)}, 1),
    "16 bits with opacity": ({"a.png": png(np.full((8, 8, 2), 300), 16, "grey+alpha")}, 1),
    "16 bits": ({"a.png": encoded(noise(8, 8).astype(np.uint16))}, 1),
    "CMYK": ({"a.jpg": encoded(Image.new("CMYK", (8, 8)), "JPEG")}, 3),
}


@pytest.mark.parametrize("kind", ASKED)
def test_colours_count_where_they_are_kept_and_used(kind: str, tmp_path: Path) -> None:
    files, channels = ASKED[kind]
    assert prepared(write_folder(tmp_path, GREYS | files)).channels == channels


@pytest.mark.parametrize(
    ("files", "options", "channels"),
    [
        ({}, {}, 1),
        ({"a.png": encoded(Image.new("LA", (8, 8)))}, {}, 3),
        ({"a.png": encoded(Image.new("LA", (8, 8), (9, 255)))}, {}, 1),
        ({"a.png": flat(1, 7)}, {"fit": "pad"}, 3),
        ({"a.png": flat(1, 7)}, {}, 1),
    ],
)
def test_a_coloured_background_counts_where_it_is_seen(
    files: dict[str, bytes], options: dict[str, str], channels: int, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path, GREYS | files)
    assert prepared(folder, background="red", **options).channels == channels
    assert prepared(folder, background="grey", **options).channels == 1


def test_images_outside_the_range_are_counted_and_named() -> None:
    values = np.zeros((100, 8, 8), np.float32)
    values[[3, 7, 50, 51, 52, 53, 99], 0, 0] = 1.1
    source = array_source(values, "x.npy", None)
    message = (
        r"7 of 100 images are refused: x\.npy\[3\]: its values 0\.0 … 1\.1.* are outside "
        r"value_range=\(0, 1\), 1 of 64 of them; x\.npy\[7\]: .*; \.\.\.$"
    )
    with pytest.raises(ValueError, match=message):
        preparer(source, value_range=(0, 1)).in_memory()
