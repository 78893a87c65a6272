"""A first look refuses what opening would refuse, in the same words, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.image_samples import flat, noise, write_folder, write_idx, write_tar
from helpers.shards import tar_files

from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.sources.first_look import check_source

PHOTOS = {f"{part}/{k}/0.png": flat(1) for part in ("train", "test") for k in "ab"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(Path("photos"), PHOTOS)
    write_folder(Path("odd"), {"train/0.png": flat(0), "cat/0.png": flat(0), "x.txt": b""})
    write_folder(Path("empty"), {"x.txt": b"", "y.heic": b""})
    Path("mnist").mkdir()
    write_idx(Path("mnist/train-images-idx3-ubyte"), noise(3, 8, 8))
    np.save("x.npy", noise(3, 8, 8))
    Path("shards").mkdir()
    for k, part in enumerate(("train", "test")):
        write_tar(Path(f"shards/{part}-0.tar"), tar_files(7 * k))


FINE = [
    ("photos", None),
    ("photos", "test"),
    ("photos", "."),
    ("photos/train", None),
    ("odd", "cat"),
    ("mnist", None),
    ("mnist", "train"),
    ("x.npy", None),
    ("shards", None),
    ("shards", "test"),
    ("shards/*.tar", None),
    ("alice/photos", "test"),
]


@pytest.mark.parametrize(("source", "split"), FINE)
def test_what_can_be_read_passes(source: str, split: str | None) -> None:
    check_source(source, split)
    check_source(Path(source), split)


REFUSED = [
    ("photos", "vall", "split='vall': 'photos' has no such folder, but"),
    ("odd", None, "holds images in train and in cat/, so it is not clear"),
    ("empty", None, r"holds no images \(1 other files; not read are 1 \.heic \(y\.heic\)\)"),
    ("empty", "no", "split='no': 'empty' has no such folder"),
    ("mnist", "test", "split='test' must name one images file of 'mnist'"),
    ("empty/y.heic", None, "is none of .npy, .npz, .parquet, an IDX file or a folder"),
]


@pytest.mark.parametrize(("source", "split", "message"), REFUSED)
def test_it_says_what_opening_would_say(source: str, split: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message) as first:
        check_source(source, split)
    with pytest.raises(ValueError, match=message) as later:
        open_images(source, split=split, resolution=8, progress=False)
    assert str(first.value) == str(later.value)


def test_shards_are_looked_at() -> None:
    with pytest.raises(FileNotFoundError, match=r"2 of the shards missing: x-0\.tar, x-1\.tar"):
        check_source("x-{0..1}.tar")
    Path("shards/train-0.tar").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"shard 'train-0\.tar' is cut short"):
        check_source("shards")
    with pytest.raises(ValueError, match="split='val' is in the name of no shard"):
        check_source("shards", "val")


def test_it_costs_no_torch() -> None:
    code = """
import sys
from ddpm_pipeline.data import check_source
for source in ("photos", "mnist", "x.npy", "shards"): check_source(source)
print([name for name in ("torch", "datasets", "huggingface_hub") if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
