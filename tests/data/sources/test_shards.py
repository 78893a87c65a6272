"""Shards: found by every kind of name, in order, and named where they are missing or damaged."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import pytest
from helpers.image_samples import flat, write_folder, write_tar
from helpers.shards import COUNT, EACH, levels, opened, table, tar_files, write_shards

from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.sources.shard_files import check_shards, is_shards
from ddpm_pipeline.data.sources.shards import load_shards, open_shards

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("quiet_datasets")


def test_split_of_a_folder_of_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", tar_files(0))
    write_tar(tmp_path / "val-0.tar", tar_files(7))
    stream = opened(tmp_path, split="val", shuffle_buffer=0)
    assert levels(stream, 1) == [[7, 8, 9, 10, 11]]
    with pytest.raises(ValueError, match="split='test' is in the name of no shard"):
        opened(tmp_path, split="test")


def test_shards_by_pattern_and_one_alone(tmp_path: Path) -> None:
    write_shards("tar", tmp_path / "data")
    every = opened(tmp_path / "data" / "part-*.tar", shuffle_buffer=0)
    assert sorted([*chain(*levels(every, 6))][:COUNT]) == list(range(COUNT))
    alone = opened(tmp_path / "data" / "part-02.tar", shuffle_buffer=0)
    assert levels(alone, 1) == [[14, 15, 16, 17, 18]]


@pytest.mark.parametrize(
    ("name", "first"),
    [("data", 0), ("data/part-{00..03}.tar", 0), ("data/part-*.tar", 0), ("data/part-01.tar", 7)],
)
def test_shards_are_read_as_a_whole(tmp_path: Path, name: str, first: int) -> None:
    write_shards("tar", tmp_path / "data")
    (tmp_path / "data" / "sampling.json").write_text("{}")
    source = str(tmp_path / name)
    assert is_shards(source)
    data = open_images(load_shards(source), resolution=8, labels=True, progress=False)
    count = EACH if first else COUNT
    images, labels = data.batch(range(count))
    assert len(data) == count
    assert images[:, 0, 0, 0].tolist() == list(range(first, first + count))
    assert labels.tolist() == [i % 3 for i in range(first, first + count)]


def test_a_split_of_shards_is_in_their_names(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", tar_files(0))
    write_tar(tmp_path / "val-0.tar", tar_files(7))
    data = open_images(load_shards(tmp_path, "val"), resolution=8, progress=False)
    assert data.batch([0]).images[0, 0, 0, 0] == 7
    with pytest.raises(ValueError, match="split='val' has no meaning for shards that are named"):
        load_shards(tmp_path / "train-0.tar", "val")


def test_missing_shards_are_named(tmp_path: Path) -> None:
    source = write_shards("tar", tmp_path / "tar")
    (tmp_path / "tar" / "part-02.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the shards missing: part-02\.tar$"):
        opened(source)
    source = write_shards("parquet", tmp_path / "parquet")
    (tmp_path / "parquet" / "train-00003-of-00004.parquet").unlink()
    (tmp_path / "parquet" / "train-00001-of-00004.parquet").unlink()
    names = r"2 of the shards missing: train-00001-of-00004\.parquet, train-00003-of"
    with pytest.raises(FileNotFoundError, match=names):
        opened(source)
    with pytest.raises(FileNotFoundError, match=r"x-\*\.tar' matches no shards"):
        opened(str(tmp_path / "x-*.tar"))
    with pytest.raises(FileNotFoundError, match="is no path here, and the Hub could not be"):
        opened("no/such")


@pytest.mark.parametrize("kind", ["tar", "parquet"])
@pytest.mark.parametrize("cut", [1, 512, 1024, 4096])
def test_shards_cut_short_are_named(kind: str, cut: int, tmp_path: Path) -> None:
    source = write_shards(kind, tmp_path / "data")
    path = sorted((tmp_path / "data").iterdir())[2]
    content = path.read_bytes().rstrip(b"\0") + bytes(1024 if kind == "tar" else 0)
    path.write_bytes(content[: max(0, len(content) - cut)])
    with pytest.raises(ValueError, match=f"shard '{path.name}' is cut short"):
        opened(source)


def test_sources_that_are_no_stream() -> None:
    with pytest.raises(TypeError, match=r"source must be a path, .* got int"):
        opened(3)
    with pytest.raises(ValueError, match="a shuffle buffer of its own"):
        opened(table([0, 1]).shuffle(seed=0))
    with pytest.raises(ValueError, match="does not say what its columns are"):
        opened(table([0, 1]).map(lambda row: row))


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_shards_are_those_files_in_their_order(kind: str, tmp_path: Path) -> None:
    source = write_shards(kind, tmp_path / "data")
    stream, shards = open_shards(source)
    assert shards == sorted(str(path) for path in (tmp_path / "data").iterdir())
    assert len(list(stream)) == COUNT
    assert open_shards(str(tmp_path / "data"))[1] == shards


def test_a_folder_of_images_and_a_stream_have_no_shards(tmp_path: Path) -> None:
    stream, shards = open_shards(write_shards("jsonl", tmp_path / "data"))
    assert (len(list(stream)), shards) == (COUNT, [])
    own = table([0, 1])
    assert open_shards(own) == (own, [])


def test_shards_of_two_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for kind in ("tar", "parquet"):
        write_shards(kind, tmp_path / "data" / kind)
    with pytest.raises(ValueError, match="holds data of two kinds"):
        open_shards(str(tmp_path / "data"))
    write_tar(tmp_path / "x-1.tar", tar_files(0))
    (tmp_path / "data/parquet/train-00000-of-00004.parquet").rename(tmp_path / "x-2.parquet")
    with pytest.raises(ValueError, match="cannot be streamed: it holds shards of 2 formats"):
        open_shards(str(tmp_path / "x-*"))


def test_of_many_missing_shards_five_are_named(tmp_path: Path) -> None:
    names = [str(tmp_path / f"{i}.tar") for i in range(7)]
    message = r"7 of the shards missing: 0\.tar, 1\.tar, 2\.tar, 3\.tar, 4\.tar, \.\.\.$"
    with pytest.raises(FileNotFoundError, match=message):
        check_shards(names)


@pytest.mark.parametrize(
    ("split", "read"),
    [
        (None, [0, 1]),
        ("train", [0, 1]),
        ("test", [2]),
        ("extra", [3]),
        (".", [0, 1, 2, 3]),
    ],
)
def test_a_stream_of_images_takes_the_folder_that_is_its_split(
    split: str | None, read: list[int], tmp_path: Path
) -> None:
    names = ["train/test/0.png", "train/cat/1.png", "test/cat/2.png"]
    if split in {"extra", "."}:
        names.append("extra/cat/3.png")
    write_folder(tmp_path, {name: flat(int(name[-5])) for name in names})
    stream, shards = open_shards(str(tmp_path), split)
    found = sorted(next(iter(row["image"].getdata())) for row in stream)
    assert (found, shards) == (read, [])


def test_a_stream_of_images_is_held_to_the_rules_of_folders(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/0.png": flat(0), "cat/1.png": flat(1), "none/x.txt": b""})
    for split, message in (
        (None, "holds images in train and in cat/, so it is not clear"),
        ("vall", "split='vall': .* has no such folder"),
        ("none", r"none' holds no images \(1 other files\)"),
    ):
        with pytest.raises(ValueError, match=message):
            opened(tmp_path, split=split, labels=False, num_classes=None)
