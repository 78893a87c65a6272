"""Finding the source behind a name: options of reading, and paths of every kind."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import datasets
import numpy as np
import pytest
from helpers.image_samples import flat, write_folder, write_tar
from helpers.shards import tar_files

from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.streams import open_stream

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("quiet_datasets")

NAMES = ["a [x] b", "b{0..1}", "c{x,y}", "d*?", "é'\"#%20", os.fsdecode(b"f\xff")]


@pytest.fixture(params=NAMES, ids=ascii)
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / request.param
    try:
        path.mkdir()
    except (OSError, UnicodeEncodeError):
        pytest.skip("the file system has no such names")
    return path


def levels(source: object) -> list[int]:
    data = open_images(source, resolution=8, labels=True, progress=False)
    return data.batch(range(len(data))).images[:, 0, 0, 0].tolist()


def streamed(source: object, num_classes: int = 3) -> list[int]:
    stream = open_stream(
        source,
        resolution=8,
        batch_size=4,
        channels=1,
        shuffle_buffer=0,
        labels=True,
        num_classes=num_classes,
    )
    return next(stream).images[:, 0, 0, 0].tolist()


def table() -> datasets.Dataset:
    columns = {
        "image": [{"bytes": flat(i), "path": None} for i in range(4)],
        "label": [0, 1, 0, 1],
    }
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=3)}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


def test_folders(root: Path) -> None:
    names = ["a/[0].png", "a/{1}.png", os.fsdecode(b"b/\xff2.png"), "b/~3 x.png"]
    write_folder(root, {name: flat(i) for i, name in enumerate(names)})
    found = levels(root)
    assert sorted(found) == [0, 1, 2, 3]
    data = open_images(root, resolution=8, labels=True, progress=False)
    assert [names[level] for level in found] == data.names
    (root / names[2]).write_bytes(b"")
    data = open_images(root, resolution=8, labels=True, progress=False)
    assert (data.labels.tolist(), data.skipped) == ([0, 0, 1], 1)
    (repr(data) + data.describe()).encode()  # may be printed and written anywhere


def test_streams_of_folders(root: Path) -> None:
    write_folder(root, {f"{'ab'[i // 2]}/{i}.png": flat(i) for i in range(4)})
    assert streamed(root, 2) == [0, 1, 2, 3]
    (root / "a" / "0.png").unlink()
    write_folder(root, {"b/4.png": flat(4)})
    assert streamed(root, 2) == [1, 2, 3, 4]


def test_arrays(root: Path) -> None:
    np.save(root / "x.npy", np.arange(4, dtype=np.uint8).repeat(64).reshape(4, 8, 8))
    data = open_images(root / "x.npy", resolution=8, progress=False)
    assert data.batch(range(4)).images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_parquet_and_saved_data_sets(root: Path) -> None:
    buffer = io.BytesIO()
    table().to_parquet(buffer)
    (root / "parts").mkdir()
    (root / "parts" / "train-[0].parquet").write_bytes(buffer.getvalue())
    assert levels(root / "parts") == [0, 1, 2, 3]
    assert levels(root / "parts" / "train-[0].parquet") == [0, 1, 2, 3]
    assert streamed(root / "parts") == [0, 1, 2, 3]
    table().save_to_disk(root / "parts" / "saved")
    assert levels(root / "parts" / "saved") == [0, 1, 2, 3]


def test_shards(root: Path) -> None:
    write_tar(root / "x-0.tar", tar_files(0))
    for source in (root, root / "x-0.tar", root / "x-{0..0}.tar"):
        assert streamed(source) == [0, 1, 2, 3]
