"""Files of shards: told from other folders, of one split, and refused where some would be lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from helpers.broken_files import at_most
from helpers.image_samples import flat, write_folder, write_tar
from helpers.shards import levels, opened, table, tar_files, write_shards

from ddpm_pipeline.data.sources.shard_files import check_shards, is_shards, shard_files

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("quiet_datasets")

# Shards, the split that is asked for, and those of them that are read.
READ = [
    ("a.tar b.tar", None, "a.tar b.tar"),
    ("b/1.tar a/0.TAR", None, "a/0.TAR b/1.tar"),
    ("train-0.tar test-0.tar", None, "train-0.tar"),
    ("train/0.tar test/0.tar", None, "train/0.tar"),
    ("training/0.tar validation/0.tar", None, "training/0.tar"),
    ("data/part.train.1.tar data/part.dev.1.tar", None, "data/part.train.1.tar"),
    ("Train_00.tar VAL_00.tar", None, "Train_00.tar"),
    ("test-0.tar test-1.tar", None, "test-0.tar test-1.tar"),
    ("latest-0.tar contested-1.tar", None, "contested-1.tar latest-0.tar"),
    ("train-0.tar test-0.tar", "test", "test-0.tar"),
    ("train/0.tar test/0.tar", "test", "test/0.tar"),
    ("latest-0.tar test-1.tar", "test", "test-1.tar"),
    ("day-0.tar night-0.tar", "night", "night-0.tar"),
    ("train-0.tar extra-0.tar", "extra", "extra-0.tar"),
    ("a.tar .b.tar .git/c.tar a.json", None, "a.tar"),
    ("a.parquet sub/b.parquet", None, "a.parquet sub/b.parquet"),
]


@pytest.mark.parametrize(("files", "split", "read"), READ)
def test_the_shards_of_a_folder(files: str, split: str | None, read: str, tmp_path: Path) -> None:
    write_folder(tmp_path, dict.fromkeys(files.split(), b""))
    assert shard_files(tmp_path, split) == [str(tmp_path / name) for name in read.split()]


REFUSED = [
    ("train-0.tar extra-0.tar", None, "files of split train and others, as extra-0.tar, so it is"),
    ("test-0.tar val-0.tar", None, "holds the splits test, val: name one, as split='test'"),
    ("a.tar b.tar", "val", "split='val' is in the name of no shard"),
    ("a.tar b/c.png", None, r"images beside shards, as b/c\.png and a\.tar: name the shards by a"),
    ("a.tar b/c.png", "a", "images beside shards"),
    ("a.tar b/c.parquet", None, r"data of two kinds \(b/c\.parquet and a\.tar\)"),
]


@pytest.mark.parametrize(("files", "split", "message"), REFUSED)
def test_what_would_be_read_in_part_is_refused(
    files: str, split: str | None, message: str, tmp_path: Path
) -> None:
    write_folder(tmp_path, dict.fromkeys(files.split(), b""))
    with pytest.raises(ValueError, match=message):
        shard_files(tmp_path, split)


def test_a_pattern_that_matches_other_files_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a-0.tar": b"", "a-1.txt": b""})
    assert shard_files(tmp_path / "a-*.tar") == [str(tmp_path / "a-0.tar")]
    with pytest.raises(ValueError, match=r"a-\*' matches files that are no shards, as 'a-1\.txt'"):
        shard_files(tmp_path / "a-*")


def test_no_test_image_of_nested_shards_is_trained_on(tmp_path: Path) -> None:
    for name, first in (("train/a", 0), ("test/a", 7)):
        (tmp_path / name).parent.mkdir()
        write_tar(tmp_path / f"{name}.tar", tar_files(first))
    seen = {level for batch in levels(opened(tmp_path), 4) for level in batch}
    assert seen == set(range(7))
    held_out = {level for batch in levels(opened(tmp_path, split="test"), 4) for level in batch}
    assert held_out == set(range(7, 14))
    assert is_shards(tmp_path)


def test_metadata_of_images_are_no_shards(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.png": flat(0), "metadata.parquet": b""})
    assert shard_files(tmp_path) == []


def test_what_is_no_folder_of_shards(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", {"a.png": flat(0)})
    write_tar(folder / "all.tar", tar_files(0))
    assert not is_shards(folder)
    assert not is_shards(tmp_path / "missing")
    assert not is_shards(tmp_path / "missing.tar")
    assert not is_shards(tmp_path)
    assert not is_shards(table([0]))


def test_whole_shards_pass(tmp_path: Path) -> None:
    check_shards([])
    for kind in ("tar", "parquet"):
        write_shards(kind, tmp_path / kind)
        check_shards([str(path) for path in (tmp_path / kind).iterdir()])


def test_an_empty_file_is_no_shard(tmp_path: Path) -> None:
    for name in ("x.tar", "x.parquet"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(ValueError, match=rf"shard '{name}' is cut short"):
            check_shards([str(tmp_path / name)])


def test_a_number_that_a_name_claims_costs_nothing(tmp_path: Path) -> None:
    for i in (0, 2):
        (tmp_path / f"data-{i:05d}-of-99999999.tar").write_bytes(bytes(1024))
    message = r"99999997 of the shards missing: data-00001-of-99999999\.tar, data-00003-of-9"
    with at_most(5), pytest.raises(FileNotFoundError, match=message):
        check_shards([str(path) for path in sorted(tmp_path.iterdir())])
