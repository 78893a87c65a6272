"""Mutated files of every kind that is read: each ends well, or as a ValueError or OSError.

A seeded mutator, so that a failure can be had again: its case is named by kind and number. Nothing
may hang, grow by a gigabyte, or raise anything else; where there is a checksum over all of the
content, nothing that differs may be accepted.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import resource
import sys
import time
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.broken_files import at_most, idx_header
from helpers.image_samples import encoded, flat, noise, png_16_bit_rgb, write_folder, write_tar
from helpers.raw_images import tiff
from PIL import Image

from ddpm_pipeline.data.images import ImageData, open_images
from ddpm_pipeline.data.streams import open_stream

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_SECONDS, MOST_GROWTH = 5, 2**30
_GREY, _COLOR = noise(12, 10), noise(12, 10, 3)
_PALETTE = Image.fromarray(_COLOR).quantize(16)

# Formats that Pillow writes, and images put together by hand.
IMAGES: dict[str, bytes] = {
    "grey.png": encoded(_GREY),
    "color.png": encoded(_COLOR),
    "palette.png": encoded(_PALETTE),
    "deep.png": png_16_bit_rgb(noise(12, 10, 3).astype(np.uint16) * 257),
    "a.jpg": encoded(_COLOR, "JPEG"),
    "progressive.jpg": encoded(_COLOR, "JPEG", progressive=True),
    "a.gif": encoded(_PALETTE, "GIF"),
    "a.bmp": encoded(_COLOR, "BMP"),
    "a.dib": encoded(_COLOR, "DIB"),
    "a.tif": encoded(_COLOR, "TIFF"),
    "lzw.tif": encoded(_COLOR, "TIFF", compression="tiff_lzw"),
    "deep.tif": tiff(np.arange(120).reshape(12, 10, 1), 16),
    "a.webp": encoded(_COLOR, "WEBP"),
    "a.avif": encoded(_COLOR, "AVIF"),
    "a.jp2": encoded(_COLOR, "JPEG2000"),
    "a.ppm": encoded(_COLOR, "PPM"),
    "a.pgm": encoded(_GREY, "PPM"),
    "a.tga": encoded(_COLOR, "TGA"),
    "a.pcx": encoded(_COLOR, "PCX"),
    "a.ico": encoded(_COLOR, "ICO"),
    "a.sgi": encoded(_COLOR, "SGI"),
    "a.dds": encoded(_COLOR, "DDS"),
    "a.im": encoded(_COLOR, "IM"),
    "a.xbm": encoded(Image.new("1", (10, 12)), "XBM"),
    "a.qoi": encoded(_COLOR, "QOI"),
}
ODD_WORDS = [
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\0" * 4,
    b"\x80\0\0\0",
    b"-1",
    b"99999999999",
    b"[",
]


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """Flip bits, write extreme numbers, cut, repeat or join parts: one to four times."""
    data = bytearray(content)
    for _ in range(random.integers(1, 5)):
        if not data:
            break
        # Where headers are, more often than elsewhere.
        i = int(random.integers(min(len(data), 64) if random.random() < 0.5 else len(data)))
        j = min(len(data), i + int(random.integers(1, 64)))
        match random.integers(6):
            case 0:
                data[i] ^= 1 << int(random.integers(8))
            case 1:
                data[i] = int(random.integers(256))
            case 2:
                word = ODD_WORDS[random.integers(len(ODD_WORDS))]
                data[i : i + len(word)] = word
            case 3:
                del data[i : j if random.random() < 0.5 else len(data)]
            case 4:
                data[i:i] = data[i:j] * int(random.integers(1, 20))
            case _:
                data[i:j] = random.bytes(j - i)
    return bytes(data)


def read_folder(path: Path) -> int:
    return len(opened(path.parent))


def opened(path: Path, **options: object) -> ImageData:
    cache = path.with_name(f"{path.name}-cache")
    return open_images(path, resolution=8, cache_dir=cache, progress=False, **options)


def read_idx(path: Path) -> int:
    return int(opened(path.parent).values.sum())


def read_labelled(path: Path) -> int:
    return len(opened(path.parent, labels=True))


def read_array(path: Path) -> int:
    labels = path.suffix != ".npy"
    return int(opened(path, labels=labels, value_range=(0, 255)).values.sum())


def read_rows(path: Path) -> int:
    return len(opened(path, labels=True))


def read_stream(path: Path) -> int:
    stream = open_stream(path, resolution=8, channels=1, batch_size=4, shuffle_buffer=0)
    return int(next(stream).images.sum())


def _numpy(save: Callable, **arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **arrays) if arrays else save(buffer, noise(4, 8, 8))
    return buffer.getvalue()


def _rows() -> bytes:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.array([{"bytes": flat(i), "path": f"{i}.png"} for i in range(4)], kind)
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": rows, "label": pa.array([0, 1, 0, 1])}), buffer)
    return buffer.getvalue()


def _tar(folder: Path) -> bytes:
    write_tar(folder / "t", {f"{i}.png": flat(i) for i in range(4)})
    return (folder / "t").read_bytes()


NAMES = [f"{i}.png" for i in range(4)]
_CSV = "file_name,label\n" + "".join(f"{name},{i % 2}\n" for i, name in enumerate(NAMES))
_LINES = "\n".join(json.dumps({"file_name": n, "label": i % 2}) for i, n in enumerate(NAMES))
_IDX = idx_header(4, 8, 8) + noise(256).tobytes()
_LABELS = {"images": noise(4, 8, 8), "labels": np.arange(4)}
# How the content is made, how it is read, and whether it has a checksum over all, by file name.
OTHERS: dict[str, tuple[Callable[[Path], bytes], Callable[[Path], int], bool]] = {
    "x.npy": (lambda _: _numpy(np.save), read_array, False),
    "x.npz": (lambda _: _numpy(np.savez, **_LABELS), read_array, True),
    "packed.npz": (lambda _: _numpy(np.savez_compressed, **_LABELS), read_array, True),
    "train-images-idx3-ubyte": (lambda _: _IDX, read_idx, False),
    "train-images-idx3-ubyte.gz": (lambda _: gzip.compress(_IDX, mtime=0), read_idx, True),
    "x.parquet": (lambda _: _rows(), read_rows, False),
    "s.parquet": (lambda _: _rows(), read_stream, False),
    "x.tar": (_tar, read_stream, False),
    "metadata.csv": (lambda _: _CSV.encode(), read_labelled, False),
    "metadata.jsonl": (lambda _: _LINES.encode(), read_labelled, False),
}
ARRAYS = [kind for kind, (_, read, _) in OTHERS.items() if read in {read_array, read_idx}]
GROUPS = {
    "images": list(IMAGES),
    "arrays": ARRAYS,
    "data sets": [kind for kind in OTHERS if kind not in ARRAYS],
}


def case(kind: str, folder: Path, number: int) -> tuple[Path, Callable[[Path], int]]:
    """Write the mutated file of a case, with what it needs beside it."""
    random = np.random.default_rng([number, *kind.encode()])
    if kind in IMAGES:
        write_folder(folder, {"0.png": flat(1), kind: mutated(IMAGES[kind], random)})
        return folder / kind, read_folder
    make, read, _ = OTHERS[kind]
    folder.mkdir()
    if read is read_labelled:
        write_folder(folder, {name: flat(i) for i, name in enumerate(NAMES)})
    (folder / kind).write_bytes(mutated(make(folder.parent), random))
    return folder / kind, read


def outcome(path: Path, read: Callable[[Path], int]) -> str | int:
    """Read a file: what came of it, or which allowed error."""
    try:
        with warnings.catch_warnings(), at_most(MOST_SECONDS):
            warnings.simplefilter("ignore")  # of Pillow, on half of all damaged files
            return read(path)
    except (ValueError, OSError) as error:
        return type(error).__name__ if str(error) else "an error without a word"


def said(kind: str, found: str | int) -> str:
    """What came of a case, for the counts: of a folder of two, one image may be passed over."""
    if isinstance(found, str):
        return found
    return "passed over" if kind in IMAGES and found == 1 else "read"


def run(group: str, numbers: range, tmp_path: Path) -> None:
    """Try all kinds of a group, and print what came of them."""
    kinds = GROUPS[group]
    logging.disable(logging.WARNING)
    datasets.disable_progress_bars()
    counts: Counter[str] = Counter()
    whole: dict[str, int] = {}
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        for kind in kinds:
            make, read, is_summed = OTHERS.get(kind, (None, None, False))
            if is_summed:
                folder = tmp_path / f"whole-{kind}"
                folder.mkdir()
                (folder / kind).write_bytes(make(tmp_path))
                whole[kind] = read(folder / kind)
            for number in numbers:
                path, read_one = case(kind, tmp_path / f"{kind}-{number}", number)
                found = outcome(path, read_one)
                assert not is_summed or isinstance(found, str) or found == whole[kind], (
                    f"{kind} {number}: changed content was accepted"
                )
                counts[said(kind, found)] += 1
    except BaseException:
        sys.stdout.write(f"\nin case {number} of {kind}\n")
        raise
    finally:
        logging.disable(logging.NOTSET)
        datasets.enable_progress_bars()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    seconds = time.monotonic() - start
    sys.stdout.write(
        f"\n{counts.total()} mutated files of {len(kinds)} kinds of {group}: {dict(counts)}, "
        f"{seconds:.0f} s, {grown / 2**20:.0f} MiB more at the most\n"
    )
    assert grown < MOST_GROWTH
    assert counts.total() == len(kinds) * len(numbers)
    assert len(counts) >= 2
    assert "an error without a word" not in counts


@pytest.mark.parametrize("group", GROUPS)
def test_three_mutations_of_every_kind(group: str, tmp_path: Path) -> None:
    run(group, range(3), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("group", GROUPS)
def test_72_more_of_every_kind(group: str, tmp_path: Path) -> None:
    """2,520 in all."""
    run(group, range(3, 75), tmp_path)


def test_the_mutator_is_seeded_and_changes_something() -> None:
    content = IMAGES["grey.png"]
    first, again = (mutated(content, np.random.default_rng(i)) for i in (5, 5))
    assert first == again
    others = [mutated(content, np.random.default_rng(i)) for i in range(50)]
    assert sum(other != content for other in others) >= 45


def test_zip_members_carry_a_checksum() -> None:
    with zipfile.ZipFile(io.BytesIO(_numpy(np.savez, **_LABELS))) as archive:
        assert all(info.CRC for info in archive.infolist())
