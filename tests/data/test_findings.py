"""What was found is said: sizes, modes, classes, what was left out, and why."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest
from helpers.image_samples import encoded, flat, noise, write_folder

from ddpm_pipeline.data.findings import Named, counted, describe_named, grouped, printable
from ddpm_pipeline.data.images import ImageData, open_images

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "cache"))


def opened(source: object, **options: object) -> ImageData:
    return open_images(source, resolution=8, progress=False, **options)


CUT = encoded(noise(64, 64))[:900]
FILES = {
    "train/cat/0.png": flat(1),
    "train/cat/1.png": b"junk",
    "train/cat/2.png": CUT,
    "train/dog/0.png": encoded(noise(9, 8, 3)),
    "train/dog/1.jpg": CUT,
    "train/dog/2.heic": b"\0\0\0\x18ftypheic",
    "train/dog/notes.txt": b"",
    "train/LICENSE": b"words",
    "train/5f3a": flat(2),
    "test/cat/0.png": flat(3),
}


def test_what_was_found_is_kept_and_said(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", FILES)
    for _ in range(3):  # decoded, from the cache, and from the cache under another name
        data = opened(folder, labels=True)
        found = data.found
        assert (found.images, found.split, found.other_files) == (5, "train", 2)
        assert found.sizes == {"64×64": 2, "8×8": 1, "8×9": 1}
        assert found.modes == {"L": 3, "RGB": 1}
        assert found.skipped == {
            "not an image": Named(1, ("cat/1.png",)),
            "image file is truncated": Named(2, ("cat/2.png", "dog/1.jpg")),
        }
        assert {k: v for k, v in found.unread.items() if k == ".heic"} == {
            ".heic": Named(1, ("dog/2.heic",))
        }
        assert sum(named.count for named in found.unread.values()) == 2
        assert data.class_counts == {"cat": 1, "dog": 1}
        assert data.names == ["cat/0.png", "dog/0.png"]
        assert data.subset([1]).names == ["dog/0.png"]
        folder = folder.rename(folder.with_name(folder.name + "x"))
    assert data.describe().splitlines() == [
        "images: 2 of split 'train', each 3×8×8",
        "classes: 2: cat 1, dog 1 (labels from the names of folders)",
        "found: 64×64 2, 8×8 1, 8×9 1; L 3, RGB 1",
        "changed: L to RGB 1, cropped 1",
        "skipped: 1 not an image (cat/1.png); 2 image file is truncated (cat/2.png, dog/1.jpg)",
        "not read: 1 without a suffix, images by their content (5f3a); 1 .heic (dog/2.heic)",
    ]
    assert repr(data).splitlines() == [
        "ImageData: 2 images of 3×8×8, 2 classes, split 'train'",
        "  found: 64×64 2, 8×8 1, 8×9 1; L 3, RGB 1",
        "  changed: L to RGB 1, cropped 1; skipped 3; not read 2",
    ]


def test_files_that_are_not_read_are_warned_of_and_strict_refuses_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {f"IMG_{i}.HEIC": b"\0\0\0\x18ftypheic" for i in range(7)}
    files |= {f"5f3a{i}": flat(i) for i in range(7)}
    folder = write_folder(tmp_path / "data", files | {"0.png": flat(1)})
    report = r"14 files are not read, .* 7 without a suffix.* \(5f3a0, .*7 \.heic \(IMG_0\.HEIC"
    with caplog.at_level(logging.WARNING):
        assert len(opened(folder)) == 1
    assert "14 files are not read" in caplog.text
    with pytest.raises(ValueError, match=report + r".*; strict refuses that"):
        opened(folder, strict=True)
    (folder / "0.png").unlink()
    with pytest.raises(ValueError, match=r"holds no images .*7 \.heic"):
        opened(folder)


def test_what_is_no_image_is_no_reason_to_refuse(tmp_path: Path) -> None:
    names = ["README.md", "labels.csv", "a.json", "LICENSE", "Thumbs.db", ".DS_Store", "x.xml"]
    folder = write_folder(tmp_path / "data", dict.fromkeys(names, b"text") | {"0.png": flat(1)})
    data = opened(folder, strict=True)
    assert (data.found.unread, data.found.other_files) == ({}, 6)


def test_arrays_and_rare_sizes(tmp_path: Path) -> None:
    data = opened(np.zeros((3, 8, 8)), value_range=(0, 1))
    assert (data.found.sizes, data.found.modes) == ({"8×8": 3}, {"float64": 3})
    assert data.names == ["the array[0]", "the array[1]", "the array[2]"]
    files = {f"{i:02}.png": flat(1, 8 + i) for i in range(20)} | {"x.png": flat(2, 9)}
    sizes = opened(write_folder(tmp_path / "data", files)).found.sizes
    assert (sizes["9×9"], sizes["other sizes"], sum(sizes.values())) == (2, 15, 21)


def test_names_and_counts_for_people() -> None:
    assert printable("a\udcff.png") == r"a\xff.png"
    assert printable("a\nb\x1b[31m\u2028") == r"a\nb\x1b[31m\u2028"
    assert printable("日本 é 👩\u200d🚀\u3000x") == "日本 é 👩\u200d🚀\u3000x"
    assert counted({"a": 1, "b": 2000}) == "a 1, b 2,000"
    assert counted({str(i): 1 for i in range(20)}, 2) == "0 1, 1 1, and 18 more"
    reasons = [(str(i), f"cut ({i} bytes)") for i in range(7)]
    assert grouped(reasons) == {"cut": Named(7, ("0", "1", "2", "3", "4"))}
    assert describe_named(grouped(reasons)) == "7 cut (0, 1, 2, 3, 4, ...)"
    few = grouped([*reasons[:5], ("a\n", "no")])
    assert describe_named(few) == r"5 cut (0, 1, 2, 3, 4); 1 no (a\n)"
