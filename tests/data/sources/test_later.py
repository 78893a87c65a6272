"""Arrays that are read later: once, with one error of one type, and only if there is room."""

from __future__ import annotations

import gzip
import logging
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers.broken_files import at_most, idx_header, npy_header
from helpers.image_samples import noise

from ddpm_pipeline.common import memory
from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.sources.later import LaterArray, bytes_of, reading
from ddpm_pipeline.data.sources.source import DamagedSourceError


def broken_npz(path: Path) -> None:
    np.savez(path, images=noise(300, 8, 8))
    content = bytearray(path.read_bytes())
    content[1000] ^= 255
    path.write_bytes(content)


def cut_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(idx_header(300, 8, 8) + noise(300 * 64).tobytes())[:-2000])


@pytest.mark.parametrize(
    ("name", "write"), [("x.npz", broken_npz), ("train-images-idx3-ubyte.gz", cut_gzip)]
)
def test_a_damaged_archive_is_one_error_and_read_once(
    name: str, write: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / name)
    loads, load = [], LaterArray._read
    monkeypatch.setattr(LaterArray, "_read", lambda self: (loads.append(1), load(self)))
    with at_most(5), pytest.raises(DamagedSourceError) as caught:
        open_images(tmp_path / name, resolution=8, cache_dir=tmp_path / "c", progress=False)
    assert f"{name}' is not a readable" in str(caught.value)
    assert "of 300 images" not in str(caught.value)
    assert len(loads) == 1


def test_what_is_not_there_at_the_moment_may_be_there_later() -> None:
    answers = iter([OSError(5, "Input/output error"), np.arange(3)])

    def load() -> np.ndarray:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    array = LaterArray((3,), np.dtype(np.int64), load, "x")
    with pytest.raises(OSError, match="Input/output"):
        array[2]
    assert array[2] == 2


def test_an_array_that_does_not_fit_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 10**8)
    array = LaterArray((10**6, 28, 28), np.dtype(np.uint8), pytest.fail, "'images' of 'x.npz'")
    message = r"'images' of 'x\.npz', an array .* takes at least 0\.8 GB .* and 0\.1 GB are free"
    with pytest.raises(DamagedSourceError, match=message):
        array[0]


def test_sizes_do_not_overflow() -> None:
    assert bytes_of((2**32 - 1,) * 3, np.dtype(np.float64)) == 8 * (2**32 - 1) ** 3


@pytest.mark.parametrize("kind", [EOFError, KeyError, OverflowError, zipfile.BadZipFile])
def test_every_type_of_error_becomes_one_that_names_the_file(kind: type, tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"x' is not a readable Y: "),
        reading(tmp_path / "x", "Y"),
    ):
        raise kind("cut")


HEADERS = {
    "idx": ("train-images-idx3-ubyte", idx_header(2**32 - 1, 28, 28)),
    "packed idx": ("t-images-idx3-ubyte.gz", gzip.compress(idx_header(2**32 - 1, 28, 28))),
    "npy": ("x.npy", npy_header((2**40, 28, 28))),
    "negative npy": ("x.npy", npy_header((-3, 8, 8)) + bytes(64)),
    "overflowing npy": ("x.npy", npy_header((2**63, 2**63, 4)) + bytes(64)),
    "deep npy": ("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 5000) + b"[" * 5000),
    "endless token in npy": ("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 9) + b"{'descr'("),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_headers_that_say_more_than_there_is_are_refused(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    name, content = HEADERS[kind]
    (tmp_path / name).write_bytes(content)
    with at_most(5), pytest.raises(ValueError, match=name):
        open_images(tmp_path / name, resolution=8, cache_dir=tmp_path / "c", progress=False)


@pytest.mark.parametrize("member", ["images", "labels"])
@pytest.mark.parametrize("claim", ["header", "directory"])
def test_a_member_that_says_more_than_there_is_is_refused(
    member: str, claim: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.npz"
    shapes = {"images": (3, 8, 8), "labels": (3,)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, shape in shapes.items():
            huge = name == member and claim == "header"
            said = (3, *((2**20,) * 2)) if huge and member == "images" else shape
            said = (2**40,) if huge and member == "labels" else said
            archive.writestr(f"{name}.npy", npy_header(said) + bytes(int(np.prod(shape))))
    if claim == "directory":
        content = bytearray(path.read_bytes())
        entry = content.rfind(b"PK\x01\x02", 0, content.rfind(f"{member}.npy".encode()))
        content[entry + 24 : entry + 28] = struct.pack("<I", 2**31)  # its size unpacked
        path.write_bytes(content)
    with at_most(5), pytest.raises(ValueError, match=r"x\.npz|labels missing"):
        open_images(path, resolution=8, labels=True, cache_dir=tmp_path / "c", progress=False)
