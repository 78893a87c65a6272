"""What a path names: every kind, in any order of its files, and mixtures refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers.image_samples import flat, write_folder

from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.sources import kinds
from ddpm_pipeline.data.sources.kinds import data_kind, is_image_name, suffix_of, walk

KINDS = [
    (["a.png"], "images"),
    (["cat/deep/a.JPG", "notes.txt"], "images"),
    (["a.png", "all.tar"], "images"),
    (["all.tar", "deep/er/z.png"], "images"),
    (["a.png", "metadata.parquet"], "images"),
    (["0.tar", "1.tar", "sampling.json", "0.idx", "README.md"], "shards"),
    (["train/0.TAR", "test/0.tar"], "shards"),
    (["a.parquet"], "dataset"),
    (["a/b/c/train.parquet", "README.md"], "dataset"),
    (["state.json", "data.arrow", "preview.png"], "dataset"),
    (["dataset_dict.json", "train/data.arrow"], "dataset"),
    (["train-images-idx3-ubyte", "preview.png"], "idx"),
    (["a/train-images-idx3-ubyte"], "nothing"),
    ([".hidden.png", ".git/a.png", "a.txt"], "nothing"),
    ([], "nothing"),
]


@pytest.mark.parametrize(("files", "kind"), KINDS)
def test_what_a_folder_holds(files: list[str], kind: str, tmp_path: Path) -> None:
    for number, names in enumerate((files, files[::-1])):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert data_kind(write_folder(folder, dict.fromkeys(names, b""))) == kind


MIXTURES = [
    (["a.png", "x.parquet"], r"\(a\.png and x\.parquet\)"),
    (["x.parquet", "deep/a.png"], r"\(x\.parquet and deep/a\.png\)"),
    (["x.parquet", "x.tar"], r"\(x\.parquet and x\.tar\)"),
]


@pytest.mark.parametrize(("files", "named"), MIXTURES)
def test_two_kinds_of_which_one_would_not_be_read(
    files: list[str], named: str, tmp_path: Path
) -> None:
    write_folder(tmp_path, dict.fromkeys(files, flat(1)))
    with pytest.raises(ValueError, match=rf"holds data of two kinds {named}, of which only one"):
        open_images(tmp_path, resolution=8, progress=False)


def test_parquet_far_below_images_is_not_passed_over(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a/0.png": flat(1), "z/x.parquet": b""})
    assert data_kind(tmp_path) == "images"
    with pytest.raises(ValueError, match=r"data of two kinds \(a/0\.png and z/x\.parquet\)"):
        open_images(tmp_path, resolution=8, progress=False)


def test_other_paths(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.PARQUET": b"", "a.npy": b"", "x.tar": b""})
    assert data_kind(tmp_path / "a.PARQUET") == "dataset"
    assert data_kind(tmp_path / "a.npy") == "file"
    assert data_kind(tmp_path / "x.tar") == "file"
    assert data_kind(Path("alice/photos")) == "dataset"


def test_of_a_large_folder_of_images_one_listing_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, {f"{name}/{i}.png": b"" for name in "abc" for i in range(3)})
    listed, scandir = [], os.scandir
    monkeypatch.setattr(
        kinds.os, "scandir", lambda path: (listed.append(Path(path).name), scandir(path))[1]
    )
    assert data_kind(tmp_path) == "images"
    assert listed == [tmp_path.name, "a"]


def test_walking_is_in_order_and_ends_in_a_circle(tmp_path: Path) -> None:
    write_folder(tmp_path, {"b/1": b"", "a/2": b"", "a/c/3": b"", ".h/4": b"", "5": b""})
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "z").symlink_to(tmp_path / "b")
    found = [(prefix, sorted(e.name for e in files)) for prefix, _, files in walk(tmp_path)]
    assert found == [("", ["5"]), ("a/", ["2"]), ("a/c/", ["3"]), ("b/", ["1"])]


def test_names_of_images() -> None:
    names = ["a.png", "a.b.JPEG", ".png", "a.tif", "a.gif", "a.webp", "ü.bmp"]
    assert all(map(is_image_name, names))
    assert not any(map(is_image_name, ["png", "a.png.txt", "a.tar", "a.heicx", "a."]))
    assert [suffix_of(n) for n in ("a.PnG", "a", "a.tar.GZ", "a.")] == [".png", "a", ".gz", "."]
