"""Which part of a folder is read: every layout of splits, and none by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from helpers.image_samples import flat, write_folder

from ddpm_pipeline.data.sources.folders import folder_source

if TYPE_CHECKING:
    from pathlib import Path

# Folders that hold an image each, and the one that is read.
READ = [
    (["train", "test"], "train"),
    (["train"], "train"),
    (["test"], "test"),
    (["Train", "Test", "Val"], "Train"),
    (["train2017", "val2017", "test2017"], "train2017"),
    (["training", "validation"], "training"),
    (["train_images", "test_images"], "train_images"),
    (["train", "dev", "eval"], "train"),
    (["cat", "dog"], None),
    (["trainer", "testament"], None),
    (["cat", "cat/train"], None),
]


@pytest.mark.parametrize(("folders", "split"), READ)
@pytest.mark.parametrize("beside", [(), ("__MACOSX", "annotations/deep", ".hidden")])
def test_what_is_read(
    folders: list[str], split: str | None, beside: tuple[str, ...], tmp_path: Path
) -> None:
    write_folder(tmp_path, {f"{name}/{i}.png": flat(i) for i, name in enumerate(folders)})
    for name in beside:
        write_folder(tmp_path, {f"{name}/._0.png": b"", f"{name}/x.json": b"{}"})
    write_folder(tmp_path, {".hidden/0.png": flat(9)} if beside else {})
    source = folder_source(tmp_path)
    assert source.split == split
    assert source.length == (1 if split else len(folders))


REFUSED = [
    (["train", "test", "cat"], r"in test, train and in cat/"),
    (["train", ""], r"in train and in x\.png"),
    (["train", "bus", "car", "van", "bike"], r"in train and in bike/, bus/, car/, \.\.\."),
    (["test", "val"], "holds the splits test, val: name one, as split='test'"),
    (["train", "training", "test"], "holds the splits test, train, training"),
    (["images/train", "images/test"], "splits test, train in 'images': .* split='images/train'"),
    (["a/train/x", "a/test/x", "b"], "splits test, train in 'a'"),
]


@pytest.mark.parametrize(("folders", "message"), REFUSED)
def test_what_is_refused_until_a_split_is_named(
    folders: list[str], message: str, tmp_path: Path
) -> None:
    write_folder(tmp_path, {f"{name}/x.png".lstrip("/"): flat(1) for name in folders})
    with pytest.raises(ValueError, match=message):
        folder_source(tmp_path)
    assert folder_source(tmp_path, ".").length == len(folders)
    named = next(name for name in folders if name)
    assert folder_source(tmp_path, named).length == 1
    assert folder_source(tmp_path, named).split == named
