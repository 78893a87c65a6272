"""Rows name files of their data set, and no others, however they are opened."""

from __future__ import annotations

import os
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.broken_files import at_most
from helpers.image_samples import flat, write_folder

from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.levels import RefusedImageError
from ddpm_pipeline.data.model_images import _whole
from ddpm_pipeline.data.sources.finding import find_source
from ddpm_pipeline.data.sources.row_files import LoadedDataset, RowFiles, files_of_source
from ddpm_pipeline.data.streams import open_stream


def write_rows(path: Path, *names: str) -> Path:
    rows = [{"bytes": None, "path": name} for name in names]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"image": pa.array(rows, kind)}), path)
    return path


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    """A folder with images, and a secret beside it."""
    write_folder(tmp_path, {"secret.png": flat(9), "set/images/1.png": flat(1)})
    (tmp_path / "set/link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "set/null.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "set/pipe.png")
    return tmp_path / "set"


OUTSIDE = ["../secret.png", "link.png", "null.png", "/dev/zero", "{}/secret.png", "images/../../x"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_is_outside_is_refused(name: str, data_set: Path) -> None:
    name = name.format(data_set.parent)
    path = write_rows(data_set / "rows.parquet", "images/1.png", name)
    message = "which is not in the folder of the data set"
    with at_most(5), pytest.raises(ValueError, match=message):
        open_images(path, resolution=8, cache_dir=data_set.parent / "c", progress=False)
    with at_most(5), pytest.raises(ValueError, match=message):
        next(open_stream(path, resolution=8, channels=1, batch_size=2, shuffle_buffer=0))


def test_what_is_inside_is_read_wherever_the_command_runs(
    data_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(data_set / "rows.parquet", "images/1.png", "./images/1.png")
    elsewhere = write_folder(data_set.parent / "elsewhere", {"images/1.png": flat(200)})
    monkeypatch.chdir(elsewhere)
    for source in (path, str(data_set / "rows*.parquet")):
        stream = open_stream(source, resolution=8, channels=1, batch_size=2, shuffle_buffer=0)
        assert next(stream).images[:, 0, 0, 0].tolist() == [1, 1]
    data = open_images(path, resolution=8, cache_dir=data_set.parent / "c", progress=False)
    assert data.batch([0, 1]).images[:, 0, 0, 0].tolist() == [1, 1]


def test_shards_that_are_read_whole_are_bound_too(data_set: Path) -> None:
    write_rows(data_set / "rows.parquet", "/dev/zero")
    loaded = _whole(str(data_set / "rows*.parquet"), None, None)
    assert isinstance(loaded, LoadedDataset)
    with at_most(5), pytest.raises(RefusedImageError, match="'/dev/zero'"):
        find_source(loaded, None, False, None, None).read(0)


def test_a_data_set_of_the_hub_names_what_was_downloaded(tmp_path: Path) -> None:
    files = files_of_source("someone/pictures")
    inside = Path(datasets.config.HF_DATASETS_CACHE).absolute() / "downloads" / "x.png"
    assert files.find(str(inside)) == inside
    for name in ("/etc/passwd", "x.png", str(inside.parents[2] / "token"), f"{inside}/../../../y"):
        with pytest.raises(RefusedImageError):
            files.find(name)


def test_a_snapshot_of_the_hub_is_links_to_its_blobs(tmp_path: Path) -> None:
    write_folder(tmp_path / "datasets--a--b", {"blobs/123": flat(1)})
    snapshot = tmp_path / "datasets--a--b" / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "x.png").symlink_to("../../blobs/123")
    (snapshot / "y.png").symlink_to("../../../secret")
    assert RowFiles(snapshot).find("x.png").read_bytes() == flat(1)
    with pytest.raises(RefusedImageError):
        RowFiles(snapshot).find("y.png")


def test_a_data_set_that_the_caller_made_names_any_file_but_devices(data_set: Path) -> None:
    names = [str(data_set.parent / "secret.png"), str(data_set / "pipe.png")]
    data = datasets.Dataset.from_dict({"image": names}).cast_column("image", datasets.Image())
    with at_most(5):
        found = open_images(data, resolution=8, progress=False)
    assert found.skipped == 1
    assert found.batch([0]).images[0, 0, 0, 0] == 9


def test_a_streamed_folder_may_be_of_links(data_set: Path) -> None:
    (data_set / "null.png").unlink()
    with at_most(5):
        images = next(
            open_stream(data_set, resolution=8, channels=1, batch_size=2, shuffle_buffer=0)
        ).images
    assert sorted(images[:, 0, 0, 0].tolist()) == [1, 9]


@pytest.mark.parametrize("name", ["x.parquet", "state.json"])
def test_a_pipe_in_a_data_set_is_not_waited_for(name: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "set", {"a.parquet": b"x"})
    os.mkfifo(tmp_path / "set" / name)
    with at_most(5), pytest.raises((ValueError, OSError), match=r"pipe|missing|cut short"):
        open_images(tmp_path / "set", resolution=8, progress=False)
    with at_most(5), pytest.raises((ValueError, OSError), match=r"pipe|missing|cut short"):
        open_stream(tmp_path / "set", resolution=8, batch_size=1)
