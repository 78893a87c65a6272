"""Folders of image files and their class names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from helpers.image_samples import flat, write_folder

from ddpm_pipeline.data.sources.folders import folder_source

if TYPE_CHECKING:
    from pathlib import Path

FILES = {
    "cats/b.png": flat(1),
    "cats/deep/er/a.PNG": flat(2),
    "birds/c.jpeg": flat(3),
    "notes.txt": b"not an image",
    "png": b"not an image either",
    ".hidden.png": b"",
    ".thumbnails/x.png": b"",
}


def test_any_nesting_in_the_order_of_names(tmp_path: Path) -> None:
    source = folder_source(write_folder(tmp_path, FILES))
    names = [source.name(i) for i in range(source.length)]
    assert names == ["birds/c.jpeg", "cats/b.png", "cats/deep/er/a.PNG"]
    assert [source.read(i) for i in range(3)] == [FILES[name] for name in names]


def test_order_does_not_depend_on_how_files_were_made(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).permutation(60)
    write_folder(tmp_path, {f"{i % 7}/{i:02d}.png": flat(i) for i in numbers})
    source = folder_source(tmp_path)
    names = [source.name(i) for i in range(60)]
    assert names == sorted(names)


def test_classes_are_the_first_folders_sorted(tmp_path: Path) -> None:
    source = folder_source(write_folder(tmp_path, FILES), labels=True)
    assert source.class_names == ("birds", "cats")
    assert source.labels.tolist() == [0, 1, 1]


def test_an_image_in_no_class_folder(tmp_path: Path) -> None:
    write_folder(tmp_path, FILES | {"lost.png": flat(0)})
    with pytest.raises(ValueError, match=r"labels missing for 1 of 4 images: .*'lost.png'"):
        folder_source(tmp_path, labels=True)


def test_split_is_a_folder(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/a/x.png": flat(1), "val/a/y.png": flat(2)})
    source = folder_source(tmp_path, "val", labels=True)
    assert (source.read(0), source.class_names) == (flat(2), ("a",))
    with pytest.raises(
        ValueError, match=r"split='test': .* no such folder, but \['train', 'val'\]"
    ):
        folder_source(tmp_path, "test")
    with pytest.raises(ValueError, match=r"split='test': .* no such folder, but none at all"):
        folder_source(tmp_path / "train" / "a", "test")


def test_images_to_test_on_are_not_read_unless_asked_for(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/a/x.png": flat(1), "test/a/y.png": flat(2)})
    source = folder_source(tmp_path, labels=True)
    assert (source.length, source.read(0)) == (1, flat(1))
    write_folder(tmp_path, {"bus/z.png": flat(3)})
    with pytest.raises(ValueError, match=r"in test, train and in bus/, .* split='\.' to read all"):
        folder_source(tmp_path, labels=True)
    every = folder_source(tmp_path, ".", labels=True)
    assert (every.class_names, every.split) == (("bus", "test", "train"), None)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/x.png": flat(1)})
    assert folder_source(tmp_path, ".", labels=True).class_names == ("train",)
    assert folder_source(tmp_path).split == "train"


def test_empty_folder(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a/notes.txt": b"", "b/more.csv": b""})
    with pytest.raises(ValueError, match=r"holds no images \(2 other files\)"):
        folder_source(tmp_path)


def test_links_are_followed_once(tmp_path: Path) -> None:
    write_folder(tmp_path, {"far/x.png": flat(1), "data/a/y.png": flat(2)})
    (tmp_path / "data" / "b").symlink_to(tmp_path / "far", target_is_directory=True)
    (tmp_path / "data" / "a" / "loop").symlink_to(tmp_path / "data", target_is_directory=True)
    source = folder_source(tmp_path / "data")
    assert [source.name(i) for i in range(source.length)] == ["a/y.png", "b/x.png"]


@pytest.mark.parametrize(("real", "link"), [("a", "b"), ("b", "a")])
def test_a_folder_with_two_names_goes_by_the_first(tmp_path: Path, real: str, link: str) -> None:
    write_folder(tmp_path, {f"{real}/x.png": flat(1), "c/y.png": flat(2)})
    (tmp_path / link).symlink_to(tmp_path / real, target_is_directory=True)
    source = folder_source(tmp_path, labels=True)
    assert [source.name(i) for i in range(source.length)] == ["a/x.png", "c/y.png"]
    assert source.class_names == ("a", "c")


def test_a_link_to_nothing_is_an_unreadable_image(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.png": flat(1)})
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    source = folder_source(tmp_path)
    assert source.length == 2
    with pytest.raises(FileNotFoundError):
        source.read(1)


def test_the_quick_key_follows_names_sizes_and_times(tmp_path: Path) -> None:
    path = write_folder(tmp_path, {"a/x.png": flat(1)}) / "a" / "x.png"
    keys = [folder_source(tmp_path).quick_key]
    assert folder_source(tmp_path).quick_key == keys[0]
    path.touch()
    keys.append(folder_source(tmp_path).quick_key)
    path.rename(path.with_name("y.png"))
    keys.append(folder_source(tmp_path).quick_key)
    assert len(set(keys)) == 3
